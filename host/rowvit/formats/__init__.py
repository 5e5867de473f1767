# SPDX-License-Identifier: Apache-2.0
"""What files and records hold: containers, model packages, programs, output records. NumPy only."""
