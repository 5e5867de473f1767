# SPDX-License-Identifier: Apache-2.0
"""``rowvit features``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from rowvit.cli import options as opt
from rowvit.cli.common import ERR, Terminated, answered, command, progress_bar, require_suffix, say, wrote
from rowvit.errors import RowvitError, replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rowvit.targets.target import Result


@command()
def features(
    model: opt.ModelArgument,
    images: opt.PicturesArgument,
    *,
    recursive: opt.RecursiveOption = False,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The .npz: values [B, N, D], indices [B, N], files [B], model, and what heads of rows say.",
        ),
    ],
    behind: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="LAYER", help="The layer behind which, from 0; by default the last that there is."
        ),
    ] = None,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense", help="Drop no tokens: a package with all tokens has every patch's, for more cycles."
        ),
    ] = False,
    target: opt.AnswersOption,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    check_every: opt.CheckEveryOption = None,
    batch: opt.BatchOption = 1,
    jobs: opt.JobsOption = 0,
    bitstream: opt.BitstreamOption = None,
) -> None:
    """Compute features: the tokens of images behind the last LayerNorm, for search, clusters or own heads.

    Of a package with classes they are what its head sees; one that was made with rowvit quantise --tokens
    answers behind other layers, too, or without classes. Values are float32; indices are the tokens' numbers,
    the class token's 0, and -1 where an image has fewer than others. What pruning has dropped is not among
    them. A network with heads for each of some tokens gives row_indices, row_scores [B, rows, names],
    row_names, and row_boxes [B, rows, 4], if it has boxes. What there is when Ctrl-C or SIGTERM stops it goes
    to a file beside the other: FILE.partial.npz.

    Examples
    --------
      rowvit features sign-digits photos/ -o features.npz

      rowvit features vit-int8.safetensors photos/ --target sim -o features.npz
    """
    from rowvit.formats.package import ModelPackage
    from rowvit.targets.features import layer_of
    from rowvit.targets.session import Session, image_files
    from rowvit.targets.target import read_model, read_package

    require_suffix(output, ".npz")
    source: Any = read_model(model)
    if isinstance(source, ModelPackage):
        source = source.with_tokens()
    if dense:
        package = read_package(source)
        source = ModelPackage(package.meta | {"pruning": []}, package.tensors)
    options = opt.target_options(target, bitstream, check_every=check_every)
    with Session(source, target.value, config, **options) as session:
        layer_of(session.meta, behind)
        files = image_files(images, lambda text: say(text, ERR), recursive)
        session.prepare(len(files), batch, jobs)
        refused: dict[int, RowvitError] = {}
        results: list[Result] = []
        try:
            with progress_bar(f"{len(files)} image{'s' * (len(files) > 1)}", len(files)) as progress:
                session.run(files, batch, jobs, progress, refused.__setitem__, results)
        except (KeyboardInterrupt, Terminated):
            if results:  # beside a whole file of before, which scripts take for done
                there = answered(files, refused)[: len(results)]
                _write(output.with_suffix(".partial.npz"), there, results, session.meta, behind)
                say(f"stopped: the first {len(there)} of {len(files)} images", ERR)
            raise
        _write(output, answered(files, refused), results, session.meta, behind)
    if refused:
        raise typer.Exit(1)


def _write(
    output: Path, files: list[Path], results: list[Result], meta: Mapping[str, Any], behind: int | None
) -> None:
    """The .npz, and a line that says so; ``meta``: the network's."""
    from rowvit.targets.features import features as stacked
    from rowvit.targets.features import row_arrays

    found = stacked([result.tokens for result in results], meta, behind)
    arrays = {"values": found.values, "indices": found.indices, "files": np.array(list(map(str, files)))}
    if rows := row_arrays([result.rows for result in results]):
        arrays |= {f"row_{name}": array for name, array in rows.items()}
        arrays["row_names"] = np.array(meta["row_heads"]["names"])
    arrays["model"] = np.array(meta.get("name") or meta["model"]["name"])
    with replacing(output) as part, part.open("wb") as file:
        np.savez(file, **arrays)
    shape = " x ".join(map(str, found.values.shape))
    wrote(output)
    say(f"{shape}: images, tokens, channels", ERR)
