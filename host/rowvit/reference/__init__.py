# SPDX-License-Identifier: Apache-2.0
"""Integer reference: what the accelerator computes, bit for bit, in NumPy."""

from rowvit.reference.network import Counts, ImageResult, patchify, run

__all__ = ["Counts", "ImageResult", "patchify", "run"]
