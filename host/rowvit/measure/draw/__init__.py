# SPDX-License-Identifier: Apache-2.0
"""Pictures: plots, and what a network makes of a photo."""
