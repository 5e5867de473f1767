# SPDX-License-Identifier: Apache-2.0
"""How many photos of a set a network classifies correctly, and what pruning costs of that."""
