# SPDX-License-Identifier: Apache-2.0
"""Result files are read and checked: against their schema, and figures against what they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rowvit.errors import RowvitError, needs
from rowvit.formats.container import parse
from rowvit.measure.power import statistics
from rowvit.measure.speed import throughput

SCHEMA = Path(__file__).with_name("result.schema.json")


def read(path: Path) -> dict[str, Any]:
    """Read and check a result file.

    Raises
    ------
    RowvitError
        It cannot be read, or lacks something that `check` names.
    """
    try:
        document = parse(path.read_text(encoding="utf-8"), strict=False)
    except OSError as error:
        raise RowvitError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RowvitError(f"{path}: is not JSON ({error})") from error
    if problems := check(document):
        raise RowvitError(
            f"{path} is refused: {'; '.join(problems)}",
            'measure again, or write {"none": reason} for what cannot be known',
        )
    return document


def check(document: Any) -> list[str]:
    """What a result lacks or has wrong, a phrase for each; empty if nothing.

    Figures are computed again from the values, passes and samples that the result holds.

    Raises
    ------
    RowvitError
        The package jsonschema is missing.
    """
    with needs("checking results needs jsonschema", "jsonschema"):
        from jsonschema import Draft202012Validator
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    problems: dict[str, None] = {}  # in order, each once
    for found in sorted(validator.iter_errors(document), key=lambda e: list(map(str, e.absolute_path))):
        problems.update(dict.fromkeys(_phrases(found)))
    if problems:
        return list(problems)
    if document["kind"] == "throughput":
        return throughput.disagreements(document)
    return [] if "none" in document["power"] else statistics.disagreements(document)


def _phrases(error: Any) -> list[str]:
    where = ".".join(map(str, error.absolute_path))
    if error.validator == "oneOf":  # a value, or the reason for its absence: the value's errors say more
        return [text for inner in error.context if inner.schema_path[0] == 0 for text in _phrases(inner)]
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return [f"it lacks {where + '.' if where else ''}{key}" for key in missing]
    return [f"{where or 'the document'}: {error.message[:120]}"]
