"""Records: what an experiment did, on what, with which versions, as one JSON file."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from blsh_jax import files

_PACKAGES = (
    *("jax", "jaxlib", "numpy", "optax", "flax", "soundfile", "soxr"),
    *("mir_eval", "pesq", "pystoi", "onnxruntime"),
)


def environment() -> dict[str, Any]:
    """Versions, device and time of this run, for the ``environment`` entry of a record."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices = jax.devices()
    return {
        "versions": versions,
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "num_devices": len(devices),
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def record(
    rows: list[dict[str, Any]] | dict[str, Any], config: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """What a launch writes: results, what decided them, where and when they came about.

    Args:
        rows: the results.
        config: every setting that they depend on.
        **more: further entries.
    """
    return {"results": rows, "config": config, "environment": environment()} | more


def write_json(path: str | os.PathLike, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all.

    Args:
        path: the file to write; missing folders are made.
        record: anything that JSON can hold.
    """
    files.write(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())


def cells(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], missing: str = ""
) -> list[list[str]]:
    """Rows of a record as texts: floats with two decimals, ``missing`` for what is not there."""

    def text(value: Any) -> str:
        if value is None:
            return missing
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    return [[text(row.get(column)) for column in columns] for row in rows]


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as an aligned text table."""
    lines = [list(columns), *cells(rows, columns, "-")]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    pad = lambda i, cell: cell.rjust(widths[i]) if i else cell.ljust(widths[i])
    return "\n".join("  ".join(pad(i, cell) for i, cell in enumerate(line)) for line in lines)
