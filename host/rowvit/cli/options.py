# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands have, each in one place."""

from __future__ import annotations

import re
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Argument, BadParameter, Option

from rowvit.errors import RowvitError
from rowvit.hardware.block_design import default_configuration, is_board
from rowvit.hardware.memory import Memory

if TYPE_CHECKING:
    from rowvit.sim.device import MemoryModel

try:
    DEFAULT_CONFIG = default_configuration()
except RowvitError as error:  # in the user's file of boards, before there is a command that could report it
    print(f"rowvit: {error}", file=sys.stderr)
    sys.exit(2)
LATENCY, RATE = Memory().latency, Memory().rate
DDR = 128  # megabytes


class TargetName(str, Enum):
    """Where a network runs."""

    golden = "golden"
    sim = "sim"
    board = "board"


class MemoryName(str, Enum):
    """How the simulated memory behaves."""

    ddr = "ddr"
    ideal = "ideal"


class FrontendName(str, Enum):
    """Where images are cut into patches."""

    host = "host"
    hls = "hls"


def memory_model(memory: MemoryName, latency: int, rate: int, megabytes: int = DDR) -> MemoryModel:
    """The simulated memory that the options describe."""
    from rowvit.sim.device import MemoryModel

    if memory is MemoryName.ideal and (latency, rate) != (LATENCY, RATE):
        raise RowvitError("--latency and --rate are of --memory ddr", "leave them out with ideal")
    return MemoryModel(latency, rate, memory is MemoryName.ideal, megabytes)


def target_options(
    target: TargetName,
    bitstream: Path | None = None,
    memory: MemoryName = MemoryName.ddr,
    latency: int = LATENCY,
    rate: int = RATE,
    check_every: int | None = None,
    megabytes: int = DDR,
    frontend: FrontendName | None = None,
) -> dict[str, Any]:
    """What `rowvit.open` takes for this target."""
    options: dict[str, Any] = {} if check_every is None else {"check_every": check_every}
    if frontend is not None:
        options["frontend"] = frontend.value
    if target is TargetName.sim:
        options["memory"] = memory_model(memory, latency, rate, megabytes)
    elif target is TargetName.board and bitstream:
        options["bitstream"] = bitstream
    return options


# -- networks and images ------------------------------------------------------------------------

ModelArgument = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="A model package or compiled program (.safetensors), or everyday or sign-digits, which are"
        " bundled.",
    ),
]
FloatArgument = Annotated[
    Path, Argument(metavar="MODEL", help="A float network (.safetensors, from rowvit import).")
]
#: what `rowvit.images` reads
FILES = "JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF, HEIC"
PicturesArgument = Annotated[
    list[Path], Argument(metavar="IMAGES", help=f"Image files ({FILES}) or folders of them.")
]
ImagesArgument = Annotated[
    list[Path] | None,
    Argument(
        metavar="IMAGES",
        help=f"Image files ({FILES}) or folders of them; by default the photos that come with the model, or"
        " random pixels.",
    ),
]
RecursiveOption = Annotated[
    bool, Option("--recursive", "-r", help="Take the pictures in subfolders, too, instead of naming those.")
]
PhotosOption = Annotated[
    Path,
    Option(
        "--data",
        metavar="DATA",
        help="Photos: a folder with train and val folders of classes, CIFAR-10's python version, or an .npz.",
    ),
]
EnergiesOption = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Energies of operations in place of the published ones (TOML), for an estimate of energy.",
    ),
]
CountOption = Annotated[
    int,
    Option(
        "--images", "-n", min=0, metavar="N", show_default="10 on sim, else 200",
        help="Number of images, repeated if there are fewer.",
    ),
]  # fmt: skip
BatchOption = Annotated[int, Option(min=1, metavar="N", help="Images per start of the core, for throughput.")]
JobsOption = Annotated[
    int,
    Option(
        min=0,
        metavar="N",
        show_default="one per processor",
        help="golden, sim: processes at most; golden takes another for every 32 images.",
    ),
]
SetNameOption = Annotated[
    str | None,
    Option("--data", metavar="NAME", help="Name of the data set; by default that of its directory."),
]
SubsetOption = Annotated[
    str | None, Option("--subset", metavar="TEXT", help="Which part of the data set the images are.")
]

HeadsOption = Annotated[
    int | None,
    Option(min=1, metavar="N", help="State dict: attention heads; by default one per 64 channels."),
]
PoolOption = Annotated[
    str | None,
    Option(
        metavar="token|mean|norm-mean",
        help="State dict, where it does not say: the head sees the class token (token), a LayerNorm of the"
        " patches' mean (mean) or the mean behind the LayerNorm (norm-mean).",
    ),
]
ClassesOption = Annotated[
    int | None, Option(min=1, max=65535, metavar="N", help="A new, untrained head with this many classes.")
]


class ImageSize(NamedTuple):
    """Pixels of an image."""

    height: int
    width: int


def image_size(text: str) -> ImageSize:
    """``224x320``, or ``224`` for a square."""
    if not re.fullmatch(r"0*[1-9]\d{0,4}(x0*[1-9]\d{0,4})?", text):
        raise BadParameter(f"{text!r} is not a number of pixels, or two as in 224x320 (height, width)")
    sides = [int(side) for side in text.split("x")]
    return ImageSize(sides[0], sides[-1])


ImageSizeOption = Annotated[
    ImageSize | None,
    Option(
        parser=image_size,
        metavar="PIXELS|HEIGHTxWIDTH",
        help="Pixels per side, or height and width as in 224x320; position embeddings are interpolated.",
    ),
]

# -- targets ------------------------------------------------------------------------------------


def _by_default(elsewhere: TargetName) -> TargetName:
    """The one rule: a board's own core; elsewhere what the command is for."""
    return TargetName.board if is_board() else elsewhere


_TARGETS = "golden: integer reference; sim: simulated RTL; board: a Zynq with PYNQ; all answer the same."


def _target(elsewhere: TargetName, why: str) -> Any:
    """The option, whose default off a board is ``elsewhere``."""
    return Option(
        "--target",
        "-t",
        metavar="golden|sim|board",
        default_factory=partial(_by_default, elsewhere),
        show_default=f"board on a board, else {elsewhere.value}, as {why}",
        help=_TARGETS,
    )


#: of commands that count cycles
TargetOption = Annotated[TargetName, _target(TargetName.sim, "cycles are counted")]
#: of commands that give answers
AnswersOption = Annotated[TargetName, _target(TargetName.golden, "answers are the same")]
ConfigOption = Annotated[
    str,
    Option(
        "--config",
        "-c",
        metavar="NAME|FILE",
        show_default=False,
        help="Hardware configuration: a name (rowvit config list) or a .toml file; by default the board's"
        " (or that of the only overlay here), or else pynq-z2.",
    ),
]
FrontendOption = Annotated[
    FrontendName | None,
    Option(
        "--frontend",
        metavar="host|hls",
        help="Where images are cut into patches: on this computer (host), or by the HLS preprocessor"
        " between DMA and core (hls); by default as the board's bitstream has it, or else host.",
        show_default=False,
    ),
]
BitstreamOption = Annotated[
    Path | None,
    Option(
        "--bitstream",
        metavar="FILE",
        help="board: the .bit, by default rowvit-CONFIG.bit here, or rowvit-CONFIG-hls.bit where that alone"
        " is here; its .hwh must be next to it.",
    ),
]
CheckEveryOption = Annotated[
    int | None,
    Option(
        "--check-every",
        min=1,
        metavar="N",
        help="sim, board: also compute one image in N, the first included, by the integer reference"
        " beside the core, and stop where they differ.",
    ),
]
MemoryOption = Annotated[
    MemoryName,
    Option(
        "--memory",
        metavar="ddr|ideal",
        help="sim: ddr with the latency and rate below, or an ideal memory.",
    ),
]
LatencyOption = Annotated[
    int,
    Option(
        "--latency",
        min=0,
        max=100_000,
        metavar="CYCLES",
        help="sim: time from a read's address to its first word.",
    ),
]
RateOption = Annotated[
    int,
    Option("--rate", min=1, max=100, metavar="PERCENT", help="sim: share of the cycles that carry a word."),
]

# -- what is written and measured ---------------------------------------------------------------

OutputOption = Annotated[
    Path, Option("--output", "-o", metavar="FILE", help="The network to write (.safetensors).")
]
ResultOption = Annotated[
    Path | None, Option("--json", metavar="FILE", help="Write the result file; - for standard output.")
]
#: some of the pictures' formats
PICTURES = ".png, .svg, .pdf, .webp or others of matplotlib"
LabelsOption = Annotated[
    str | None,
    Option(
        "--labels",
        metavar="FILE|sorted",
        help="Which folder is which of the network's classes, where the names differ: a file with lines"
        " FOLDER,CLASS or JSON; or sorted: folders in sorted order are the network's classes in order.",
    ),
]
MeasureOption = Annotated[
    bool | None,
    Option(
        "--measure/--no-measure",
        help="At the end, measure top-1 on the whole test set and note it in the network's file; by default"
        " where the data has test photos in folders of classes.",
        show_default=False,
    ),
]
