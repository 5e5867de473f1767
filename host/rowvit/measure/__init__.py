# SPDX-License-Identifier: Apache-2.0
"""Measurement: throughput, power, accuracy, where cycles go, result files and reports."""
