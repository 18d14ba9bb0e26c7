"""Checkpoints: the bits learned so far, in one file that a killed run goes on from.

The bits and a key are all that training depends on (see ``plans``), so a checkpoint is small and a
run that goes on from one learns the same bits as one that was never stopped. The file is an
``.npz`` without pickles, replaced as a whole after every bit, and read through the same door as
model files (``models.archive``), which believes nothing.
"""

import dataclasses
import json
import os
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import files
from blsh_jax.config import FitConfig, to_dict
from blsh_jax.models import archive
from blsh_jax.models.archive import Archive, Field, ModelError
from blsh_jax.paper.boosting import BitInfo
from blsh_jax.paper.codes import Hasher
from blsh_jax.training.fit_info import by_field
from blsh_jax.training.plans import PLANS, Plan

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
    files.write_arrays(path, arrays)


def load(
    path: str | os.PathLike, description: dict[str, Any], num_features: int
) -> Checkpoint | None:
    """Read a checkpoint.

    Args:
        path: the file.
        description: of the run that wants to go on from it.
        num_features: D, of the run's frames.

    Returns:
        The checkpoint, or None if there is no such file.

    Raises:
        ModelError: the file is damaged, or belongs to a run of another description; the message
            lists what differs.
    """
    remedy = "remove it to start afresh"
    try:
        with archive.reading(path, "checkpoint", remedy) as file:
            header = file.header()
            plan = _check_header(file, header)
            _refuse_differences(path, header["description"], json.loads(json.dumps(description)))
            num_bits = file.length("projections")
            if num_bits > description["config.num_bits"]:
                file.refuse("projections", f"has {num_bits} bits, more than the run learns")
            fields = _fields(num_bits, num_features, description["precision"])
            arrays: dict[str, Any] = dict(file.arrays(fields))
    except FileNotFoundError:
        return None
    hasher = Hasher(*(arrays[name] for name in Hasher._fields))
    columns = [arrays[f"info_{name}"].tolist() for name in BitInfo._fields]
    infos = [BitInfo(*entries) for entries in zip(*columns, strict=True)]
    return Checkpoint(hasher, infos, plan)


def _check_header(file: Archive, header: dict[str, Any]) -> Plan:
    version, plan = header.get("version"), header.get("plan")
    if version != _VERSION:
        file.refuse("version", f"is {version!r:.60}, and this program reads {_VERSION}")
    if plan not in PLANS:
        file.refuse("plan", f"is {plan!r:.60}, and should be one of {', '.join(PLANS)}")
    if not isinstance(header.get("description"), dict):
        file.refuse("description", "is missing, or is no object of JSON")
    return plan


def _refuse_differences(path: Any, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [
        f"  {name:.60}: {saved.get(name)!s:.60} in the checkpoint, {wanted.get(name)!s:.60} now"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if differing:
        raise ModelError(
            f"{path} belongs to another run:\n" + "\n".join(differing[:20]) + "\n"
            "use the same settings and frames to go on, or another file to start afresh"
        )


def _fields(num_bits: int, num_features: int, precision: str) -> dict[str, Field]:
    """What a checkpoint must hold."""
    real = np.dtype(precision).str
    infos = {f"info_{name}": Field("<f8", (num_bits,)) for name in BitInfo._fields}
    return {
        "projections": Field(real, (num_bits, num_features)),
        "biases": Field(real, (num_bits,)),
        "betas": Field(real, (num_bits,)),
        **infos,
        "info_steps": Field("<i8", (num_bits,)),
    }


def _fingerprint(values: np.ndarray) -> str:
    """Shape, dtype and a checksum of evenly spaced rows, cheap on a memory map."""
    rows = np.linspace(0, len(values) - 1, min(len(values), _CHECKED_ROWS)).astype(np.int64)
    checksum = zlib.crc32(np.ascontiguousarray(values[rows]).tobytes())
    return f"{'x'.join(map(str, values.shape))} {values.dtype} {checksum:08x}"
