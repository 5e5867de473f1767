# SPDX-License-Identifier: Apache-2.0
"""How fast a network runs, where its cycles go, and what other processors make of it."""
