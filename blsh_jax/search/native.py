"""The Hamming search as a kernel in C++, which ``blsh native`` builds where a compiler is at hand.

It finds the same neighbours as ``hamming``, which takes it on CPUs where it is there, and goes
without it where it is not. It is built on the machine that it runs on, as its compiler then knows
what the processor can do; nothing is chosen when it runs. The file's name says what it is made of
and for, and has its checksum: any other is refused. It is in the user's cache folder, or in that
which the environment names as ``BLSH_NATIVE``; ``BLSH_NATIVE=0`` does without it.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import files
from blsh_jax.search import blocks
from blsh_jax.search.blocks import Neighbors

_SWITCH = "BLSH_NATIVE"
_COMPILERS = ("c++", "g++", "clang++")
_OPTIONS = ("-O3", "-std=c++17", "-shared", "-fPIC")
_NAMES = "native-*.so"

_registered: set[str] = set()


class _Library(NamedTuple):
    target: str
    instructions: str


_off = False


def top_k(query_codes: Array, codes: Array, k: int, num_bits: int) -> Neighbors:
    """``hamming_top_k`` of checked matrices, on CPUs, where ``target`` names the kernel."""
    # Under shard_map both arguments and the results have to differ between the same devices.
    arrays = blocks.varying(query_codes, codes), blocks.varying(codes, query_codes)
    shape = jax.typeof(blocks.varying(jnp.zeros((len(query_codes), k), jnp.int32), *arrays))
    call = jax.ffi.ffi_call(str(target()), (shape, shape), vmap_method="expand_dims")
    return Neighbors(*call(*arrays, num_bits=np.int64(num_bits)))


def target() -> str | None:
    """What XLA knows the kernel by, which differs between any two builds; None without one."""
    folder = _folder()
    library = folder and not _off and _library(folder)
    return library.target if library else None


def instructions() -> str | None:
    """The vector instructions that the kernel was built for: AVX-512, AVX2 or none."""
    folder = _folder()
    library = folder and _library(folder)
    return library.instructions if library else None


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Searches are traced without the kernel inside, such as those that other machines will run.

    What JAX has traced before is forgotten, and what it traces inside, too.
    """
    global _off
    before, _off = _off, True
    jax.clear_caches()
    try:
        yield
    finally:
        _off = before
        jax.clear_caches()


def build(march: str = "native") -> Path:
    """Build the kernel, for this process and later ones.

    Args:
        march: the processor to build for, as GCC and Clang name it: older ones for comparisons.

    Returns:
        The library.

    Raises:
        RuntimeError: there is no compiler, it failed, or ``BLSH_NATIVE=0``.
        OSError: the folder cannot be written.
    """
    if (cache := _folder()) is None:
        raise RuntimeError(f"{_SWITCH}=0 is set, so it would not be used: unset that first")
    compiler = os.environ.get("CXX") or next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        raise RuntimeError("no C++ compiler: install g++ or clang++, or name one in CXX")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "native.so"
        with resources.as_file(_source()) as source:
            include = ("-isystem", jax.ffi.include_dir())
            command = [*shlex.split(compiler), *_OPTIONS, f"-march={march}", *include]
            command += [str(source), "-o", str(library)]
            try:
                made = subprocess.run(command, capture_output=True, text=True)
            except OSError as error:
                raise RuntimeError(f"the C++ compiler {compiler} does not run: {error}") from error
        if made.returncode:
            lines = made.stderr.splitlines() or ["it says nothing"]
            said = next((line for line in lines if "error" in line), lines[-1])
            raise RuntimeError(f"the C++ compiler {compiler} fails: {said}")
        content = library.read_bytes()
    path = cache / f"native-{_key()}-{_digest(content)}.so"
    files.write(path, content)
    remove(path)
    return path


def remove(but: Path | None = None) -> list[Path]:
    """Remove what was built.

    Args:
        but: the library to keep.

    Returns:
        The files that are gone.
    """
    folder = _folder() or files.cache_folder()
    found = [path for path in folder.glob(_NAMES) if path != but]
    for path in found:
        path.unlink()
    _library.cache_clear()
    return found


@functools.cache
def _library(folder: Path) -> _Library | None:
    """The library of this version, checked and made known to XLA; None if there is none."""
    found = sorted(folder.glob(f"native-{_key()}-*.so"))
    if not found:
        return None
    path = found[-1]
    try:
        digest = _digest(path.read_bytes())
        if not path.stem.endswith(digest):
            raise OSError("it is damaged")
        library, target = ctypes.CDLL(str(path)), f"blsh_hamming_{digest}"
        library.blsh_instructions.restype = ctypes.c_char_p
        if target not in _registered:
            handler = jax.ffi.pycapsule(library.blsh_hamming)
            jax.ffi.register_ffi_target(target, handler, platform="cpu")
            _registered.add(target)
        return _Library(target, library.blsh_instructions().decode())
    except (OSError, AttributeError) as error:
        text = f"{path} is not used ({error}): build it anew with `blsh native`"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return None


def _folder() -> Path | None:
    named = os.environ.get(_SWITCH)
    return None if named == "0" else Path(named) if named else files.cache_folder()


def _source() -> resources.abc.Traversable:
    return resources.files("blsh_jax.search") / "native.cc"


@functools.cache
def _key() -> str:
    """Of what a library is built from and for."""
    place = f"{jax.lib.__version__} {_OPTIONS} {files.cache_folder().name}"
    return _digest(_source().read_bytes() + place.encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
