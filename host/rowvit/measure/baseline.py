# SPDX-License-Identifier: Apache-2.0
"""The float network of the same architecture on this machine's CPU: PyTorch and onnxruntime.

The weights are random (a package holds no float ones); neither runtime's speed depends on them. Token
pruning is the network's own, so a pruned network drops the same number of tokens here; skipped rows of W2
have no counterpart, since neither library skips zeros.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.measure.result import processors

if TYPE_CHECKING:
    from rowvit.model.vit import VisionTransformer

RUNTIMES = ("torch", "ort")
#: greatest difference of logits between the runtimes, relative to the greatest logit
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Speed:
    """One way of running the network.

    Parameters
    ----------
    runtime : str
        "torch" (eager) or "ort" (onnxruntime, CPU provider).
    version : str
    threads, batch : int
    passes : int
        Timed calls, after the warm-up.
    median, fastest, p90 : float
        Seconds of a call.
    difference : float
        Greatest difference of a logit from PyTorch's, relative to the greatest logit.
    """

    runtime: str
    version: str
    threads: int
    batch: int
    passes: int
    median: float
    fastest: float
    p90: float
    difference: float

    @property
    def images_per_second(self) -> float:
        return self.batch / self.median

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
    fields = ("image_size", "patch_size", "dim", "depth", "heads", "hidden", "classes")
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


def measure(
    meta: dict,
    runtimes: Iterable[str] = RUNTIMES,
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
        Of `RUNTIMES`.
    batches : sequence of int
        Images per call.
    threads : sequence of int, optional
        By default one, and all processors.
    seconds : float
        Each combination is called for so long, at least five times, after a warm-up of two calls.
    images : float32 array [>= max(batches), 3, S, S], optional
        Normalised pixels; by default random ones.

    Raises
    ------
    RowvitError
        A runtime is unknown or missing, or the runtimes disagree.
    """
    runtimes = list(runtimes)
    if unknown := set(runtimes) - set(RUNTIMES):
        raise RowvitError(f"no baseline '{sorted(unknown)[0]}'; take {' or '.join(RUNTIMES)}")
    network = float_network(meta)
    import torch

    if threads is None:
        threads = sorted({1, processors()})
    side = network.config.image_size
    if images is None:
        images = np.random.default_rng(0).standard_normal((max(batches), 3, side, side), np.float32)
    before = torch.get_num_threads()
    try:
        for batch in batches:
            pixels = images[:batch]
            with torch.inference_mode():
                expected = network(torch.from_numpy(pixels)).numpy()
            model = export(network, batch) if "ort" in runtimes else b""
            for runtime in runtimes:
                for count in threads:
                    call, version = _call(runtime, network, model, pixels, count)
                    difference = float(np.abs(call() - expected).max() / np.abs(expected).max())
                    if difference > TOLERANCE:
                        raise RowvitError(
                            f"{runtime} {version} differs from PyTorch by {difference:.1e} of the greatest"
                            " logit; its speed would be another network's"
                        )
                    times = _time(call, seconds)
                    yield Speed(
                        runtime,
                        version,
                        count,
                        batch,
                        len(times),
                        float(np.median(times)),
                        float(times.min()),
                        float(np.quantile(times, 0.9)),
                        difference,
                    )
    finally:
        torch.set_num_threads(before)


def _call(
    runtime: str, network: VisionTransformer, model: bytes, pixels: np.ndarray, threads: int
) -> tuple[Callable[[], np.ndarray], str]:
    """A function that classifies ``pixels``, and the runtime's version."""
    import torch

    if runtime == "torch":
        torch.set_num_threads(threads)
        tensor = torch.from_numpy(pixels)

        def by_torch() -> np.ndarray:
            with torch.inference_mode():
                return network(tensor).numpy()

        return by_torch, torch.__version__
    try:
        import onnxruntime
    except ImportError as error:
        raise RowvitError(
            "this baseline needs onnxruntime; install it with: pip install onnx onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
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
