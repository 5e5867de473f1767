# SPDX-License-Identifier: Apache-2.0
"""Rows of docs/results.md from what ``rowvit eval --json`` wrote.

``python benchmarks/accuracy.py "GELU float=gelu.json" "ReLU float=relu.json,cycles-relu.json" ...``: the
other rows are compared with the first. A second file gives a float network's row the cycles of its int8
package.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HEADER = (
    "| network | top-1, % (95% interval) | change, points | million MACs (fewer) | W2 rows (fewer) | zeros"
    " after ReLU | cycles |"
)


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", metavar="NAME=FILE.json[,CYCLES.json]")
    pairs = [text.rpartition("=")[::2] for text in parser.parse_args().rows]
    reports = [(name, [json.loads(Path(f).read_text()) for f in files.split(",")]) for name, files in pairs]
    print(HEADER)
    print("|---" * (HEADER.count("|") - 1) + "|")
    first = reports[0][1][0]
    for name, files in reports:
        print(row(name, files[0], first, files[-1]))
    print(f"\nOn {first['data']}.")


if __name__ == "__main__":
    main()
