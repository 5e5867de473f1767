# SPDX-License-Identifier: Apache-2.0
"""Where a network runs: the integer reference, the simulator, a board; and what these have in common."""
