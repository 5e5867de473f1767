# SPDX-License-Identifier: Apache-2.0
"""Certificates for HTTPS: reading what the server is given, and making one that signs itself."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rowvit.errors import RowvitError, temporary_directory, writing

DAYS = 825  # that Apple's devices accept, at most
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
_SECONDS = 120.0  # for openssl: a board makes a key slowly


def check(certificate: Path, key: Path) -> None:
    """`RowvitError` if a certificate and its key cannot be used."""
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise RowvitError(f"{path}: cannot be read ({error.strerror})", "name a file in PEM") from error
    try:
        # a key behind a password would ask for it
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise RowvitError(
            f"{certificate} and {key}: no certificate and its key in PEM, without a password",
            "make them by rowvit certificate, or see openssl x509 -in FILE -noout -text",
        ) from error


def make(path: Path, names: Sequence[str]) -> tuple[list[str], str]:
    """Write a key and its certificate, which signs itself, into one file that only its owner reads.

    Parameters
    ----------
    path : Path
    names : sequence of str
        Names and addresses, besides those of this computer.

    Returns
    -------
    names : list of str
        All that it is for.
    fingerprint : str
        SHA-256, as browsers show it.

    Raises
    ------
    RowvitError
        A name is none, there is no openssl, the file is there or cannot be written.
    """
    alternatives = dict.fromkeys([*_own(), *names])
    kinds = [f"{kind_of(name)}:{name}" for name in alternatives]
    if path.exists():
        raise RowvitError(f"{path} is there already", "name another file, or remove it")
    if shutil.which("openssl") is None:
        raise RowvitError("openssl is missing", "install it: apt install openssl")
    with temporary_directory() as folder:
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        command = [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", str(DAYS)),
            *("-subj", "/CN=rowvit", "-addext", f"subjectAltName={','.join(kinds)}"),
            *("-addext", "extendedKeyUsage=serverAuth"),
            *("-keyout", str(key), "-out", str(certificate)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            raise RowvitError(f"openssl makes no certificate: {done.stderr.strip()[-200:]}")
        text = certificate.read_text()
        with writing(path), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key.read_text() + text)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest().upper()
    return [*alternatives], ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def kind_of(name: str) -> str:
    """Whether it is "IP" or "DNS"; `RowvitError` for what is no name of a host and no address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if not _HOST.fullmatch(name):
            raise RowvitError(f"'{name}' is no name of a host and no address") from None
        return "DNS"
    return "IP"


def _own() -> list[str]:
    """Names of this computer, and the address by which others reach it."""
    name = socket.gethostname()
    found = ["localhost", "127.0.0.1", "::1"]
    if _HOST.fullmatch(name):
        found[1:1] = [name] if name.endswith(".local") else [name, f"{name}.local"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent
        try:
            probe.connect(("192.0.2.1", 9))
            found.append(probe.getsockname()[0])
        except OSError:
            pass  # it has no network
    return found
