# SPDX-License-Identifier: Apache-2.0
"""Runs the notebooks on the simulated accelerator; as a program, stores their outputs in them.

python tests/notebooks/execute.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import rowvit.notebooks
from rowvit.hardware import config as configs
from rowvit.sim.verilate import build

FOLDER = Path(rowvit.notebooks.__file__).parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in ``folder``; an error in a cell is raised here."""
    build(configs.load("pynq-z2"))  # minutes if nothing else has done it; not counted in the notebook's time
    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    resources = {"metadata": {"path": folder}}
    patience = dict(timeout=1800, startup_timeout=1800)
    client = NotebookClient(
        notebook, **patience, kernel_name="python3", resources=resources, record_timing=False
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(metadata)  # without this machine's version of Python
    for cell in notebook.cells:
        if cell.cell_type == "code":  # PYNQ's import leaves scripts
            cell.outputs = [o for o in cell.outputs if "application/javascript" not in o.get("data", {})]
    return notebook


def main() -> None:
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run(path, Path(folder)), path)
        print(path.name)


if __name__ == "__main__":
    main()
