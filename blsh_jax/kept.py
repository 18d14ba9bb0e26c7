"""Compiled programs in files: the next process neither traces nor compiles them.

    advance = kept.jit(function)        as jax.jit
    kept.keep_in(folder)                from now on its programs are read from there, or written

JAX's own compilation cache spares the compiler alone, and tracing takes as long as all the rest of
a short file. It finds an entry by the traced program; here the entry is found by what decides it.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
from jax.experimental import serialize_executable

from blsh_jax import files
from blsh_jax.search import native

_SUFFIX = ".program"
_MOST_FILES = 64  # a model, a strength, and hops of a block make some seven

_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_FOUND = "/jax/compilation_cache/cache_hits"

_folder: Path | None = None
_programs: dict[Any, Future[Callable[..., Any]]] = {}
_lock = threading.Lock()
_compiling = 0  # threads that are, and the setting of JAX that they put off
_least_seconds = 0.0
_found = threading.local()


def keep_in(folder: Path) -> None:
    """Keep programs in a folder from now on.

    Args:
        folder: of programs for this processor alone. Whoever can write there decides what runs.
    """
    global _folder
    if _folder is None:
        jax.monitoring.register_event_listener(_note)
    _folder = folder


def jit(function: Callable[..., Any], static_argnames: Sequence[str] = ()) -> "Kept":
    """``jax.jit`` of a function whose programs are kept. Inside other jitted functions it is that.

    Args:
        function: takes positional arguments alone.
        static_argnames: of arguments that are no arrays, whose ``repr`` tells all of them.
    """
    return Kept(function, static_argnames)


class Kept:
    """What ``jit`` returns.

    A file that is missing, damaged, or cannot be written costs a compilation and nothing else.
    """

    def __init__(self, function: Callable[..., Any], static_argnames: Sequence[str]):
        functools.update_wrapper(self, function)
        self._name = function.__module__, function.__qualname__
        self._jitted = jax.jit(function, static_argnames=static_argnames)
        names = list(inspect.signature(function).parameters)
        self._static = [name in static_argnames for name in names]
        self._names = [name for name in names if name in static_argnames]

    def __call__(self, *arguments: Any) -> Any:
        """As the function; compiled once for shapes, dtypes and structures."""
        if not _keeping():
            return self._jitted(*arguments)
        dynamic, static = self._parted(arguments)
        leaves, structure = jax.tree.flatten((dynamic, {}))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._jitted(*arguments)
        return self._program(arguments, static, leaves, structure)(*dynamic)

    def program(self, *arguments: Any) -> Callable[..., Any]:
        """The program, for many calls, or for one that another thread will make.

        Args:
            *arguments: as of a call, static ones last; arrays may be ``jax.ShapeDtypeStruct``.

        Returns:
            It takes the arguments that are not static, of the same shapes, dtypes and structures.
        """
        dynamic, static = self._parted(arguments)
        if not _keeping():
            return functools.partial(self._jitted, **dict(zip(self._names, static, strict=True)))
        return self._program(arguments, static, *jax.tree.flatten((dynamic, {})))

    def _parted(self, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Arguments that are arrays, and those that are static."""
        pairs = list(zip(self._static, arguments, strict=True))
        return tuple(a for static, a in pairs if not static), tuple(a for s, a in pairs if s)

    def _program(
        self, arguments: Any, static: tuple[Any, ...], leaves: Sequence[Any], structure: Any
    ) -> Callable[..., Any]:
        # Numbers of Python have neither, and a weaker type than arrays.
        shapes = tuple(
            (getattr(leaf, "shape", ()), getattr(leaf, "dtype", type(leaf))) for leaf in leaves
        )
        # A program with the native kernel inside needs that very kernel.
        key = self._name, structure, shapes, static, native.target()
        with _lock:
            known = _programs.get(key)
            if known is None:
                made = _programs[key] = Future()
        if known is not None:
            return known.result()
        try:
            made.set_result(self._read_or_make(key, structure, arguments))
        except BaseException as error:
            del _programs[key]
            made.set_exception(error)
            raise
        return made.result()

    def _read_or_make(self, key: Any, structure: Any, arguments: Any) -> Callable[..., Any]:
        assert _folder is not None
        path = _folder / f"{hashlib.sha256(repr((_place(), key)).encode()).hexdigest()}{_SUFFIX}"
        with contextlib.suppress(Exception):  # whatever a damaged file makes of itself
            # Its checksum is looked at before anything of it is used.
            content, outcome = pickle.loads(zlib.decompress(path.read_bytes()))
            loaded = serialize_executable.deserialize_and_load(
                content, structure, outcome, execution_devices=[_device()]
            )
            with contextlib.suppress(OSError):
                os.utime(path)  # those that were not used for longest are removed
            return loaded  # type: ignore[no-any-return]
        compiled, found = _compiled(self._jitted, arguments)
        if not found:
            # XLA cannot write a program that this process has compiled before without a file.
            with contextlib.suppress(OSError, jax.errors.JaxRuntimeError):
                content, _, outcome = serialize_executable.serialize(compiled)
                files.write(path, zlib.compress(pickle.dumps((content, outcome)), 1))
                _remove_oldest(path.parent)
        return compiled  # type: ignore[no-any-return]


def _keeping() -> bool:
    return _folder is not None and getattr(_device(), "platform", None) == "cpu"


def _device() -> Any:
    return jax.config.jax_default_device or jax.devices()[0]  # type: ignore[attr-defined]


def _compiled(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, bool]:
    """The program, and whether JAX had it in its own cache.

    What JAX takes from its own cache is not whole when it is written once more. So programs are
    kept out of there, and not written if they were there all the same.
    """
    global _compiling, _least_seconds
    with _lock:
        _compiling += 1
        if _compiling == 1:
            _least_seconds = getattr(jax.config, _LEAST_SECONDS)
            jax.config.update(_LEAST_SECONDS, float("inf"))
    _found.here = False
    try:
        return function.lower(*arguments).compile(), _found.here
    finally:
        with _lock:
            _compiling -= 1
            if not _compiling:
                jax.config.update(_LEAST_SECONDS, _least_seconds)


def _note(event: str, **_: Any) -> None:
    if event == _FOUND:
        _found.here = True


def _remove_oldest(folder: Path) -> None:
    programs = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in programs[:-_MOST_FILES]:
        path.unlink(missing_ok=True)


@functools.cache
def _place() -> tuple[Any, ...]:
    """Whatever decides a program but its arguments; the folder is that of one processor."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    settings = sorted(item for item in os.environ.items() if item[0].startswith(("JAX_", "XLA_")))
    return jax.__version__, jax.lib.__version__, sources.hexdigest(), settings, os.cpu_count()
