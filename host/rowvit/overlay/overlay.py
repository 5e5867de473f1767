# SPDX-License-Identifier: Apache-2.0
"""Loading a bitstream with a rowvit core, and whether there is a board."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import replace
from functools import cached_property, reduce
from pathlib import Path

from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.hardware import clocks
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import ABI_VERSION, ID, REGISTERS
from rowvit.overlay.bitfile import CORE_TYPES, DMA_TYPE, BitHeader, Handoff, IpBlock, same_build
from rowvit.overlay.claim import Claim, claim, turns
from rowvit.overlay.core import RowvitCore
from rowvit.overlay.dma import wake
from rowvit.pynq import DMA, MMIO, Clocks, DefaultHierarchy, Device, Overlay, give_loop, pynq

LOG = logging.getLogger("rowvit")


class RowvitHierarchy(DefaultHierarchy):
    """A hierarchy of the block design that holds a core and its DMA: ``core`` and ``dma``."""

    @cached_property
    def core(self) -> RowvitCore:
        return getattr(self, _named(self.description, "core")[0])

    @cached_property
    def dma(self) -> DMA:
        name = _named(self.description, "dma")[0]
        ip = self.description["ip"][name]
        wake(MMIO(ip["phys_addr"], ip["addr_range"], device=self.device), ip["fullpath"])
        return getattr(self, name)

    @staticmethod
    def checkhierarchy(description: dict) -> bool:
        return all(_named(description, kind) for kind in ("core", "dma"))


class RowvitOverlay(Overlay):
    """A bitstream with a rowvit core.

    The files are checked before anything is loaded, and the core's ID, ABI and configuration hash before
    anything else is read from it. ``overlay.core`` is its `RowvitCore`, ``overlay.dma`` the AXI DMA,
    ``overlay.frontend`` "hls" if the preprocessor is between them, otherwise "host".

    Parameters
    ----------
    bitfile_name : str or Path
        The .bit, with its .hwh next to it.
    config : HardwareConfig, optional
        The configuration that is expected; by default the one that the .hwh describes.
    device : pynq.Device, optional
    download : bool
        False if the bitstream is loaded already.
    frontend : str, optional
        "host" or "hls": the front end that is expected; by default the one in the .hwh.

    Raises
    ------
    RowvitError
        A file is missing, damaged, changed since the build or of another design or configuration, there is no
        device, or another process or thread has it, PYNQ's cached metadata differ from the .hwh, the board
        refuses the bitstream, the clock is too fast, or the core is not the one that the .hwh describes.
    """

    clock_dict: dict[int, dict]  # PYNQ's: what download sets the PL clocks to

    def __init__(
        self,
        bitfile_name: str | Path,
        config: HardwareConfig | None = None,
        device: Device | None = None,
        download: bool = True,
        frontend: str | None = None,
    ) -> None:
        path = Path(bitfile_name).absolute()
        if not path.is_file():
            raise RowvitError(f"{path} does not exist", "build it or copy it to the board")
        self.handoff = Handoff(path.with_suffix(".hwh"))
        same_build(BitHeader.read(path), self.handoff)
        if path.with_suffix(".json").exists():
            provenance.verify(path)
        self.config = config or self.handoff.config
        self.frontend = self.handoff.frontend
        if self.handoff.config.hash != self.config.hash:
            raise RowvitError(
                f"{self.handoff.path} is of configuration {' or '.join(self.handoff.config_names()) or '?'}"
                f" (hash 0x{self.handoff.config.hash:08X}), not of '{self.config.name}'"
                f" (0x{self.config.hash:08X})",
                "name the configuration it was built for",
            )
        if frontend not in (None, self.frontend):
            raise RowvitError(
                f"{path} has the {self.frontend} front end, not {frontend}",
                f"use --frontend {self.frontend}, or another bitstream",
            )
        if device is None:  # simulated ones need no support by PYNQ
            if self.handoff.zynq_7000 and int(pynq.__version__.split(".")[0]) >= 4:
                raise RowvitError(
                    f"{path} is for a Zynq-7000, which PYNQ {pynq.__version__} no longer supports",
                    "use PYNQ 3.1",
                )
            require_board()
        super().__init__(str(path), download=False, device=device)
        for block in (self.handoff.core, self.handoff.dma):
            self._compare(block)
        self._claim = self._claimed()
        self.turns = turns(self.device)
        self.turns.end()  # of what was opened before, and is left: the logic is about to change
        with self.turns.taken():
            self.turns.bitstream, self.turns.loaded = self.bitfile_name, self._loaded()
            self.turns.last = None
            if download:
                self.download()
            elif _manager_state(self.device).endswith("error"):  # of other states, JTAG may have loaded it
                raise self._not_loaded()
            else:
                self._correct_clock()
                self.timestamp = self.turns.loaded or ""  # which PYNQ's `reset` notes at the device
            self.check_core()  # before drivers: PYNQ's write to interrupt controller and DMA

    def _claimed(self) -> Claim | None:
        """The board, for this process; `RowvitError` if another one has it, or this one is not root's."""
        if _manager(self.device) is None:
            return None
        if os.geteuid():
            raise RowvitError("PYNQ gives the programmable logic to root alone", "use sudo -i")
        return claim()

    def claim(self) -> Claim | None:
        """What the board is this process's by, for as long as the caller has it; None of a simulator.

        `RowvitError` if it was released: another process may have loaded something else.
        """
        if self._claim is None and _manager(self.device) is not None:
            raise RowvitError(f"{self.bitfile_name} was closed", "open it again")
        return self._claim

    def release(self) -> None:
        """Let other processes have the board, once no accelerator has it any more."""
        self._claim = None

    def require_loaded(self, configured: bool = True) -> None:
        """`RowvitError` if this process has loaded a bitstream since, by rowvit another one, by PYNQ any.

        With ``configured`` the kernel is asked, too, which takes as long as many registers, and `RowvitError`
        says if a load has failed, of whomever.
        """
        found = self.turns.bitstream
        if self.turns.loaded != self._loaded():  # past rowvit, which gives the core its clock
            found = f"{self.device.bitfile_name}, by PYNQ,"
        if found != self.bitfile_name:
            raise RowvitError(f"{found} was loaded since, in place of {self.bitfile_name}", "open it again")
        if configured and _manager_state(self.device).endswith("error"):
            raise self._not_loaded()

    def _loaded(self) -> str | None:
        """When PYNQ loaded a bitstream last; None: it has not."""
        return getattr(self.device, "timestamp", None) or None

    def download(self, dtbo: str | None = None) -> None:
        """Load the bitstream; before that, its clock gets the divisors for the PLL that the board has.

        Parameters
        ----------
        dtbo : str, optional
            A device tree overlay, inserted afterwards.

        Raises
        ------
        RowvitError
            The kernel or the firmware refuses the bitstream, or the clock is too fast.
        """
        if self.handoff.pl_clock is not None:
            index, wanted = self.handoff.pl_clock
            clock = _divided(index, wanted)
            # what PYNQ's download sets: 3.x the divisors, 4 those nearest to the frequency. A copy, as PYNQ
            # keeps the parser's for the next time
            entry = self.clock_dict.get(index, {}) | {
                "enable": 1,
                "divisor0": clock.divisor0,
                "divisor1": clock.divisor1,
                "frequency": clock.mhz,
            }
            self.clock_dict = self.clock_dict | {index: entry}
        try:
            super().download(dtbo)
        except OSError as error:
            if _manager_state(self.device).endswith("error"):
                raise self._not_loaded(f" ({error.strerror})") from error
            raise
        # before the first read: logic that is not configured does not answer, and the processor stands still
        if _manager_state(self.device) != "operating":
            raise self._not_loaded()
        self.turns.bitstream, self.turns.loaded = self.bitfile_name, self._loaded()
        self._check_clock()

    @cached_property
    def core(self) -> RowvitCore:
        return self._driver(self.handoff.core)

    @cached_property
    def dma(self) -> DMA:
        """The AXI DMA; `RowvitError` if it does not answer or lacks a channel."""
        block = self.handoff.dma
        # PYNQ's driver waits forever for channels that do not start
        wake(MMIO(block.base, block.size, device=self.device), block.path)
        dma = self._driver(block)
        if not isinstance(dma, DMA):
            raise RowvitError(f"PYNQ has no driver for {block.path} ({block.type})", "use AXI DMA 7.1")
        if None in (dma.sendchannel, dma.recvchannel):
            raise RowvitError(
                f"bitstream {self.bitfile_name}: its AXI DMA lacks a channel", "build it with MM2S and S2MM"
            )
        return dma

    def _not_loaded(self, cause: str = "") -> RowvitError:
        """That the FPGA manager has not configured the logic; ``cause`` is what else the kernel said."""
        firmware = "" if self.handoff.zynq_7000 else ", and the boot firmware the one that the image needs"
        return RowvitError(
            f"{self.bitfile_name} is not loaded: the FPGA manager's state is '{_manager_state(self.device)}'"
            f"{cause}",
            f"read what fpga_manager says in dmesg, and see that the .bit is for this board's part{firmware}",
        )

    def _correct_clock(self) -> None:
        """Give a loaded core the clock that its timing was met for, or the fastest below that there is."""
        if self.handoff.pl_clock is not None:
            index, wanted = self.handoff.pl_clock
            if abs(_pl_mhz(index) - wanted) > clocks.ROUNDING * wanted:
                clock = _divided(index, wanted)
                Clocks.set_pl_clk(index, div0=clock.divisor0, div1=clock.divisor1)
        self._check_clock()

    def _check_clock(self) -> None:
        """Take note of the core's clock; `RowvitError` if it is faster than what timing was met for."""
        if self.handoff.pl_clock is None:  # what the .hwh says is all that is known of it
            clock = self.handoff.core.clock_mhz or self.config.clock_mhz
            self.config = replace(self.config, clock_mhz=clock)
            return
        index, wanted = self.handoff.pl_clock
        found = _pl_mhz(index)
        if abs(found - wanted) <= clocks.ROUNDING * wanted:
            found = wanted
        if found > wanted * (1 + clocks.TOLERANCE):
            raise RowvitError(
                f"PL clock {index} runs at {found:.3f} MHz, but timing was met for {wanted:g}",
                f"set pynq.Clocks.fclk{index}_mhz = {wanted:g}, and report this board's PLL",
            )
        if found < wanted * (1 - clocks.TOLERANCE):
            LOG.warning(
                "PL clock %d runs at %.3f MHz, the fastest below %g that there is", index, found, wanted
            )
        self.config = replace(self.config, clock_mhz=found)

    def check_core(self) -> None:
        """Three reads without a driver; `RowvitError` if this is not the core that the .hwh describes."""
        where, block = f"bitstream {self.bitfile_name}", self.handoff.core
        registers = MMIO(block.base, block.size, device=self.device)
        identity, abi, found = (registers.read(REGISTERS[name][0]) for name in ("ID", "ABI", "CONFIG_HASH"))
        if identity != ID:
            raise RowvitError(
                f"{where}: register ID reads 0x{identity:08X}, not 0x{ID:08X}: no rowvit core is at this"
                " address",
                "copy this bitstream's own .hwh",
            )
        if abi != ABI_VERSION:
            raise RowvitError(
                f"{where} has ABI {abi}, this software {ABI_VERSION}", "build both from the same version"
            )
        if found != self.config.hash:
            raise RowvitError(
                f"{where} was built for a configuration with hash 0x{found:08X}, but '{self.config.name}' has"
                f" 0x{self.config.hash:08X}",
                "name the configuration it was built for, and copy its own .hwh",
            )

    def _driver(self, block: IpBlock):
        give_loop()
        return reduce(getattr, block.path.split("/"), self)

    def _compare(self, block: IpBlock) -> None:
        """PYNQ caches the metadata of the last bitstream on disk and reuses them for a .bit of that name."""
        known = self.ip_dict.get(block.path)
        if known is None:
            difference = f"do not hold {block.path}"
        elif (known["phys_addr"], known["addr_range"]) != (block.base, block.size):
            difference = (
                f"have {block.path} at 0x{known['phys_addr']:08X}, the .hwh has it at 0x{block.base:08X}"
            )
        elif changed := [
            name
            for name, value in known["parameters"].items()
            if str(value) != block.parameters.get(name.lower(), str(value))
        ]:
            difference = f"have another {changed[0]} of {block.path} than the .hwh"
        else:
            return
        raise RowvitError(
            f"PYNQ's metadata of {self.bitfile_name} differ from the .hwh next to it: they {difference}",
            f"delete {' and '.join(map(str, cached_metadata())) or 'the cached metadata'} and load again",
        )


def _manager(device: Device) -> Path | None:
    """The folder of the kernel's FPGA manager; none of a simulator."""
    firmware = getattr(device, "BS_FPGA_MAN", None)  # PYNQ's name of the file that it writes bitstreams to
    return Path(firmware).parent if firmware else None


def _manager_state(device: Device) -> str:
    """What the FPGA manager says of the logic; "operating" where there is none."""
    manager = _manager(device)
    return (manager / "state").read_text().strip() if manager else "operating"


def _pl_mhz(index: int) -> float:
    """What a PL clock runs at, by the registers of the processing system."""
    return getattr(Clocks, f"fclk{index}_mhz")


def _divided(index: int, wanted: float) -> clocks.Clock:
    """The fastest clock up to ``wanted`` that the PLL behind a PL clock makes, which runs slowly afterwards.

    The .hwh has the divisors that Vivado computed for the PLL of its project; the PLL of the board that is
    here was set by the image that booted it. The largest divisors tell it, whatever they were before. They
    also keep the clock slow while PYNQ writes the next pair, which it does one after the other.
    """
    slowest = max(clocks.DIVISORS)
    Clocks.set_pl_clk(index, div0=slowest, div1=slowest)
    return clocks.at_most(_pl_mhz(index) * slowest**2, wanted)


def board_here() -> bool:
    """Whether PYNQ finds the programmable logic of a board."""
    give_loop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PYNQ's, of a PC without accelerator cards
        return bool(Device.devices)


def require_board() -> None:
    """Raise a `RowvitError` unless there is a board."""
    if not board_here():
        raise RowvitError(
            "PYNQ finds no device here", "run on a board with PYNQ, as root (sudo -i), or use --target sim"
        )


def cached_metadata() -> list[Path]:
    """Files in which PYNQ remembers the last bitstream."""
    folder = Path(pynq.__file__).parent / "pl_server"
    return sorted([*folder.glob("*_metadata*.pkl"), *folder.glob("global_pl_state*.json")])


def _named(description: dict, kind: str) -> list[str]:
    """Names of a hierarchy's blocks that are a core or a DMA."""
    return [
        name
        for name, ip in description["ip"].items()
        if (ip["type"] in CORE_TYPES if kind == "core" else ip["type"].startswith(DMA_TYPE))
    ]
