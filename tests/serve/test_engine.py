# SPDX-License-Identifier: Apache-2.0
"""The queue in front of the core: order, batches, limits, deadlines, faults, and the end."""

from __future__ import annotations

import http.client
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from puppet import Puppet, Reply, Served, serving
from waiting import HANG, until

import rowvit
from rowvit.compiler import compile
from rowvit.errors import RowvitError
from rowvit.hardware.config import load
from rowvit.serve import engine, service
from rowvit.serve.networks import read_networks
from rowvit.serve.service import Limits
from rowvit.sim.device import DDR_BASE
from rowvit.targets.golden import Golden


def image(number: int, count: int = 1) -> np.ndarray:
    """Images of class ``number``."""
    return np.full((count, 12, 12, 3), number, np.uint8)


def classes(reply) -> list[int]:
    (found,) = (o["data"] for o in reply.json["outputs"] if o["name"] == "class")
    return found


def held(served, puppet) -> threading.Thread:
    """A request that is in the core, which waits."""
    puppet.go.clear()
    thread = served.later(image(0))
    until(puppet.inside.is_set)
    return thread


def test_what_waits_becomes_batches(served, puppet):
    first = held(served, puppet)
    others = [served.later(image(n % 5)) for n in range(9)]
    until(lambda: served.service.engine.held == 10)
    puppet.go.set()
    for thread in (first, *others):
        thread.join(HANG)
    assert puppet.batches[0] == ("small", 1)
    assert sum(count for _, count in puppet.batches) == 10
    assert max(count for _, count in puppet.batches) == 4 and len(puppet.batches) == 4
    assert sorted(n for reply in served.replies for n in classes(reply)) == sorted(
        [0, *(n % 5 for n in range(9))]
    )


def test_every_request_gets_its_own_answer(served):
    """Forty at once, from ten threads, each with images whose classes are known."""
    wrong, rng = [], np.random.default_rng(0)
    wanted = rng.integers(0, 5, (10, 4, 3))

    def ask(rows) -> None:
        for row in rows:
            pixels = np.concatenate([image(n) for n in row])
            reply = served.infer(pixels, model="dense" if row[0] % 2 else "small")
            if reply.status != 200 or classes(reply) != row.tolist():
                wrong.append((row, reply))

    threads = [threading.Thread(target=ask, args=(rows,)) for rows in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert not wrong


def test_networks_take_turns(served, puppet):
    """One that many ask for does not keep another out: at most a batch overtakes what waits longer."""
    first = held(served, puppet)
    early = served.later(image(1))  # so that its network is next
    until(lambda: served.service.engine.held == 2)
    other = served.later(image(2), model="dense")
    until(lambda: served.service.engine.held == 3)
    many = [served.later(image(1)) for _ in range(12)]
    until(lambda: served.service.engine.held == 15)
    puppet.go.set()
    for thread in (first, early, other, *many):
        thread.join(HANG)
    before = [name for name, _ in puppet.batches].index("dense")
    assert sum(count for _, count in puppet.batches[:before]) == 1 + 4
    assert all(reply.status == 200 for reply in served.replies)


def test_a_full_queue(networks, puppet):
    with serving(networks, "sim", lambda: puppet, Limits(queue=3, deadline=HANG)) as served:
        threads = [held(served, puppet)] + [served.later(image(1)) for _ in range(2)]
        until(lambda: served.service.engine.held == 3)
        reply = served.infer(image(2))
        assert reply.status == 429 and reply.error.startswith("3 images wait already; try again in 1 s")
        assert reply.headers["retry-after"] == "1"
        served.service.engine._per_image = 2.5  # as a slow core's is
        assert served.infer(image(2)).headers["retry-after"] == "8"
        # decided before the picture is decoded, even before it is one
        assert served.ask("POST", "/models/small/classify", b"no picture").status == 429
        assert served.infer(image(2, 4)).status == 413  # never fits
        assert served.ask("GET", "/v2/health/ready").status == 200  # busy is not ill
        puppet.go.set()
        for thread in threads:
            thread.join(HANG)
        assert served.infer(image(2)).status == 200
        assert served.service.engine.held == 0


def of(address: str, served: Served, path: str, body: bytes) -> Future[int]:
    """The status of a request from another address."""

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, HANG, source_address=(address, 0))
        with closing(connection):
            connection.request("POST", path, body)
            return connection.getresponse().status

    found: Future[int] = Future()
    threading.Thread(target=lambda: found.set_result(ask())).start()
    return found


def test_who_fills_the_queue_gives_way(networks, puppet):
    """Its youngest request, to one of an address that has fewer; not what the core has begun."""
    photo = BytesIO()
    Image.fromarray(image(3)[0]).save(photo, "PNG")
    path, body = "/models/small/classify", photo.getvalue()
    with serving(networks, "sim", lambda: puppet, Limits(queue=4, deadline=HANG), batch=1) as served:
        puppet.go.clear()
        many = [of("127.0.0.2", served, path, body)]
        until(puppet.inside.is_set)
        for number in range(3):
            many.append(of("127.0.0.2", served, path, body))
            until(lambda number=number: len(served.service.engine._queue) == number + 1)
        assert of("127.0.0.2", served, path, body).result(HANG) == 429  # of its own none gives way
        others = [of("127.0.0.3", served, path, body), of("127.0.0.4", served, path, body)]
        assert [one.result(HANG) for one in many[2:]] == [429, 429]
        assert of("127.0.0.3", served, path, body).result(HANG) == 429  # both have two
        assert served.service.engine.held == 4
        puppet.go.set()
        assert [one.result(HANG) for one in (*many[:2], *others)] == [200] * 4
        until(lambda: served.service.engine.held == 0)
    assert sum(count for _, count in puppet.batches) == 4


def test_who_is_decoded_while_the_queue_fills_gives_way_as_well(networks, puppet, monkeypatch):
    """A request may lose its place before its picture is decoded."""
    go, inside = threading.Event(), threading.Event()
    decode = service.pixels_of

    def late(*arguments):
        inside.set()
        assert go.wait(HANG)
        return decode(*arguments)

    monkeypatch.setattr(service, "pixels_of", late)
    photo = BytesIO()
    Image.fromarray(image(3)[0]).save(photo, "PNG")
    with serving(networks, "sim", lambda: puppet, Limits(queue=2, deadline=HANG)) as served:
        lost = [of("127.0.0.2", served, "/models/small/classify", photo.getvalue()) for _ in range(2)]
        until(lambda: inside.is_set() and served.service.engine.held == 2)
        assert classes(served.infer(image(1))) == [1]
        go.set()
        assert sorted(one.result(HANG) for one in lost) == [200, 429]


def test_an_image_whose_answer_cannot_be_counted_is_answered(served, monkeypatch):
    """By an error at once, and not by silence until its deadline."""

    def wrong(network, answer):
        raise ValueError("counters can only grow")

    with monkeypatch.context() as patch:
        patch.setattr(served.service.engine, "_answered", wrong)
        reply = served.infer(image(1))
    assert reply.status == 503 and "ValueError: counters can only grow" in reply.error
    assert classes(served.infer(image(1))) == [1]


def test_large_pictures_wait_outside(networks, puppet, monkeypatch):
    """The HLS front end takes them whole: not more of them than memory has room for."""
    monkeypatch.setattr("rowvit.serve.service.AHEAD_BYTES", 5_000)
    puppet.frontend = "hls"

    def ask(side: int) -> Reply:
        photo = BytesIO()
        Image.new("RGB", (side, side)).save(photo, "PNG")
        return served.ask("POST", "/models/small/classify", photo.getvalue())

    with serving(networks, "sim", lambda: puppet) as served, ThreadPoolExecutor(1) as pool:
        puppet.go.clear()
        first = pool.submit(ask, 50)  # alone, whatever its size
        until(puppet.inside.is_set)
        second = ask(40)
        assert second.status == 429 and second.error.startswith("too many large pictures are here already")
        assert second.headers["retry-after"] == "1"
        puppet.go.set()
        assert first.result(HANG).status == ask(40).status == 200


def test_deadlines(networks, puppet, monkeypatch):
    now, passed = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now() + sum(passed))
    with serving(networks, "sim", lambda: puppet, Limits(deadline=300.0), patience=600.0) as served:
        inside = held(served, puppet)
        reply = served.infer(image(1), timeout=100_000)  # microseconds, less than the server's
        assert reply.status == 504 and "it still waited" in reply.error
        assert 0.09 < float(re.match(r"no answer within (\S+) s, ", reply.error)[1]) < 300
        passed.append(300.0)
        inside.join(HANG)
        (late,) = served.replies
        assert late.status == 504 and "the core was processing it" in late.error
        assert served.ask("GET", "/v2/health/ready").status == 200
        # nobody waits, but the core has not answered for longer than anybody has patience
        passed.append(300.0)
        assert served.ask("GET", "/v2/health/ready").status == 503
        assert "has not answered for" in served.ask("GET", "/v2/models/small/ready").error
        assert served.ask("GET", "/v2/health/live").status == 200
        assert served.infer(image(1)).status == 503
        puppet.go.set()
        until(lambda: served.ask("GET", "/v2/health/ready").status == 200)
        assert classes(served.infer(image(3))) == [3]
        assert [count for _, count in puppet.batches] == [1, 1]  # what nobody waited for was not run


def test_a_fault_is_answered_and_what_waits_is_not_lost(served, puppet):
    first = held(served, puppet)
    puppet.failures = [RowvitError("the DMA stopped", "look at it")]
    waiting = served.later(image(3))
    until(lambda: served.service.engine.held == 2)
    puppet.go.set()
    first.join(HANG)
    waiting.join(HANG)
    failed, answered = sorted(served.replies, key=lambda reply: -reply.status)
    assert failed.status == 503 and failed.headers["retry-after"] == "1"
    assert failed.error.startswith("the core failed: the DMA stopped; look at it; it is being reset")
    assert answered.status == 200 and classes(answered) == [3]
    assert puppet.loads.count("small") >= 2  # memory was written anew
    assert served.service.engine.faults == 1 and puppet.closed == 0
    counted = served.ask("GET", "/metrics").body.decode()
    assert "rowvit_core_faults 1.0" in counted and "rowvit_check_failures 0.0" in counted


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("odd")])
def test_any_exception_of_a_driver_is_a_fault(served, puppet, error):
    puppet.failures = [error]
    assert f"{type(error).__name__}: {error}" in served.infer(image(1)).error
    assert classes(served.infer(image(1))) == [1]


def test_a_core_that_stays_away_is_opened_again(networks):
    puppets = [Puppet(), Puppet(), Puppet()]
    puppets[0].broken = puppets[1].broken = True
    remaining, mended = iter(puppets), threading.Event()

    def opened() -> Puppet:
        puppet = next(remaining)
        assert puppet.broken or mended.wait(HANG)
        return puppet

    with serving(networks, "sim", opened) as served:
        assert served.infer(image(1)).status == 503
        until(lambda: served.ask("GET", "/v2/health/ready").status == 503)
        reply = served.infer(image(1))
        assert reply.status == 503 and "the core no longer answers" in reply.error
        states = [(one["state"], one["reason"]) for one in served.ask("POST", "/v2/repository/index").json]
        assert {state for state, _ in states} == {"UNAVAILABLE"}
        assert all("the core no longer answers" in reason for _, reason in states)
        assert served.ask("POST", "/v2/repository/index", b'{"ready": true}').json == []
        mended.set()
        until(lambda: served.ask("GET", "/v2/health/ready").status == 200)
        assert classes(served.infer(image(4))) == [4]
        assert [puppet.closed for puppet in puppets] == [1, 1, 0]


def test_pauses_between_attempts_double(networks, caplog):
    puppets = [Puppet() for _ in range(9)]
    for puppet in puppets[:-1]:
        puppet.broken = True
    remaining, pauses = iter(puppets), []
    with serving(networks, "sim", lambda: next(remaining)) as served:
        changed = served.service.engine._changed
        wait_for = changed.wait_for

        def noted(met, seconds=None):
            if served.service.engine._state != "down":
                return wait_for(met, seconds)
            pauses.append(seconds)
            return met()

        changed.wait_for = noted
        assert served.infer(image(1)).status == 503
        until(lambda: served.ask("GET", "/v2/health/ready").status == 200)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    said = re.findall(r"the next attempt is in (\d+) s", caplog.text)
    assert [int(seconds) for seconds in said] == pauses


def test_a_core_that_hangs_while_it_is_looked_at(networks, puppet, monkeypatch):
    """With nothing to do: the health check says so, and so does the next user's answer."""
    monkeypatch.setattr(engine, "_IDLE", 0.05)
    go, inside = threading.Event(), threading.Event()
    go.set()

    def hangs() -> None:
        inside.set()
        assert go.wait(HANG)

    monkeypatch.setattr(puppet, "probe", hangs)
    with serving(networks, "sim", lambda: puppet, patience=3.0) as served:
        assert served.ask("GET", "/v2/health/ready").status == 200
        go.clear()
        inside.clear()
        until(lambda: served.ask("GET", "/v2/health/ready").status == 503)
        assert "has not answered for" in served.infer(image(1)).error
        go.set()
        until(lambda: served.ask("GET", "/v2/health/ready").status == 200)
        assert classes(served.infer(image(1))) == [1]


@pytest.mark.parametrize("target", ["board", "sim"])
def test_a_core_that_computes_no_more(networks, puppet, monkeypatch, target):
    """Its registers answer; on a board, where that costs nothing, it is found by an image now and then."""
    monkeypatch.setattr(engine, "_IDLE", 0.05)
    looked, counted = [], []
    monkeypatch.setattr(puppet, "count_from", counted.append)
    monkeypatch.setattr(puppet, "probe", lambda: looked.append(len(puppet.batches)))
    with serving(networks, target, lambda: puppet) as served:
        until(lambda: len(looked) > 2)
        assert bool(puppet.batches) == bool(counted) == (target == "board")
        assert set(counted) <= {0}  # of the images that are checked it is none
        if target == "board":
            puppet.failures = [RowvitError("the core hangs")]
            until(lambda: served.service.engine.faults == 1)
            until(lambda: served.ask("GET", "/v2/health/ready").status == 200)
        assert classes(served.infer(image(2))) == [2]


def test_a_stop_answers_what_has_come_in(networks, puppet):
    with serving(networks, "sim", lambda: puppet) as served:
        threads = [held(served, puppet)] + [served.later(image(n)) for n in range(5)]
        until(lambda: served.service.engine.held == 6)
        threading.Timer(0.3, puppet.go.set).start()
    for thread in threads:
        thread.join(HANG)
    assert [reply.status for reply in served.replies] == [200] * 6
    assert puppet.closed == 1


def test_what_cannot_be_opened(networks):
    def refuse():
        raise RowvitError("no board here")

    with pytest.raises(RowvitError, match="no board here"), serving(networks, "board", refuse):
        pass


def test_a_damaged_program_on_the_rtl(networks):
    """The simulated core stops with an error, is reset, gets its program again, and is right."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8)
    with rowvit.open("golden", "tiny") as golden:
        golden.load(networks["small"].source)
        (expected,) = golden(pixels)
    with serving(networks, "sim", lambda: rowvit.open("sim", "tiny")) as served:
        before = served.infer(pixels).json
        target = served.service.engine.target
        target.blob[:] = 0xFF
        target.blob.flush()
        assert "the core failed" in served.infer(pixels).error
        after = served.infer(pixels).json
    for answer in (before, after):
        logits = next(o["data"] for o in answer["outputs"] if o["name"] == "logits")
        assert logits == expected.logits.tolist()
        cycles = next(o["data"] for o in answer["outputs"] if o["name"] == "cycles")
        assert cycles[0] > 1000


def test_an_idle_core_that_is_lost_is_noticed(networks, puppet, monkeypatch):
    """By the health check, before anybody asks for an answer, and brought back when it is there again."""
    monkeypatch.setattr(engine, "_IDLE", 0.05)
    with serving(networks, "sim", lambda: puppet) as served:
        assert served.ask("GET", "/v2/health/ready").status == 200
        puppet.broken = True
        until(lambda: served.ask("GET", "/v2/health/ready").status == 503)
        assert "the core no longer answers" in served.ask("GET", "/v2/health/ready").error
        assert puppet.batches == []
        puppet.broken = False
        until(lambda: served.ask("GET", "/v2/health/ready").status == 200)
        assert served.infer(PIXELS).status == 200


PIXELS = np.random.default_rng(1).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8)


def metric(served, name: str) -> float:
    lines = served.ask("GET", "/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"rowvit_{name}[{{ ]", line))


def test_checked_answers_on_the_rtl(networks):
    """A wrong one is not given out; the memory, whose weights had changed, is written anew, and checked."""
    with serving(networks, "sim", lambda: rowvit.open("sim", "tiny", check_every=2)) as served:
        replies = [served.infer(PIXELS) for _ in range(3)]
        assert [reply.status for reply in replies] == [200] * 3
        assert metric(served, "images_total") == 3 and metric(served, "checked_images_total") == 2
        target = served.service.engine.target
        target.blob[-4000:-3000] ^= 0x40
        target.blob.flush()
        unchecked, wrong = served.infer(PIXELS), served.infer(PIXELS)
        assert unchecked.status == 200 and wrong.status == 503 and wrong.headers["retry-after"] == "1"
        assert "the core failed: image 4 differs from the integer reference in logits[" in wrong.error
        assert "1000 of" in wrong.error and "have changed in memory" in wrong.error
        right = served.infer(PIXELS)
        assert right.json["outputs"] == replies[0].json["outputs"]
        assert served.service.engine.target is target
        assert metric(served, "check_failures") == metric(served, "core_faults") == 1
        assert metric(served, "checked_images_total") == 2  # beside the grey image, which nobody asked for


def test_memory_that_stays_bad(networks):
    """Each network that is loaded is checked again, also on a target that is opened anew."""
    bad = threading.Event()

    def opened():
        target = rowvit.open("sim", "tiny", check_every=100)
        flush = target.device.flush

        def worn(bo, offset, pointer, size):
            flush(bo, offset, pointer, size)
            if bad.is_set() and target.blob is not None and bo == target.blob.physical_address:
                end = bo - DDR_BASE + size
                target.device.ddr[end - 4000 : end - 3000] ^= 0x40

        target.device.flush = worn
        return target

    with serving(networks, "sim", opened) as served:
        assert served.infer(PIXELS).status == 200
        bad.set()
        target = served.service.engine.target
        target.blob.flush()
        target.guard.count = 100  # the next one is due
        assert "differs from the integer reference" in served.infer(PIXELS).error
        until(lambda: served.ask("GET", "/v2/health/ready").status == 503)
        until(lambda: "differs from the integer reference" in served.ask("GET", "/v2/health/ready").error)
        assert served.infer(PIXELS).status == 503
        until(lambda: metric(served, "check_failures") >= 3)
        bad.clear()
        until(lambda: served.ask("GET", "/v2/health/ready").status == 200)
        assert served.infer(PIXELS).status == 200 and metric(served, "core_faults") == 1


def test_an_answer_waits_for_its_check(networks, monkeypatch):
    """Only those that are checked do, unless the stream ends."""
    go, compute = threading.Event(), Golden._run

    def held(golden, images):
        assert go.wait(HANG)
        return compute(golden, images)

    monkeypatch.setattr(Golden, "_run", held)
    several = np.concatenate([PIXELS] * 6)
    with serving(networks, "sim", lambda: rowvit.open("sim", "tiny", check_every=100), batch=2) as served:
        answered = []
        monkeypatch.setattr(served.service.engine, "_answered", lambda *answer: answered.append(answer))
        thread = served.later(several)
        until(lambda: len(answered) == 5)
        time.sleep(0.2)
        assert len(answered) == 5 and not served.replies
        go.set()
        thread.join(HANG)
        assert len(answered) == 6 and served.replies[0].status == 200


def test_a_check_needs_a_package(networks, tmp_path):
    compile(networks["small"].source, load("tiny")).save(tmp_path / "program.safetensors")
    programs = read_networks([str(tmp_path / "program.safetensors")])
    for target, others, sentence in (
        ("sim", programs, "use the model package"),
        ("golden", networks, "golden is the integer reference"),
    ):
        with (
            pytest.raises(RowvitError, match=sentence),
            serving(others, target, lambda target=target: rowvit.open(target, "tiny", check_every=1)),
        ):
            pass
