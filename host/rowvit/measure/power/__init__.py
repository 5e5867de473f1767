# SPDX-License-Identifier: Apache-2.0
"""How much energy an image takes: passes, instruments, statistics."""
