# SPDX-License-Identifier: Apache-2.0
"""``rowvit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowvit.cli.common import ERR, app, say, sentences, writable, write


@app.command()
@sentences
def report(
    results: Annotated[list[Path], typer.Argument(help="Result files of rowvit bench and rowvit power.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    check: Annotated[
        bool,
        typer.Option("--check", help="Only check that each has all that a reviewer asks; write nothing."),
    ] = False,
) -> None:
    """Turn results into one HTML page with plots; several of one kind are compared.

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
            say(f"{path}: complete; {document['evidence']}")
        return
    from rowvit.measure.report import page

    writable(output)
    with ERR.status("drawing"):
        text = page([(path.name, document) for path, document in documents.items()])
    write(output, text)
    say(f"{output}: {len(documents)} results")
