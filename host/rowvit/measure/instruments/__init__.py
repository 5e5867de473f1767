# SPDX-License-Identifier: Apache-2.0
"""The kinds of instruments that measure power, one module each.

`rowvit.measure.sensors.kinds` finds every module here, whose `sensors.instrument` registers what it opens.
"""
