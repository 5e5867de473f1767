# SPDX-License-Identifier: Apache-2.0
"""The command: names of networks, who may listen where, the token, and how it ends."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

import rowvit
from rowvit.cli import app
from rowvit.cli import serve as commands
from rowvit.serve import certificate, server, service
from rowvit.sim.device import MemoryModel


@pytest.fixture
def serve(monkeypatch):
    """Runs the command as far as the server: what was said, and the service, if it came to that."""
    monkeypatch.setattr(commands, "_log_lines", lambda: None)  # of this process, for the tests that follow
    started = []

    def run(service, listener, ready, certificate):
        started.append((service, listener.getsockname()))
        command.certificate = certificate
        ready()

    monkeypatch.setattr(server, "run", run)

    def command(*arguments: object, code: int = 0):
        result = CliRunner().invoke(app, ["serve", *map(str, arguments), "--port", "0"])
        assert result.exit_code == code, result.output
        return " ".join(result.output.split()), started[-1] if started else None

    return command


def test_this_computer_needs_no_token(serve, files):
    said, (service, address) = serve(files["small"], f"other={files['small']}")
    assert address[0] == "127.0.0.1" and service.token == ""
    assert said.endswith(f"small, other on golden: http://localhost:{address[1]}/")


def test_teaching_can_be_switched_off(serve):
    for options, taught in ((), True), (("--no-teach",), False):
        _, (service, _) = serve("sign-digits", *options)
        assert (service.networks["sign-digits"].backbone is not None) == taught


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_strangers_need_a_token(serve, files, host):
    said, (service, _) = serve(files["small"], "--host", host)
    assert len(service.token) >= 16 and f"/?token={service.token}" in said
    _, (again, _) = serve(files["small"], "--host", host)
    assert again.token != service.token


def test_a_token_of_ones_own(serve, files, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    _, (service, _) = serve(files["small"], "--token-file", file)
    assert service.token == "0123456789abcdef"
    monkeypatch.setenv("ROWVIT_TOKEN", "fedcba9876543210")
    _, (service, _) = serve(files["small"], "--host", "0.0.0.0")
    assert service.token == "fedcba9876543210"
    for text, says in (
        ("0123456789abcde", "too short"),
        ("two words of it..", "more than one word"),
        ("", "is empty"),
    ):
        file.write_text(text)
        assert says in serve(files["small"], "--token-file", file, code=2)[0]
    assert "the token cannot be read" in serve(files["small"], "--token-file", tmp_path / "none", code=2)[0]


def test_names_by_which_it_is_reached(serve, files):
    """Names of hosts have no case."""
    _, (service, _) = serve(files["small"], "--allow-host", "Box.Example", "--allow-host", "b")
    assert service.allowed == {"box.example", "b"}
    for wrong in ("box.example:8000", "https://box.example"):
        said, _ = serve(files["small"], "--allow-host", wrong, code=2)
        assert f"--allow-host: '{wrong}' is no name of a host and no address; leave out port" in said


@pytest.mark.parametrize(
    ("address", "shown"),
    [("::", "localhost"), ("192.168.2.99", "192.168.2.99"), ("fd00::5", "[fd00::5]")],
)
def test_the_address_is_one_of_a_page(address, shown):
    assert commands._shown(address) == shown
    assert urlsplit(f"http://{shown}:8000/").port == 8000


@pytest.mark.parametrize(("options", "most"), [((), None), (("--batch", 7), 7)])
def test_batches(serve, files, options, most):
    _, (service, _) = serve(files["small"], *options)
    assert service.engine._batch == most


def test_limits(serve, files):
    _, (service, _) = serve(files["small"], "--queue", 7, "--max-body", 3, "--deadline", 9)
    limits = service.limits
    assert (limits.queue, limits.body, limits.deadline) == (7, 3 << 20, 9.0)


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        ([], (("golden", "pynq-z2"), {})),
        (["-t", "golden", "-c", "tiny"], (("golden", "tiny"), {})),
        (
            ["-t", "sim", "--latency", 50, "--rate", 60, "--check-every", 9, "--frontend", "hls"],
            (
                ("sim", "pynq-z2"),
                dict(memory=MemoryModel(50, 60, False), check_every=9, frontend="hls", timeout=300.0),
            ),
        ),
        (
            ["-t", "sim", "--deadline", 9],
            (("sim", "pynq-z2"), dict(memory=MemoryModel(), timeout=9.0)),
        ),
        (
            ["-t", "board", "-c", "kv260", "--bitstream", "x.bit", "--check-every", 7, "--frontend", "host"],
            (("board", "kv260"), dict(bitstream=Path("x.bit"), check_every=7, frontend="host")),
        ),
    ],
)
def test_what_it_opens(serve, files, monkeypatch, words, opened):
    seen = []
    monkeypatch.setattr(rowvit, "open", lambda *names, **options: seen.append((names, options)))
    serve(files["small"], *words)[1][0].engine._open()
    assert seen == [opened]


def test_a_certificate_and_its_key(serve, files, tmp_path):
    """In one file, or two."""
    certificate.make(tmp_path / "both.pem", ())
    blocks = re.findall(
        r"-----BEGIN.*?-----END [A-Z ]+-----\n", (tmp_path / "both.pem").read_text(), re.DOTALL
    )
    for name, kind in (("key.pem", "KEY"), ("cert.pem", "CERT")):
        (tmp_path / name).write_text("".join(block for block in blocks if kind in block.splitlines()[0]))
    for options, pair in (
        (["--cert", "both.pem"], ["both.pem", "both.pem"]),
        (["--cert", "cert.pem", "--key", "key.pem"], ["cert.pem", "key.pem"]),
    ):
        words = [one if one.startswith("-") else tmp_path / one for one in options]
        said, _ = serve(files["small"], *words)
        assert [*serve.certificate] == [tmp_path / one for one in pair] and "https://localhost:" in said
    serve(files["small"])
    assert serve.certificate is None


def test_the_sensor_that_is_asked_for(serve, files, monkeypatch):
    seen = []
    whole = service.Service.__init__
    monkeypatch.setattr(
        service.Service,
        "__init__",
        lambda *given, **own: seen.append(own["instrument"]) or whole(*given, **own),
    )
    serve(files["small"], "--instrument", "none")
    serve(files["small"])
    assert seen == ["none", ""]


def test_examples_that_are_no_pictures(serve, files, tmp_path, caplog):
    """Are left out, and said."""
    shutil.copy(files["photos"] / "0.png", tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with caplog.at_level("WARNING", "rowvit.serve"):
        _, (service, _) = serve(files["small"], "--examples", tmp_path)
    assert [path.name for path in service.networks["small"].examples] == ["good.png"]
    assert any(text.startswith(f"skipped: {tmp_path / 'bad.png'}: is no picture") for text in caplog.messages)


def test_what_is_not_there(serve, files):
    assert "none: no such folder of examples" in serve(files["small"], "--examples", "none", code=2)[0]
    assert "no instrument 'watt'; use one of" in serve(files["small"], "--instrument", "watt", code=2)[0]


def test_names(serve, files, tmp_path):
    assert (
        "two networks are called small; name one of them: NAME="
        in serve(files["small"], files["small"], code=2)[0]
    )
    assert "'a/b' is no name for an address" in serve(f"a/b={files['small']}", code=2)[0]
    assert "none.safetensors" in serve(tmp_path / "none.safetensors", code=2)[0]


def test_a_port_in_use(files, monkeypatch):
    monkeypatch.setattr(commands, "_log_lines", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", str(files["small"]), "--port", str(port)])
    assert result.exit_code == 2
    assert f"nothing can listen at 127.0.0.1, port {port} (Address already in use)" in result.output


def test_answers_are_sent_at_once():
    """Their bodies do not wait until the client has acknowledged their heads."""
    with server.bound("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
