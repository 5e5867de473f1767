# SPDX-License-Identifier: Apache-2.0
"""What the driver runs on: the simulated core, a board, or the integer reference."""
