# SPDX-License-Identifier: Apache-2.0
"""The RTL under Verilator as a PYNQ device."""
