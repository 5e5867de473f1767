# SPDX-License-Identifier: Apache-2.0
"""Who may ask: hosts, pages of other sites, tokens; floods, clients that leave, and the end of the server."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image
from puppet import command, port_of, serving
from starlette.responses import Response
from waiting import HANG, until

from rowvit.serve import gate, server
from rowvit.serve.certificate import make
from rowvit.serve.gate import neighbourhood
from rowvit.serve.refusal import Refusal
from rowvit.serve.service import Limits, Service

TOKEN = "0123456789abcdef"
PIXELS = np.zeros((1, 12, 12, 3), np.uint8)


# -- names and pages --------------------------------------------------------------------------------


def test_hosts(networks, puppet):
    """A name that was made to point here is refused, whatever is asked; addresses and own names are not."""
    with serving(networks, "sim", lambda: puppet, allowed=["board.example"]) as served:
        own = socket.gethostname()
        for host in (
            "127.0.0.1",
            "localhost:8000",
            "[::1]:8000",
            "192.168.2.99:80",
            own,
            f"{own}.LOCAL.",
            "board.example",
        ):
            assert served.ask("GET", "/v2", Host=host).status == 200, host
        for host in (
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil@localhost",
            "[",
            "a b",
        ):
            for path in ("/", "/v2", "/v2/health/ready", "/metrics", "/static/page.js"):
                reply = served.ask("GET", path, Host=host)
                assert reply.status == 421 and "is not served here; use the address" in reply.error, host


def test_dns_rebinding(networks, puppet):
    """The page of a site whose name now points here, with its own origin: it computes and reads nothing."""
    with serving(networks, "sim", lambda: puppet) as served:
        site = f"evil.example:{served.port}"
        for method, path in (
            ("GET", "/v2"),
            ("POST", "/v2/models/small/infer"),
            ("POST", "/models/small/lessons"),
        ):
            reply = served.ask(method, path, b"", Host=site, Origin=f"http://{site}")
            assert reply.status == 421 and b"small" not in reply.body
        assert puppet.batches == []


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_pages_of_other_sites(served, puppet, origin):
    """What a form or a script of another page can send without asking first."""
    for path, kind in (
        ("/v2/models/small/infer", "text/plain"),
        ("/models/small/classify", "application/x-www-form-urlencoded"),
        ("/", "multipart/form-data; boundary=x"),
        ("/models/small/lessons", "text/plain"),
        ("/lessons/lesson-x/learn", "text/plain"),
    ):
        reply = served.ask("POST", path, b"", Origin=origin, Content_Type=kind)
        assert reply.status == 403 and "may not use this server" in reply.error
    assert served.ask("DELETE", "/lessons/lesson-x", Origin=origin).status == 403
    assert puppet.batches == []


def test_an_origin_that_is_none(served):
    reply = served.ask("POST", "/models/small/classify", b"", Origin="http://[x")
    assert reply.status == 403 and "may not use this server" in reply.error


def test_the_own_page_and_pages_that_are_allowed(networks, puppet):
    with serving(networks, "sim", lambda: puppet, allowed=["board.example"]) as served:
        for host, origin in (
            (f"127.0.0.1:{served.port}", f"http://127.0.0.1:{served.port}"),
            ("board.example", "https://board.example"),
            (f"127.0.0.1:{served.port}", "https://board.example"),
        ):
            reply = served.ask("POST", "/models/small/classify", b"none", Host=host, Origin=origin)
            assert reply.status == 415, reply


def test_what_browsers_are_told(served):
    """Of every answer: nothing but its own is run, it is in no frame, and is what it says that it is."""
    for path in ("/", "/v2", "/static/page.js", "/nowhere"):
        headers = served.ask("GET", path).headers
        policy = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'", path
        assert policy["script-src"] == policy["connect-src"] == policy["form-action"] == "'self'", path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "same-origin" and "server" not in headers, path


# -- tokens ---------------------------------------------------------------------------------------


def test_wrong_tokens_are_counted(networks, puppet):
    """After ten from an address, none of it is looked at for a minute; who sends none is not a guesser."""
    now = [1000.0]
    with serving(networks, "sim", lambda: puppet, token=TOKEN, clock=lambda: now[0]) as served:

        def ask(token: str) -> int:
            return served.ask("GET", "/v2", Authorization=f"Bearer {token}").status

        for _ in range(20):
            assert served.ask("GET", "/v2").status == 401
        assert [ask("of before")] * 30 == [401] * 30  # as a page that is left open
        assert ask(TOKEN) == 200
        assert [ask(f"{i:016d}") for i in range(9)] == [401] * 9
        reply = served.ask("GET", "/v2", Authorization=f"Bearer {TOKEN}")
        assert reply.status == 429 and "10 wrong tokens came from here" in reply.error
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert served.ask("GET", f"/?token={TOKEN}").status == 429
        assert served.ask("GET", "/v2/health/ready").status == 200
        now[0] += 45
        assert ask(TOKEN) == 429
        now[0] += 16
        assert ask(TOKEN) == 200


def test_few_addresses_are_remembered(monkeypatch):
    """Those that were wrong last: strangers with many addresses take no memory."""
    monkeypatch.setattr(gate, "_ADDRESSES", 2)
    guesses = gate._Guesses(lambda: 0.0)
    for address in ("a", "b", "c"):
        for number in range(10):
            guesses.note(address, str(number))
    assert len(guesses._wrong) == 2
    guesses.check("a")
    for address in ("b", "c"):
        with pytest.raises(Refusal, match="10 wrong tokens came from here"):
            guesses.check(address)


@pytest.mark.parametrize("held", ["header", "address"])
def test_guesses_beside_another_wrong_token(networks, puppet, held):
    """One that is always the same hides none."""
    with serving(networks, "sim", lambda: puppet, token=TOKEN) as served:
        statuses = []
        for number in range(15):
            own, other = ("same", f"guess{number}") if held == "header" else (f"guess{number}", "same")
            statuses.append(served.ask("GET", f"/?token={other}", Authorization=f"Bearer {own}").status)
        assert statuses == [401] * 9 + [429] * 6


def test_servers_of_one_host_have_cookies_of_their_own(networks, puppet):
    """Browsers take all of its ports for one site."""
    with serving(networks, "sim", lambda: puppet, token=TOKEN) as served:
        port = served.url.rsplit(":", 1)[1]
        reply = served.ask("GET", f"/?token={TOKEN}")
        assert reply.headers["set-cookie"].startswith(f"rowvit-token-{port}={TOKEN};")
        for name, status in ((f"rowvit-token-{port}", 200), ("rowvit-token-1", 401), ("rowvit-token", 401)):
            assert served.ask("GET", "/v2", Cookie=f"{name}={TOKEN}").status == status


def test_the_token_is_asked_for_in_a_browser(networks, puppet):
    """A page without anything that the token protects."""
    with serving(networks, "sim", lambda: puppet, token=TOKEN) as served:
        reply = served.ask("GET", "/", Accept="text/html")
        assert reply.status == 401 and reply.headers["content-type"].startswith("text/html")
        assert b"This server wants its token; open /?token=TOKEN" in reply.body and b"small" not in reply.body


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.168.2.1", "192.168.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.168.2.1", "192.168.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("-", "-", True),
    ],
)
def test_neighbourhoods(one, other, same):
    assert (neighbourhood(one) == neighbourhood(other)) == same


# -- clients that leave, and floods -----------------------------------------------------------------


def half_open(port: int, body: bytes = b"", length: int = 1000, source: str = "127.0.0.1") -> socket.socket:
    """A request whose body does not come to its end."""
    connection = socket.create_connection(("127.0.0.1", port), HANG, (source, 0))
    head = f"POST /models/small/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_who_leaves_is_one_line(served, caplog):
    with caplog.at_level("INFO"):
        for _ in range(5):
            half_open(served.port, b"abc").close()
        until(lambda: sum("/models/small/classify 499" in text for text in caplog.messages) == 5)
    assert len([record for record in caplog.records if record.name != "asyncio"]) == 5
    assert not any(record.exc_info for record in caplog.records)
    until(lambda: served.service.open_requests == 0)


def test_what_is_no_http_is_a_line_with_its_address(served, caplog):
    with (
        caplog.at_level("WARNING", "uvicorn.error"),
        socket.create_connection(("127.0.0.1", served.port), HANG, ("127.0.0.3", 0)) as one,
    ):
        one.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
        assert one.recv(100).startswith(b"HTTP/1.1 400")
    assert caplog.messages == ["127.0.0.3 Invalid HTTP request received."]


def test_lessons_are_not_in_the_log(networks, puppet, caplog):
    secret = "lesson-Zk3ap_0-99aXyZ-secret"
    with serving(networks, "sim", lambda: puppet) as served, caplog.at_level("INFO", "rowvit.serve"):
        served.ask("GET", f"/lessons/{secret}")
        until(lambda: caplog.messages)
        served.ask("POST", f"/models/{secret}/classify", b"x")
        until(lambda: len(caplog.messages) == 2)
    assert "GET /lessons/lesson-... 404" in caplog.messages[0]
    assert not any("secret" in text for text in caplog.messages)


def test_a_flood_shuts_nobody_out(networks, puppet):
    """All connections are one address's, none of which says what it wants; another's is answered at once."""
    limits = Limits(connections=20, deadline=HANG)
    with serving(networks, "sim", lambda: puppet, limits) as served, ExitStack() as stack:
        flood = [stack.enter_context(half_open(served.port, source="127.0.0.2")) for _ in range(30)]
        refused: set[socket.socket] = set()

        def told() -> bool:
            refused.update(one for one in flood if b" 503 " in _now(one))
            return len(refused) >= 10

        until(told)  # with a sentence
        assert len(refused) == 10
        for _ in range(5):
            begin = time.monotonic()
            assert served.infer(PIXELS).status == 200
            assert time.monotonic() - begin < HANG / 2  # and not only when others give up
        # one of the flood gave way, whose client sees its end
        assert sum(_ended(one) for one in flood if one not in refused) == 1


def test_what_is_being_answered_does_not_give_way(networks, puppet):
    """However many more come of its address, for which the oldest of the others does."""
    limits = Limits(connections=5, deadline=HANG)
    with serving(networks, "sim", lambda: puppet, limits) as served, ExitStack() as stack:
        puppet.go.clear()
        stack.callback(puppet.go.set)
        photo = BytesIO()
        Image.fromarray(PIXELS[0]).save(photo, "PNG")
        body = photo.getvalue()
        asking = stack.enter_context(half_open(served.port, body, len(body), "127.0.0.2"))
        until(puppet.inside.is_set)
        others = [stack.enter_context(half_open(served.port, source="127.0.0.2")) for _ in range(4)]
        until(lambda: served.service.open_requests == 5)
        newcomer = served.later(PIXELS)
        until(lambda: any(_ended(one) for one in (asking, *others)))
        assert not _ended(asking)
        puppet.go.set()
        newcomer.join(HANG)
        assert served.replies[0].status == 200
        asking.settimeout(HANG)
        assert asking.recv(4096).startswith(b"HTTP/1.1 200")
        assert [_ended(one) for one in others[1:]] == [False] * 3


def deaf(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A connection that asks for megabytes and reads none."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    found.bind((source, 0))
    found.connect(("127.0.0.1", port))
    found.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
    return found


def test_who_asks_and_never_reads_gives_way(networks, puppet):
    """Its answers wait to be sent for ever; the newcomer gets one."""
    limits = Limits(connections=5, deadline=HANG)
    with serving(networks, "sim", lambda: puppet, limits) as served, ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(deaf(served.port, "127.0.0.2"))
        inside = served.server.server_state.connections
        until(lambda: sum(one.flow.write_paused for one in [*inside]) == 5)
        assert served.infer(PIXELS).status == 200


def test_who_does_not_take_an_answer_is_left(networks, puppet, caplog):
    """By the deadline, so that no request is open for ever."""
    limits = Limits(deadline=1.0)
    with (
        caplog.at_level("INFO", "rowvit.serve"),
        serving(networks, "sim", lambda: puppet, limits) as served,
        deaf(served.port),
    ):
        until(lambda: any("/openapi.json 499" in text for text in caplog.messages))
        until(lambda: served.service.open_requests == 0)


def test_an_answer_in_one_piece_goes_out_in_parts(networks, puppet, caplog):
    """It counts until its client has taken it, which it must by the deadline."""
    sent: list[bytes] = []

    async def answer(scope, receive, send):
        await Response(bytes(range(250)) * 1000)(scope, receive, send)

    async def asked(own: gate.Gate, takes: int) -> None:
        async def send(message):
            if len(sent) == takes:
                assert [one.size for one in own._bodies.all] == [250_000]
                await anyio.sleep_forever()
            sent.append(message.get("body", b""))

        sent.clear()
        scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b""}
        scope |= {"headers": [], "client": ("127.0.0.2", 1), "scheme": "http"}
        with anyio.fail_after(HANG):
            await own(scope, None, send)

    own = gate.Gate(answer, Service(networks, "sim", lambda: puppet, Limits(deadline=0.3)), None)
    with caplog.at_level("INFO", "rowvit.serve"):
        anyio.run(asked, own, 99)
        assert b"".join(sent) == bytes(range(250)) * 1000 and max(map(len, sent)) < 70_000
        anyio.run(asked, own, 2)
    assert ["/x 200" in text for text in caplog.messages] == [True, False]
    assert "/x 499" in caplog.messages[1] and not own._bodies.all


def test_a_large_answer_for_which_there_is_no_room(networks, puppet):
    """Its client gets a sentence in its place."""

    async def answer(scope, receive, send):
        await Response(bytes(3_000_000))(scope, receive, send)

    def refused(request, error):
        return Response(str(error), error.status)

    async def main() -> None:
        limits = Limits(body=1 << 20, bodies=4 << 20, deadline=0.3)
        own = gate.Gate(answer, Service(networks, "sim", lambda: puppet, limits), refused)
        own._bodies.all.add(gate._Body("127.0.0.3", 2_000_000, arrived=True))
        scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b""}
        scope |= {"headers": [], "client": ("127.0.0.2", 1), "scheme": "http"}

        async def send(message):
            sent.append(message)

        with anyio.fail_after(HANG):
            await own(scope, None, send)

    sent: list[dict] = []
    anyio.run(main)
    assert sent[0]["status"] == 429 and b"too many large requests" in sent[1]["body"]


def test_small_answers_beside_large_requests(networks, puppet):
    """They have room of their own, as small requests do, whose place they take."""
    sizes: list[int] = []

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await Response(bytes(100_000))(scope, receive, send)

    async def main() -> None:
        limits = Limits(body=1 << 20, bodies=4 << 20, deadline=2.0)
        own = gate.Gate(app, Service(networks, "sim", lambda: puppet, limits), None)
        own._bodies.all.add(gate._Body("127.0.0.2", 4 << 20, arrived=True))
        scope = {"type": "http", "method": "POST", "path": "/x", "raw_path": b"/x", "query_string": b""}
        scope |= {"headers": [(b"content-length", b"500000")], "client": ("127.0.0.2", 1), "scheme": "http"}
        parts = [{"type": "http.request", "body": bytes(500_000), "more_body": False}]

        async def receive():
            return parts.pop()

        async def send(message):
            assert message.get("status", 200) == 200
            sizes.extend(one.size for one in own._bodies.all if one.sends)

        with anyio.fail_after(HANG):
            await own(scope, receive, send)

    anyio.run(main)
    assert len(sizes) >= 3 and set(sizes) == {100_000}


def test_large_answers_of_one_address_wait_for_each_other(networks, puppet):
    """And while they are written, nobody takes their room: their clients are not to blame."""
    statuses: list[int] = []

    async def app(scope, receive, send):
        await scope["state"]["answers"](3_000_000)
        await anyio.sleep(0.05)
        await Response(bytes(1_500_000))(scope, receive, send)

    async def asked(own: gate.Gate, address: str) -> None:
        async def send(message):
            statuses.extend([message["status"]] if "status" in message else [])

        scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b""}
        await own(scope | {"headers": [], "client": (address, 1), "scheme": "http"}, None, send)

    async def main() -> None:
        limits = Limits(body=1 << 20, bodies=4 << 20, deadline=HANG)
        own = gate.Gate(app, Service(networks, "sim", lambda: puppet, limits), None)
        with anyio.fail_after(HANG):
            async with anyio.create_task_group() as group:
                for address in ("127.0.0.2", "127.0.0.2", "127.0.0.3"):
                    group.start_soon(asked, own, address)
        assert not own._bodies.all

    anyio.run(main)
    assert statuses == [200] * 3


def test_a_refused_body_is_not_taken_for_ever(networks, puppet):
    """Its client gets the sentence, and may go on for a while, as it may look for it only then."""
    with (
        serving(networks, "sim", lambda: puppet, Limits(deadline=1.0)) as served,
        half_open(served.port, bytes(10), 10**12) as other,
    ):
        other.settimeout(HANG)
        assert b" 413 " in other.recv(4096)

        def ended() -> bool:
            try:
                other.sendall(bytes(10))
            except OSError:
                return True
            return False

        assert not ended()
        until(ended)
        assert served.infer(PIXELS).status == 200


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    """A certificate for this computer and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    file = tmp_path_factory.mktemp("certificate") / "own.pem"
    make(file, ())
    return file


def test_a_flood_without_handshakes_shuts_nobody_out(networks, puppet, certificate, monkeypatch, caplog):
    """By TLS: connections of one address that say nothing, half a hello, or no TLS; another's is answered."""
    limits = Limits(connections=20, deadline=HANG)
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(server, "_TURNED_AWAY", 10)
    with serving(networks, "sim", lambda: puppet, limits, certificate) as served, ExitStack() as stack:

        def silent(begin: bytes) -> socket.socket:
            to = ("127.0.0.1", served.port)
            one = stack.enter_context(socket.create_connection(to, HANG, ("127.0.0.2", 0)))
            one.sendall(begin)
            return one

        flood = [silent(b"" if number % 2 else b"\x16\x03\x01\x02\x00\x01") for number in range(50)]
        gone: set[socket.socket] = set()

        def closed() -> bool:
            gone.update(one for one in flood if one not in gone and _ended(one))
            return len(gone) >= 20

        until(closed)
        for _ in range(3):
            connection = http.client.HTTPSConnection("localhost", served.port, timeout=HANG, context=trusting)
            begin = time.monotonic()
            connection.request("GET", "/v2")
            assert connection.getresponse().status == 200
            assert time.monotonic() - begin < HANG / 2  # and not only when others give up
            connection.close()
        plain = silent(b"GET / HTTP/1.1\r\n\r\n")
        until(lambda: _ended(plain))
    assert not any(record.levelname == "ERROR" for record in caplog.records)


def test_handshakes_that_dawdle_are_ended(networks, puppet, certificate, monkeypatch):
    monkeypatch.setattr(server, "_HEADERS", 0.2)
    with (
        serving(networks, "sim", lambda: puppet, certificate=certificate) as served,
        socket.create_connection(("127.0.0.1", served.port), HANG) as one,
    ):
        assert one.recv(1) == b""


def _now(connection: socket.socket) -> bytes:
    """What has come, or comes in a moment; empty also at the end."""
    connection.settimeout(0.1)
    try:
        return connection.recv(4096)
    except (TimeoutError, ConnectionResetError):
        return b""


def _ended(connection: socket.socket) -> bool:
    connection.settimeout(0.02)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_large_bodies_of_one_address_give_way(networks, puppet, monkeypatch):
    """Half-sent megabytes of one address do not keep another's picture out; that address gets a sentence."""
    limits = Limits(body=1 << 20, bodies=4 << 20, deadline=HANG)
    bodies = gate._Bodies()
    monkeypatch.setattr(gate, "_Bodies", lambda: bodies)
    with serving(networks, "sim", lambda: puppet, limits) as served, ExitStack() as stack:
        flood = [
            stack.enter_context(half_open(served.port, bytes(1_000_000), 1_000_001, "127.0.0.2"))
            for _ in range(4)
        ]
        until(lambda: sum(one.read for one in [*bodies.all]) == 4_000_000)
        body = bytes(1_020_000)
        assert served.ask("POST", "/models/small/classify", body).status == 415  # it was taken, and looked at
        until(lambda: any(b" 429 " in _now(one) for one in flood))
        assert not any(b" 429 " in _now(one) for one in flood)  # only one of them


def test_large_bodies_of_one_address_take_their_turns(networks, puppet):
    """Three times as much at once as there is room for: all are read, one after the other."""
    limits = Limits(body=1 << 20, bodies=4 << 20, deadline=HANG)
    with serving(networks, "sim", lambda: puppet, limits) as served, ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(served.ask, "POST", "/models/small/classify", bytes(1_000_000)) for _ in range(12)
        ]
        assert {one.result(HANG).status for one in asked} == {415}  # zeros are no picture


def test_small_bodies_do_not_wait_for_large_ones(networks, puppet):
    """Which dawdle, and have all the room there is."""
    limits = Limits(body=4 << 20, bodies=4 << 20, deadline=HANG)
    with (
        serving(networks, "sim", lambda: puppet, limits) as served,
        half_open(served.port, bytes(10), 4 << 20),
    ):
        until(lambda: served.service.open_requests == 1)
        assert served.infer(PIXELS).status == 200


def test_a_body_for_which_there_is_no_room_in_time():
    """It gets a sentence, and what is here stays; with room in time it is let in."""
    bodies, first, own = gate._Bodies(), gate._Body("A", 60, arrived=True), gate._Body("A")
    bodies.all |= {first, own}

    async def main() -> None:
        with anyio.fail_after(HANG):
            with pytest.raises(Refusal, match="too many large requests"):
                await bodies.let_in(own, 20, 64, 0.05)
            assert own.size == 0 and not first.displaced
            async with anyio.create_task_group() as group:
                group.start_soon(bodies.let_in, own, 20, 64, HANG)
                await anyio.sleep(0.05)
                assert own.size == 0
                bodies.discard(first)
            assert own.size == 20

    anyio.run(main)


def test_bodies_that_cannot_give_way():
    """What is here stays, and a request that has sent nothing yet is no help."""
    bodies = gate._Bodies()
    own = gate._Body("B")
    bodies.all |= {gate._Body("A", 60, arrived=True), gate._Body("A"), own}
    with pytest.raises(Refusal, match="too many large requests"):
        bodies.take(own, 5, 64)


@pytest.mark.parametrize("displaced", [False, True])
def test_who_does_not_take_a_large_answer_is_left(networks, puppet, caplog, displaced):
    """After the deadline, or when another's request needs the room; nothing of it stays."""
    taken: list[int] = []

    async def answers(scope, receive, send):
        await scope["state"]["answers"](scope["size"])
        length = (b"content-length", str(scope["size"]).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        for number in range(100):
            await send({"type": "http.response.body", "body": bytes(30_000), "more_body": True})
            taken.append(number)

    async def asked(own: gate.Gate, address: str, size: int, stuck: bool = False) -> None:
        async def send(message):
            if stuck and len(taken) >= 3:
                await anyio.sleep_forever()

        scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b""}
        scope |= {"headers": [], "client": (address, 1), "scheme": "http", "size": size}
        await own(scope, None, send)

    async def main() -> None:
        limits = Limits(body=1 << 20, bodies=4 << 20, deadline=HANG if displaced else 0.3)
        own = gate.Gate(answers, Service(networks, "sim", lambda: puppet, limits), None)
        with anyio.fail_after(HANG):
            async with anyio.create_task_group() as group:
                group.start_soon(asked, own, "127.0.0.2", 3_000_000, True)
                while len(taken) < 3:
                    await anyio.sleep(0.01)
                if displaced:
                    await asked(own, "127.0.0.3", 2_000_000)
        assert not own._bodies.all and own.service.open_requests == 0

    with caplog.at_level("INFO", "rowvit.serve"):
        anyio.run(main)
    assert sum("/x 499" in text for text in caplog.messages) == 1


# -- proxies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trusted", [False, True])
def test_only_a_named_proxy_says_who_asks(networks, puppet, monkeypatch, caplog, trusted):
    """Else whoever is on this computer could guess tokens in the name of others."""
    if trusted:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
    else:
        monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    with (
        caplog.at_level("INFO", "rowvit.serve"),
        serving(networks, "sim", lambda: puppet, token="right") as served,
    ):
        statuses = [
            served.ask(
                "GET", "/v2", Authorization=f"Bearer wrong {n}", X_Forwarded_For=f"192.0.2.{n} says\tmore"
            ).status
            for n in range(12)
        ]
        until(lambda: len(caplog.messages) == 12)
    assert statuses == ([401] * 12 if trusted else [401] * 10 + [429] * 2)
    assert caplog.messages[0].startswith("192.0.2.0?says?more " if trusted else "127.0.0.1 ")


# -- the end ----------------------------------------------------------------------------------------


def test_new_requests_get_a_sentence_while_the_last_are_answered(networks, puppet):
    """Told to end, the server answers what has begun; until then others get 503, and then the port closes."""
    with serving(networks, "sim", lambda: puppet) as served:
        puppet.go.clear()
        waiting = served.later(PIXELS)
        until(puppet.inside.is_set)
        served.server.handle_exit(signal.SIGTERM, None)
        for path in ("/v2/health/ready", "/v2", "/"):
            reply = served.ask("GET", path)
            assert reply.status == 503 and "the server is stopping; send it again later" in reply.error
            assert reply.headers["connection"] == "close" and reply.headers["retry-after"] == "1"
        assert served.ask("GET", "/v2/health/live").status == 200
        puppet.go.set()
        waiting.join(HANG)
        assert served.replies[0].status == 200
        until(lambda: not _listens(served.port))


def test_a_second_signal_does_not_wait(networks, puppet):
    with serving(networks, "sim", lambda: puppet, Limits(deadline=HANG)) as served:
        puppet.go.clear()
        waiting = served.later(PIXELS)
        until(puppet.inside.is_set)
        for _ in range(2):
            assert _listens(served.port)
            served.server.handle_exit(signal.SIGTERM, None)
        until(lambda: not _listens(served.port))
        assert puppet.inside.is_set()
        begin = time.monotonic()
        until(lambda: served.service.open_requests == 0)
        assert time.monotonic() - begin < HANG / 2  # and not at the deadline
        puppet.go.set()
        waiting.join(HANG)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_an_idle_server_ends_at_once(files):
    with command(files["small"], "--deadline", HANG) as (process, lines):
        kept = http.client.HTTPConnection("localhost", port_of(lines), timeout=HANG)
        kept.request("GET", "/v2")
        assert kept.getresponse().read()
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(HANG)
        assert time.monotonic() - begin < HANG / 2
        kept.close()
    assert not any("Traceback" in line for line in lines)


# -- tokens and certificates of the command -----------------------------------------------------------


def test_a_token_of_ones_own_is_not_printed(files, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with command(files["small"], "--token-file", file) as (_, lines):
        connection = http.client.HTTPConnection("localhost", port_of(lines), timeout=HANG)
        connection.request("GET", f"/?token={TOKEN}")
        assert connection.getresponse().status == 303
        connection.close()
        until(lambda: any(" 303 " in line for line in lines))
    assert not any(TOKEN in line for line in lines)


def test_https(files, tmp_path):
    """By a certificate that ``rowvit certificate`` makes, whose fingerprint it prints."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    file = tmp_path / "own.pem"
    made = subprocess.run(
        [sys.executable, "-m", "rowvit.cli", "certificate", "board.example", "192.168.2.99", "-o", file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert file.stat().st_mode & 0o777 == 0o600
    with command(files["small"], "--cert", file) as (_, lines):
        assert any("https://localhost:" in line for line in lines)
        trusting = ssl.create_default_context(cafile=file)
        connection = http.client.HTTPSConnection("localhost", port_of(lines), timeout=HANG, context=trusting)
        connection.request("GET", "/v2")
        answer = connection.getresponse()
        assert answer.status == 200
        der = connection.sock.getpeercert(binary_form=True) if connection.sock else None
        names = {value for _, value in trusting.get_ca_certs()[0]["subjectAltName"]}
        connection.close()
    assert {"localhost", socket.gethostname(), "board.example", "192.168.2.99"} <= names
    assert f"--cert {file} --allow-host board.example" in " ".join(made.stdout.split())
    expected = subprocess.run(
        ["openssl", "x509", "-in", file, "-noout", "-fingerprint", "-sha256"], capture_output=True, text=True
    ).stdout.partition("=")[2]
    assert expected.strip() in " ".join(made.stdout.split()) and der is not None


# -- from other hosts -------------------------------------------------------------------------------

_FLOOD = """
import socket, sys, time
kept = []
for _ in range(300):
    one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    one.sendall(b"POST /models/small/classify HTTP/1.1\\r\\nHost: ")
    kept.append(one)
print("there", flush=True)
time.sleep(60)
"""


@pytest.fixture
def hosts():
    """Two hosts of a network of their own each, by name, with this computer's address in it."""
    if os.geteuid():
        pytest.skip("needs root")
    if shutil.which("ip") is None:
        pytest.skip("needs ip (Debian's iproute2)")
    found = {}

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for number in (1, 2):
            name, own = f"rowvit{os.getpid()}{number}", f"rv{os.getpid() % 100000}{number}"
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace here: {error.stderr.decode().strip()}")
            found[name] = f"10.211.{number}.1"
            ip("link", "add", own, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("addr", "add", f"10.211.{number}.1/24", "dev", own)
            ip("link", "set", own, "up")
            ip("-n", name, "addr", "add", f"10.211.{number}.2/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield found
    finally:
        for name in found:
            subprocess.run(["ip", "netns", "del", name], check=False)


def test_a_flood_from_another_host(files, hosts):
    """300 connections of one host begin a request and do not go on; another host is answered meanwhile."""
    (bad, near), (good, far) = hosts.items()
    with command(files["small"], "--host", "0.0.0.0", "--deadline", "20", ROWVIT_TOKEN=TOKEN) as (_, lines):
        port = port_of(lines)
        flood = subprocess.Popen(
            ["ip", "netns", "exec", bad, sys.executable, "-c", _FLOOD, near, str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert flood.stdout.readline() == "there\n"
            photo = files["photos"] / "0.png"
            for _ in range(5):
                answer = subprocess.run(
                    [
                        *("ip", "netns", "exec", good, "curl", "-sS", "-m", "20", "-w", "%{http_code}"),
                        *("-H", f"Authorization: Bearer {TOKEN}", "-F", f"file=@{photo}"),
                        f"http://{far}:{port}/models/small/classify",
                    ],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                assert answer.endswith("200"), answer
        finally:
            flood.kill()
            flood.communicate()
