"""Records: what an experiment did, on what, with which versions, as one JSON file."""

import datetime
import importlib.metadata
import json
import os
import platform
from typing import Any

import jax

from blsh_jax.files import replacing

_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "flax", "soundfile", "soxr", "mir_eval")


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
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as an aligned text table; floats with two decimals, missing values as ``-``."""

    def text(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    cells = [columns] + [[text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
