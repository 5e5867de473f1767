# SPDX-License-Identifier: Apache-2.0
"""The process of `rowvit.confined`, which knows nothing of rowvit: a picture in, its size and RGB out.

``python decoder.py FORMAT BYTES < picture``: more than so many bytes it does not get. It exits with 1 if the
picture cannot be decoded within them.
"""

from __future__ import annotations

import io
import re
import sys
from contextlib import suppress

from PIL import Image

_LINES = 64  # that are written at once
#: what brings a picture that lies as EXIF's orientation says upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def main(form: str, most: int) -> int:
    data = sys.stdin.buffer.read()
    Image.MAX_IMAGE_PIXELS = None  # the process that asks has looked at that
    if form == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    with suppress(ImportError, OSError):  # where there is no such limit
        import resource

        with open("/proc/self/status") as file:
            taken = 1024 * int(re.findall(r"VmData:\s+(\d+)", file.read())[0])
        resource.setrlimit(resource.RLIMIT_DATA, (taken + most, taken + most))
    try:
        with Image.open(io.BytesIO(data), formats=[form]) as image:
            image.load()
            del data
            turn = TURNS.get(image.getexif().get(0x0112, 1))
            found = (image if turn is None else image.transpose(turn)).convert("RGB")
        del image
        out = sys.stdout.buffer
        out.write(b"%d %d\n" % found.size)
        for top in range(0, found.height, _LINES):
            part = found.crop((0, top, found.width, min(top + _LINES, found.height)))
            out.write(part.tobytes())
        out.flush()
    except Exception:  # a damaged file makes readers raise anything
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
