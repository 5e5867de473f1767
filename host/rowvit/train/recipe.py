# SPDX-License-Identifier: Apache-2.0
"""Recipes: what a training run does, as a TOML file.

A recipe has the fields of `Recipe` at the top level, a table ``[augmentation]`` with those of
`rowvit.train.data.Augmentation`, and one or more tables ``[[phase]]`` with those of `Phase`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from rowvit.errors import RowvitError
from rowvit.formats.package import keep_schedule
from rowvit.hardware.config import tomllib
from rowvit.train.data import Augmentation


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimiser (AdamW) and one warm-up and cosine decay of its rate."""

    epochs: float  #: passes over the training photos; fractions are allowed
    lr: float  #: peak learning rate
    final_lr: float = 0.0  #: learning rate at the end
    name: str = ""
    warmup: float = 0.1  #: share of the phase over which the rate rises
    weight_decay: float = 0.05  #: of matrices; there is none on biases, LayerNorm and positions
    layer_decay: float = 1.0  #: of the learning rate, a factor from each block to the one before it; 1: none
    label_smoothing: float = 0.0
    mixup: float = 0.0  #: parameter of the beta distribution; 0 for none
    distill: float = 0.0  #: weight of the teacher's soft labels in the loss; the labels get the rest
    temperature: float = 1.0  #: of the softmax in distillation
    #: weight of the loss term for the teacher's features: the residual stream after the last block, of the
    #: tokens that are left; the teacher needs the same width and patches
    features: float = 0.0
    #: blocks, counted from 0, behind which ``features`` compares the streams; by default behind the last
    feature_layers: tuple[int, ...] = ()
    #: every attention and FFN learns on its own what the teacher's adds to the residual stream, with the
    #: teacher's stream before it as its input; the head learns behind the teacher's last block
    apart: bool = False
    token_drop: float = 0.0  #: share of the patch tokens of every image that is left out at random
    #: blocks, counted from 0, after whose attention tokens are dropped; the network keeps this schedule
    prune_layers: tuple[int, ...] = ()
    rho: float = 1.0  #: share of the patch tokens that each of these blocks keeps
    keep: tuple[float, ...] = ()  #: instead: share of all patch tokens that is left behind each of them
    prune_share: float = 1.0  #: of the steps; the others use all tokens, so that both stay accurate
    #: weight of the loss term against rows of W2 that have to be fetched: the largest hidden activation among
    #: an image's tokens, averaged over neurons, blocks and images; a neuron that is zero in all tokens needs
    #: no row
    row_penalty: float = 0.0
    #: weight of the loss term against attention of the class token to patches off the subject
    #: (`rowvit.train.subject`), in the blocks that prune
    focus: float = 0.0
    #: weights and activations are rounded to their int8 values, with straight-through gradients
    quantise: bool = False
    #: batches, where the epochs of few photos are fewer; states of before have none in their fingerprint
    min_steps: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        shares = ("warmup", "label_smoothing", "distill", "token_drop", "rho", "prune_share", "layer_decay")
        weights = ("row_penalty", "focus", "features", "weight_decay", "mixup")
        problems = {
            f"{key} is {getattr(self, key)}, not in 0..1": not 0 <= getattr(self, key) <= 1 for key in shares
        }
        problems |= {
            f"epochs is {self.epochs}": not 0 < self.epochs < math.inf,
            f"min_steps is {self.min_steps}": self.min_steps < 0,
            f"lr is {self.lr}, final_lr {self.final_lr}": self.lr <= 0 or self.final_lr < 0,
            **{f"{key} is {getattr(self, key)}": getattr(self, key) < 0 for key in weights},
            "focus needs prune_layers, whose attention it looks at": bool(
                self.focus and not self.prune_layers
            ),
            f"temperature is {self.temperature}": self.temperature <= 0,
            f"token_drop is {self.token_drop}": self.token_drop == 1,
            "rho is 0": self.rho == 0,
            f"prune_layers are {list(self.prune_layers)}, not ascending numbers": (
                any(type(layer) is not int for layer in self.prune_layers)
                or list(self.prune_layers) != sorted(set(self.prune_layers))
            ),
            "token_drop and prune_layers exclude each other": bool(self.token_drop and self.prune_layers),
            f"feature_layers are {list(self.feature_layers)}, but features is 0": bool(
                self.feature_layers and not self.features
            ),
            "feature_layers and prune_layers exclude each other": bool(
                self.feature_layers and self.prune_layers
            ),
            "apart excludes features, token_drop, prune_layers, row_penalty and quantise": self.apart
            and bool(
                self.features or self.token_drop or self.prune_layers or self.row_penalty or self.quantise
            ),
            f"keep has {len(self.keep)} shares for {len(self.prune_layers)} prune_layers": bool(self.keep)
            and len(self.keep) != len(self.prune_layers),
            "keep and rho exclude each other": bool(self.keep) and self.rho != 1.0,
            f"keep is {list(self.keep)}, not descending shares": any(
                not 0 <= share <= before for before, share in pairwise([1.0, *self.keep])
            ),
        }
        for problem, found in problems.items():
            if found:
                raise RowvitError(f"phase '{self.name}': {problem}")

    def schedule(self, patches: int) -> list[dict]:
        """Its pruning, as in a package, of a network with so many patch tokens."""
        return keep_schedule(patches, self.prune_layers, self.keep or self.rho)

    @property
    def taught(self) -> bool:
        """Whether it needs a teacher."""
        return self.distill > 0 or self.features > 0 or self.apart


@dataclass(frozen=True)
class Recipe:
    """A training run."""

    phases: tuple[Phase, ...]
    batch: int = 128  #: photos per step, over all processes together; at most all that there are
    seed: int = 0
    #: "bf16" (matrix products in bfloat16, weights in float32), "fp32", or "auto": bf16 where the processor
    #: has instructions for it, as without them it takes more than twice as long as fp32
    precision: str = "auto"
    photos: int = 0  #: at most this many training photos, drawn with the seed; 0 for all
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not self.phases:
            raise RowvitError("a recipe needs a [[phase]]")
        if self.batch < 1 or self.photos < 0:
            raise RowvitError(f"batch is {self.batch}, photos is {self.photos}")
        if self.seed < 0:
            raise RowvitError(f"seed is {self.seed}, but cannot be negative")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise RowvitError(f"precision '{self.precision}' is not auto, bf16 or fp32")
        if self.augmentation.randaugment and any(phase.focus for phase in self.phases):
            raise RowvitError("focus and randaugment exclude each other, as that moves the subject")

    @property
    def taught(self) -> bool:
        """Whether it needs a teacher."""
        return any(phase.taught for phase in self.phases)


def load(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    RowvitError
        If the file cannot be read, a field is unknown or a value is out of its range.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RowvitError(f"{path}: no such recipe") from error
    except (OSError, ValueError) as error:
        raise RowvitError(f"{path}: not a recipe in TOML ({error})") from error
    try:
        found = table.pop("phase", [])
        if not isinstance(found, list):
            raise RowvitError("'phase' is one table", "write [[phase]], as there may be several")
        phases = tuple(_make(Phase, phase) for phase in found)
        augmentation = _make(Augmentation, table.pop("augmentation", {}))
        return _make(Recipe, table | {"phases": phases, "augmentation": augmentation})
    except RowvitError as error:
        raise RowvitError(f"{path}: {error.message}", error.advice) from error


def _make(kind: type, values: Mapping[str, Any]) -> Any:
    types = get_type_hints(kind)
    name = kind.__name__.lower()
    if not isinstance(values, dict):
        raise RowvitError(f"'{name}' is {values!r}, and no table")
    for key, value in values.items():
        if key not in types:
            raise RowvitError(f"there is no '{key}'", f"a {name} has {', '.join(types)}")
        wanted = get_origin(types[key]) or types[key]
        inner = get_args(types[key])[0] if wanted is tuple else None
        if inner in (int, float) and isinstance(value, list) and all(_is(one, inner) for one in value):
            continue
        if not _is(value, wanted):
            of = f"list of {inner.__name__}" if inner else wanted.__name__
            raise RowvitError(f"'{key}' is {value!r}, expected the type {of}")
    missing = [
        f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in values
    ]
    if missing:
        raise RowvitError(f"a {name} needs '{missing[0]}'")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _is(value: object, wanted: type) -> bool:
    """Whether a value is of a type, which for numbers a finite one is: to Python a bool is one, too."""
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    if wanted is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, wanted)
