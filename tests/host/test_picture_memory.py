# SPDX-License-Identifier: Apache-2.0
"""What pictures take while they are decoded: resident memory of processes that decode large ones."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import photos as sets
import pytest
from PIL import Image, ImageOps
from waiting import HANG, until

from rowvit import confined, decoding
from rowvit import processors as counting
from rowvit.decoding import MOST_BYTES, Room, TooLarge
from rowvit.errors import RowvitError
from rowvit.formats.bundled import MODELS
from rowvit.images import decode

BOARD = 512_000_000, 300_000_000  # bytes of a Pynq-Z2, and those that Linux and Jupyter leave
BOARD_ROOM = 512_000_000 // 8
SLACK = 25  # MB: threads, the network's pixels, what the allocator keeps

#: decodes files, in two threads, as often as is asked for; memory in MB
DECODE = """
import json, os, sys, threading, time
from contextlib import suppress
from processes import children, megabytes
from rowvit import decoding
from rowvit.images import decode
from PIL import Image
files, again, machine = json.loads(sys.argv[1])
if machine:
    decoding.memory = lambda: tuple(machine)
decoding.processors = lambda: 2
this = os.getpid()
decode(files[0], 32)  # loads what reads this format
start, wrong, apart = megabytes(this, "VmRSS"), [], [0]
def watch():  # those that decode for this one; what Linux keeps of one that ended has this one's memory in it
    while True:
        for child in children(this):
            with suppress(OSError, IndexError):  # it has ended
                with open(f"/proc/{child}/cmdline") as line:
                    if line.read().split(chr(0))[1].endswith("decoder.py"):
                        apart.append(megabytes(child, "VmHWM"))
        time.sleep(0.001)
threading.Thread(target=watch, daemon=True).start()
def refused(number, error):
    wrong.append(str(error))
list(decoding.decoded(files[1:] * again, lambda file: decode(file, 32), 24, refused))
print(json.dumps([start, megabytes(this, "VmHWM"), max(apart), megabytes(this, "VmRSS"), wrong]))
"""


def run(code: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=HANG,
    )
    return done.stdout


def picture(mode: str, side: int) -> Image.Image:
    """Soft waves, which no format stores in a few bytes."""
    wave = np.round(127 + 100 * np.sin(np.arange(side) / 40)).astype(np.uint8)
    grey = Image.fromarray(np.broadcast_to(wave, (side, side)).copy())
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) << 8)
    return Image.merge("RGB", [grey, grey.transpose(Image.TRANSPOSE), grey]).convert(mode)


FAST = {"quality": 20, "enc_params": {"preset": "ultrafast"}}
#: format, mode and options, and the side of a square for which a Pynq-Z2's memory is just enough
JUST_ENOUGH = {
    "PNG": ("PNG", "RGB", {"compress_level": 1}, 2800),
    "PNG with alpha": ("PNG", "RGBA", {"compress_level": 1}, 2800),
    "PNG of 16 bits": ("PNG", "I;16", {"compress_level": 1}, 2800),
    "GIF": ("GIF", "P", {}, 2800),
    "BMP": ("BMP", "RGB", {}, 3900),
    "JPEG, progressive": ("JPEG", "RGB", {"progressive": True, "subsampling": 0}, 3200),
    "JPEG, progressive, four colours": ("JPEG", "CMYK", {"progressive": True}, 2700),
    "TIFF": ("TIFF", "RGB", {"compression": None}, 3500),
    "TIFF, one strip": ("TIFF", "RGBA", {"compression": "tiff_lzw", "tiffinfo": {278: 2050}}, 2050),
    "WebP": ("WEBP", "RGB", {"quality": 50, "method": 0}, 1950),
    "WebP with alpha": ("WEBP", "RGBA", {"lossless": True, "quality": 0, "method": 0}, 1750),
    "AVIF": ("AVIF", "RGB", {"speed": 10, "quality": 50}, 1550),
    "AVIF with alpha": ("AVIF", "RGBA", {"speed": 10, "quality": 50, "subsampling": "4:4:4"}, 1350),
    "HEIC": ("HEIF", "RGB", FAST, 1620),
    "HEIC with alpha": ("HEIF", "RGBA", FAST, 1450),
}


@pytest.mark.parametrize("name", JUST_ENOUGH)
def test_what_a_board_decodes(tmp_path, name):
    """Several at once stay within what the board has for pictures, and give it back; others are refused."""
    form, mode, options, side = JUST_ENOUGH[name]
    sets.require_reader(form)
    for file, size in (("small", 64), ("large", side), ("larger", side * 5 // 4)):
        picture(mode, size).save(tmp_path / file, form, **options)
    files = ["small", "large", "larger", "large"]
    start, peak, apart, end, wrong = json.loads(run(DECODE, json.dumps([files, 2, BOARD]), folder=tmp_path))
    assert len(wrong) == 2 and all(
        f" of {side * 5 // 4:,} x {side * 5 // 4:,} pixels takes " in sentence
        and sentence.endswith(" MB to decode, and may take 64 MB here; scale it down, or save it as JPEG")
        for sentence in wrong
    )
    assert (apart > 0) == (form in confined.FORMATS)
    assert BOARD_ROOM / 4e6 < peak + apart - start < BOARD_ROOM / 1e6 + SLACK < 100
    assert end - start < 20


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bomb") / "bomb.webp"
    Image.new("RGBA", (5000, 5000), (9, 9, 9, 9)).save(path, lossless=True, quality=0, method=0)
    assert path.stat().st_size < 2000
    return path


COMMAND = """
import os, sys
from processes import megabytes
from rowvit.cli import app
if "eval" in sys.argv:
    import torch
before, code = megabytes(os.getpid(), "VmHWM"), 0
try:
    app(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(code, megabytes(os.getpid(), "VmHWM") - before)
"""


def test_a_few_bytes_with_many_pixels(tmp_path, bomb):
    """Of 25 million pixels, 24 at once, on this machine."""
    shutil.copy(MODELS / "sign_digits_photos" / "0_0000.jpg", tmp_path / "0.jpg")
    files = ["0.jpg", *[str(bomb)] * 24]
    start, peak, _, end, wrong = json.loads(run(DECODE, json.dumps([files, 1, None]), folder=tmp_path))
    assert len(wrong) == 24 and all("WEBP of 5,000 x 5,000 pixels takes 501 MB" in text for text in wrong)
    assert peak - start < SLACK and end - start < 20


@pytest.mark.parametrize("command", ["run", "eval", "teach"])
def test_commands_leave_them_out(tmp_path, bomb, command):
    """Each says so, goes on with the others, and exits with 1."""
    if command == "eval":
        pytest.importorskip("torch")
    for folder in "01":
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(4):
            picture("RGB", 40 + number).save(tmp_path / "photos" / folder / f"{number}.png")
        for number in range(12):
            os.symlink(bomb, tmp_path / "photos" / folder / f"x{number}.webp")
    arguments = {
        "run": ["run", "sign-digits", "photos/0", "photos/1", "-t", "golden"],
        "eval": ["eval", "sign-digits", "--data", "photos"],
        "teach": ["teach", "photos", "--from", "sign-digits", "-o", "t.safetensors", "--solver", "ridge"],
    }
    printed = run(COMMAND, *arguments[command], folder=tmp_path).split()
    assert printed[-2] == "1" and float(printed[-1]) < 150


def test_a_scan_of_one_colour_is_no_baseline():
    """A JPEG that brings its colours one after the other takes coefficients of all of it, too."""
    file = io.BytesIO()
    Image.new("RGB", (8000, 8000), (9, 99, 200)).save(file, "JPEG", subsampling=0)
    data = bytearray(file.getvalue())
    assert decode(bytes(data), 32).shape == (32, 32, 3)
    scan = data.index(b"\xff\xda") + 4
    assert data[scan] == 3
    data[scan] = 1
    with pytest.raises(RowvitError, match="JPEG of 8,000 x 8,000 pixels takes 388 MB to decode"):
        decode(bytes(data), 32)


def test_a_tile_that_is_larger_than_its_picture():
    """The decoder of a TIFF makes room for a whole tile: here 900 MB for 64 x 64 pixels."""
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 300, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(300)
    with pytest.raises(RowvitError, match="TIFF of 64 x 64 pixels takes 901 MB to decode"):
        decode(data, 32)


# -- what files have before their pixels, and say falsely -----------------------------------------------


def saved(form: str, size: int | tuple[int, int] = 64, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    shape = (size, size) if isinstance(size, int) else size
    Image.new(mode, shape, "#096bc8").save(file, form, **options)
    return file.getvalue()


def with_segments(count: int, data: bytes = b"") -> bytes:
    """A JPEG with so many empty ones."""
    data = data or saved("JPEG")
    return data[:2] + b"\xff\xe9\x00\x02" * count + data[2:]


def with_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with these behind its header."""
    data = saved("PNG")
    made = (
        struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
        for kind, text in chunks
    )
    return data[:33] + b"".join(made) + data[33:]


def with_comment(blocks: int) -> bytes:
    """A GIF with so many of two bytes each."""
    data = saved("GIF", mode="P")
    at = 13 + (3 << (data[10] & 7) + 1)
    return data[:at] + b"!\xfe" + b"\x02ab" * blocks + b"\0" + data[at:]


def with_strips(count: int, kind: int = 4, order: str = "<") -> bytes:
    """A TIFF of 64 x 64 grey pixels in so many, all of the same bytes."""
    values = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 278: -(-64 // count), 279: 4096}
    begins = 8 + 2 + 12 * 9 + 4
    tags = [(tag, 4, 1, value) for tag, value in values.items()] + [(273, kind, count, begins)]
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in sorted(tags))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    number = f"{order}{'HI'[kind - 3]}"
    place = begins + struct.calcsize(number) * count
    return head + entries + bytes(4) + struct.pack(number, min(place, 65_535)) * count + bytes(4096)


LONG_TEXT = zlib.compress(bytes(1 << 20))
OVERLOADED = {
    "segments": (lambda n: with_segments(n), 1000, 1025, "more than 1,024 segments before its pixels; save"),
    "chunks": (lambda n: with_chunks(*[(b"prVt", b"")] * n), 1000, 1025, "more than 1,024 chunks before its"),
    "packed texts": (
        lambda n: with_chunks(*[(b"zTXt", b"k\0\0" + LONG_TEXT)] * n),
        *(3, 5),
        "more than 4 MB of texts before",
    ),
    "packed texts in UTF-8": (
        lambda n: with_chunks(*[(b"iTXt", b"k\0\1\0en\0\0" + LONG_TEXT)] * n),
        *(3, 5),
        "more than 4 MB of texts before",
    ),
    "texts": (
        lambda n: with_chunks((b"tEXt", b"k\0" + bytes(n))),
        10**6,
        5 * 10**6,
        "more than 4 MB of texts",
    ),
    "comments": (with_comment, 131_072, 131_073, "more than 131,072 blocks before its pixels"),
    "strips": (with_strips, 2, 262_145, "a list of 262,145 numbers before its pixels"),
    "strips, Motorola": (lambda n: with_strips(n, 3, ">"), 2, 262_145, "a list of 262,145 numbers before"),
    "EXIF": (
        lambda n: saved("PNG", exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(n)),
        *(900_000, 1_100_000),
        "1 MB of EXIF; save it anew, without it",
    ),
}


@pytest.mark.parametrize("name", OVERLOADED)
def test_what_stands_before_the_pixels(name):
    """As much as any camera writes is read; a file with more is refused before a reader keeps it."""
    made, fine, much, sentence = OVERLOADED[name]
    assert decode(made(fine), 32).shape == (32, 32, 3)
    with pytest.raises(TooLarge, match=f"^the image: has .*{sentence}"):
        decode(made(much), 32)


def progressive(side: int) -> tuple[bytes, int]:
    """A JPEG, and where its frame's marker is."""
    data = saved("JPEG", side, progressive=True, subsampling=0)
    return data, data.index(b"\xff\xc2")


def test_progressive_frames_are_found():
    """Behind bytes that fill, with arithmetic coding, and where a comment looks like a scan."""
    data, at = progressive(8000)
    found = r"JPEG of 8,000 x 8,000 pixels takes \d+ MB to decode"
    arithmetic = data[: at + 1] + b"\xca" + data[at + 2 :]
    filled = data[:at] + b"\xff\xff" + data[at:]
    looks = data[:2] + b"\xff\xfe\x00\x10" + b"\xff\xda\x00\x0c\x03".ljust(14, b"\0") + data[2:]
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    frame = data[at : at + 2 + length]
    # as a reader sees it that takes the first fill byte for the marker
    behind = bytearray(b"\xff\xfe" + struct.pack(">H", 65_002) + bytes(65_000))
    fake = 0xC200 + 2 - len(frame) - 1
    behind[fake : fake + 5] = b"\xff\xda\x00\x0c\x03"
    deceived = data[:at] + b"\xff" + frame + bytes(behind) + data[at + 2 + length :]
    for file in (data, arithmetic, filled, looks, deceived):
        with pytest.raises(TooLarge, match=found):
            decode(file, 32)


def test_a_jpeg_of_two_sizes():
    """Pillow makes room for the last frame, the decoder for the first."""
    data, at = progressive(4000)
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    small = data[at : at + 5] + struct.pack(">HH", 64, 64) + data[at + 9 : at + 2 + length]
    for file in (data[: at + 2 + length] + small + data[at + 2 + length :], data[:at] + small + data[at:]):
        with pytest.raises(RowvitError, match="cannot be decoded as an image"):
            decode(file, 32)


def test_scans_without_end():
    """A progressive JPEG that goes through its pixels a thousand times."""
    data, _ = progressive(64)
    assert decode(data, 32).shape == (32, 32, 3)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(TooLarge, match="the image: has more than 200 scans; save it anew"):
        decode(data[:-2] + data[last:-2] * 200 + data[-2:], 32)


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_a_header_that_says_too_little(tmp_path, form):
    """64 x 64, and 36 million pixels are coded: the process that decodes them gets no memory for that."""
    sets.require_reader(form)
    options = {"speed": 10, "quality": 30} if form == "AVIF" else FAST
    data, place, found = bytearray(saved(form, 6000, **options)), 0, 0
    while (place := data.find(b"ispe", place + 1)) > 0:
        data[place + 8 : place + 16] = struct.pack(">II", 64, 64)
        found += 1
    assert found
    (tmp_path / "lies").write_bytes(data)
    (tmp_path / "true").write_bytes(saved(form, 64, **options))
    start, peak, apart, end, wrong = json.loads(
        run(DECODE, json.dumps([["true", "lies"], 1, None]), folder=tmp_path)
    )
    assert wrong == [
        f"lies: {form} of 64 x 64 pixels is damaged, or larger than its header says; use a complete file, or"
        " save it as JPEG"
    ]
    assert apart > 0 and peak + apart - start < 100 and end - start < 20


def test_pictures_in_processes_are_the_same():
    """AVIF as Pillow decodes it here, turned by its EXIF."""
    sets.require_reader("AVIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture("RGB", 90).crop((0, 0, 90, 60))
    file = io.BytesIO()
    image.save(file, "AVIF", quality=100, exif=exif.tobytes())
    with Image.open(file) as found:
        upright = ImageOps.exif_transpose(found).convert("RGB")
    assert upright.size == (60, 90)
    np.testing.assert_array_equal(
        decode(file.getvalue(), (90, 60)), decode(sets.png(np.asarray(upright)), (90, 60))
    )


# -- the room ------------------------------------------------------------------------------------


@pytest.fixture
def board(monkeypatch) -> Room:
    monkeypatch.setattr(decoding, "memory", lambda: BOARD)
    return Room()


@pytest.mark.parametrize(
    ("machine", "processes", "size"),
    [
        (BOARD, 1, 512_000_000 // 8),
        ((512_000_000, 120_000_000), 1, 30_000_000),
        ((512_000_000, 8_000_000), 1, 16_000_000),
        ((2_000_000_000, 700_000_000), 1, 175_000_000),
        ((64_000_000_000, 60_000_000_000), 1, MOST_BYTES),
        ((64_000_000_000, 60_000_000_000), 4, MOST_BYTES // 4),
    ],
)
def test_size(monkeypatch, machine, processes, size):
    monkeypatch.setattr(decoding, "memory", lambda: machine)
    room = Room()
    room.share(processes)
    assert room.size() == size


def test_memory_is_the_machines():
    """By the kernel; less, where the process's group may have less."""
    total, free = decoding.memory()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free <= total <= pages


def test_limits_of_containers(monkeypatch, tmp_path):
    """Of any group that this process is in: the least memory, and the fewest processors."""
    groups = [tmp_path / "slice" / "job", tmp_path / "slice", tmp_path]
    for group, memory, used, cpu in zip(
        groups,
        ("max", "400000000", "max"),
        (0, 300000000, 0),
        ("max 100000", "150000 100000", "max 100000"),
        strict=True,
    ):
        group.mkdir(parents=True, exist_ok=True)
        for name, text in {"max": memory, "current": str(used), "stat": "inactive_file 5000000\n"}.items():
            (group / f"memory.{name}").write_text(text)
        (group / "cpu.max").write_text(cpu)
    monkeypatch.setattr(decoding, "control_groups", lambda: groups)
    monkeypatch.setattr(counting, "control_groups", lambda: groups)
    total, free = decoding.memory()
    assert total == 400_000_000 and free <= 105_000_000
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    counting._quota.cache_clear()
    assert counting.processors() == 2
    (groups[1] / "cpu.max").write_text("max 100000")
    counting._quota.cache_clear()
    assert counting.processors() == 64
    counting._quota.cache_clear()


def test_memory_of_a_control_group_of_version_1(tmp_path, monkeypatch):
    """Without a limit it is a number beyond all memory."""
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(decoding, "control_groups", list)
    monkeypatch.setattr(decoding, "GROUPS", tmp_path)
    machine = decoding.memory()[0]
    limit, usage, kept = (
        tmp_path / "memory" / f"memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")
    )
    limit.write_text("400000000\n")
    usage.write_text("300000000\n")
    kept.write_text("inactive_file 7\ntotal_inactive_file 5000000\n")
    total, free = decoding.memory()
    assert total == 400_000_000 and free <= 105_000_000
    limit.write_text("9223372036854771712\n")
    assert decoding.memory()[0] == machine


def test_large_ones_wait_for_each_other(board):
    """In the order in which they ask, so that small ones do not keep a large one waiting for ever."""
    order: list[str] = []

    def take(name: str, size: int) -> None:
        with board.taken(size):
            order.append(name)

    threads = []
    with board.taken(40_000_000):
        for name, size in (("large", 60_000_000), ("small", 30_000_000)):
            threads.append(threading.Thread(target=take, args=(name, size)))
            threads[-1].start()
            if name == "large":
                until(board._entrance.locked)
        assert order == []
    for thread in threads:
        thread.join(HANG)
    assert order == ["large", "small"]


def test_what_fits_does_not_wait(board):
    with board.taken(30_000_000), board.taken(30_000_000):
        pass
    with (
        pytest.raises(RowvitError, match=r"^takes 80 MB to decode, and may take 64 MB here; scale it down"),
        board.taken(80_000_000),
    ):
        pass


def test_who_waits_too_long_is_told(board, monkeypatch):
    monkeypatch.setattr(decoding, "_PATIENCE", 0.01)
    with (
        board.taken(60_000_000),
        pytest.raises(RowvitError, match="has waited 0 s for memory"),
        board.taken(60_000_000),
    ):
        pass
