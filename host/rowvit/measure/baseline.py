# SPDX-License-Identifier: Apache-2.0
"""The float network of the same architecture on this machine's CPU: PyTorch, onnxruntime, NumPy.

The weights are random (a package holds no float ones); neither runtime's speed depends on them. Token
pruning is the network's own, so a pruned network drops the same number of tokens here; skipped rows of W2
have no counterpart, since neither library skips zeros.

PyTorch makes the network. Where it cannot be had, onnxruntime takes a file that `save` made elsewhere; and
NumPy, whose network is its own, runs wherever the driver does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.measure.result import processors

if TYPE_CHECKING:
    from rowvit.model.vit import VisionTransformer

RUNTIMES = ("torch", "ort", "numpy")
#: greatest difference of logits between the runtimes, relative to the greatest logit
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Speed:
    """One way of running the network.

    Parameters
    ----------
    runtime : str
        "torch" (eager), "ort" (onnxruntime, CPU provider) or "numpy".
    version : str
    threads, batch : int
    calls : int
        That were timed, after the warm-up.
    median_s, fastest_s, p90_s : float
        Seconds of a call.
    difference : float or None
        Greatest difference of a logit from PyTorch's, relative to the greatest logit; None where it was not
        compared.
    """

    runtime: str
    version: str
    threads: int
    batch: int
    calls: int
    median_s: float
    fastest_s: float
    p90_s: float
    difference: float | None

    @property
    def images_per_second(self) -> float:
        return self.batch / self.median_s

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "images_per_second": self.images_per_second}


def float_network(meta: dict) -> VisionTransformer:
    """A float network with the architecture and pruning of a package's or program's ``meta``."""
    try:
        import torch

        from rowvit.model.vit import VisionTransformer, ViTConfig
    except ImportError as error:
        raise RowvitError("the float network needs PyTorch; install it with: pip install torch") from error
    arch = meta["architecture"]
    fields = ("image_size", "patch_size", "dim", "depth", "heads", "hidden", "classes", "prefix")
    # thresholds on scores depend on the data; the count that a step keeps at most stands for it
    config = ViTConfig(**{name: arch[name] for name in fields}, pruning=tuple(meta["pruning"]))
    torch.manual_seed(0)
    return VisionTransformer(config).eval()


def export(network: VisionTransformer, batch: int) -> bytes:
    """The network as ONNX for exactly ``batch`` images; top-k by a constant count is part of it."""
    import io
    import warnings

    import torch

    class Plain(torch.nn.Module):  # the tracer refuses the network's observer argument
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images)

    side, file = network.config.image_size, io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # shapes become constants, as they should
        # the exporter by torch.export would need onnxscript
        torch.onnx.export(
            Plain().eval(),
            (torch.zeros(batch, 3, side, side),),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["logits"],
        )
    return file.getvalue()


def save(meta: dict, path: Path, batch: int) -> None:
    """Write the float network as ONNX for ``batch`` images, and with it what `measure` shall compare.

    Raises
    ------
    RowvitError
        PyTorch or onnx is missing, or the file cannot be written.
    """
    network = float_network(meta)
    try:
        import onnx
    except ImportError as error:
        raise RowvitError("writing ONNX needs the package onnx; install it with: pip install onnx") from error
    model = onnx.load_model_from_string(export(network, batch))
    onnx.helper.set_model_props(model, {"rowvit": _described(meta)})
    try:
        path.write_bytes(model.SerializeToString())
    except OSError as error:
        raise RowvitError(f"{path}: cannot be written ({error.strerror})") from error


def _described(meta: dict) -> str:
    return json.dumps([meta["architecture"], meta["pruning"]], sort_keys=True)


def measure(
    meta: dict,
    runtimes: Iterable[str] = ("torch", "ort"),
    batches: Sequence[int] = (1, 16),
    threads: Sequence[int] | None = None,
    seconds: float = 3.0,
    images: np.ndarray | None = None,
) -> Iterator[Speed]:
    """Time the float network; one `Speed` after the other.

    Parameters
    ----------
    meta : dict
        Description of a package or program.
    runtimes : iterable of str
        Of `RUNTIMES`, or a file that `save` wrote. NumPy takes as many threads as its BLAS likes.
    batches : sequence of int
        Images per call; a file has its own.
    threads : sequence of int, optional
        By default one, and all processors.
    seconds : float
        Each combination is called for so long, at least five times, after a warm-up of two calls.
    images : float32 array [>= max(batches), 3, S, S], optional
        Normalised pixels; by default random ones.

    Raises
    ------
    RowvitError
        A runtime is unknown or missing, a file is not of this network, or the runtimes disagree.
    """
    runtimes = list(runtimes)
    files = [Path(name) for name in runtimes if name.endswith(".onnx")]
    runtimes = [name for name in runtimes if not name.endswith(".onnx")]
    if unknown := set(runtimes) - set(RUNTIMES):
        raise RowvitError(
            f"no baseline '{sorted(unknown)[0]}'; take {', '.join(RUNTIMES)} or a file of rowvit baseline"
        )
    if threads is None:
        threads = sorted({1, processors()})
    for file in files:
        yield from _measure_file(meta, file, threads, seconds)
    if "numpy" in runtimes:
        runtimes.remove("numpy")
        yield from _measure_numpy(meta, batches, seconds)
    if not runtimes:
        return
    network = float_network(meta)
    import torch

    if images is None:
        images = _pixels(meta, max(batches))
    before = torch.get_num_threads()
    try:
        for batch in batches:
            pixels = images[:batch]
            with torch.inference_mode():
                expected = network(torch.from_numpy(pixels)).numpy()
            model = export(network, batch) if "ort" in runtimes else b""
            for runtime in runtimes:
                for count in threads:
                    if runtime == "torch":
                        call, version = _call_torch(network, pixels, count)
                    else:
                        call, version = _call_onnxruntime(_session(model, count), pixels)
                    difference = float(np.abs(call() - expected).max() / np.abs(expected).max())
                    if difference > TOLERANCE:
                        raise RowvitError(
                            f"{runtime} {version} differs from PyTorch by {difference:.1e} of the greatest"
                            " logit; its speed would be another network's"
                        )
                    yield _speed(runtime, version, count, batch, _time(call, seconds), difference)
    finally:
        torch.set_num_threads(before)


def _measure_file(meta: dict, file: Path, threads: Sequence[int], seconds: float) -> Iterator[Speed]:
    try:
        model = file.read_bytes()
    except OSError as error:
        raise RowvitError(f"{file}: cannot be read ({error.strerror})") from error
    for count in threads:
        session = _session(model, count, file.name)
        if session.get_modelmeta().custom_metadata_map.get("rowvit") != _described(meta):
            raise RowvitError(
                f"{file} is not the float network of this model; make it with: rowvit baseline"
                f" MODEL -o {file}"
            )
        batch = session.get_inputs()[0].shape[0]
        call, version = _call_onnxruntime(session, _pixels(meta, batch))
        yield _speed("ort", version, count, batch, _time(call, seconds), None)


def _measure_numpy(meta: dict, batches: Sequence[int], seconds: float) -> Iterator[Speed]:
    from rowvit.measure.numpy_network import NumpyNetwork

    network = NumpyNetwork(meta["architecture"], meta["pruning"])
    for batch in batches:
        call = partial(network, _pixels(meta, batch))
        yield _speed("numpy", np.__version__, processors(), batch, _time(call, seconds), None)


def _pixels(meta: dict, count: int) -> np.ndarray:
    side = meta["architecture"]["image_size"]
    return np.random.default_rng(0).standard_normal((count, 3, side, side), np.float32)


def _call_torch(
    network: VisionTransformer, pixels: np.ndarray, threads: int
) -> tuple[Callable[[], np.ndarray], str]:
    """A function that classifies ``pixels``, and PyTorch's version."""
    import torch

    torch.set_num_threads(threads)
    tensor = torch.from_numpy(pixels)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return network(tensor).numpy()

    return call, torch.__version__


def _session(model: bytes, threads: int, name: str = "the network") -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RowvitError(
            "this baseline needs onnxruntime; install it with: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions have no common base class
        raise RowvitError(f"onnxruntime cannot read {name}: {error}") from error


def _call_onnxruntime(session: Any, pixels: np.ndarray) -> tuple[Callable[[], np.ndarray], str]:
    """A function that classifies ``pixels``, and onnxruntime's version."""
    import onnxruntime

    return lambda: session.run(None, {"images": pixels})[0], onnxruntime.__version__


def _time(call: Callable[[], np.ndarray], seconds: float) -> np.ndarray:
    for _ in range(2):
        call()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return np.array(times)


def _speed(
    runtime: str, version: str, threads: int, batch: int, times: np.ndarray, difference: float | None
) -> Speed:
    median, fastest, p90 = (float(value) for value in np.quantile(times, [0.5, 0, 0.9]))
    return Speed(runtime, version, threads, batch, len(times), median, fastest, p90, difference)
