"""Compiled programs in files: the next process neither traces nor compiles them.

JAX's own compilation cache spares the compiler alone, and tracing takes as long as all the rest of
a short file. It finds an entry by the traced program; here the entry is found by what decides it.
"""

import contextlib
import functools
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
from jax.experimental import serialize_executable

from blsh_jax import files
from blsh_jax.search import native

_SUFFIX = ".program"
_MOST_FILES = 16  # a model, a strength, and hops of a block make one

_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_FOUND = "/jax/compilation_cache/cache_hits"

_folder: Path | None = None
_programs: dict[Any, Callable[..., Any]] = {}
_events: list[str] = []


def keep_in(folder: Path) -> None:
    """Keep programs in a folder from now on.

    Args:
        folder: of programs for this processor alone. Whoever can write there decides what runs.
    """
    global _folder
    if _folder is None:
        jax.monitoring.register_event_listener(lambda event, **_: _events.append(event))
    _folder = folder


def program(function: Any, outcome: Any, *arguments: Any) -> Callable[..., Any]:
    """A function as it is compiled for such arguments; itself, where nothing is kept.

    A file that is missing, damaged, or cannot be written costs a compilation and nothing else.

    Args:
        function: from ``jax.jit``.
        outcome: something of the structure of what it returns.
        *arguments: arrays, or structures of them.
    """
    device = jax.config.jax_default_device or jax.devices()[0]  # type: ignore[attr-defined]
    if _folder is None or getattr(device, "platform", None) != "cpu":
        return function  # type: ignore[no-any-return]
    leaves, structure = jax.tree.flatten((arguments, {}))
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    # A program with the native kernel inside needs that very kernel.
    key = function.__qualname__, structure, shapes, native.target()
    if key not in _programs:
        path = _folder / f"{hashlib.sha256(repr((_place(), key)).encode()).hexdigest()}{_SUFFIX}"
        _programs[key] = _read(path, structure, outcome, device) or _make(path, function, arguments)
    return _programs[key]


def _read(path: Path, structure: Any, outcome: Any, device: Any) -> Callable[..., Any] | None:
    with contextlib.suppress(Exception):  # whatever a damaged file makes of itself
        content = zlib.decompress(path.read_bytes())  # which has a checksum
        loaded = serialize_executable.deserialize_and_load(
            content, structure, jax.tree.structure(outcome), execution_devices=[device]
        )
        with contextlib.suppress(OSError):
            os.utime(path)  # those that were not used for longest are removed
        return loaded
    return None


def _make(path: Path, function: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    # What JAX takes from its own cache is not whole when it is written once more. So it is kept out
    # of there, and not written if it was there all the same.
    least = getattr(jax.config, _LEAST_SECONDS)
    jax.config.update(_LEAST_SECONDS, float("inf"))
    _events.clear()
    try:
        compiled = function.lower(*arguments).compile()
    finally:
        jax.config.update(_LEAST_SECONDS, least)
    if _FOUND in _events:
        return compiled  # type: ignore[no-any-return]
    with contextlib.suppress(OSError):
        files.write(path, zlib.compress(serialize_executable.serialize(compiled)[0], 1))
        others = sorted(path.parent.glob(f"*{_SUFFIX}"), key=lambda other: other.stat().st_mtime)
        for other in others[:-_MOST_FILES]:
            other.unlink(missing_ok=True)
    return compiled  # type: ignore[no-any-return]


@functools.cache
def _place() -> tuple[Any, ...]:
    """Whatever decides a program but its arguments; the folder is that of one processor."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        sources.update(path.read_bytes())
    settings = sorted(item for item in os.environ.items() if item[0].startswith(("JAX_", "XLA_")))
    return jax.__version__, jax.lib.__version__, sources.hexdigest(), settings, os.cpu_count()
