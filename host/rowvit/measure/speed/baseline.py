# SPDX-License-Identifier: Apache-2.0
"""The float network of the same architecture on this machine's CPU: PyTorch, onnxruntime, NumPy.

The weights are random (a package holds no float ones); no runtime's speed depends on them. Token pruning is
the network's own, so a pruned network drops the same number of tokens here; skipped rows of W2 have no
counterpart, since no library skips zeros.

PyTorch makes the network. Without PyTorch, onnxruntime takes a file that `save` made elsewhere; and NumPy,
which has a separate implementation of the network, runs wherever the driver does.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError, needs, writing
from rowvit.formats.description import image_keys, image_shape
from rowvit.measure.speed.numpy_network import NumpyNetwork
from rowvit.processors import allowed, processors

if TYPE_CHECKING:
    import torch

    from rowvit.model.vit import VisionTransformer

RUNTIMES = ("torch", "ort", "numpy")
KINDS = ("gated", "rotary", "pre_norm")  #: of networks, by the description
#: largest difference of logits between the runtimes, relative to the largest logit
TOLERANCE = 1e-3
#: a speed is marked where other programs ran on more than this share of the processors before the start,
MOST_LOAD = 0.5
#: where the median call took this many times as long as the fastest,
MOST_SPREAD = 1.25
#: or where the calls had less of one processor's time than this
LEAST_SHARE = 0.9


@dataclass(frozen=True)
class Speed:
    """How fast one way of running the network is; times are seconds per call."""

    runtime: str  #: "torch" (eager), "ort" (onnxruntime, CPU provider) or "numpy"
    version: str
    threads: int
    batch: int
    calls: int  #: timed, after the warm-up
    median_s: float
    fastest_s: float
    p90_s: float
    processor_share: float  #: processor time of the calls, by all threads, in their wall time
    #: largest difference of a logit from PyTorch's, relative to the largest logit; None if not compared
    difference: float | None

    @property
    def images_per_second(self) -> float:
        return self.batch / self.median_s

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "images_per_second": self.images_per_second}


def float_network(meta: dict) -> VisionTransformer:
    """A float network with the architecture and pruning of a package's or program's ``meta``."""
    with needs("the float network needs PyTorch", "torch"):
        import torch

        from rowvit.model.vit import FusedAttention, VisionTransformer, ViTConfig
    arch = meta["architecture"]
    fields = ("patch_size", "dim", "depth", "heads", "hidden", "classes", "prefix")
    # thresholds on scores depend on the data; the largest number of tokens that a step keeps stands for them
    shape = image_keys(image_shape(arch)) | {name: arch[name] for name in fields}
    kinds: dict[str, Any] = {name: name in meta for name in KINDS}
    pool = "token" if arch["prefix"] else "norm-mean"  # of no class token: there is no head
    config = ViTConfig(**shape, **kinds, pruning=tuple(meta["pruning"]), pool=pool)
    torch.manual_seed(0)
    network = VisionTransformer(config)
    for block in network.blocks:
        if block.keep is None:  # its scores are not needed
            fused = FusedAttention(config)
            fused.load_state_dict(block.attn.state_dict())
            block.attn = fused
    return network.eval()


def export(network: VisionTransformer, batch: int) -> bytes:
    """The network as ONNX for exactly ``batch`` images, including top-k by a constant count."""
    import warnings

    import torch

    class Plain(torch.nn.Module):  # the tracer refuses the network's observer argument
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images)

    file: Any = io.BytesIO()  # torch's annotation knows paths only
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # shapes become constants, as they should
        # the exporter based on torch.export would need onnxscript
        torch.onnx.export(
            Plain().eval(),
            (torch.zeros(batch, 3, *network.config.size),),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["logits"],
        )
    return file.getvalue()


def save(meta: dict, path: Path, batch: int) -> None:
    """Write the float network as ONNX for ``batch`` images, and of which network it is, for `ways`.

    Raises
    ------
    RowvitError
        PyTorch or onnx is missing, or the file cannot be written.
    """
    network = float_network(meta)
    with needs("writing ONNX needs the package onnx", "onnx"):
        import onnx
    model = onnx.load_model_from_string(export(network, batch))
    onnx.helper.set_model_props(model, {"rowvit": _described(meta)})
    with writing(path):
        path.write_bytes(model.SerializeToString())


def _described(meta: dict) -> str:
    kinds = [name for name in KINDS if name in meta]
    return json.dumps([meta["architecture"], meta["pruning"], *kinds], sort_keys=True)


@dataclass(frozen=True)
class Way:
    """A way of running the network; its first four fields are as of `Speed`."""

    runtime: str
    version: str
    threads: int
    batch: int
    #: returns a context manager with the runtime ready: a function that returns the logits of a batch
    running: Callable[[], AbstractContextManager[Callable[[], np.ndarray]]]
    expected: Callable[[], np.ndarray] | None = None  #: returns PyTorch's logits of the same images


def ways(
    meta: dict,
    runtimes: Iterable[str] = ("torch", "ort"),
    batches: Sequence[int] = (1, 16),
    threads: Sequence[int] | None = None,
) -> list[Way]:
    """What `measure` shall time; nothing runs yet, but a missing runtime is found.

    Parameters
    ----------
    meta : dict
        Description of a package or program.
    runtimes : iterable of str
        Of `RUNTIMES`, or a file that `save` wrote. NumPy uses as many threads as its BLAS chooses.
    batches : sequence of int
        Images per call; a file says its own.
    threads : sequence of int, optional
        By default one, and all processors.

    Raises
    ------
    RowvitError
        A runtime is unknown or missing, or a file is not of this network.
    """
    threads = threads or sorted({1, processors()})
    found: list[Way] = []
    for name in runtimes:
        if name.endswith(".onnx"):
            found += _ways_of_file(meta, Path(name), threads)
        elif name == "numpy":
            found += _ways_in_numpy(meta, batches)
        elif name in RUNTIMES:
            found += _ways_from_torch(meta, name, batches, threads)
        else:
            raise RowvitError(
                f"no baseline '{name}'", f"use {', '.join(RUNTIMES)} or a file of rowvit baseline"
            )
    return found


def measure(ways: Iterable[Way], seconds: float = 3.0) -> Iterator[Speed]:
    """Time the float network; one `Speed` after the other.

    Parameters
    ----------
    ways : iterable of Way
    seconds : float
        Each is called for this long, at least five times, after a warm-up of two calls.

    Raises
    ------
    RowvitError
        A runtime's logits differ from PyTorch's.
    """
    for way in ways:
        with way.running() as call:
            difference = None
            if way.expected:
                expected = way.expected()
                difference = float(np.abs(call() - expected).max() / np.abs(expected).max())
                if difference > TOLERANCE:
                    raise RowvitError(
                        f"{way.runtime} {way.version} differs from PyTorch by {difference:.1e} of the"
                        " largest logit, so its speed would be another network's"
                    )
            times, share = _time(call, seconds)
        median, fastest, p90 = (float(value) for value in np.quantile(times, [0.5, 0, 0.9]))
        yield Speed(
            *(way.runtime, way.version, way.threads, way.batch, len(times)),
            *(median, fastest, p90, share, difference),
        )


def disturbances(speeds: Sequence[dict[str, Any]], host: dict[str, Any]) -> list[str]:
    """Why each of some speeds may be another program's doing, in a phrase; empty if nothing shows it.

    Parameters
    ----------
    speeds : sequence of dict
        From `Speed.record`, of one run.
    host : dict
        From `rowvit.measure.result.host`, before the start.
    """
    load, processors = host["load"], host["processors"]
    found = []
    for speed in speeds:
        fewer = [
            other["threads"]
            for other in speeds
            if all(other[key] == speed[key] for key in ("runtime", "version", "batch"))
            and other["threads"] < speed["threads"] <= processors
            and other["fastest_s"] < speed["median_s"]
        ]
        spread = speed["median_s"] / speed["fastest_s"]
        phrases = {
            f"load {load:.1f}": load > MOST_LOAD * processors,
            f"median {spread:.2g} x fastest": spread > MOST_SPREAD,
            f"{speed['processor_share']:.0%} of a processor": speed["processor_share"] < LEAST_SHARE,
            f"slower than with {min(fewer, default=0)}": bool(fewer),
        }
        found.append(", ".join(phrase for phrase, holds in phrases.items() if holds))
    return found


def _time(call: Callable[[], np.ndarray], seconds: float) -> tuple[np.ndarray, float]:
    """Seconds of every call, and the processors' time in that of all."""
    for _ in range(2):
        call()
    times: list[float] = []
    used = time.process_time()
    while len(times) < 5 or sum(times) < seconds:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return np.array(times), (time.process_time() - used) / sum(times)


def _pixels(meta: dict, count: int) -> np.ndarray:
    shape = count, 3, *image_shape(meta["architecture"])
    return np.random.default_rng(0).standard_normal(shape, np.float32)


# -- PyTorch, and onnxruntime with what PyTorch exports -----------------------------------------


def _ways_from_torch(meta: dict, runtime: str, batches: Sequence[int], threads: Sequence[int]) -> list[Way]:
    network = float_network(meta)
    import torch

    @torch.inference_mode()
    def classify(images: torch.Tensor) -> np.ndarray:
        return network(images).numpy()

    version = torch.__version__ if runtime == "torch" else _onnxruntime().__version__
    found = []
    for batch in batches:
        pixels = _pixels(meta, batch)
        call = partial(classify, torch.from_numpy(pixels))
        expected, model = cache(call), cache(partial(export, network, batch))
        for count in threads:
            if runtime == "torch":
                running = partial(_in_torch, call, count)
            else:
                running = partial(_in_onnxruntime, model, pixels, count)
            found.append(Way(runtime, version, count, batch, running, expected))
    return found


@contextmanager
def _in_torch(classify: Callable[[], np.ndarray], threads: int) -> Iterator[Callable[[], np.ndarray]]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield classify
    finally:
        torch.set_num_threads(before)


# -- onnxruntime --------------------------------------------------------------------------------


def _ways_of_file(meta: dict, file: Path, threads: Sequence[int]) -> list[Way]:
    try:
        model = file.read_bytes()
    except OSError as error:
        raise RowvitError(f"{file}: cannot be read ({error.strerror})") from error
    session = _session(model, 1, file.name)
    if session.get_modelmeta().custom_metadata_map.get("rowvit") != _described(meta):
        raise RowvitError(
            f"{file} is not the float network of this model", f"make it with: rowvit baseline MODEL -o {file}"
        )
    batch, version = session.get_inputs()[0].shape[0], _onnxruntime().__version__
    pixels = _pixels(meta, batch)
    return [
        Way("ort", version, count, batch, partial(_in_onnxruntime, lambda: model, pixels, count))
        for count in threads
    ]


@contextmanager
def _in_onnxruntime(
    model: Callable[[], bytes], pixels: np.ndarray, threads: int
) -> Iterator[Callable[[], np.ndarray]]:
    session = _session(model(), threads)
    yield lambda: session.run(None, {"images": pixels})[0]


def _onnxruntime() -> Any:
    with needs("this baseline needs onnxruntime", "onnxruntime"):
        import onnxruntime
    return onnxruntime


def _session(model: bytes, threads: int, name: str = "the network") -> Any:
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise RowvitError(f"onnxruntime cannot read {name}: {error}") from error


# -- NumPy --------------------------------------------------------------------------------------


def _ways_in_numpy(meta: dict, batches: Sequence[int]) -> list[Way]:
    if kinds := [name for name in KINDS if name in meta]:
        raise RowvitError(
            f"the baseline numpy has no network that is {' and '.join(kinds)}", "use torch, ort or a file"
        )
    network = NumpyNetwork(meta["architecture"], meta["pruning"])
    return [
        Way("numpy", np.__version__, _blas_threads(), len(pixels), partial(_in_numpy, network, pixels))
        for pixels in (_pixels(meta, batch) for batch in batches)
    ]


def _blas_threads() -> int:
    """As many as processors, or what the variables of NumPy's BLAS say."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdecimal():
            return max(1, int(os.environ[name]))
    return allowed()  # it knows no quota


def _in_numpy(network: NumpyNetwork, pixels: np.ndarray) -> AbstractContextManager[Callable[[], np.ndarray]]:
    return nullcontext(lambda: network(pixels))
