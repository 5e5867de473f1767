# SPDX-License-Identifier: Apache-2.0
"""Rows of docs/experiments.md from what ``rowvit eval --json`` wrote.

``python benchmarks/accuracy.py "GELU float=gelu.json" "ReLU float=relu.json,cycles-relu.json" ...``: the
other rows are compared with the first, whose network may have wider FFNs. A second file gives a float
network's row the cycles of its int8 package. ``--record NAME`` keeps the rows in benchmarks/results, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from record import record

KEPT = (
    "data",
    "photos",
    "macs_executed",
    "macs_saved",
    "w2_rows_fetched",
    "w2_rows_total",
    "w2_rows_saved",
    "zeros",
)
IF_THERE = ("top5", "unlike")
HEADER = (
    "| network | top-1, % (95% interval) | change, points | million MACs (fewer) | W2 rows (fewer) | zeros"
    " after ReLU | cycles |"
)


def compared(report: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """A report, with what is saved of the work of the first row's network without pruning."""
    wider = first["hidden_neurons"] / report["hidden_neurons"]
    total = report["w2_rows_total"] * wider
    return report | {
        "macs_saved": 100 * (1 - report["macs_executed"] / first["macs_dense"]),
        "w2_rows_total": total,
        "w2_rows_saved": 100 * (1 - report["w2_rows_fetched"] / total),
    }


def row(name: str, report: dict[str, Any], first: dict[str, Any], timed: dict[str, Any]) -> str:
    """One line of the table, with the cycles of ``timed``; a set other than the first row's is named."""
    low, high = report["top1_interval_95"]
    accuracy = f"{report['top1']:.2f} ({low:.2f} to {high:.2f})"
    if report["data"] != first["data"]:
        accuracy = f"{report['top1']:.2f} on {report['data']}"
    change = f"{report['top1'] - first['top1']:+.2f}" if report["data"] == first["data"] else ""
    macs = f"{report['macs_executed'] / 1e6:.1f} ({report['macs_saved']:.1f}%)"
    fetched, total = report["w2_rows_fetched"], report["w2_rows_total"]
    rows = f"{fetched:,.0f} of {total:,.0f} ({report['w2_rows_saved']:.1f}%)"
    cycles = f"{timed['cycles']:,.0f}" if "cycles" in timed else ""
    return f"| {name} | {accuracy} | {change} | {macs} | {rows} | {report['zeros']:.1f}% | {cycles} |"


def figures(report: dict[str, Any], timed: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is kept of a row."""
    cycles = {key: value for key, value in (timed or report).items() if key == "cycles"}
    right = round(report["top1"] * report["photos"] / 100)
    more = {key: report[key] for key in IF_THERE if report.get(key) is not None}
    return {key: report[key] for key in KEPT} | more | {"right": right} | cycles


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", metavar="NAME=FILE.json[,CYCLES.json]")
    parser.add_argument("--record", metavar="NAME")
    arguments = parser.parse_args()
    pairs = [text.rpartition("=")[::2] for text in arguments.rows]
    reports = [(name, [json.loads(Path(f).read_text()) for f in files.split(",")]) for name, files in pairs]
    print(HEADER)
    print("|---" * (HEADER.count("|") - 1) + "|")
    first = reports[0][1][0]
    for name, files in reports:
        report = compared(files[0], first)
        print(row(name, report, first, files[-1]))
        if arguments.record:
            record(arguments.record, name, figures(report, files[-1]), "torch")
    print(f"\nOn {first['data']}.")


if __name__ == "__main__":
    main()
