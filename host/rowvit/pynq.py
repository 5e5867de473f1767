# SPDX-License-Identifier: Apache-2.0
"""All that rowvit takes from PYNQ, on Pythons and with NumPys that PYNQ's pins on PyPI shut out, too.

pynq and pynqutils ask for NumPy below 2 and for one version of gRPC, which has no wheels from Python 3.13 on
and serves remote boards alone. Their code needs neither: there, they are installed without what they ask for.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
from functools import partial

from rowvit.errors import RowvitError

#: what pip installs with --no-deps from Python 3.13 on; pyproject.toml has what they import
UNPINNED = ("pynq==3.1.2", "pynqutils==0.1.3")

try:
    import pynq
    from pynq import MMIO, Clocks, DefaultHierarchy, DefaultIP, Device, Overlay, allocate, interrupt, pmbus
    from pynq import buffer as _buffer
    from pynq.interrupt import Interrupt
    from pynq.lib.dma import DMA
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
    from pynq.uio import UioController
    from pynqmetadata.frontends import Metadata
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]
    if missing not in ("pynq", "pynqutils"):
        advice = "pip install " + ("'setuptools<=80'" if missing == "pkg_resources" else missing)
    elif sys.version_info >= (3, 13):
        advice = f"pip install --no-deps {' '.join(UNPINNED)}"
    else:
        advice = "pip install 'pynq>=3.1.2,<4'"
    raise RowvitError(
        f"simulator and board need PYNQ, and the Python package {missing} is missing",
        f"install it with: {advice}",
    ) from error

__all__ = [
    "DMA",
    "MMIO",
    "UNPINNED",
    "Clocks",
    "DefaultHierarchy",
    "DefaultIP",
    "Device",
    "Interrupt",
    "Metadata",
    "Overlay",
    "PynqBuffer",
    "RuntimeMetadataParser",
    "allocate",
    "give_loop",
    "hear",
    "interrupt",
    "pmbus",
    "pynq",
]


class PynqBuffer(_buffer.PynqBuffer):
    """PYNQ's, which sets ``device``: since NumPy 2 arrays have a read-only one."""

    device = None


def give_loop() -> None:
    """Make an event loop for this thread if it has none: PYNQ asks for it where it looks for a device, and
    where it opens and closes the files of interrupts.

    Python makes one for the main thread alone, up to 3.13, and until one has ended there (`asyncio.run`).
    """
    try:
        asyncio.get_event_loop()
    except RuntimeError:
        asyncio.set_event_loop(asyncio.new_event_loop())


atexit.register(give_loop)  # in the main thread, where PYNQ then closes the files of interrupts


def hear() -> None:
    """Let interrupts wake the running event loop; PYNQ lets them wake the one in which the first was made."""
    loop = asyncio.get_running_loop()
    for line in interrupt._InterruptController._uio_devices.values():
        if isinstance(line, UioController) and (before := getattr(line, "loop", None)) is not loop:
            if before is not None and not before.is_closed():
                before.call_soon_threadsafe(before.remove_reader, line.uio)
            loop.add_reader(line.uio, partial(UioController._uio_callback, line))
            line.loop = loop
