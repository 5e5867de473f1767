# SPDX-License-Identifier: Apache-2.0
"""Two servers behind nginx, with the configuration of docs/serve.md; one of them ends under load."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from waiting import HANG, until

import rowvit

ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    """Below those that the kernel gives away, so that nothing else takes them before they are listened at."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[socket.socket] = []
    drawn = random.SystemRandom()  # and not what another process of these tests draws
    with ExitStack() as stack:
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", drawn.randrange(lowest // 2, lowest)))
                found.append(one)
        return [one.getsockname()[1] for one in found]


def answers(port: int, path: str = "/v2/health/ready") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def servers(files):
    """Two servers of the command line, by port."""
    started = {}
    for port in free_ports(2):
        command = (sys.executable, "-m", "rowvit.cli", "serve", files["small"], "-c", "tiny", "--port", port)
        started[port] = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    try:
        for port, process in started.items():
            until(lambda port=port: answers(port), process)
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


@contextmanager
def nginx_before(servers: Iterable[int], tmp_path: Path) -> Iterator[int]:
    """Nginx in front of two ports; its own."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("needs nginx (make test installs it)")
    text = (ROOT / "docs/serve.md").read_text()
    (site,) = (block for block in re.findall(r"```nginx\n(.*?)```", text, re.DOTALL) if "upstream" in block)
    (port,) = free_ports(1)
    for address, server in zip(("192.168.2.11:8000", "192.168.2.12:8000"), servers, strict=True):
        assert address in site
        site = site.replace(address, f"127.0.0.1:{server}")
    site = site.replace("listen 80;", f"listen 127.0.0.1:{port};")
    paths = "".join(
        f"{kind}_temp_path {tmp_path / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = tmp_path / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(
        f"daemon off; pid {tmp_path / 'pid'}; error_log {tmp_path / 'errors'}; {user}\n"
        f"events {{}}\nhttp {{\naccess_log {tmp_path / 'log'} ;\n{paths}{site}}}\n"
    )
    process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(configuration)])
    try:
        until(lambda: answers(port), process)
        yield port
    finally:
        process.terminate()
        process.wait(HANG)


@pytest.fixture
def balancer(servers, tmp_path):
    with nginx_before(servers, tmp_path) as port:
        yield port


def test_what_is_asked_of_another_server(tmp_path):
    """Only what is no lesson's, which the other does not have."""
    asked: list[str] = []
    taught: set[int] = set()  # servers that were asked for lessons, for all the 503s

    class Full(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/v2/health/ready" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self):
            asked.append(self.path)
            if self.path.startswith("/lessons/"):
                taught.add(self.server.server_port)
            self.do_GET()

        def log_message(self, *arguments):
            pass

    paths = [
        "/lessons/lesson-a/learn",
        "/v2/models/lesson-a/infer",
        "/models/lesson-a/classify",
        "/models/a/lessons",
        "/models/a/classify",
    ]
    with ExitStack() as stack:
        both = [stack.enter_context(ThreadingHTTPServer(("127.0.0.1", port), Full)) for port in free_ports(2)]
        for one in both:
            threading.Thread(target=one.serve_forever, daemon=True).start()
            stack.callback(one.shutdown)
        port = stack.enter_context(nginx_before([one.server_port for one in both], tmp_path))
        for path in [*paths, *[paths[0]] * 5]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
            connection.request("POST", path)
            assert connection.getresponse().status == 503
            connection.close()
    assert asked == [*paths, paths[-1], *[paths[0]] * 5] and len(taught) == 1


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["killed", "stopped"]
)
def test_no_request_is_lost(files, servers, balancer, how):
    """Four clients at once. Killed, a server loses what was in its core; nginx asks the other."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    with rowvit.open("golden", "tiny") as golden:
        golden.load(files["small"])
        expected = [result.logits.tolist() for result in golden(pixels)]
    wrong: list[object] = []
    done = [0] * 4
    stop = threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", balancer, timeout=HANG)
        while not stop.is_set():
            index = done[number] % len(pixels)
            tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 12, 12, 3]}
            message = {
                "inputs": [{**tensor, "data": pixels[index].ravel().tolist()}],
                "outputs": [{"name": "logits"}],
            }
            connection.request("POST", "/v2/models/small/infer", json.dumps(message))
            response = connection.getresponse()
            body = response.read()
            if response.status != 200 or json.loads(body)["outputs"][0]["data"] != expected[index]:
                wrong.append((response.status, body))
            done[number] += 1
        connection.close()

    def images(port: int) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(r'rowvit_images_total\{model="small"\} (\S+)', text)
        return float(found[1]) if found else 0.0

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    first, second = servers
    try:
        until(lambda: min(images(first), images(second)) >= 10)  # both work
        servers[first].send_signal(how)
        before = sum(done)
        until(lambda: sum(done) >= before + 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(HANG)
    servers[first].wait(HANG)
    assert not wrong
    assert answers(balancer) and not answers(first)
    assert images(second) > 60
