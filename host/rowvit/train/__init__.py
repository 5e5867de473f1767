# SPDX-License-Identifier: Apache-2.0
"""Training of float networks: data sets, recipes, the loop. PyTorch is needed."""
