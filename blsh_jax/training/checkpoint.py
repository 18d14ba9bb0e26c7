"""Checkpoints: the bits learned so far, in one file that a killed run goes on from.

The bits and a key are all that training depends on (see ``plans``), so a checkpoint is small and a
run that goes on from one learns the same bits as one that was never stopped. The file is an
``.npz`` without pickles; it is replaced as a whole after every bit.
"""

import dataclasses
import json
import os
import zipfile
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.config import FitConfig, to_dict
from blsh_jax.files import replacing
from blsh_jax.paper.boosting import BitInfo
from blsh_jax.paper.codes import Hasher
from blsh_jax.training.fit_info import by_field
from blsh_jax.training.plans import Plan

_VERSION = 1
_CHECKED_ROWS = 1000  # rows whose bytes identify the frames


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        hasher: the bits learned so far, unpadded.
        infos: how each came out.
        plan: the memory plan of the run; another one rounds differently.
    """

    hasher: Hasher
    infos: list[BitInfo]
    plan: Plan


def describe(
    frames: np.ndarray, target: np.ndarray | None, config: FitConfig, key: Array
) -> dict[str, Any]:
    """What must be the same for a run to go on from a checkpoint, as JSON."""
    return {
        **{f"config.{name}": value for name, value in to_dict(config).items()},
        "frames": _fingerprint(frames),
        "target": None if target is None else _fingerprint(target),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "precision": jnp.result_type(float).name,
    }


def save(path: str | os.PathLike, checkpoint: Checkpoint, description: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file.
        checkpoint: what to write.
        description: from ``describe``.
    """
    header = {"version": _VERSION, "plan": checkpoint.plan, "description": description}
    arrays: dict[str, Any] = {
        "header": np.array(json.dumps(header)),
        **{name: np.asarray(value) for name, value in checkpoint.hasher._asdict().items()},
        **{f"info_{name}": value for name, value in by_field(checkpoint.infos).items()},
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike, description: dict[str, Any]) -> Checkpoint | None:
    """Read a checkpoint.

    Args:
        path: the file.
        description: of the run that wants to go on from it.

    Returns:
        The checkpoint, or None if there is no such file.

    Raises:
        ValueError: the file is damaged, or belongs to a run of another description; the message
            lists what differs.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        header = json.loads(str(arrays.pop("header")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no readable checkpoint ({error}): remove it to start afresh"
        ) from error
    if header["version"] != _VERSION:
        raise ValueError(
            f"{path} is a checkpoint of version {header['version']}, this program reads "
            f"{_VERSION}: remove it to start afresh"
        )
    _refuse_differences(path, header["description"], json.loads(json.dumps(description)))
    hasher = Hasher(*(arrays[name] for name in Hasher._fields))
    columns = [arrays[f"info_{name}"].tolist() for name in BitInfo._fields]
    infos = [BitInfo(*entries) for entries in zip(*columns, strict=True)]
    return Checkpoint(hasher, infos, header["plan"])


def _refuse_differences(path: Any, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [
        f"  {name}: {saved.get(name)} in the checkpoint, {wanted.get(name)} now"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path} belongs to another run:\n" + "\n".join(differing) + "\n"
            "use the same settings and frames to go on, or another file to start afresh"
        )


def _fingerprint(values: np.ndarray) -> str:
    """Shape, dtype and a checksum of evenly spaced rows, cheap on a memory map."""
    rows = np.linspace(0, len(values) - 1, min(len(values), _CHECKED_ROWS)).astype(np.int64)
    checksum = zlib.crc32(np.ascontiguousarray(values[rows]).tobytes())
    return f"{'x'.join(map(str, values.shape))} {values.dtype} {checksum:08x}"
