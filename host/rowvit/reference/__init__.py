# SPDX-License-Identifier: Apache-2.0
"""Integer reference: what the accelerator computes, bit for bit, in NumPy."""
