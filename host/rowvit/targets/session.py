# SPDX-License-Identifier: Apache-2.0
"""A network on a target, and many images: files to results, with statistics, as ``rowvit run`` prints them.

An image's way: `image_files` names it, `Session.run` gives it to a `Target`, which decodes it beside its work
and returns its `Result`; `Session.compare` checks that against the integer reference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowvit.decoding import AHEAD_BYTES, decoded
from rowvit.errors import RowvitError
from rowvit.formats.bundled import MODELS, stem
from rowvit.formats.description import image_shape, layer_names
from rowvit.formats.program import Program
from rowvit.formats.records import checkpoint_names
from rowvit.formats.work import WORK
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import default_configuration, is_board
from rowvit.images import for_network, is_picture
from rowvit.photos import folder_name, inside
from rowvit.processors import processors
from rowvit.targets.guard import Difference
from rowvit.targets.open import open as open_target
from rowvit.targets.target import (
    first_difference,
    position,
    read_model,
    read_package,
    read_program,
    require_batch,
)
from rowvit.targets.workers import Workers

if TYPE_CHECKING:
    from rowvit.decoding import Refused
    from rowvit.formats.package import ModelPackage
    from rowvit.hardware.config import HardwareConfig
    from rowvit.targets.target import ImageSource, Result, Target

#: gets the number of images done
Progress = Callable[[int], None]

#: images of a measurement, where nobody says how many
COUNT, COUNT_SIM = 200, 10
_RANDOM = 16  # different random images at most
_AT_ONCE = 32  # images that a process of the reference gets; its start would last longer than fewer
#: what `Session.record` takes over from a `Result`
_RECORDED = (
    *("top1", "label", "distance", "cycles", "layer_cycles", "batch", "counters", "bit_exact", "seconds"),
    *WORK,
)


def shipped_photos(model: str) -> list[Path]:
    """The directory of the photos that come with a model; empty if none do."""
    photos = MODELS / f"{stem(model)}_photos"
    return [photos] if photos.is_dir() else []


def image_files(
    paths: Sequence[Path], say: Callable[[str], None] = lambda text: None, recursive: bool = False
) -> list[Path]:
    """The files named, and the pictures in the directories named, sorted.

    Parameters
    ----------
    paths : sequence of Path
        In a directory, files count whose names end like those of pictures.
    say : callable
        Gets a sentence about the other files of a directory, and one about the directories in it.
    recursive : bool
        Take what is in these, too, as deep as they go.

    Raises
    ------
    RowvitError
        There are none.
    """
    files: list[Path] = []
    deeper: list[str] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        there, folders = inside(path, recursive)
        pictures = [p for p in there if is_picture(p)]
        if others := [p.name for p in there if not is_picture(p)]:
            names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            say(f"{path}: {len(others)} of {len(there)} files skipped, no pictures by name ({names})")
        if folders:
            names = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
            many = f"{len(folders)} folders" if len(folders) > 1 else "a folder"
            deeper.append(
                f"{path}: {many} in it left out ({names}); --recursive takes the pictures there, too"
            )
        files += pictures
    if not files:
        advice = "pass --recursive for those in its folders" if deeper else "pass image files"
        raise RowvitError(f"{', '.join(map(str, paths))} holds no pictures", advice)
    for sentence in deeper:
        say(sentence)
    return files


@dataclass(frozen=True)
class RunStatistics:
    """Results of several images, summed up; means are over the images.

    Work (see `formats.work.Work`) is None if batches do not tell images apart; the cycles, and all that
    follows from them, on target golden.
    """

    images: int
    #: alive at the input and after each pruning: the fewest and the most of any image
    tokens: list[tuple[int, int]]
    macs_executed: float | None = None  #: mean per image, like the following work
    macs_dense: float | None = None
    w2_rows_fetched: float | None = None
    w2_rows_total: float | None = None
    cycles: float | None = None  #: mean clock cycles per image
    images_per_second: float | None = None  #: of the configuration's clock and ``cycles``: the core's alone
    array_busy: float | None = None  #: share of the array's multiplications per cycle that were made
    array_useful: float | None = None  #: share of them that the network needed
    simulation_khz: float | None = None  #: simulated cycles per ms of one process; None if not simulated
    bit_exact: int | None = None  #: images equal to the integer reference; None if none was compared
    compared: int = 0  #: images that were compared with the integer reference


@dataclass(frozen=True)
class ImageSet:
    """The images of a measurement.

    Parameters
    ----------
    pixels : sequence of uint8 arrays [H, W, 3]
        The first ``distinct`` are different images, which then come again.
    files : list of Path
        Where the images came from, one each; empty for random pixels.
    name, subset : str
        What the data set is called, and which part of it this is.
    distinct : int
    skipped : int
        Files that cannot be decoded, and are left out.
    """

    pixels: Sequence[NDArray[Any]]
    files: list[Path]
    name: str
    subset: str
    distinct: int
    skipped: int = 0


class Session:
    """One network on one target, for any number of images; a context manager.

    The target is opened, and the network loaded, when they are first needed, and stay so until `close`.

    Parameters
    ----------
    model : str, Path, ModelPackage or Program
        As `Target.load` takes it.
    target : str
        "golden", "sim" or "board".
    config : str, Path or HardwareConfig, optional
        Name or file of the hardware configuration; by default this board's, or else ``pynq-z2``.
    checkpoints : bool
        Results also hold the residual stream after every half layer.
    **options
        Of `rowvit.open` for this target. With ``check_every`` the images are counted over all processes.

    Raises
    ------
    RowvitError
        The model cannot be read, does not fit the configuration, or is to be checked and is a compiled
        program.

    Examples
    --------
    >>> with Session("sign-digits", "sim", "pynq-z2") as session:
    ...     files = image_files([Path("photos")])
    ...     results = session.run(files, jobs=0)
    ...     session.compare(results, files)
    ...     print(session.statistics(results).images_per_second)
    """

    def __init__(
        self,
        model: str | Path | ModelPackage | Program,
        target: str = "sim",
        config: str | Path | HardwareConfig | None = None,
        *,
        checkpoints: bool = False,
        **options: Any,
    ) -> None:
        if config is None or isinstance(config, str | Path):
            config = configs.load(config or default_configuration())
        self.config, self.target_name, self.options = config, target, options
        self._named = model
        self.model = self.source = read_model(model)
        if options.get("check_every") is not None:
            read_package(self.source)
        if target == "golden":
            options["checkpoints"] = checkpoints
        else:
            self.model = read_program(self.source, config, checkpoints)
        self.checkpoints = checkpoints or self.meta.get("checkpoints", False)
        self._given = 0  # images that the processes had
        self._target: Target | None = None
        self._workers: Workers | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """Description of the package or program that the target runs."""
        return self.model.meta

    @property
    def frontend(self) -> str:
        """What makes patches of images: "host" or "hls"; of a board's bitstream, unless an option says it."""
        if "frontend" in self.options:
            return str(self.options["frontend"])
        return self.target.frontend if self.target_name == "board" else "host"

    @property
    def target(self) -> Target:
        """The target with the network loaded; `RowvitError` as `rowvit.open` and `Target.load`."""
        if self._target is None:
            opened = open_target(self.target_name, self.config, **self.options)
            try:
                opened.load(self.model)
            except BaseException:
                opened.close()
                raise
            self._target = opened
            self.config = opened.config  # a board's has the clock that it runs at
        return self._target

    def close(self) -> None:
        """Close the target and end the processes."""
        self._end_workers()
        target, self._target = self._target, None
        if target is not None:
            target.close()

    def _end_workers(self) -> None:
        if self._workers is not None:
            self._workers.close()
        self._workers = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def choose(
        self,
        paths: Sequence[Path],
        count: int = 0,
        name: str | None = None,
        subset: str | None = None,
        say: Callable[[str], None] = lambda text: None,
        recursive: bool = False,
    ) -> ImageSet:
        """The images of a measurement.

        Parameters
        ----------
        paths : sequence of Path
            Files or directories; if empty, the photos that come with the model, or random pixels.
        count : int
            Images of the measurement, which repeats those that there are, and that take no more than
            `AHEAD_BYTES`; 0: 10 on sim, else 200.
        name, subset : str, optional
            What to call the data set, and which part of it this is.
        say : callable
            Gets a sentence about every file that is left out.
        recursive : bool
            As of `image_files`.

        Raises
        ------
        RowvitError
            No file can be decoded, or there are none.
        """
        count = count or (COUNT_SIM if self.target_name == "sim" else COUNT)
        height, width = image_shape(self.meta["architecture"])
        if not paths and isinstance(self._named, str) and (paths := shipped_photos(self._named)):
            name = name or f"photos that come with {self._named}"
        files: list[Path] = []
        wrong: dict[int, RowvitError] = {}
        if paths:
            files = image_files(paths, say, recursive)
            folder = paths[0] if paths[0].is_dir() else paths[0].parent
            name = name or folder_name(folder)
            there = len(files)
            # of the network's size, also for the HLS front end
            each = decoded(files, lambda file: for_network(file, self.meta), refused=wrong.__setitem__)
            with closing(each):
                pixels = [*islice(each, min(count, AHEAD_BYTES // (3 * height * width)))]
            files = [file for number, file in enumerate(files) if number not in wrong][: len(pixels)]
            for why in wrong.values():
                if not pixels:
                    raise why
                say(f"skipped: {why}")
            subset = subset or f"first {len(pixels)} of {there} files by name"
        else:
            shape = min(count, _RANDOM), height, width, 3
            pixels = [*np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)]
            name, subset = name or "random pixels", subset or "seed 0"
        again = [number % len(pixels) for number in range(count)]
        chosen = [files[i] for i in again] if files else []
        return ImageSet([pixels[i] for i in again], chosen, name, subset, len(pixels), len(wrong))

    def run(
        self,
        images: Sequence[ImageSource],
        batch: int = 1,
        jobs: int = 1,
        progress: Progress = lambda done: None,
        refused: Refused | None = None,
        into: list[Result] | None = None,
    ) -> list[Result]:
        """Classify images, in order.

        Parameters
        ----------
        images : sequence of paths, or of uint8 arrays [H, W, 3]
            As `Target.stream` takes them.
        batch : int
            Images per start of the core.
        jobs : int
            Processes, of which each has a simulation, or the reference, of its own; 0: one per processor.
            There is one for a board, for the reference on a board or of a few images, and for a simulation
            that writes a waveform.
        progress : callable
        refused : callable, optional
            Gets an image that cannot be decoded, or does not fit the network, in place of a result: its
            position and the error. Without it, the error is raised.
        into : list, optional
            Gets every result as it comes, so that they are left by an interrupt.

        Raises
        ------
        RowvitError
            The target cannot be opened, the accelerator failed, a result that was checked differs from the
            integer reference (`guard.Difference`), or a process was killed.
        """
        if not self._alone(len(images), batch, jobs):
            size = self._size(batch)
            starts = [images[first : first + size] for first in range(0, len(images), size)]
            first, self._given = self._given, self._given + len(images)
            try:
                parts = self._several(jobs or processors()).map(starts, first, refused)
                return _collect(parts, progress, into)
            except BaseException:  # Ctrl-C, too
                self._end_workers()
                raise
        wrong: list[int] = []

        def note(number: int, error: RowvitError) -> None:
            if refused is None:
                raise error
            wrong.append(number)
            refused(number, error)

        first = self.target.count
        pixels = self.target.prepared(images, batch, note)
        try:
            return _collect(([result] for result in self.target.stream(pixels, batch)), progress, into)
        except Difference as error:
            raise error.renumbered(first + position(error.image - first, wrong)) from error

    def prepare(self, images: int, batch: int = 1, jobs: int = 1) -> None:
        """Build and open what `run` with the same arguments takes, which may last much longer than an image.

        `RowvitError` as of `rowvit.open` and `Target.load`.
        """
        if self._alone(images, batch, jobs):
            self.target  # noqa: B018 opened where it is asked for
        else:
            self._several(jobs or processors())

    @contextmanager
    def forecast(
        self,
        images: int,
        batch: int = 1,
        jobs: int = 1,
        progress: Callable[[float], None] = lambda done: None,
    ) -> Iterator[None]:
        """Around `run` with the same arguments: ``progress`` also gets shares of images, by the cycle model.

        Only where one process simulates, and so the first image is done late.
        """
        if not self._alone(images, batch, jobs) or self.target_name != "sim":
            yield
            return
        from rowvit.targets.driver import Accelerator

        assert isinstance(self.target, Accelerator)
        device, image = self.target.device, self.predicted()
        first, over = device.stats["cycles"], threading.Event()

        def look() -> None:
            while not over.wait(1.0):
                progress(min((device.stats["cycles"] - first) / image, images * 0.99))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
        progress(images)

    def predicted(self) -> int:
        """Cycles of an image, by the cycle model with data as it usually is."""
        from rowvit.cycles import predict

        return predict(read_program(self.model, self.config), self.config, self.options.get("memory")).total

    def _alone(self, images: int, batch: int, jobs: int) -> bool:
        """Whether `run` stays in this process."""
        if self.target_name == "board" or "trace" in self.options:
            return True
        if self.target_name == "golden" and is_board():  # whose memory holds it once
            return True
        return min(jobs or processors(), -(-images // self._size(batch))) <= 1

    def _size(self, batch: int) -> int:
        """Images that a process gets at once; `RowvitError` if the batch is none."""
        require_batch(batch)
        return max(batch, _AT_ONCE) if self.target_name == "golden" else batch

    def _several(self, jobs: int) -> Workers:
        if self._workers is None or self._workers.count != jobs:
            self._end_workers()
            if self.target_name == "sim":
                from rowvit.sim.verilate import build

                build(self.config)  # once, before the processes need it
            else:
                self.target  # noqa: B018 says here what there is to say of the network
            model = self.model
            if isinstance(model, Program) and self.options.get("check_every") is None:
                model = replace(model, package=None)  # nobody there runs the integer reference
            self._workers = Workers(jobs, model, self.target_name, self.config, self.options)
        return self._workers

    def reference(
        self, images: Sequence[ImageSource], progress: Progress = lambda done: None
    ) -> list[Result]:
        """Results of the integer reference, which also have ``attention``.

        `RowvitError` if the session's model is a compiled program, which the integer reference does not run.
        """
        return self._reference(images, self.checkpoints, progress)

    def _reference(
        self, images: Sequence[ImageSource], checkpoints: bool, progress: Progress = lambda done: None
    ) -> list[Result]:
        with open_target("golden", self.config, checkpoints=checkpoints, frontend=self.frontend) as golden:
            golden.load(self.source)
            return _collect(([one] for one in golden.stream(images)), progress)

    def compare(
        self,
        results: Sequence[Result],
        images: Sequence[ImageSource],
        progress: Progress = lambda done: None,
    ) -> list[Result]:
        """Compare with the integer reference, bit for bit: sets ``bit_exact`` of every result.

        Returns the integer reference's results; `RowvitError` as there.
        """
        expected = self.reference(images, progress)
        for result, one in zip(results, expected, strict=True):
            result.bit_exact = result.same(one)
        return expected

    @property
    def compared(self) -> str:
        """What `compare` and ``check_every`` compare, in words."""
        words = ["logits"] if self.meta["architecture"]["classes"] else []
        words += [
            name for name, part in (("tokens", "tokens"), ("kept tokens", "pruning")) if self.meta.get(part)
        ]
        if self.checkpoints:
            words.append(f"{len(checkpoint_names(self.meta['architecture']['depth']))} checkpoints")
        return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)

    def locate(self, image: ImageSource) -> str:
        """Where an image differs from the integer reference, once more, with the network loaded anew.

        It is computed by a program with checkpoints, so that `target.first_difference` names the half layer;
        empty if nothing differs now. `RowvitError` as of `run`, and of `reference`.
        """
        self.target.load(read_program(read_package(self.source), self.config, checkpoints=True))
        try:
            (result,) = self.target([image])
        except Difference as found:
            return found.where
        finally:
            self.target.load(self.model)
        (expected,) = self._reference([image], checkpoints=True)
        return first_difference(result, expected, self.meta)

    def statistics(self, results: Sequence[Result]) -> RunStatistics:
        """What ``rowvit run`` prints below its table."""

        def mean(name: str) -> float | None:
            values = [getattr(result, name) for result in results]
            return None if None in values else float(np.mean(values))

        config, tokens = self.config, self.meta["architecture"]["tokens"]
        alive = [(min(counts), max(counts)) for counts in zip(*(r.live for r in results), strict=True)]
        found: dict[str, Any] = {name: mean(name) for name in WORK}
        if (cycles := mean("cycles")) is not None:
            fires = float(np.mean([sum(result.layer_fires) for result in results]))  # the counter wraps
            found["cycles"] = cycles
            found["images_per_second"] = config.clock_mhz * 1e6 / cycles
            found["array_busy"] = fires / (cycles * config.rows * config.groups)
            if found["macs_executed"] is not None:
                found["array_useful"] = found["macs_executed"] / (cycles * config.macs_per_cycle)
            if self.target_name == "sim":
                found["simulation_khz"] = cycles / float(np.mean([r.seconds for r in results])) / 1e3
        if compared := [result.bit_exact for result in results if result.bit_exact is not None]:
            found |= {"bit_exact": sum(compared), "compared": len(compared)}
        return RunStatistics(len(results), [(tokens, tokens), *alive], **found)

    def record(self, files: Sequence[Path], results: Sequence[Result], seconds: float) -> dict[str, Any]:
        """Everything about a run, for JSON; ``seconds`` is its wall time."""
        config = self.config
        record: dict[str, Any] = {
            "model": self.meta.get("name") or self.meta["model"]["name"],
            "target": self.target_name,
            "frontend": self.frontend,
            "config": {"name": config.name, "hash": f"{config.hash:08X}", "clock_mhz": config.clock_mhz},
            "seconds": seconds,
        }
        if self.target_name != "golden":  # of which each image has the cycles
            record["layers"] = layer_names(self.meta)
        if "memory" in self.options:
            record["memory"] = vars(self.options["memory"])
            record["stalls"] = self.options.get("stalls", 0)
        record["images"] = [
            {
                "file": str(file),
                **{key: getattr(result, key) for key in _RECORDED},
                "probability": float(result.probabilities[result.top1]) if result.logits.size else None,
                "logits": result.logits.tolist(),
                "kept": [tokens.tolist() for tokens in result.kept],
                **({"rows": {name: v.tolist() for name, v in result.rows.items()}} if result.rows else {}),
            }
            for file, result in zip(files, results, strict=True)
        ]
        return record


def _collect(
    parts: Iterable[list[Result]], progress: Progress, into: list[Result] | None = None
) -> list[Result]:
    results = [] if into is None else into
    for part in parts:
        results += part
        progress(len(results))
    return results
