# SPDX-License-Identifier: Apache-2.0
"""``rowvit teach``."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rowvit.cli import options as opt
from rowvit.cli.common import ERR, OUT, command, progress_bar, right_aligned, say, unread, write, wrote
from rowvit.errors import RowvitError

if TYPE_CHECKING:
    from rowvit.photos import Photos
    from rowvit.teach.lesson import Findings, Taught

_LISTED = 5  # doubtful photos, unless there are more files of JSON
_FEW = 10  # photos of a class, while there are more of others


class SolverName(str, Enum):
    """What fits the head."""

    logistic = "logistic"
    ridge = "ridge"


@command()
def teach(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS", help="A folder with a folder of photos for each class, or an archive (.npz)."
        ),
    ],
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="MODEL", help="The package that keeps its blocks; its head sees a class token."
        ),
    ],
    output: opt.OutputOption,
    views: Annotated[
        int,
        typer.Option(
            min=1, max=64, metavar="N", help="Views of each photo: itself, crops, and mirrors of crops."
        ),
    ] = 4,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="A mirrored photo shows the same.")] = True,
    solver: Annotated[
        SolverName | None,
        typer.Option(
            metavar="logistic|ridge",
            help="Logistic regression by scikit-learn, or ridge regression; by default the first, if"
            " scikit-learn is installed.",
            show_default=False,
        ),
    ] = None,
    add: Annotated[
        bool,
        typer.Option("--add", help="Add to what --from was taught with --keep, and keep all of it."),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Keep a byte per channel of every photo in the package, for --add.",
        ),
    ] = False,
    same_head: Annotated[
        bool,
        typer.Option(
            "--same-head",
            help="Keep the head, too, and learn from photos of its classes only to say of a photo that it is"
            " like none of them.",
        ),
    ] = False,
    labels: opt.LabelsOption = None,
    most: Annotated[
        int,
        typer.Option(
            "--photos",
            min=0,
            metavar="N",
            show_default="all",
            help="At most so many photos, drawn with a fixed seed.",
        ),
    ] = 0,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the network; by default the file's.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write what cross-validation found of every photo; - for standard output.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw photos of the two classes that are confused most."),
    ] = None,
    target: opt.AnswersOption,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    batch: opt.BatchOption = 1,
    bitstream: opt.BitstreamOption = None,
) -> None:
    """Teach a network your own classes from a few photos of each, without training and without a GPU.

    Its blocks stay as they are. Of every photo they make a few hundred numbers, and a new head is fitted to
    these: linear, in int8, so that the whole network runs on the accelerator. What is printed of its accuracy
    is by cross-validation: each photo is judged by a head that has not seen it.

    Examples
    --------
      rowvit teach classes/ --from vit-int8.safetensors --keep -o mine.safetensors

      rowvit run mine.safetensors photo.jpg --target sim --check

      rowvit teach more/ --from mine.safetensors --add -o more.safetensors

      rowvit teach photos/ --from vit-int8.safetensors --same-head -o vit-or-else.safetensors
    """
    from rowvit.measure.accuracy.evaluation import matched, read_labels
    from rowvit.photos import inside, is_picture, readable
    from rowvit.targets.session import Session
    from rowvit.targets.target import read_package
    from rowvit.teach.backbone import MOST_KEPT, Backbone, Kept
    from rowvit.teach.fit import one_thread
    from rowvit.teach.lesson import acquaint, look, look_at_nothing, nameable, read, require
    from rowvit.teach.lesson import teach as taught_by

    if plot:
        from rowvit.measure.draw.plots import can_save

        can_save(plot)
    if name is not None and not nameable(name):
        raise RowvitError(f"--name {name!r}: not a name", "use printable characters")
    if name is None and not same_head and not nameable(output.stem):
        raise RowvitError(f"{output.stem!r}: not a name for a network", "give it one with --name")
    base = read_package(source)
    if same_head:
        _require_a_head(base.meta, add or keep or bool(solver or plot or json_file))
    backbone, before = Backbone.of(base), Kept.of(base) if add else None
    given, names = read(photos, before, not same_head), read_labels(labels)
    if same_head:
        given = matched(given, base.meta["name"], base.meta["classes"], names)
        require(given, None, "add photos of each: --same-head learns what all of its classes look like")
    elif names:
        raise RowvitError("--labels is for --same-head", "name the folders as the new classes")
    if most:
        given = given.subset(most)
        require(given, before, "draw more of them, by --photos")
    if plot:
        unread(plot, "--plot", (file for file in given.files if isinstance(file, Path)))
    if (keep or add) and (count := len(given) + (len(before.labels) if before else 0)) > MOST_KEPT:
        raise RowvitError(
            f"{count:,} photos, and a package keeps at most {MOST_KEPT:,}",
            "leave out --keep, or take --photos",
        )
    after = (same_head and backbone.whole) or backbone.package
    was, now = (one.meta.get("tokens", {}) for one in (base, after))
    if was and any(was[key] != now[key] for key in ("rows", "layers")):
        say(f"'{base.meta['name']}' answers with other tokens, too: left out, but for the class token", ERR)
    if photos.is_dir() and (beside := sum(map(is_picture, photos.iterdir()))):
        say(f"pictures beside the folders of classes: {beside}, left out", ERR)
    if given.root and (others := [file.name for file in inside(given.root)[0] if not is_picture(file)]):
        names = ", ".join(map(readable, others[:_LISTED])) + (", ..." if len(others) > _LISTED else "")
        say(f"no pictures, by their names: {len(others)} ({names}), left out", ERR)
    wrong: list[str] = []
    options = opt.target_options(target, bitstream)
    try:
        with Session(backbone.package, target.value, config, **options) as session:
            session.prepare(len(given) * views, batch, jobs=0)
            show = partial(session.run, batch=batch, jobs=0)
            nothing = look_at_nothing(backbone, show) if same_head else None
            with progress_bar(f"{len(given)} photos", len(given)) as progress:
                seen = look(
                    given,
                    backbone,
                    show,
                    views,
                    flip,
                    lambda number, error: wrong.append(str(error)),
                    progress,
                    before,
                )
    finally:  # why there may be too few
        for sentence in wrong:
            say(f"skipped: {sentence}", ERR)
    if same_head:
        package = acquaint(seen, backbone, nothing)
        package.meta["name"] = name or package.meta["name"]
        package.save(output)
        alarms = package.meta["familiar"]["alarms"]
        say(f"{len(seen.photos)} photos, of whose like {alarms:.0%} will be said to be unlike all classes")
    else:
        with one_thread():
            found = taught_by(seen, backbone, name or output.stem, solver.value if solver else "", before)
        package = found.kept.within(found.package) if keep or add else found.package
        package.save(output)
        text = json.dumps(_record(found), indent=1)
        if json_file and str(json_file) != "-":
            write(json_file, text + "\n")
        if str(json_file) == "-":
            typer.echo(text)
        else:
            _print(found)
        if plot:
            _draw(found.findings, seen.photos, base.meta, plot, str(json_file) == "-")
        if json_file and str(json_file) != "-":
            wrote(json_file)
    if str(json_file) != "-":
        wrote(output, "rowvit", "run", output, "PHOTO")
    if wrong:
        raise typer.Exit(1)


def _require_a_head(meta: dict[str, Any], others: bool) -> None:
    """`RowvitError` if a network has no head to keep, or what goes with a new one is asked for."""
    if not meta["classes"]:
        raise RowvitError(f"'{meta['name']}' has no head", "teach it one without --same-head")
    if others:
        raise RowvitError(
            "--add, --keep, --solver, --json and --plot are of a new head", "leave them out with --same-head"
        )


def _print(taught: Taught) -> None:
    from rowvit.measure.accuracy.evaluation import wilson

    found = taught.findings
    table = right_aligned("class", "photos", "recognised")
    for label, name in enumerate(found.classes):
        table.add_row(name, str(found.counts[label]), f"{found.right[label] / found.counts[label]:.0%}")
    OUT.print(table)
    total, right = len(found.labels), int(found.right.sum())
    recordings, counts = len(set(found.recordings)), found.counts
    of = "" if recordings == total else f" of {recordings} recordings"
    share = f"{right} of {total} photos{of} recognised, {right / total:.1%}"
    solver = f"{taught.fitted.solver} regression"
    if (judged := found.recognised) is not None:
        mean, sure = judged
        low, high = wilson(mean * sure, sure)
        if of or counts.min() < counts.max():  # many of one class or recording count as much as few of others
            share += f"; mean of the classes {mean:.1%}"
        say(f"{share} ({low:.1%} to {high:.1%}), by cross-validation; {solver}")
    else:
        say(f"{share}, by heads that had seen others of the same recording; {solver}")
    if found.alone:
        alone = ", ".join(found.classes[label] for label in found.alone)
        say(
            f"one recording each, which cannot tell how well new photos are recognised: {alone};"
            " record them again, elsewhere"
        )
    alarms = taught.package.meta["familiar"]["alarms"]
    say(f"of new photos of these classes, about {alarms:.0%} will be said to be unlike all of them")
    for one, other in found.twins[:_LISTED]:
        both = found.classes[found.labels[one]], found.classes[found.labels[other]]
        say(f"the same photo in {both[0]} and in {both[1]}: {found.names[one]}, {found.names[other]}")
    first, second, count = found.confused
    if count:
        photos = "1 photo" if count == 1 else f"{count} photos"
        say(f"most often confused: {found.classes[first]} and {found.classes[second]} ({photos})")
        weakest = found.classes[found.weakest]
        say(f"what would help: more photos of {weakest}, of which fewest are recognised")
    if counts.min() < min(_FEW, counts.max()):
        few = int(counts.argmin())
        say(f"what would help: more photos of {found.classes[few]}, of which there are {counts[few]}")
    doubtful = list(found.doubtful())
    for number in doubtful[:_LISTED]:
        own, other = found.classes[found.labels[number]], found.classes[found.guesses[number]]
        say(f"in the wrong folder? {found.names[number]} lies in {own} and looks like {other}")
    if len(doubtful) > _LISTED:
        say(f"and {len(doubtful) - _LISTED} more, which --json lists")


def _draw(found: Findings, photos: Photos, meta: dict[str, Any], path: Path, quiet: bool) -> None:
    """Of ``photos``, which are the last ones that were judged; those that were kept are none any more.

    ``quiet``: standard output is for something else.
    """
    from rowvit.measure.draw import confused, pictures, plots
    from rowvit.photos import encoded

    first, second, count = found.confused
    before = len(found.labels) - len(photos)
    rows = []
    for own, other in ((first, second), (second, first)) if count else ():
        wrong = (n for n in found.mistaken(own, other) if found.labels[n] == own and n >= before)
        shown = [
            (
                f"{Path(found.names[n]).name}, {found.probabilities[n].max():.0%}",
                pictures.seen(encoded(photos.files[n - before]), meta, enough=240),
            )
            for n in islice(wrong, confused.MOST)
        ]
        rows += [confused.Row(f"{found.classes[own]}, taken for {found.classes[other]}", shown)] * bool(shown)
    if rows:
        plots.save(confused.draw(rows), path)
        if not quiet:
            wrote(path)
    else:
        say(f"{path}: not written, as no photo that is there was taken for another class", ERR)


def _record(taught: Taught) -> dict[str, Any]:
    found: Findings = taught.findings
    doubtful = set(found.doubtful())
    return {
        "classes": list(found.classes),
        "photos": [
            {
                "file": found.names[number],
                "class": found.classes[found.labels[number]],
                "guess": found.classes[found.guesses[number]],
                "probability": float(found.probabilities[number].max()),
                "doubtful": number in doubtful,
            }
            for number in range(len(found.labels))
        ],
        "right": int(found.right.sum()),
        "solver": taught.fitted.solver,
        "strength": taught.fitted.strength,
    }
