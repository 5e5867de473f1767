# SPDX-License-Identifier: Apache-2.0
"""The frozen part of a network, which says what photos look like, and its new head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats.familiar import seen
from rowvit.formats.package import ModelPackage
from rowvit.formats.tokens import layers, normalised
from rowvit.photos import one_way
from rowvit.quant.linear import linear
from rowvit.teach.familiar import Familiar

MOST_KEPT = 65_535  #: photos that a package can keep
_COARSER = (7, 8)  # bits that the head's int8 input has fewer than a token
_HEADROOM = 1.5  # of logits, as the quantiser leaves


@dataclass(frozen=True)
class Kept:
    """What a head has seen of photos, by which it can be taught again without them."""

    seen: NDArray[np.int8]  #: [photos, D]
    labels: NDArray[np.uint16]  #: [photos]
    classes: tuple[str, ...]
    recordings: NDArray[np.uint16] | None = None  #: [photos], from 0; None: each is one of its own

    @classmethod
    def of(cls, package: ModelPackage) -> Kept:
        """What a package has kept; `RowvitError` if it has kept nothing."""
        if not package.meta.get("taught", {}).get("photos"):
            raise RowvitError(
                f"'{package.meta['name']}' has kept nothing of the photos that it was taught with",
                "teach it with --keep, or all classes at once",
            )
        tensors = package.tensors
        names = [one_way(name) for name in package.meta["classes"]]
        classes = tuple(dict.fromkeys(names))
        places = np.array([classes.index(name) for name in names], np.uint16)
        labels = places[tensors["taught.labels"]]
        return cls(tensors["taught.seen"], labels, classes, tensors.get("taught.recordings"))

    def only(self, chosen: Sequence[int]) -> Kept:
        """Some of the photos, by their places."""
        own = None if self.recordings is None else self.recordings[[*chosen]]
        return replace(self, seen=self.seen[[*chosen]], labels=self.labels[[*chosen]], recordings=own)

    def within(self, package: ModelPackage) -> ModelPackage:
        """The package that was taught by these photos, with what has been seen of them."""
        own: dict[str, NDArray[Any]] = {"taught.seen": self.seen, "taught.labels": self.labels}
        taught = package.meta["taught"] | {"photos": len(self.labels)}
        if self.recordings is not None:
            own["taught.recordings"] = self.recordings
            taught["recordings"] = int(self.recordings.max()) + 1
        meta = {key: value for key, value in package.meta.items() if key != "hash"}
        return ModelPackage(meta | {"taught": taught}, package.tensors | own)


@dataclass(frozen=True)
class Backbone:
    """A package that answers with its class token, and the int8 numbers that a head sees of it."""

    package: ModelPackage
    unit: float  #: of the head's input
    #: [D, D] covariance of photos of the classes that it had before it was taught others, if it says so
    before: NDArray[np.float64] | None = field(default=None, compare=False)
    #: [kinds, D] mean class tokens of kinds of pictures that show nothing, if it says so
    odd: NDArray[np.float64] | None = field(default=None, compare=False)
    #: the package with all that it has, if it answers so that its classes can be known: see `with_own_head`
    whole: ModelPackage | None = field(default=None, compare=False)

    @classmethod
    def of(cls, package: ModelPackage) -> Backbone:
        """The backbone of a package.

        Raises
        ------
        RowvitError
            Its head takes something else than the class token, so that it could not run on the accelerator.
        """
        meta, last = package.meta, package.arch["depth"] - 1
        if "host_head" in meta or "row_heads" in meta or not package.arch["prefix"]:
            raise RowvitError(
                f"'{meta['name']}' has a head that the host computes, or no class token",
                "teach a network whose head sees the class token",
            )
        answers = last in layers(meta) and normalised(meta)
        if package.arch["classes"]:  # the head's own LayerNorm says all
            own = ("taught", "familiar") if "taught" in meta else ("tokens", "familiar")
            found = _without(package, *own).with_tokens("class")
            whole = _without(package, "familiar") if answers else None
            return cls(found, float(meta["scales"]["norm"]), _before(package), _odd(package), whole)
        if not answers:
            raise RowvitError(
                f"'{meta['name']}' does not answer with the class token behind its last layer",
                "quantise it with --tokens class",
            )
        return cls(package, float(meta["scales"]["tokens"]) * 2.0 ** _COARSER[0])

    def fitted(self, values: NDArray[np.floating]) -> Backbone:
        """The unit that loses least of these class tokens [n, D], where there is no head that says it."""
        if self.package.arch["classes"]:
            return self
        finest = float(self.package.meta["scales"]["tokens"])

        def lost(one: Backbone) -> float:
            return float(np.square(values - one.unit * one.seen(values)).sum())

        return min((replace(self, unit=finest * 2.0**bits) for bits in _COARSER), key=lost)

    def seen(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """What the head sees of class tokens [n, D]: whole numbers from -127 to 127."""
        return seen(values, self.unit)

    def with_head(
        self,
        weight: NDArray[np.floating],
        bias: NDArray[np.floating],
        classes: Sequence[str],
        peak: float,
        name: str,
        history: str,
        familiar: Familiar,
    ) -> ModelPackage:
        """The network with another head, in integers, which still answers with its class token.

        Parameters
        ----------
        weight : float array [classes, D]
            Of what the head sees.
        bias : float array [classes]
        classes : sequence of str
        peak : float
            The largest logit that it gave.
        name : str
            Of the network.
        history : str
            A line about the head.
        familiar : Familiar
            What the classes look like.
        """
        frozen = self._frozen()
        unit = _HEADROOM * max(peak, 1e-6) / 32767
        head, shift = linear(weight, bias, 1.0, unit, "head")
        meta = frozen.meta | {
            "name": name,
            "architecture": frozen.arch | {"classes": len(classes)},
            "classes": list(classes),
            "params": frozen.meta["params"] | {"head.shift": shift},
            "scales": frozen.meta["scales"] | {"logit": unit},
            "accuracy": {},
            "taught": {} if self.before is None else {"before": True},
            "history": self.package.meta.get("history", ()),
        }
        own: dict[str, NDArray[Any]] = {f"head.{part}": tensor for part, tensor in head.items()}
        if self.before is not None:
            own["taught.before"] = self.before.astype(np.float32)
        return _acquainted(ModelPackage(meta, frozen.tensors | own), familiar, history)

    def with_own_head(self, history: str, familiar: Familiar) -> ModelPackage:
        """The network with the head that it has, which knows what its classes look like.

        It keeps what else it has; only if its tokens are not those behind the last LayerNorm, by which
        classes are known, it answers with its class token in their place.

        Parameters
        ----------
        history, familiar
            As of `with_head`.
        """
        return _acquainted(self.whole or self.package, familiar, history)

    def of_taught(self, package: ModelPackage) -> Backbone:
        """The backbone as it was when a package was taught from it; `RowvitError` if that was another."""
        own = self
        unit = package.meta["scales"].get("norm", 0.0)
        if not self.package.arch["classes"] and unit > 0:
            own = replace(self, unit=unit)
        ours, theirs = own._frozen(), _without_head(package)
        if ours.meta != theirs.meta or not _equal(ours.tensors, theirs.tensors):
            raise RowvitError(
                f"'{package.meta['name']}' was not taught from '{self.package.meta['name']}', or from another"
                " state of it",
                "use it with the network that it was taught from",
            )
        return own

    def _frozen(self) -> ModelPackage:
        """What all networks that are taught from it have in common."""
        package = self.package
        if package.arch["classes"]:
            return _without_head(package)
        meta = package.meta
        finer = round(np.log2(self.unit / meta["scales"]["tokens"]))
        shift = meta["tokens"]["shift"] + finer
        if shift > 31:
            raise RowvitError(f"'{meta['name']}': the tokens' LayerNorm has no room for int8")
        norm = {f"norm.{part}": package.tensors[f"tokens.{part}"] for part in "gb"}
        meta = meta | {
            "params": meta["params"] | {"norm.shift": shift},
            "scales": meta["scales"] | {"norm": self.unit},
        }
        return _without_head(ModelPackage(meta, package.tensors | norm))


def _before(package: ModelPackage) -> NDArray[np.float64] | None:
    """What `Backbone.before` is of a package.

    One that was taught hands on what was known before: its own photos are kept, or may be shown again, and
    would be held against what they have made themselves.
    """
    if "taught" in package.meta:
        found = package.tensors.get("taught.before")
        return None if found is None else found.astype(np.float64)
    if "familiar" not in package.meta:
        return None
    whitening = package.tensors["familiar.whitening"].astype(np.float64)
    covariance: NDArray[np.float64] = np.linalg.inv(whitening @ whitening.T)  # which it takes to one
    return covariance


def _odd(package: ModelPackage) -> NDArray[np.float64] | None:
    """What `Backbone.odd` is of a package."""
    if not package.meta.get("familiar", {}).get("odd"):
        return None
    white = package.tensors["familiar.odd"].astype(np.float64)
    found: NDArray[np.float64] = np.linalg.solve(package.tensors["familiar.whitening"].T, white.T).T
    return found


def _acquainted(package: ModelPackage, familiar: Familiar, history: str) -> ModelPackage:
    meta = {key: value for key, value in package.meta.items() if key != "hash"}
    known: dict[str, Any] = {"limit": familiar.limit, "alarms": familiar.alarms}
    own = {"familiar.whitening": familiar.whitening, "familiar.means": familiar.means}
    if len(familiar.odd):
        known["odd"], own["familiar.odd"] = len(familiar.odd), familiar.odd
    meta |= {"familiar": known, "history": [*meta.get("history", ()), history]}
    found = ModelPackage(meta, package.tensors | own)
    found.check(str(meta["name"]))
    return found


def _without(package: ModelPackage, *parts: str) -> ModelPackage:
    """A package that lacks some parts, in its description and in its tensors."""
    meta = {key: value for key, value in package.meta.items() if key not in (*parts, "hash")}
    return ModelPackage(meta, {k: t for k, t in package.tensors.items() if k.split(".")[0] not in parts})


def _without_head(package: ModelPackage) -> ModelPackage:
    """What a head does not change: no package that could be run."""

    def without(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
        return {key: value for key, value in found.items() if key not in names}

    meta = without(package.meta, "name", "classes", "taught", "familiar", "accuracy", "history", "hash")
    meta |= {
        "architecture": without(package.arch, "classes"),
        "params": without(meta["params"], "head.shift"),
        "scales": without(meta["scales"], "logit"),
    }
    own = ("head.", "taught.", "familiar.")
    return ModelPackage(meta, {key: t for key, t in package.tensors.items() if not key.startswith(own)})


def _equal(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> bool:
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
