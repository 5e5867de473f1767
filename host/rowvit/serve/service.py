# SPDX-License-Identifier: Apache-2.0
"""What the routes share: networks, engine, decoders, the integer reference beside them, the sensor."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from rowvit import decoding
from rowvit.decoding import AHEAD_BYTES
from rowvit.errors import RowvitError
from rowvit.measure.power.instrument import Instrument, Wanted
from rowvit.measure.power.instruments import open_instrument
from rowvit.processors import processors
from rowvit.serve.answers import Explanation, document, explain
from rowvit.serve.engine import ADDRESS, InferenceQueue, TimedResult
from rowvit.serve.lessons import PREFIX, Learned, Lesson, LessonLimits, Lessons, learned
from rowvit.serve.metrics import Metrics
from rowvit.serve.networks import Network
from rowvit.serve.photos import pixels_of
from rowvit.serve.refusal import Refusal
from rowvit.targets.golden import Golden
from rowvit.targets.target import read_program

if TYPE_CHECKING:
    from rowvit.formats.program import Program
    from rowvit.hardware.config import HardwareConfig
    from rowvit.targets.target import Target

LOG = logging.getLogger("rowvit.serve")
_EXPLAINED = 4  # explanations that may wait
_READING = 0.5  # seconds between two of the sensor
_LEARNING = 4  # lessons that may wait to learn
_NEW = 4  # more of them, of addresses of which none waits
_AWAITED = 8  # requests that may wait for one lesson
_SWEEP = 60.0  # seconds between two looks for idle lessons
_HEADER = 1 << 20  # bytes of a package besides its tensors, at most
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What one server takes."""

    queue: int = 64  #: images that may wait or be computed at once
    deadline: float = 30.0  #: seconds from a request's first byte to its answer; a request may ask for less
    body: int = 16 << 20  #: bytes of a request, also after decompression
    #: bytes of all requests that are being read or answered; 18 MB on a board of 512
    bodies: int = field(default_factory=lambda: min(64 << 20, max(16 << 20, decoding.memory()[0] // 28)))
    connections: int = 256
    lessons: LessonLimits = field(default_factory=LessonLimits)


@dataclass(frozen=True)
class Classified:
    """One picture, and what came of it."""

    network: Network
    pixels: np.ndarray  #: uint8 [H, W, 3]; the whole picture with the HLS front end
    answer: TimedResult
    said: list[str]  #: of the picture: that it has no colours, or several frames


class Service:
    """Networks on one target.

    Parameters
    ----------
    networks : mapping of str to Network
    target_name : str
        "golden", "sim" or "board".
    open_target : callable
        Opens it, as often as that is needed.
    limits : Limits, optional
    batch : int, optional
        As of `InferenceQueue`.
    patience : float, optional
        As of `InferenceQueue`; by default the deadline.
    token : str
        What a request must carry; empty: nothing.
    instrument : str
        Kind of the sensor that is read while the server runs, as of `instruments.open_instrument`.
    board : str, optional
        As PYNQ names it; None off the board.
    clock : callable
        Gives the seconds by which lessons grow idle, and wrong tokens are forgiven.
    allowed : collection of str
        Names of hosts, in lower case, by which it may be asked for, besides addresses and this computer's own
        names; pages of these hosts may use it.

    Attributes
    ----------
    lessons : Lessons
    power : str
        What the sensor measures, or why there is none.
    names : frozenset of str
        This computer's own.
    open_requests : int
        That have begun and are not answered.
    stopping : bool
        Whether the server answers what has begun, and refuses the rest.
    patience : float
        Seconds that `close` waits for the core.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        target_name: str,
        open_target: Callable[[], Target],
        limits: Limits | None = None,
        batch: int | None = None,
        patience: float | None = None,
        token: str = "",
        instrument: str = "",
        board: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        allowed: Collection[str] = (),
    ) -> None:
        self.networks, self.target_name, self.token = networks, target_name, token
        self.limits = limits or Limits()
        self.metrics = Metrics(
            lambda: self.engine, lambda: self.config.clock_mhz if target_name == "sim" else None
        )
        self.engine = InferenceQueue(
            open_target,
            networks,
            batch,
            self.limits.queue,
            patience or self.limits.deadline,
            target_name == "board",
            self.metrics.answered,
        )
        self._sensor, self.power = _sensor(instrument, board)
        self._decoders = ThreadPoolExecutor(processors(), "decoder")
        self._reference = ThreadPoolExecutor(1, "reference")
        self._teacher = ThreadPoolExecutor(1, "teacher")
        self._waiting = 0  # bytes of pixels
        self._explaining = 0
        self._learning: dict[Lesson, str] = {}  # those that learn or wait to, and for which address
        self._teaching = asyncio.Lock()  # of the one that learns
        self._goldens: WeakKeyDictionary[Network, tuple[Golden, Program | None]] = WeakKeyDictionary()
        self.lessons, self.clock = Lessons(self.limits.lessons, clock), clock
        own = socket.gethostname().lower()
        self.names, self.allowed = frozenset(("localhost", own, f"{own}.local")), frozenset(allowed)
        self.open_requests, self.stopping, self.patience = 0, False, self.limits.deadline

    @property
    def config(self) -> HardwareConfig:
        """The target's, with its clock."""
        return self.engine.target.config

    @property
    def frontend(self) -> str:
        return self.engine.target.frontend

    async def network(self, name: str, deadline: float | None = None) -> Network:
        """A network by its name, or that of a lesson by the lesson's identifier.

        `Refusal` 404 if there is none, 409 if the lesson has not learned yet, 504 if its network is still
        being compiled at the deadline.
        """
        if name.startswith(PREFIX) and name not in self.networks:
            return await self._taught(self.lessons.find(name), deadline or self.deadline())
        return self.served(name)

    def served(self, name: str) -> Network:
        """A network by its name, and no lesson's; `Refusal` 404 if there is none."""
        if name not in self.networks:
            raise Refusal(404, f"no model '{name}' is served here", f"use {', '.join(self.networks)}")
        return self.networks[name]

    def close(self) -> None:
        """Finish what waits, and close the target."""
        self.engine.stop(self.patience)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._reference.shutdown(wait=False, cancel_futures=True)
        self._teacher.shutdown(wait=False, cancel_futures=True)

    async def watch_lessons(self) -> None:
        """Forget idle lessons until cancelled."""
        while True:
            self.lessons.sweep()
            await asyncio.sleep(_SWEEP)

    async def watch_power(self) -> None:
        """Read the sensor until cancelled."""
        while self._sensor is not None:
            with suppress(OSError, ValueError):
                self.metrics.power(await self.beside(self._sensor.watts))
            await asyncio.sleep(_READING)

    # -- pictures ---------------------------------------------------------------------------------

    async def classify(self, names: Iterable[str], data: bytes, deadline: float) -> list[Classified]:
        """A picture on some networks, whose results come together.

        `Refusal` if there is no room, the data is no picture, a network is unknown, or the core fails or is
        late.
        """
        networks = [await self.network(name, deadline) for name in names]
        with self.engine.place(len(networks)) as place:
            found = [
                await self.within(deadline, self.beside(pixels_of, data, network.meta, self.frontend))
                for network in networks
            ]
            pixels = [image for image, _ in found]
            with self._room(pixels):
                answers = await asyncio.gather(
                    *(
                        self.engine.classify(network, [image], deadline, place)
                        for network, image in zip(networks, pixels, strict=True)
                    )
                )
        return [
            Classified(network, image, answer, said)
            for network, (image, said), (answer,) in zip(networks, found, answers, strict=True)
        ]

    @contextmanager
    def _room(self, pixels: Sequence[np.ndarray]) -> Iterator[None]:
        """For pixels that wait for their answers: whole pictures, with the HLS front end."""
        size = sum(image.nbytes for image in pixels)
        if self._waiting and self._waiting + size > AHEAD_BYTES:
            raise Refusal(429, "too many large pictures are here already", "try again in 1 s", 1)
        self._waiting += size
        try:
            yield
        finally:
            self._waiting -= size

    async def explain(self, one: Classified, deadline: float) -> Explanation | None:
        """What the integer reference adds; None of a compiled program, which is said of the picture.

        `Refusal` 429 while others wait for theirs, 504 after the deadline.
        """
        if one.network.package is None:
            one.said.append("attention is not known: the network is a compiled program")
            return None
        if self._explaining >= _EXPLAINED:
            raise Refusal(429, f"{_EXPLAINED} explanations are waited for already", "try again in 1 s", 1)
        self._explaining += 1
        try:
            explaining = asyncio.get_running_loop().run_in_executor(self._reference, self._explain, one)
            late = Refusal(
                504, "the integer reference was not done in time", "allow more time, or do without"
            )
            return await self.within(deadline, explaining, late)
        finally:
            self._explaining -= 1

    def _explain(self, one: Classified) -> Explanation:
        """In the one thread of the integer reference."""
        network = one.network
        if network not in self._goldens:
            golden = Golden(self.config, frontend=self.frontend)
            golden.load(network.runs)
            program = None
            if self.target_name == "golden":  # else the core counts
                with suppress(RowvitError):  # it may be too large for the configuration
                    program = read_program(network.runs, self.config, keep=network.stored)
            self._goldens[network] = golden, program
        return explain(*self._goldens[network], one.pixels)

    def document(
        self, one: Classified, explanation: Explanation | None = None, photo: str = ""
    ) -> dict[str, Any]:
        """What programs get of it; ``photo`` is the name of its file."""
        result = one.answer.result
        seconds = self.metrics.core_seconds(result.seconds, result.cycles)
        common = self.target_name, self.config, seconds, explanation
        return document(one.network, one.answer, *common, one.said, photo)

    # -- lessons ----------------------------------------------------------------------------------

    async def learn(self, lesson: Lesson, deadline: float) -> None:
        """Let a lesson learn from the photos that it has now.

        Where it waits to do so already, that will be of the photos that it has then.

        `Refusal` 409 if these are too few, 429 if others wait already, 400 if the taught network does not fit
        the core, 504 after the deadline: it then goes on, and the lesson will have learned.
        """
        lesson.require_enough()
        waiting, address = len(self._learning), ADDRESS.get()
        new = waiting < _LEARNING + _NEW and address not in self._learning.values()
        if lesson not in self._learning and waiting >= _LEARNING and not new:
            raise Refusal(429, f"{waiting} lessons wait to learn already", "try again in 1 s", 1)
        if lesson.awaited >= _AWAITED:
            raise Refusal(429, f"{_AWAITED} requests wait for this lesson to learn", "try again in 1 s", 1)
        if lesson.waiting is None:
            self._learning[lesson] = address
            lesson.learning += 1
            lesson.waiting = asyncio.ensure_future(self._learn_in_turn(lesson))
            lesson.waiting.add_done_callback(partial(self._has_learned, lesson))
        learning = lesson.waiting
        left = max(0.0, deadline - time.monotonic())
        lesson.awaited += 1
        try:
            await asyncio.wait_for(asyncio.shield(learning), left)
        except asyncio.TimeoutError as error:
            raise Refusal(
                504, "the lesson has not learned by the request's deadline, and goes on", "ask for it later"
            ) from error
        except Refusal:
            raise
        except RowvitError as error:
            raise Refusal(400, error.message, error.advice) from error
        finally:
            lesson.awaited -= 1

    async def _learn_in_turn(self, lesson: Lesson) -> Learned:
        """From the photos that there are when its turn has come."""
        async with self._teaching:
            lesson.waiting = None
            return await asyncio.get_running_loop().run_in_executor(
                self._teacher,
                learned,
                lesson.network,
                lesson.backbone,
                lesson.examples(),
                self._compiled_for,
            )

    def _has_learned(self, lesson: Lesson, learning: asyncio.Future[Learned]) -> None:
        """In the order in which lessons began, also where nobody waits any more."""
        lesson.learning -= 1
        if not lesson.learning:
            self._learning.pop(lesson, None)
        if not learning.cancelled() and learning.exception() is None:
            lesson.learned = learning.result()
            self.lessons.sweep()

    async def _taught(self, lesson: Lesson, deadline: float) -> Network:
        """The network of a lesson, compiled again if it was put away."""
        if lesson.learned is None:
            raise Refusal(409, "the lesson has not learned yet", "let it learn first")
        found = lesson.learned
        network = found.network
        if network is None:
            if found.coming is None:  # once, however many ask for it meanwhile
                found.coming = asyncio.get_running_loop().run_in_executor(
                    self._teacher, lesson.network.taught, found.package, self._compiled_for
                )
                found.coming.add_done_callback(partial(self._has_compiled, found))
            late = Refusal(504, "the lesson's network is still being compiled", "try again later")
            network = await self.within(deadline, asyncio.shield(found.coming), late)
        return network

    def _has_compiled(self, found: Learned, coming: asyncio.Future[Network]) -> None:
        found.coming = None
        if not coming.cancelled() and coming.exception() is None:
            found.network = coming.result()
            self.lessons.sweep()

    @property
    def _compiled_for(self) -> HardwareConfig | None:
        return None if self.target_name == "golden" else self.config

    def largest(self, path: str) -> int:
        """Bytes that the body of a request to a path may have: what a lesson goes on from may be a package
        that is larger than any picture.
        """
        if not path.endswith("/lessons"):
            return self.limits.body
        own, room = self.limits.lessons, 0
        for network in self.networks.values():
            if network.backbone is not None:
                package = network.backbone.package
                tensors, dim = sum(tensor.nbytes for tensor in package.tensors.values()), package.arch["dim"]
                familiar = 4 * dim * (2 * dim + own.classes)
                room = max(room, tensors + (own.photos + own.classes) * (dim + 8) + familiar + _HEADER)
        return max(self.limits.body, room)

    async def within(self, deadline: float, work: Awaitable[T], late: Refusal | None = None) -> T:
        """Wait for work, by default with a picture; ``late`` after the deadline: it is not begun any more."""
        try:
            return await asyncio.wait_for(work, max(0.0, deadline - time.monotonic()))
        except asyncio.TimeoutError as error:
            raise late or Refusal(
                504, "the picture was not decoded or drawn in time: others are before it", "allow more time"
            ) from error

    async def beside(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in a thread of the decoders."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    def deadline(self, seconds: float | None = None) -> float:
        """On the monotonic clock, for a request that begins now and asks for ``seconds``."""
        return time.monotonic() + min(seconds or self.limits.deadline, self.limits.deadline)


def _sensor(kind: str, board: str | None) -> tuple[Instrument | None, str]:
    """The instrument that can be read now, and what it measures, or why there is none."""
    if kind == "none" or (board is None and not kind):
        return None, "no power sensor"
    try:
        found = open_instrument(kind, Wanted(board=board))
        found.watts()
    except (RowvitError, OSError, ValueError) as error:
        LOG.warning("power is not shown: %s", error)
        return None, f"no power: {error}"
    return found, found.measures
