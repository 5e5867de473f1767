# SPDX-License-Identifier: Apache-2.0
"""Prebuilt overlays: the manifest, downloads from a server in this process, and ``rowvit overlays``."""

from __future__ import annotations

import errno
import socket
import threading
import time
from dataclasses import fields
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from overlays import built
from typer.testing import CliRunner

from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.formats import provenance
from rowvit.overlay import prebuilt

NAME = "rowvit-tiny"
CONTENT = {f"{NAME}.bit": bytes(range(256)) * 1000, f"{NAME}.hwh": b"<EDKSYSTEM/>"}


def overlay(directory: Path, **changes) -> provenance.Provenance:
    """The overlay's files in a directory, and what its build said."""
    directory.mkdir(exist_ok=True)
    for name, data in CONTENT.items():
        (directory / name).write_bytes(data)
    return built(directory / f"{NAME}.bit", **changes)


class Server:
    """Serves a directory; ``pause`` seconds come between the chunks of a file."""

    def __init__(self, directory: Path) -> None:
        self.pause, self.cut = 0.0, False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                file = directory / self.path.strip("/")
                if not file.is_file():
                    self.send_error(404)
                    return
                data = file.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    for i in range(0, len(data) // 2 if outer.cut else len(data), 4096):
                        self.wfile.write(data[i : i + 4096])
                        time.sleep(outer.pause)
                except ConnectionError:
                    pass

            def log_message(self, *_) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def remote(tmp_path):
    """A directory on a server, and the manifest that describes it."""
    overlay(tmp_path / "remote")
    server = Server(tmp_path / "remote")
    server.manifest = tmp_path / "overlays.toml"

    def write(**changes: str) -> None:
        files = []
        for file in sorted((tmp_path / "remote").iterdir()):
            entry = {
                "url": f'"{server.url}/{file.name}"',
                "sha256": f'"{provenance.sha256(file)}"',
                "bytes": str(file.stat().st_size),
            }
            if file.suffix == ".bit":
                entry |= changes
            files.append("{" + ", ".join(f"{key} = {value}" for key, value in entry.items()) + "}")
        server.manifest.write_text(
            f'[[overlays]]\nname = "{NAME}"\nboard = "Pynq-Z2"\nconfiguration = "tiny"\n'
            f"files = [{', '.join(files)}]\n"
        )

    server.write = write
    write()
    yield server
    server.http.shutdown()
    server.http.server_close()


def rowvit(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["overlays", *map(str, arguments)], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_none_exist_yet():
    assert prebuilt.manifest() == []
    code, text = rowvit("list")
    assert code == 0
    assert "There are no prebuilt overlays yet. Build one with Vivado: make bitstream" in text
    code, text = rowvit("fetch", NAME)
    assert code == 2
    assert f"no prebuilt overlay '{NAME}'; there are none yet: make bitstream" in text


def test_list_fetch_verify(remote, tmp_path):
    code, text = rowvit("list", "--manifest", remote.manifest)
    assert code == 0
    assert text.split() == ["name", "board", "configuration", "MB", "rowvit-tiny", "Pynq-Z2", "tiny", "0.3"]
    code, text = rowvit("fetch", NAME, "--manifest", remote.manifest, "--to", tmp_path / "here")
    assert code == 0, text
    for name, data in CONTENT.items():
        assert (tmp_path / "here" / name).read_bytes() == data
    assert len(list((tmp_path / "here").iterdir())) == 3
    code, text = rowvit("verify", tmp_path / "here")
    assert code == 0
    assert "tiny, hash 61098B35, host front end" in text
    assert "setup 0.1 ns" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": '"' + "0" * 64 + '"'}, r"is not the file of the manifest \(256,000 bytes of 256,000"),
        ({"bytes": "255999"}, r"is not the file of the manifest \(256,000 bytes of 255,999"),
        ({"bytes": "256001"}, r"is not the file of the manifest \(256,000 bytes of 256,001"),
        ({"url": f'"http://127.0.0.1:1/{NAME}.bit"'}, "cannot be fetched: .*refused"),
    ],
)
def test_wrong_downloads(remote, tmp_path, changes, message):
    remote.write(**changes)
    (entry,) = prebuilt.manifest(remote.manifest)
    with pytest.raises(RowvitError, match=message):
        prebuilt.fetch(entry, tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_missing_cut_and_slow_downloads(remote, tmp_path):
    (entry,) = prebuilt.manifest(remote.manifest)
    remote.cut = True
    with pytest.raises(RowvitError, match=r"is not the file of the manifest|cannot be fetched"):
        prebuilt.fetch(entry, tmp_path / "here")
    remote.cut, remote.pause = False, 0.2
    with pytest.raises(RowvitError, match=r"did not arrive within 0\.5 s; try again, or allow more"):
        prebuilt.fetch(entry, tmp_path / "here", seconds=0.5)
    remote.pause = 0
    (tmp_path / "remote" / f"{NAME}.hwh").unlink()
    with pytest.raises(RowvitError, match="cannot be fetched: Not Found"):
        prebuilt.fetch(entry, tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_a_network_that_breaks_off(remote, tmp_path, monkeypatch):
    """It is not the folder that is at fault."""

    def lost(self, size):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(HTTPResponse, "read1", lost)
    (entry,) = prebuilt.manifest(remote.manifest)
    with pytest.raises(RowvitError, match=r"\.bit cannot be fetched: No route to host; try again"):
        prebuilt.fetch(entry, tmp_path / "here")


@pytest.mark.parametrize(
    "answer", [b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut"]
)
def test_servers_that_speak_no_http(remote, tmp_path, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answers() -> None:
            with server.accept()[0] as asked:
                asked.recv(4096)
                asked.sendall(answer)

        threading.Thread(target=answers, daemon=True).start()
        remote.write(url=f'"http://127.0.0.1:{server.getsockname()[1]}/{NAME}.bit"')
        (entry,) = prebuilt.manifest(remote.manifest)
        with pytest.raises(RowvitError, match=r"\.bit cannot be fetched: .*; try again"):
            prebuilt.fetch(entry, tmp_path / "here")


def test_an_older_overlay_stays_if_the_new_one_fails(remote, tmp_path):
    (entry,) = prebuilt.manifest(remote.manifest)
    prebuilt.fetch(entry, tmp_path / "here")
    remote.write(sha256='"' + "0" * 64 + '"')
    (entry,) = prebuilt.manifest(remote.manifest)
    with pytest.raises(RowvitError):
        prebuilt.fetch(entry, tmp_path / "here")
    assert provenance.verify(tmp_path / "here")


def test_downloads_that_contradict_their_provenance(remote, tmp_path):
    overlay(tmp_path / "remote", config_hash="00000000")
    remote.write()
    (entry,) = prebuilt.manifest(remote.manifest)
    with pytest.raises(RowvitError, match="makes hash 61098B35, not 00000000"):
        prebuilt.fetch(entry, tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[overlays", "is not a manifest of overlays"),
        ('[[overlays]]\nname = "a"', "is not a manifest of overlays: 'files'"),
        ('[[overlays]]\nname = "a"\nfiles = []', "is not a manifest of overlays: .*missing"),
        (
            '[[overlays]]\nname = "a"\nboard = "b"\nconfiguration = "c"\nfiles = []',
            "'a' needs its .bit, .hwh and .json",
        ),
        (
            '[[overlays]]\nname = "a"\nboard = "b"\nconfiguration = "c"\n'
            'files = [{url = "file:///etc/a.bit", sha256 = "", bytes = 1}]',
            "is not an http or https address",
        ),
    ],
)
def test_wrong_manifests(tmp_path, text, message):
    path = tmp_path / "overlays.toml"
    path.write_text(text)
    with pytest.raises(RowvitError, match=message):
        prebuilt.manifest(path)
    path.write_bytes(b"\xff")
    with pytest.raises(RowvitError, match="is not a manifest of overlays: 'utf-8'"):
        prebuilt.manifest(path)
    with pytest.raises(RowvitError, match="cannot be read"):
        prebuilt.manifest(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / f"{NAME}.bit").write_bytes(b"other"), r"is not the file of .*json \(SHA-256\)"),
        (lambda at: (at / f"{NAME}.hwh").unlink(), "hwh is missing; copy it from the build"),
        (lambda at: (at / f"{NAME}.json").unlink(), "json cannot be read"),
        (lambda at: (at / f"{NAME}.json").write_text("{"), "json is not JSON"),
        (lambda at: (at / f"{NAME}.json").write_text("{}"), "is not the provenance of an overlay"),
        (lambda at: (at / f"{NAME}.json").write_text("[" * 200_000), "json is not JSON .*nested too deeply"),
        (lambda at: overlay(at, files=None), r"is not the provenance .*data\.files must be object"),
        (
            lambda at: overlay(at, revision=7),
            r"is not the provenance .*revision must be string or null",
        ),
        (lambda at: overlay(at, files={}), "json does not name rowvit-tiny.bit"),
        (lambda at: overlay(at, structure={"rows": 1}), "other fields than this version's"),
        (
            lambda at: overlay(at, configuration="pynq-z2"),
            r"was built from another 'pynq-z2' \(hash 61098B35\) than this version's.*0123456789abcdef",
        ),
    ],
)
def test_verify(tmp_path, change, message):
    overlay(tmp_path / "built")
    change(tmp_path / "built")
    with pytest.raises(RowvitError, match=message):
        provenance.verify(tmp_path / "built" / f"{NAME}.bit")


def test_the_schema_knows_every_field():
    assert {field.name for field in fields(provenance.Provenance)} == set(provenance._PROPERTIES)


def test_verify_needs_overlays(tmp_path):
    with pytest.raises(RowvitError, match=r"holds no \.bit"):
        provenance.verify(tmp_path)
    with pytest.raises(RowvitError, match=r"name a .bit, .hwh or .json"):
        provenance.verify(tmp_path / "readme.txt")
