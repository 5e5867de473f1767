# SPDX-License-Identifier: Apache-2.0
"""Accuracy and work over a set of labelled photos: float networks, integer packages, the simulated RTL.

The set is cut into shards. They run one after the other here, or on the workers of a Dask cluster:
processes of this machine, or any cluster whose scheduler is named.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rowvit import decoding
from rowvit.decoding import SAID, say_once
from rowvit.errors import RowvitError, needs
from rowvit.formats.container import parse
from rowvit.formats.description import image_shape
from rowvit.formats.work import WORK, count_work
from rowvit.photos import one_way
from rowvit.targets.workers import end_with_parent

if TYPE_CHECKING:
    from rowvit.decoding import Refused
    from rowvit.formats.package import ModelPackage
    from rowvit.hardware.config import HardwareConfig
    from rowvit.model.store import Card
    from rowvit.model.vit import VisionTransformer
    from rowvit.photos import Photos
    from rowvit.reference.network import Counts
    from rowvit.targets.target import Result

    #: a package, or a float network and its card
    Network: TypeAlias = ModelPackage | tuple[VisionTransformer, Card]
    #: of the photos of a shard that can be decoded, if there are any; the others by their positions, and why;
    #: what there is to say once
    Shard: TypeAlias = "tuple[Outcomes | None, dict[int, RowvitError], dict[str, tuple[str, ...]]]"

SHARD = 32  # photos
DEADLINE = 1800.0  # seconds for one shard
PRECISIONS = ("fp32", "bf16")


@dataclass
class Outcomes:
    """Logits and work of photos; arrays have one entry per photo, in the order of the set."""

    logits: np.ndarray  #: float64 [n, classes], in float units
    macs_executed: np.ndarray  #: int64, as the next three
    macs_dense: np.ndarray
    w2_rows_fetched: np.ndarray
    w2_rows_total: np.ndarray
    zeros: np.ndarray  #: float64: share of zeros among the hidden activations of all layers
    cycles: np.ndarray  #: float64; NaN where no cycles were counted or predicted
    bit_exact: np.ndarray  #: bool: equal to the integer reference; true on the integer reference itself
    #: float64: as of `formats.familiar.distance`; NaN where the network does not say
    distance: np.ndarray

    @classmethod
    def join(cls, parts: list[Outcomes]) -> Outcomes:
        """Concatenated."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass
class Evaluation:
    """A network on a set."""

    network: str
    data: str
    kind: str  #: "float fp32", "float bf16", "int8 golden" or "int8 sim"
    truth: np.ndarray  #: int [n]
    classes: list[str]
    work: Outcomes
    agreement: float | None = None  #: share of the photos to which another network gives the same class
    #: what counted or predicted the cycles, and for which configuration; empty without one
    cycles_of: str = ""

    def __post_init__(self) -> None:
        wrong = int((~np.isfinite(self.work.logits).all(axis=1)).sum())
        if wrong:
            raise RowvitError(
                f"{self.network}: of {wrong} of {len(self.truth)} photos it has logits that are no numbers",
                "its activations overflow: look at its weights, or use --precision fp32",
            )

    @property
    def guesses(self) -> np.ndarray:
        return self.work.logits.argmax(axis=1)

    def right(self, best: int = 1) -> int:
        """Photos whose class is among the ``best`` largest logits; the lowest index wins a tie."""
        logits, truth = self.work.logits, self.truth[:, None]
        own = np.take_along_axis(logits, truth, axis=1)
        before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < truth))
        return int((before.sum(axis=1) < best).sum())

    def compare(self, other: Evaluation) -> None:
        """Set the agreement with another network on the same photos: by names, if they share any."""
        ours, theirs = self.guesses, other.guesses
        names = [[one_way(str(name)) for name in one.classes] for one in (self, other)]
        if all(len(set(one)) == len(one) for one in names) and set(names[0]) & set(names[1]):
            ours, theirs = (np.array(one)[guess] for one, guess in zip(names, (ours, theirs), strict=True))
        self.agreement = float((ours == theirs).mean())

    def confusion(self) -> np.ndarray:
        """Photos int [truth, guess]."""
        counts = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(counts, (self.truth, self.guesses), 1)
        return counts

    def note(self) -> dict[str, Any]:
        """What the network's file says of it: set, unit, and percent top-1 by type of network.

        That of a package also has the percentages of MACs and of W2 rows saved.
        """
        report, kind = self.report(), self.kind.split()[0]
        found = {"set": self.data, "unit": "percent top-1", kind: round(report["top1"], 2)}
        if kind == "int8":
            found |= {f"{key}_percent": round(report[key], 1) for key in ("macs_saved", "w2_rows_saved")}
        return found

    def summary(self) -> str:
        """A phrase: top-1, the set, and the interval of 95 %."""
        low, high = (100 * share for share in wilson(self.right(), len(self.truth)))
        top1 = 100 * self.right() / len(self.truth)
        return f"top-1 {top1:.2f} % on {self.data} (95 % interval {low:.2f} to {high:.2f})"

    def report(self) -> dict[str, Any]:
        """Everything, for JSON; shares are in percent, work is the mean per photo."""
        n, work = len(self.truth), self.work
        low, high = wilson(self.right(), n)
        report: dict[str, Any] = {
            "network": self.network,
            "kind": self.kind,
            "data": self.data,
            "photos": n,
            "top1": 100 * self.right() / n,
            "top1_interval_95": [100 * low, 100 * high],
            "top5": 100 * self.right(5) / n if len(self.classes) > 5 else None,
            "agreement": None if self.agreement is None else 100 * self.agreement,
            "macs_executed": float(work.macs_executed.mean()),
            "macs_dense": float(work.macs_dense.mean()),
            "macs_saved": 100 * (1 - work.macs_executed.sum() / work.macs_dense.sum()),
            "w2_rows_fetched": float(work.w2_rows_fetched.mean()),
            "w2_rows_total": float(work.w2_rows_total.mean()),
            "w2_rows_saved": 100 * (1 - work.w2_rows_fetched.sum() / work.w2_rows_total.sum()),
            "zeros": 100 * float(work.zeros.mean()),
            "classes": self.classes,
            "confusion": self.confusion().tolist(),
        }
        counted = np.isfinite(work.cycles)
        if counted.any():
            report["cycles"] = float(work.cycles[counted].mean())
            report["cycles_of"] = f"{self.cycles_of}, {int(counted.sum())} photos"
        if np.isfinite(work.distance).all():
            report["unlike"] = 100 * float((work.distance > 1).mean())
        if self.kind == "int8 sim":
            report["bit_exact"] = int(work.bit_exact.sum())
        return report


def made(model: str | Path, data: Path, network: Network) -> dict[str, Any]:
    """What repeats an evaluation, and its network's width: command, date, the network, rowvit, versions."""
    from rowvit.measure import result

    if not isinstance(network, tuple):
        digest, hidden = network.meta.get("hash") or network.digest(), network.meta["architecture"]["hidden"]
    else:
        digest, hidden = hashlib.sha256(Path(model).read_bytes()).hexdigest(), network[0].config.hidden
    return {
        "command": ["rowvit", *sys.argv[1:]],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model_hash": digest,
        "hidden_neurons": hidden,
        "rowvit": result.revision(),
        "versions": result.versions(),
    }


def wilson(right: float, total: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % by default.

    Raises
    ------
    ValueError
        ``total`` is below 1, or ``right`` not within 0..total.
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(f"{right} of {total} is not a share")
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def load(name: str | Path) -> Network:
    """A package, or a float network and its card, from a file; a package also by its name.

    Raises
    ------
    RowvitError
        The file cannot be read, or is a compiled program.
    """
    from rowvit.formats import container
    from rowvit.model import store
    from rowvit.targets.target import read_package

    if store.KEY in container.metadata(name):
        return store.load(name)
    return read_package(name)


def with_rule(network: Network, rule: str) -> Network:
    """The network with another FFN2 rule, which a float network gets in place.

    Raises
    ------
    RowvitError
        There is no such rule.
    """
    from rowvit.formats.description import RULES
    from rowvit.formats.package import ModelPackage

    if rule not in RULES:
        raise RowvitError(f"FFN2 rule '{rule}' is not one of {', '.join(RULES)}")
    if isinstance(network, ModelPackage):
        return ModelPackage(network.meta | {"ffn2_rule": rule}, network.tensors)
    from rowvit.model.prune import set_ffn2

    model, card = network
    set_ffn2(model, rule, model.config.thresholds)
    return model, card


#: the network's class, by name or index, for each of the photos' names; or `SORTED`
Labels: TypeAlias = Mapping[str, "str | int"] | str | None
#: what ``labels`` may be instead of names: the network's classes in the order of the sorted folders
SORTED = "sorted"


def matched(photos: Photos, network: str, classes: Sequence[str], labels: Labels = None) -> Photos:
    """The photos with labels that are indices of the network's classes; there may be fewer of them.

    Names are compared as they are. Names that are numbers, as those of an archive without names, are indices;
    so are the places of ImageNet's 1000 synsets in sorted order, for a network whose classes have no names.

    Parameters
    ----------
    photos : Photos
    network : str
        Its name, for messages.
    classes : sequence of str
        Names of the network's classes.
    labels : mapping, or "sorted", optional
        From `read_labels`.

    Raises
    ------
    RowvitError
        A name of the photos' is none of the network's, or that of two of its classes.
    """
    names, classes = [one_way(name) for name in photos.classes], [one_way(str(name)) for name in classes]
    if labels is None and names == classes:  # also where two classes have one name
        return _named(photos, photos.labels, classes)
    place = {name: index for index, name in enumerate(classes)}
    wanted = [labels.get(name, name) if isinstance(labels, Mapping) else name for name in names]
    if labels != SORTED and (twice := [one for one in wanted if classes.count(str(one)) > 1]):
        raise RowvitError(
            f"two classes of {network} are called {twice[0]}",
            "give their numbers, by --labels FILE with a line FOLDER,NUMBER for each",
        )
    order: list[int | None]
    if isinstance(labels, Mapping):
        order = [_index(one, place, len(classes)) for one in wanted]
    elif labels == SORTED:
        if len(names) != len(classes):
            raise RowvitError(
                f"{network} knows {len(classes)} classes, the photos ({photos.name}) have {len(names)}",
                "--labels sorted needs all of them; name the folders, or pass a file",
            )
        order = list(range(len(names)))
    elif set(names) <= place.keys():
        order = [place[name] for name in names]
    elif place.keys().isdisjoint(names) and all(
        name.isdecimal() and int(name) < len(classes) for name in names
    ):
        order = [int(name) for name in names]
    elif (
        len(names) == len(classes) == 1000
        and all(map(_SYNSET.fullmatch, names))
        and place.keys() == set(map(str, range(1000)))
    ):
        order = list(range(1000))
    else:
        order = [place.get(name) for name in names]
    unknown = [name for name, index in zip(names, order, strict=True) if index is None]
    if unknown:
        raise RowvitError(
            f"{_few(unknown)} of the photos ({photos.name}) are no classes of {network} ({_few(classes)})",
            "name the folders as the classes, or pass --labels FILE with a line FOLDER,CLASS for each; or"
            " --labels sorted, if the network was trained on folders in sorted order",
        )
    return _named(photos, np.array(order, np.int64)[photos.labels], classes)


def _named(photos: Photos, labels: np.ndarray, classes: Sequence[str]) -> Photos:
    """Photos with a network's classes; their scope says how many of these they show, if it does not yet."""
    there, scope = len(np.unique(labels)), photos.scope
    if there < len(classes) and not scope:
        scope = f"{there} of {len(classes)} classes"
    return replace(photos, labels=labels, classes=tuple(classes), scope=scope)


#: ImageNet's names of classes, which sort in the order of its labels
_SYNSET = re.compile(r"n\d{8}")


def _index(wanted: str | int, place: Mapping[str, int], classes: int) -> int | None:
    """Of a class by name or by number."""
    if str(wanted) in place:
        return place[str(wanted)]
    return int(wanted) if str(wanted).isdecimal() and int(wanted) < classes else None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", ... {names[-1]}" if len(names) > 4 else ", ".join(["", *names[3:]]))


def read_labels(option: str | None) -> Labels:
    """The ``labels`` of `matched`: "sorted", or from a file: JSON, or lines of FOLDER,CLASS.

    `RowvitError` if it cannot be read, or a line has not two fields.
    """
    if option is None or option == SORTED:
        return option
    path = Path(option)
    try:
        text = one_way(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise RowvitError(f"{path}: cannot be read ({error})") from error
    if path.suffix == ".json":
        try:
            found = parse(text)
        except ValueError as error:
            raise RowvitError(f"{path}: is not JSON ({error})") from error
        if not isinstance(found, dict) or not all(type(value) in (str, int) for value in found.values()):
            raise RowvitError(f"{path}: is no object of names and classes", 'write {"folder": "class", ...}')
        return found
    try:
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        raise RowvitError(f"{path}: cannot be read ({error})") from error
    for line, row in enumerate(rows, 1):
        if len(row) != 2:
            raise RowvitError(f"{path}: line {line} is not FOLDER,CLASS")
    return {folder.strip(): name.strip() for folder, name in rows}


# -- one shard -------------------------------------------------------------------------------------


def float_work(model: VisionTransformer, card: Card, pixels: np.ndarray, precision: str = "fp32") -> Outcomes:
    """A float network on photos uint8 [B, S, S, 3]; MACs count as on the accelerator.

    Products with the zeros behind ReLU do not count unless ``ffn2_rule`` is "none".
    """
    import torch

    from rowvit.model.vit import predict

    config, images = model.config, len(pixels)
    nonzero, fetched = np.zeros((2, images), np.int64)
    probabilities = total = 0
    live: list[int] = []
    thresholds = config.thresholds or (0.0,) * config.depth

    def observe(name: str, value: Any) -> None:
        nonlocal probabilities, total
        layer = int(name.split(".")[1]) if name.startswith("layers.") else -1
        if name.endswith(".q"):
            probabilities += config.heads * value.shape[2] ** 2
        elif name.endswith(".hidden"):
            used = (value >= thresholds[layer] if thresholds[layer] > 0 else value != 0).numpy()
            tile = config.tile_rows if config.ffn2_rule == "tile" else value.shape[1]
            starts = np.arange(0, value.shape[1], tile)
            nonzero[:] += np.count_nonzero(used, axis=(1, 2))
            fetched[:] += np.count_nonzero(np.logical_or.reduceat(used, starts, axis=1), axis=(1, 2))
            total += value.shape[1] * value.shape[2]
            live.append(value.shape[1])

    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = predict(model, pixels, card.mean, card.std, batch=images, observe=observe)
    arch = vars(config) | {"tokens": config.tokens, "channels": 3}
    arch |= {"classes": 0} if config.head_on_host else {}
    meta = {"architecture": arch, "ffn2_rule": config.ffn2_rule, "tile_rows": config.tile_rows}
    meta |= {"gated": True} if config.gated else {}
    work = count_work(meta, live, probabilities, nonzero, fetched)
    return Outcomes(
        logits.astype(np.float64),
        **{key: np.broadcast_to(getattr(work, key), images) for key in WORK},
        zeros=1 - nonzero / total,
        cycles=np.full(images, np.nan),
        bit_exact=np.ones(images, bool),
        distance=np.full(images, np.nan),
    )


def integer_work(
    package: ModelPackage,
    pixels: np.ndarray,
    target: str = "golden",
    config: HardwareConfig | None = None,
    timed: Sequence[int] = (),
) -> Outcomes:
    """A package on photos uint8 [B, S, S, 3], on the integer reference or on the simulated RTL.

    On target "golden" those whose numbers are in ``timed`` go through the cycle model. On "sim" cycles and
    work are the RTL's counters, and each photo is compared with the integer reference.
    """
    import rowvit
    from rowvit.reference import patchify, run
    from rowvit.targets.target import Result

    images = run(package, patchify(pixels, package.arch["patch_size"]))
    counts = [image.counts for image in images]
    found = expected = [
        Result.of(package.meta, image.logits, image.kept, package.tensors, tokens=image.tokens)
        for image in images
    ]
    counted: Sequence[Counts | Result] = counts
    spent, same = np.full(len(pixels), np.nan), np.ones(len(pixels), bool)
    if target == "sim" and config is not None:
        with rowvit.open("sim", config) as sim:
            sim.load(package)
            found = counted = sim(pixels)
        spent[:] = [result.cycles for result in found]
        same[:] = [result.same(wanted) for result, wanted in zip(found, expected, strict=True)]
    elif config is not None and timed:
        from rowvit.compiler import compile as lower
        from rowvit.cycles import measured, predict

        program = lower(package, config)
        for index in timed:
            spent[index] = predict(program, config, statistics=measured(counts[index])).image_cycles[0]
    hidden = package.arch["hidden"]
    return Outcomes(
        np.stack([image.logits for image in found]) * package.meta["scales"].get("logit", 1.0),
        **{key: np.array([getattr(one, key) for one in counted], np.int64) for key in WORK},
        zeros=np.array([1 - sum(c.ffn2_nonzeros) / (sum(c.live) * hidden) for c in counts]),
        cycles=spent,
        bit_exact=same,
        distance=np.array([one.distance for one in found], np.float64),  # of None NaN
    )


# -- the set ---------------------------------------------------------------------------------------


def evaluate(
    model: Network,
    photos: Photos,
    target: str = "golden",
    config: HardwareConfig | None = None,
    cycles: int = 0,
    jobs: int = 1,
    scheduler: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
    precision: str = "fp32",
    refused: Refused | None = None,
) -> Evaluation:
    """Run a network over a set.

    Parameters
    ----------
    model : ModelPackage, or VisionTransformer and Card
    photos : Photos
    target : str
        "golden" or "sim", for a package.
    config : HardwareConfig, optional
        For ``cycles`` and target "sim".
    cycles : int
        This many photos, from all over the set, go through the cycle model.
    jobs : int
        Worker processes on this machine.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers are used instead.
    progress : callable
        Gets the number of photos done, after every shard.
    precision : str
        "fp32", or "bf16" for the matrices of a float network: faster, and the same but for near ties.
    refused : callable, optional
        Gets a photo that cannot be decoded, by its position in the set, and the error; it does not count.
        Without it, the error is raised.

    Raises
    ------
    RowvitError
        The precision is unknown, there is no ``config`` for target "sim", the photos' classes are not the
        network's, there is none, none can be decoded, Dask is missing, or a shard fails.
    """
    from rowvit.photos import spread

    if precision not in PRECISIONS:
        raise RowvitError(f"precision '{precision}' is not {' or '.join(PRECISIONS)}")
    if isinstance(model, tuple):
        card = model[1]
        name, classes, kind = card.name, card.classes, f"float {precision}"
    else:
        name, classes, kind = model.meta["name"], model.meta["classes"], f"int8 {target}"
    photos = matched(photos, name, classes)
    if not len(photos):
        raise RowvitError(f"{photos.name} has no photos")
    size = SHARD
    if target == "sim" and not isinstance(model, tuple):
        from rowvit.sim.verilate import build

        if config is None:
            raise RowvitError("target sim needs a hardware configuration")
        build(config)  # once, before the workers need it
        size = 1
    shards, timed = [], spread(np.arange(len(photos)), cycles).tolist()
    for first in range(0, len(photos), size):
        chosen = slice(first, first + size)
        part = replace(photos, files=photos.files[chosen], labels=photos.labels[chosen])
        shards.append((part, [number - first for number in timed if 0 <= number - first < len(part)]))
    parts: list[Outcomes] = []
    wrong: dict[int, RowvitError] = {}
    done = 0
    job = partial(_shard, target=target, config=config, precision=precision)
    answers = _run(job, model, shards, jobs, scheduler)
    for (part, _), (found, left_out, said) in zip(shards, answers, strict=True):
        for text, words in said.items():
            say_once(text, *words)
        for number, why in left_out.items():
            if refused is None:
                raise why
            wrong[done + number] = why
            refused(done + number, why)
        if found is not None:
            parts.append(found)
        done += len(part)
        progress(done)
    if not parts:
        raise wrong[0]
    truth, data = np.delete(photos.labels, [*wrong]), photos.name
    if wrong:
        data += f", but for {len(wrong)} that cannot be decoded"
    source = "RTL in simulation" if target == "sim" else "cycle model"
    source = f"{source}, {config.name}" if config else ""
    work, classes = Outcomes.join(parts), list(map(str, classes))
    return Evaluation(name, data, kind, truth, classes, work, cycles_of=source)


def _shard(
    model: Network,
    part: Photos,
    timed: list[int],
    *,
    target: str,
    config: HardwareConfig | None,
    precision: str,
) -> Shard:
    wrong: dict[int, RowvitError] = {}
    if isinstance(model, tuple):
        network, card = model
        pixels = part.prepared(network.config.size, card.resize, card.crop, wrong.__setitem__)
        return (float_work(network, card, pixels, precision) if len(pixels) else None), wrong, SAID
    size, taken = image_shape(model.arch), model.meta["preprocessing"]
    pixels = part.prepared(size, taken["resize"], taken.get("crop", 1.0), wrong.__setitem__)
    there = [number for number in range(len(part)) if number not in wrong]
    timed = [there.index(number) for number in timed if number not in wrong]
    return (integer_work(model, pixels, target, config, timed) if there else None), wrong, SAID


def _run(
    work: Callable[[Network, Photos, list[int]], Shard],
    model: Network,
    shards: list[tuple[Photos, list[int]]],
    jobs: int,
    scheduler: str | None,
) -> Iterator[Shard]:
    """Results of the shards, photos and which of them go through the cycle model, in their order."""
    if jobs == 1 and scheduler is None:
        for part, timed in shards:
            yield work(model, part, timed)
        return
    with needs("several workers need Dask", "'rowvit[eval]'"):
        from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin
        from distributed import TimeoutError as NoAnswer

    class EndWithParent(WorkerPlugin):
        def setup(self, worker: object) -> None:
            end_with_parent()
            decoding.ROOM.share(jobs)

    # it tells of connections that were closed, with tracebacks, also after the cluster's end and its silence
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    cluster = None
    with ExitStack() as stack:
        try:
            if scheduler is None:
                options = {
                    "threads_per_worker": 1,
                    "dashboard_address": None,
                    "silence_logs": logging.CRITICAL,
                }
                cluster = stack.enter_context(LocalCluster(n_workers=jobs, **options))
            client = stack.enter_context(Client(scheduler or cluster, timeout=10))
        except (OSError, ValueError) as error:
            what = f"no Dask scheduler answers at {scheduler}" if scheduler else "no workers could be started"
            raise RowvitError(f"{what} ({error})", "" if scheduler else "use --jobs 1") from error
        stack.enter_context(_killed_on_failure(cluster))
        if cluster:
            client.register_plugin(EndWithParent())
        try:
            sent = client.scatter(model, broadcast=True)
        except NoAnswer as error:
            raise RowvitError(
                f"the Dask scheduler at {scheduler} has no workers", f"start some: dask worker {scheduler}"
            ) from error
        futures = [client.submit(work, sent, part, timed, pure=False) for part, timed in shards]
        done = 0
        for (part, _), future in zip(shards, futures, strict=True):
            try:
                yield future.result(DEADLINE)
            except (NoAnswer, KilledWorker) as error:
                raise RowvitError(
                    f"photos {done} to {done + len(part) - 1}: the workers died on them, or did not answer"
                    f" within {DEADLINE / 60:.0f} minutes",
                    "see Dask's log" if scheduler else "use fewer --jobs, if memory ran out",
                ) from error
            done += len(part)


@contextmanager
def _killed_on_failure(cluster: Any) -> Iterator[None]:
    """End a local cluster's workers at once if something is raised, Ctrl-C, say: a shard may take minutes."""
    try:
        yield
    except BaseException:
        for nanny in cluster.workers.values() if cluster else ():
            nanny.auto_restart = False
            if nanny.pid:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
        raise
