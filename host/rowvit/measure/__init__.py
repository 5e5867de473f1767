# SPDX-License-Identifier: Apache-2.0
"""Measurement: how fast a network runs, what energy it takes, how right it is, and reports of these."""
