# SPDX-License-Identifier: Apache-2.0
"""What came of a picture, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import rowvit
from rowvit.cycles import measured, predict
from rowvit.errors import RowvitError
from rowvit.formats.work import WORK
from rowvit.measure.profile import layer_names
from rowvit.measure.throughput import BASIS

if TYPE_CHECKING:
    from rowvit.hardware.config import HardwareConfig
    from rowvit.serve.engine import Answer
    from rowvit.serve.networks import Network
    from rowvit.targets.target import Result
