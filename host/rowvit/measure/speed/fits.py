# SPDX-License-Identifier: Apache-2.0
"""On which configurations a network runs, and how fast by the cycle model, before it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rowvit.compiler import compile
from rowvit.compiler.plan import Plan, chunks, problem
from rowvit.cycles import predict
from rowvit.errors import RowvitError
from rowvit.formats.description import image_keys, square_side
from rowvit.formats.package import ModelPackage
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.host import PHOTO, HostTime, host_times
from rowvit.hardware.isa import Engine
from rowvit.hardware.memory import Memory
from rowvit.quant.synthetic import filler_package

if TYPE_CHECKING:
    from rowvit.model.vit import ViTConfig


@dataclass(frozen=True)
class Fit:
    """What one configuration makes of a network."""

    config: HardwareConfig
    problem: str = ""  #: why it does not run; empty if it does, and only then the rest is there
    chunk: int = 0  #: hidden neurons per chunk of FFN2
    cycles: int = 0  #: per image, by the cycle model for data that it assumes
    traffic: int = 0  #: bytes read from DDR per image, likewise
    stored: int = 0  #: bytes of program and weights in DDR
    on_chip: int = 0  #: bytes needed of the weight, token and residual memories
    loading: bool = False  #: loading takes more cycles than multiplying: the memory limits the fabric
    host: HostTime | None = None  #: of the board's processor, for photos; None without a board

    @property
    def images_per_second(self) -> float:
        """At the configuration's clock."""
        return 1e6 * self.config.clock_mhz / self.cycles

    @property
    def milliseconds(self) -> float:
        """Of the fabric, per image, likewise."""
        return 1e3 / self.images_per_second

    @property
    def fabric(self) -> str:
        """What of it takes the time."""
        return "memory" if self.loading else "fabric"

    def report(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {"config": self.config.name, "board": self.config.board}
        if self.problem:
            return found | {"fits": False, "problem": self.problem}
        return found | {
            "fits": True,
            "ffn_chunk": self.chunk,
            "predicted_cycles": self.cycles,
            "clock_mhz": self.config.clock_mhz,
            "predicted_images_per_second": round(self.images_per_second, 2),
            "ddr_bytes_read_per_image": self.traffic,
            "ddr_bytes": self.stored,
            "on_chip_bytes": self.on_chip,
            "host": self.host.report(self.milliseconds, self.fabric) if self.host else None,
        }


def stand_in(config: ViTConfig, name: str) -> ModelPackage:
    """A package in the shape of a float network, without its weights.

    A head that is missing, or sees something else than the class token, does not matter for what fits; it
    counts as one of a class, or, where there is no class token, as one that the host computes of all tokens.

    Raises
    ------
    RowvitError
        The numerics cannot express the network, whatever its weights.
    """
    from rowvit.quant.quantise import default_chunk  # where packages are measured, there need be no torch

    sizes = ("patch_size", "dim", "depth", "heads", "hidden", "prefix", "tokens")
    arch = image_keys(config.size) | {size: getattr(config, size) for size in sizes}
    arch |= dict(channels=3, classes=max(config.classes, 1) if config.prefix else 0)
    rule = "image" if config.ffn2_rule == "none" else config.ffn2_rule
    rules = dict(ffn2_rule=rule, tile_rows=config.tile_rows, ffn_chunk=default_chunk(config))
    pruning = [{"threshold": 0, **step} for step in config.pruning]
    return filler_package(name, arch, pruning, rules, config.rotary, config.gated, config.pre_norm)


def fit(package: ModelPackage, config: HardwareConfig, free: bool) -> Fit:
    """What a configuration makes of a network.

    Parameters
    ----------
    package : ModelPackage
        Its weights do not matter.
    config : HardwareConfig
    free : bool
        The network is not quantised yet, so that its FFN2 chunk may shrink to fit.
    """
    meta = package.meta
    found = problem(meta, config)
    if found and free and (chunk := next(chunks(meta, config), 0)):
        meta, found = meta | {"ffn_chunk": chunk}, ""
    if found:
        return Fit(config, found)
    try:
        program = compile(ModelPackage(meta, package.tensors), config, batch=1)
    except RowvitError as error:  # what only the placement of loads shows
        return Fit(config, error.message)
    predicted = predict(program, config)
    words = sum(layer.words for layer in predicted.layers)
    photos = (one for one in host_times(config, square_side(meta["architecture"])) if one.source == PHOTO)
    return Fit(
        config,
        chunk=meta["ffn_chunk"],
        cycles=predicted.total,
        traffic=round(8 * words),
        stored=program.blob.nbytes,
        on_chip=Plan(meta, config).on_chip(),
        loading=words / Memory().words_per_cycle(config.port_bits)
        > sum(one.busy[Engine.EXEC] for one in predicted.layers),
        host=next(photos, None),
    )
