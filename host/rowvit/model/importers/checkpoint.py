# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of PyTorch, safetensors and JAX (.npz): which of their tensors are a network."""

from __future__ import annotations

import argparse
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.model.importers.foreign import by_names, facts
from rowvit.model.importers.names import networks, without_prefix

_SCALAR: Any = getattr(np.core.multiarray, "scalar")  # noqa: B009 (typeshed does not know it)
#: what training scripts store besides weights, and what holds no code: settings, paths, NumPy's numbers
_HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    np.dtype,
    _SCALAR,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
]
_TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
if _TORCH >= (2, 6):  # before that, a number has to be of the same NumPy
    _HARMLESS += [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
#: entries that name the architecture, and their fields where they are settings
_ARCHITECTURE = ("arch", "architecture", "model", "model_name", "args", "hyper_parameters", "config", "cfg")


@dataclass
class Checkpoint:
    """The network in a checkpoint."""

    state: dict[str, Tensor]  #: names without the prefix under which the network stands
    part: str = ""  #: where in the file it stands: entries and prefixes, joined by dots
    architectures: list[str] = field(default_factory=list)  #: names that the file has for it


def read_checkpoint(path: str | os.PathLike, part: str | None = None) -> Checkpoint:
    """The network of a .safetensors, .pth, .pt, .ckpt, .bin or .npz file; TorchScript will do, too.

    Only weights and plain settings are read; nothing in the file is executed.

    Parameters
    ----------
    path : path
    part : str, optional
        Of several networks, such as a student and a teacher, the one that stands under this name.

    Raises
    ------
    RowvitError
        If the file cannot be read, or holds no vision transformer or, without ``part``, several.
    """
    content = _read(path)
    found = dict(_parts(content))
    if not found:
        raise _none(content, path)
    chosen = [name for name in found if part is None or name == part]
    chosen = chosen or [name for name in found if name.startswith(f"{part}.")]
    if len(chosen) != 1:
        which = ", ".join(map(repr, chosen or found))
        what = f"holds {len(chosen)} networks" if chosen else f"has no network {part!r}, but"
        raise RowvitError(f"{path}: {what}: {which}", "name one of them with --part")
    return Checkpoint(found[chosen[0]], chosen[0], list(dict.fromkeys(_architectures(content))))


_SAVE = "save model.state_dict() with torch.save"


def _read(path: str | os.PathLike) -> Any:
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path)
        if str(path).endswith(".npz"):
            with np.load(path) as arrays:
                return {name.replace("/", "."): torch.from_numpy(arrays[name]) for name in arrays}
        if _is_torchscript(path):
            return torch.jit.load(path, map_location="cpu").state_dict()
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        name = pathlib.Path(path)
        advice = "" if name.suffix else f"a network of timm is timm:{name.name}"
        raise RowvitError(f"{path}: no such file", advice) from error
    except SafetensorError as error:
        raise RowvitError(f"{path}: not a whole safetensors file ({error})", "copy it again") from error
    except Exception as error:  # torch raises many types for a foreign file
        objects = _objects(path)
        if objects:
            raise RowvitError(
                f"{path}: holds objects of {', '.join(objects[:3])}, which could run any code when opened",
                f"where you trust the file, open it with the program that wrote it, and {_SAVE}",
            ) from error
        raise RowvitError(
            f"{path}: PyTorch cannot read it as a checkpoint that holds only weights", _SAVE
        ) from error


def _is_torchscript(path: str | os.PathLike) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _objects(path: str | os.PathLike) -> list[str]:
    """Classes in a checkpoint that PyTorch does not open safely; those that are not its own come first."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return sorted(found, key=lambda name: (name.startswith("torch."), name))
    except Exception:  # of a file that is no checkpoint at all
        return []


def _parts(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every network in a checkpoint, and the name under which it stands."""
    for path, tensors in _tensors(content):
        for prefix in networks(tensors):
            yield (path + prefix).rstrip("."), without_prefix(tensors, prefix)


def _tensors(content: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The tensors of every dictionary in a checkpoint, and where it stands."""
    if isinstance(content, Mapping):
        yield path, {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        for name, value in content.items():
            yield from _tensors(value, f"{path}{name}.")


def _none(content: Any, path: str | os.PathLike) -> RowvitError:
    """Why nothing in a checkpoint is a vision transformer that is read."""
    tensors = max((found for _, found in _tensors(content)), key=len, default={})
    if not tensors:
        return RowvitError(f"{path}: holds no state dict", _SAVE)
    if found := by_names(facts(tensors, whole=True)):
        return found.error(path)
    return RowvitError(
        f"{path}: the state dict lacks 'patch_embed.proj.weight' or what other libraries call it",
        "export the network as ONNX, where names do not matter",
    )


def _architectures(content: Any) -> Iterator[str]:
    """Names of architectures that training scripts have written beside the weights."""
    for key in _ARCHITECTURE if isinstance(content, Mapping) else ():
        value = content.get(key)
        value = vars(value) if isinstance(value, argparse.Namespace) else value
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping) and not any(isinstance(v, Tensor) for v in value.values()):
            yield from _architectures(value)
