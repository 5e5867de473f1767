# SPDX-License-Identifier: Apache-2.0
"""The folder for a board without internet: what is in it, and that it installs without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

import pytest
from waiting import HANG

from rowvit.errors import RowvitError
from rowvit.hardware.block_design import board
from rowvit.pynq import UNPINNED
from standins import ROOT

spec = importlib.util.spec_from_file_location("bundle", ROOT / "bitstreams/bundle.py")
bundle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bundle)
#: Python of the tests
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_an_overlay_that_is_not_there(tmp_path):
    with pytest.raises(RowvitError, match=r"pynq-z2\.bit does not exist; run make bitstream BOARD=Pynq-Z2"):
        bundle.bundle(board("Pynq-Z2"), tmp_path / "rowvit-pynq-z2.bit", tmp_path / "out")
    (tmp_path / "rowvit-pynq-z2-lite.bit").touch()
    with pytest.raises(RowvitError, match=r"same CONFIG and FRONTEND; there is rowvit-pynq-z2-lite$"):
        bundle.bundle(board("Pynq-Z2"), tmp_path / "rowvit-pynq-z2.bit", tmp_path / "out")


def test_an_overlay_that_is_not_what_was_built(tmp_path, monkeypatch):
    """Before anything is fetched."""
    for suffix, text in ((".bit", "bits"), (".hwh", "handoff"), (".json", "{}")):
        (tmp_path / f"rowvit-pynq-z2{suffix}").write_text(text)
    monkeypatch.setattr(bundle, "pip", lambda *arguments: pytest.fail("it is not looked at"))
    with pytest.raises(RowvitError, match=r"rowvit-pynq-z2\.json"):
        bundle.bundle(board("Pynq-Z2"), tmp_path / "rowvit-pynq-z2.bit", tmp_path / "out")


def test_a_folder_that_was_damaged_on_its_way(tmp_path):
    """Nothing of it is run."""
    script = tmp_path / "install.sh"
    script.write_text(bundle.INSTALL.replace("@PYTHONS@", THIS))
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    sums = [f"{bundle.provenance.sha256(tmp_path / name)}  {name}\n" for name in ("install.sh", "photo.jpg")]
    (tmp_path / "SHA256SUMS").write_text("".join(sums))
    (tmp_path / "photo.jpg").write_bytes(b"damaged")
    environment = os.environ | {"PYTHON": "/bin/false"}
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=HANG, env=environment)
    assert done.returncode == 1 and "photo.jpg: FAILED" in done.stdout and "Python" not in done.stderr


def test_make_without_a_board():
    done = subprocess.run(["make", "board-bundle"], cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 2 and done.stderr.startswith("rowvit: name a board")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "python"), [("Pynq-Z2", "3.10"), ("KV260", "3.10"), ("KV260", "3.12"), ("Pynq-Z2", THIS)]
)
def test_installs_without_a_network(tmp_path, monkeypatch, name, python):
    """In an empty environment of the image's Python, with only what the image brings installed before.

    Building the bundle and that environment needs the network; installing from the bundle has none.
    """
    interpreter = next(
        (
            path
            for path in (shutil.which(f"python{python}"), *_pyenv(python))
            if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0
        ),
        None,
    )
    if interpreter is None:
        pytest.skip(f"needs Python {python}")
    if python == THIS:  # no image's, but always there
        monkeypatch.setattr(bundle, "PYTHONS", {kind: (THIS,) for kind in bundle.PYTHONS})
    made = bundle.bundle(board(name), None, tmp_path / "bundles")
    with tarfile.open(made) as archive:
        archive.extractall(tmp_path / "board")
    folder = tmp_path / "board" / f"rowvit-{name}"
    wheels = sorted(path.name for path in (folder / "wheels").iterdir())
    assert all(wheel.endswith("none-any.whl") for wheel in wheels), wheels
    assert not any(wheel.startswith(("numpy", "pandas", "pillow")) for wheel in wheels)

    image = tmp_path / "image"
    subprocess.run([interpreter, "-m", "venv", image], check=True, timeout=HANG)
    brings = [
        "numpy==1.21.5" if python == "3.10" else "numpy==1.26.4",
        "pillow",
        "setuptools<=80",
        "pycparser<3",
        "jinja2",
        *("pynqmetadata", "cffi", "nest_asyncio", "tqdm", "python-magic"),
    ]
    pip = [image / "bin/python", "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *brings, "wheel"], check=True, timeout=HANG)
    # as images do: what it asks for cannot be installed on ARM
    subprocess.run([*pip, "--no-deps", *UNPINNED], check=True, timeout=HANG)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHON": str(image / "bin/python"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/",  # nothing answers there
        "PIP_CONFIG_FILE": os.devnull,
    }
    command = ["sh", str(folder / "install.sh")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=environment)
    assert done.returncode == 0, done.stderr
    # classifies a photo with the reference: everything that the core imports is there
    run = [image / "bin/rowvit", "run", "sign-digits", folder / "photo.jpg", "--target", "golden"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=HANG, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and "photo.jpg" in done.stdout, done.stderr
    _serves(image / "bin/rowvit", folder / "photo.jpg", environment)

    (folder / "photo.jpg").write_bytes(b"damaged")
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=environment)
    assert done.returncode != 0 and "photo.jpg" in done.stdout + done.stderr


def test_a_second_bundle_takes_the_place_of_the_first(tmp_path):
    """Its rowvit is installed though it has the version that is there; nothing of another stays."""
    (tmp_path / "wheels").mkdir()
    script, wheel = tmp_path / "install.sh", tmp_path / "wheels" / "rowvit-0.1.0-py3-none-any.whl"
    script.write_text(bundle.INSTALL.replace("@PYTHONS@", THIS))
    for file in (wheel, tmp_path / "rowvit-pynq-z2.bit"):
        file.write_bytes(b"of this bundle")
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    sums = [f"{bundle.provenance.sha256(path)}  {path.relative_to(tmp_path)}\n" for path in files]
    (tmp_path / "SHA256SUMS").write_text("".join(sums))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    python.chmod(0o755)

    def install() -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHON": str(python)}
        return subprocess.run(["sh", script], capture_output=True, text=True, timeout=HANG, env=environment)

    done = install()
    assert done.returncode == 0 and f"  cd {tmp_path} " in done.stdout, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert f"-m pip install --no-index --no-deps --force-reinstall {wheel.relative_to(tmp_path)}\n" in calls
    for name in ("rowvit-pynq-z2-lite.bit", "wheels/rowvit-0.0.9-py3-none-any.whl"):
        (tmp_path / name).touch()
        done = install()
        assert done.returncode == 1 and f"rowvit: {name} is here, but not of this bundle" in done.stderr
        (tmp_path / name).unlink()
    assert install().returncode == 0


def test_a_folder_for_another_python_says_so(tmp_path):
    script = tmp_path / "install.sh"
    script.write_text(bundle.INSTALL.replace("@PYTHONS@", "2.7"))
    (tmp_path / "SHA256SUMS").write_text(f"{bundle.provenance.sha256(script)}  install.sh\n")
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=HANG, env=environment)
    assert done.returncode == 1
    assert "this folder is for Python 2.7, this is 3." in done.stderr


def _serves(rowvit: Path, photo: Path, environment: dict[str, str]) -> None:
    """The live page's server runs on what was installed, and is stopped."""
    command = [rowvit, "serve", "sign-digits", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            address = server.stderr.readline().split()[-1]  # once the target is open
            with urllib.request.urlopen(
                f"{address}models/sign-digits/classify", photo.read_bytes()
            ) as answer:
                assert json.load(answer)["label"] == "3"
        finally:
            server.terminate()


def _pyenv(python: str) -> list[str]:
    """Interpreters of a version that pyenv keeps."""
    return sorted(map(str, (Path.home() / ".pyenv/versions").glob(f"{python}.*/bin/python")))
