# SPDX-License-Identifier: Apache-2.0
"""``rowvit serve``."""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

import rowvit
from rowvit.cli import options as opt
from rowvit.cli.common import ERR, command, say, status
from rowvit.errors import RowvitError, needs

#: seconds from a request to its answer, by default; what a simulation takes depends on the network
_DEADLINE = {opt.TargetName.golden: 30.0, opt.TargetName.sim: 300.0, opt.TargetName.board: 30.0}
TOKEN = "ROWVIT_TOKEN"
#: whose lines are wanted; what is wrong with a form its sender is told
_LOGS = {"rowvit.serve": logging.INFO, "uvicorn.error": logging.WARNING, "python_multipart": logging.CRITICAL}


@command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS",
            help="Model packages or compiled programs (.safetensors), or everyday or sign-digits, which are"
            " bundled; NAME=FILE gives one a name.",
        ),
    ],
    *,
    target: opt.AnswersOption,
    config: opt.ConfigOption = opt.DEFAULT_CONFIG,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen at; any but this computer's own needs a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen at; 0: any that is free.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"File with the token that requests must carry; or the variable {TOKEN}. With another --host"
            " and neither, a new one is made and printed.",
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate (PEM): serve by HTTPS. rowvit certificate makes one."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key (PEM), if it is not in the same file.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name by which others reach this server, as behind a proxy, besides its addresses and this"
            " computer's own name; pages of that host may use the server. May be given several times.",
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Photos that the page offers; by default those that come with a model.",
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            show_default="as many as it computes together, at least 2",
            help="Images per start of the core, at most.",
        ),
    ] = 0,
    queue: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Images that may wait or be computed at once; more get 429."),
    ] = 64,
    deadline: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            show_default="30, on sim 300",
            help="Time from a request to its answer.",
        ),
    ] = 0.0,
    teach: Annotated[
        bool, typer.Option("--teach/--no-teach", help="Let people teach a network classes of their own.")
    ] = True,
    max_body: Annotated[
        int, typer.Option("--max-body", min=1, metavar="MB", help="Size of a request, at most.")
    ] = 16,
    instrument: Annotated[
        str,
        typer.Option(metavar="pmbus|hwmon|none", help="Power sensor that is shown; by default the board's."),
    ] = "",
    bitstream: opt.BitstreamOption = None,
    frontend: opt.FrontendOption = None,
    check_every: opt.CheckEveryOption = None,
    memory: opt.MemoryOption = opt.MemoryName.ddr,
    latency: opt.LatencyOption = opt.LATENCY,
    rate: opt.RateOption = opt.RATE,
) -> None:
    """Show networks at work in a browser, and serve them to programs.

    The page takes photos, folders and the camera. Programs use the Open Inference Protocol (v2), or send
    pictures; docs/serve.md has both, several boards behind nginx, and HTTPS.

    Examples
    --------
      rowvit serve sign-digits

      rowvit serve sign-digits own=vit-int8.safetensors --target board --host 0.0.0.0
    """
    with needs("rowvit serve needs starlette, uvicorn and others", "'rowvit[serve]'"):
        from rowvit.serve import server
    from rowvit.measure.power.instruments import kind
    from rowvit.measure.result import board
    from rowvit.serve import certificate
    from rowvit.serve.networks import read_networks
    from rowvit.serve.service import Limits, Service

    token, printed = _token(host, token_file)
    if instrument:
        kind(instrument)
    pair = None
    if cert is not None:
        certificate.check(*(pair := (cert, key or cert)))
    elif key is not None:
        raise RowvitError("--key is the key of a certificate", "name that, too, by --cert")
    for name in allow_host or ():
        try:
            certificate.kind_of(name)
        except RowvitError as error:
            raise RowvitError(f"--allow-host: {error}", "leave out port and scheme") from None
    seconds = deadline or _DEADLINE[target]
    networks = read_networks(models, examples, teach)
    options = opt.target_options(target, bitstream, memory, latency, rate, check_every, frontend=frontend)
    if target is opt.TargetName.sim:
        options["timeout"] = seconds
    service = Service(
        networks,
        target.value,
        lambda: rowvit.open(target.value, config, **options),
        limits=Limits(queue=queue, deadline=seconds, body=max_body << 20),
        batch=batch or None,
        token=token,
        instrument=instrument,
        board=board().get("name", "") if target is opt.TargetName.board else None,
        allowed=[name.lower() for name in allow_host or ()],
    )
    _log_lines()
    with server.bound(host, port) as listener:
        address = listener.getsockname()
        page = f"{'https' if pair else 'http'}://{_shown(address[0])}:{address[1]}/"
        if token:
            page += f"?token={token}" if printed else f"?token=... ({token_file or TOKEN})"

        def ready() -> None:
            waiting.stop()
            say(f"{', '.join(networks)} on {target.value}: {page}", ERR)

        with status(f"opening {target.value}") as waiting:
            server.run(service, listener, ready, pair)


def _shown(address: str) -> str:
    """An address as a URL has it."""
    if address in ("0.0.0.0", "::", "127.0.0.1", "::1"):
        return "localhost"
    return f"[{address}]" if ":" in address else address


@command()
def certificate(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAMES]", help="Names and addresses that it is for, besides this computer's own."
        ),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where certificate and key go (PEM).")
    ],
) -> None:
    """Make a certificate for rowvit serve --cert, which signs itself: browsers ask about it once.

    Phones give a page the camera only by HTTPS. Compare the fingerprint with the one that the browser shows.

    Examples
    --------
      rowvit certificate -o rowvit.pem

      rowvit serve sign-digits --host 0.0.0.0 --cert rowvit.pem
    """
    from rowvit.serve.certificate import DAYS, kind_of, make

    found, fingerprint = make(output, names or ())
    say(f"{output}: certificate and key, for {DAYS} days, of {', '.join(found)}")
    say(f"SHA-256 fingerprint: {fingerprint}")
    if others := [name for name in names or () if kind_of(name) == "DNS"]:
        allowed = " ".join(f"--allow-host {name}" for name in others)
        say(f"next: rowvit serve MODEL --host 0.0.0.0 --cert {output} {allowed}")


def _log_lines() -> None:
    """A line for every request on standard error, never wrapped: journals and files take it from there."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in _LOGS.items():
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)


def _token(host: str, file: Path | None) -> tuple[str, bool]:
    """The token of the file or the variable; a new one if strangers can reach ``host``; else empty.

    And whether it is to be printed: journals keep what is.
    """
    if file is not None:
        try:
            token = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RowvitError(
                f"{file}: the token cannot be read ({error})", "write it as one line"
            ) from error
    else:
        token = os.environ.get(TOKEN, "").strip()
    if token and (len(token) < 16 or not token.isascii() or any(c.isspace() for c in token)):
        raise RowvitError(
            "the token is too short, or is more than one word of ASCII",
            "use 16 characters or more, such as those of: openssl rand -hex 16",
        )
    if file is not None and not token:
        raise RowvitError(f"{file} is empty", "write the token to it: openssl rand -hex 16")
    return (token, False) if token else ("" if _own(host) else secrets.token_urlsafe(18), True)


def _own(host: str) -> bool:
    """Whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
