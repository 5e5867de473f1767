# SPDX-License-Identifier: Apache-2.0
"""Reports: result files read and checked, one page of them, and that of a diagnosis."""
