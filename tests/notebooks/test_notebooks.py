# SPDX-License-Identifier: Apache-2.0
"""The notebooks run on the simulated accelerator, and PYNQ delivers them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from execute import FOLDER, NOTEBOOKS, run
from waiting import HANG


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def stored(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / name, as_version=4)


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_their_outputs(path):
    """Those of one run from top to bottom, without the machine's own."""
    notebook = stored(path.name)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert printed(notebook) and pictures(notebook) and path.stat().st_size < 300_000
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert "stderr" not in {output.get("name") for output in outputs}
    assert notebook.metadata.language_info == {"name": "python"}


def test_classify(tmp_path):
    notebook = run(FOLDER / "1_classify.ipynb", tmp_path)
    text = printed(notebook)
    assert "'pynq-z2' on sim" in text
    assert "197 > 99 > 50 > 26" in text
    assert re.search(r"(\d)\n(\d)\n\1\n\2\nGerman-shepherd-dog_1: ", text)  # stream and stream_async
    assert re.search(r"^moose: .* \(.* \d+%, .*\)$", text, re.MULTILINE)
    assert text == printed(stored("1_classify.ipynb"))
    assert pictures(notebook) == 1


def test_pruned_tokens(tmp_path):
    notebook = run(FOLDER / "2_pruned_tokens.ipynb", tmp_path)
    assert "6 layers, 197 tokens; layer 1 keeps 98, layer 3 keeps 49, layer 4 keeps 25" in printed(notebook)
    assert printed(notebook) == printed(stored("2_pruned_tokens.ipynb"))
    assert pictures(notebook) == 2


@pytest.mark.slow
def test_throughput_and_power(tmp_path):
    notebook = run(FOLDER / "3_throughput_and_power.ipynb", tmp_path)
    text = printed(notebook)
    assert text.startswith("simulated cycles at the core's clock; nothing was measured on a board\n")
    assert "no power sensor here: nothing was measured" in text
    assert pictures(notebook) == 1


def test_features(tmp_path):
    notebook = run(FOLDER / "4_features.ipynb", tmp_path)
    assert "8 of 8 nearest neighbours show the same digit" in printed(notebook)
    assert printed(notebook) == printed(stored("4_features.ipynb"))
    assert pictures(notebook) == 1


def test_teach(tmp_path):
    notebook = run(FOLDER / "5_teach.ipynb", tmp_path)
    text = printed(notebook)
    digits = re.findall(r"digit (\d): (even|odd)\n", text)
    assert len(digits) == 2 and all(label == ("even", "odd")[int(digit) % 2] for digit, label in digits)
    assert text == printed(stored("5_teach.ipynb"))
    assert pictures(notebook) == 1


def test_pynq_delivers_them(tmp_path):
    """``pynq get-notebooks`` finds the entry point, as installed, and copies the notebooks."""
    command = [str(Path(sys.executable).with_name("pynq")), "get-notebooks"]
    environment = {**os.environ, "PYTHONPATH": ""}
    listed = subprocess.run([*command, "--list"], env=environment, capture_output=True, text=True, check=True)
    assert "rowvit (source: rowvit)" in listed.stdout
    command += ["rowvit", "--ignore-overlays", "--path", str(tmp_path)]
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=HANG)
    delivered = sorted(path.name for path in (tmp_path / "rowvit").glob("*.ipynb"))
    assert delivered == [path.name for path in NOTEBOOKS]
