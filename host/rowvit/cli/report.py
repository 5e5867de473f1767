# SPDX-License-Identifier: Apache-2.0
"""``rowvit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowvit.cli.common import ERR, OUT, app, sentences, writable, write


@app.command()
@sentences
def report(
    results: Annotated[list[Path], typer.Argument(help="Result files of rowvit bench and rowvit power.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    check: Annotated[
        bool, typer.Option("--check", help="Only see that each says all that a reviewer asks; write nothing.")
    ] = False,
) -> None:
    """Turn results into one HTML page with plots; two of a kind are compared.

    A result that lacks board, overlay, configuration, clock, model, data, warm-up, repetitions, instrument,
    sampling rate, idle power, temperature, versions or command line is refused.

    Examples
    --------
      rowvit report before.json after.json -o report.html

      rowvit report --check result.json
    """
    from rowvit.measure import result

    documents = {path: result.read(path) for path in results}
    if check:
        for path, document in documents.items():
            OUT.print(f"{path}: complete; {document['evidence']}", highlight=False, soft_wrap=True)
        return
    from rowvit.measure.report import page

    writable(output)
    with ERR.status("drawing"):
        text = page([(path.name, document) for path, document in documents.items()])
    write(output, text)
    OUT.print(f"{output}: {len(documents)} results", highlight=False, soft_wrap=True)
