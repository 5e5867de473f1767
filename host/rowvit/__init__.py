# SPDX-License-Identifier: Apache-2.0
"""An int8 vision transformer accelerator and its software.

>>> with rowvit.open("sim", config="pynq-z2") as acc:
...     acc.load("sign-digits")
...     results = acc(["photo.jpg"])
"""

from rowvit.errors import RowvitError
from rowvit.targets.open import open

__all__ = ["RowvitError", "open"]
__version__ = "0.1.0"
