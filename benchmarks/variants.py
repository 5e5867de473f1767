# SPDX-License-Identifier: Apache-2.0
"""Ways to prune and to train with pruning, compared on held-out training photos.

    python benchmarks/variants.py train plain refit.safetensors gelu.safetensors --data CIFAR -o plain.json
    python benchmarks/variants.py table plain.json features.json ...

``train`` trains a ReLU network of 12 blocks for half an epoch by one of `VARIANTS`, with the GELU network as
the teacher, on all training photos but 5,000, and measures on those; under ``torchrun`` several processes
share each batch. Test photos are not touched. All start from the same network, seed and photos.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accuracy import figures
from record import Record, record
from torch import Tensor, nn

from rowvit.formats.package import keep_schedule
from rowvit.hardware import config as configs
from rowvit.measure.accuracy.evaluation import evaluate
from rowvit.measure.accuracy.schedules import cycles_of, pruned, stand_in
from rowvit.model import store
from rowvit.model.prune import set_ffn2, set_pruning
from rowvit.model.vit import Block, Observer, VisionTransformer
from rowvit.photos import open_data
from rowvit.train.data import Augmentation
from rowvit.train.loop import Trainer
from rowvit.train.recipe import Phase, Recipe

HELD_OUT = 5000
#: tokens left in the FFN of each block of DiffRate's DeiT-T at 0.6 GMAC: github.com/OpenGVLab/DiffRate,
#: compression_rate.json, merge_kept_num
DIFFRATE = (197, 187, 167, 139, 114, 90, 76, 66, 57, 45, 37, 3)
BASE = Phase(
    epochs=0.5,
    lr=2e-4,
    final_lr=1e-5,
    layer_decay=0.85,
    distill=0.5,
    temperature=2.0,
    row_penalty=0.2,
)
HALVES = replace(BASE, epochs=0.25)


def halved(patches: int) -> list[dict]:
    """Half of the tokens after attention of blocks 3, 6 and 9, counted from 0."""
    return keep_schedule(patches, (3, 6, 9), 0.5)


def diffrate(patches: int) -> list[dict]:
    """DiffRate's shares of the tokens, for as many patches."""
    kept = [round((tokens - 1) / 196 * patches) for tokens in DIFFRATE]
    return [{"layer": layer, "keep": keep, "threshold": 0} for layer, keep in enumerate(kept)]


def summed(model: VisionTransformer) -> None:
    """Tokens are ranked by the sum of their scores in all blocks since the last that dropped some."""
    total: Tensor | None = None

    def add(_: nn.Module, __: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal total
        total = output[1] if total is None else total + output[1]
        return output[0], total

    def dropped(module: nn.Module, _: tuple, output: tuple[Tensor, Tensor | None]) -> None:
        nonlocal total
        if output[1] is not None or module is model.blocks[-1]:
            total = None

    for block in model.blocks:
        block.attn.register_forward_hook(add)
        block.register_forward_hook(dropped)


class Fusing(Block):
    """EViT's fused token: those that are dropped go on as one, averaged by their scores."""

    def attend(
        self, x: Tensor, observe: Observer, name: str, turn: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        seen: list[tuple[Tensor, Tensor]] = []
        hook = self.attn.register_forward_hook(lambda _, __, output: seen.append(output))
        kept, rows = super().attend(x, observe, name, turn)
        hook.remove()
        if rows is None:
            return kept, rows
        y, score = seen[0]
        left = score * torch.ones_like(score).scatter(1, rows, 0.0)
        fused = (left[..., None] * (x + y)).sum(dim=1) / left.sum(dim=1, keepdim=True).clamp(min=1e-9)
        best = left.argmax(dim=1, keepdim=True)  # stands for it where tokens are counted
        return torch.cat([kept, fused[:, None]], dim=1), torch.cat([rows, best], dim=1)


def fused(model: VisionTransformer) -> None:
    """The blocks become `Fusing`."""
    for block in model.blocks:
        block.__class__ = Fusing


@dataclass(frozen=True)
class Variant:
    """What differs from half of the tokens dropped three times, with the teacher's logits."""

    what: str
    phases: tuple[Phase, ...] = (BASE,)
    schedule: Callable[[int], list[dict]] = halved
    change: Callable[[VisionTransformer], None] | None = None  #: no such thing in the accelerator


VARIANTS = {
    "plain": Variant("half of the tokens dropped after blocks 3, 6, 9; the teacher's logits"),
    "labels": Variant("no teacher", (replace(BASE, distill=0.0),)),
    "features": Variant("the teacher's logits and features", (replace(BASE, features=1.0),)),
    "summed": Variant("scores summed since the last drop", change=summed),
    "fused": Variant("dropped tokens fused into one", change=fused),
    "earlier": Variant("0.6 of them after 2, 5, 8", schedule=lambda n: keep_schedule(n, (2, 5, 8), 0.6)),
    "later": Variant("0.35 of them after 4, 7, 10", schedule=lambda n: keep_schedule(n, (4, 7, 10), 0.35)),
    "diffrate": Variant("DiffRate's schedule of DeiT-T at 0.6 GMAC", schedule=diffrate),
    "rising": Variant(
        "row penalty 0, then 0.4", (replace(HALVES, row_penalty=0.0), replace(HALVES, row_penalty=0.4))
    ),
    "steep": Variant("row penalty 0.6", (replace(BASE, row_penalty=0.6),)),
}

app = typer.Typer(help=__doc__)


@app.command()
def train(
    variant: Annotated[str, typer.Argument(help=f"One of {', '.join(VARIANTS)}.")],
    relu: Annotated[Path, typer.Argument(help="The ReLU network to start from.")],
    gelu: Annotated[Path, typer.Argument(help="The teacher.")],
    data: Annotated[Path, typer.Option(help="Labelled photos.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Its figures, for table.")],
    batch: Annotated[int, typer.Option(help="Photos per step.")] = 128,
) -> None:
    """Train and measure one variant."""
    chosen = VARIANTS[variant]
    model, card = store.load(relu)
    every = open_data(data, "train")
    seen, held = every.subset(len(every) - HELD_OUT), every.subset(HELD_OUT, skip=len(every) - HELD_OUT)
    schedule = chosen.schedule(model.config.tokens - model.config.prefix)
    set_pruning(model, schedule)
    set_ffn2(model, "image")
    if chosen.change:
        chosen.change(model)
    recipe = Recipe(chosen.phases, batch, seed=2, augmentation=Augmentation(crop=0.6, flip=True))
    trainer = Trainer(model, card, seen, recipe, output.with_suffix(".state"), store.load(gelu))
    trainer.run(lambda done, total, phase, loss: print(f"{done} of {total}, loss {loss:.3f}", flush=True))
    trainer.forget()
    if trainer.rank:
        return
    report: dict[str, Any] = {"what": chosen.what} | evaluate((model, card), held, precision="bf16").report()
    if not chosen.change:
        pixels = held.pixels(range(64), model.config.image_size, card.resize, card.crop)
        package = stand_in(model, card, pixels, "image")
        report["cycles"], _ = cycles_of(pruned(package, schedule), pixels[:8], configs.load("pynq-z2"))
    output.write_text(json.dumps(report) + "\n")


@app.command()
def table(
    files: Annotated[list[Path], typer.Argument(help="What train wrote.")], keep: Record = False
) -> None:
    """Print a Markdown table."""
    print("| variant | top-1, % (95% interval) | fewer MACs | fewer W2 rows | cycles |")
    print("| -- | -- | -- | -- | -- |")
    for file in files:
        found = json.loads(file.read_text())
        low, high = found["top1_interval_95"]
        cycles = f"{found['cycles']:,.0f}" if "cycles" in found else ""
        top1 = f"{found['top1']:.2f} ({low:.2f} to {high:.2f})"
        saved = f"{found['macs_saved']:.1f}% | {found['w2_rows_saved']:.1f}%"
        print(f"| {found['what']} | {top1} | {saved} | {cycles} |")
        if keep:
            record("variants", found["what"], figures(found), "torch")


if __name__ == "__main__":
    app()
