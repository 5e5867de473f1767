# SPDX-License-Identifier: Apache-2.0
"""The hardware's shape (``config``) and its tables of instructions, registers and records (``isa``)."""
