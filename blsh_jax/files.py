"""Files that appear whole or not at all, under their name only once they read back as written.

Every file of this package is written here: beside its name, flushed to the disk, closed, read
back, and then renamed. What stops that, a full disk, a kill or a power cut, leaves what was there
before. A file that is being written is locked. One that a killed process left behind is not, and is
removed by the next write into its folder, also from another computer that shares it.
"""

import contextlib
import errno
import functools
import hashlib
import io
import os
import platform
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs

try:
    import fcntl
except ImportError:  # Windows, which does not remove files that are open: no lock is needed
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".blsh-", ".tmp"  # short, as the name may be as long as the system takes
_NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
# A name like ours may be a link or a pipe of somebody else, which is neither followed nor waited on
_FOUND = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def replacing(
    path: str | os.PathLike, verify: Callable[[BinaryIO], bool]
) -> Iterator[io.BufferedRandom]:
    """A new file that becomes ``path`` only when the block ends well.

    Args:
        path: the file to write; missing folders are made. A link stays, and leads to the new file.
        verify: reads what was written, from its start; whether it is as meant. An exception counts
            as no.

    Yields:
        The empty file, to be written, at any place and by its descriptor, too.

    Raises:
        OSError: ``path`` is a folder or a device, the disk is full or not writable, or what was
            written does not read back. It names ``path``, which is left as it was. (If only the
            last step fails, the flush of the folder, ``path`` is the new file, and whole.)
    """
    path = Path(path)
    if path.is_symlink():  # the file that it leads to is written, and the link stays
        path = Path(os.path.realpath(path))
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    _refuse_what_is_no_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    with contextlib.ExitStack() as stack:
        stack.callback(_quietly, lambda: temporary.unlink(missing_ok=True))
        with _naming(path):
            file = io.BufferedRandom(_File(_create(temporary), path))
            stack.callback(_quietly, file.close)
            if fcntl is not None:  # the lock lasts as long as one descriptor is open
                lock = os.dup(file.fileno())
                stack.callback(_quietly, lambda: os.close(lock))
        yield file
        with _naming(path):
            file.flush()
            os.fsync(file.fileno())
            _check(file, verify)
            file.close()
            os.replace(temporary, path)
            _flush_folder(path.parent)


def write(path: str | os.PathLike, content: bytes) -> None:
    """Write bytes, as ``replacing`` does."""
    with replacing(path, lambda file: file.read() == content) as file:
        file.write(content)


def write_arrays(
    path: str | os.PathLike, arrays: Mapping[str, Any], compress: bool = False
) -> None:
    """Write an ``.npz`` file, as ``replacing`` does.

    Args:
        path: the file.
        arrays: by their names in it; no objects.
        compress: whether to.
    """
    save = np.savez_compressed if compress else np.savez
    with replacing(path, _is_whole_archive) as file:
        save(file, **arrays)


def cache_folder() -> Path:
    """The user's folder for what is compiled for this processor; not made here.

    Homes are shared by machines, and code compiled for one processor may not run on another.
    """
    return platformdirs.user_cache_path("blsh_jax") / _processor()


@functools.cache
def _processor() -> str:
    facts = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        facts += [next((line for line in lines if line.startswith(("flags", "Features"))), "")]
    return hashlib.sha256("".join(facts).encode()).hexdigest()[:16]


class _File(io.FileIO):
    """An open file whose errors name the file that it is to become."""

    def __init__(self, descriptor: int, target: Path):
        super().__init__(descriptor, "r+")
        self._target = target

    def write(self, data: Any) -> int:
        with _naming(self._target):
            return super().write(data)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _refuse_what_is_no_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder: name a file", str(path))
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link to itself: name a file", str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is a device or a pipe: name a file", str(path))


def _create(temporary: Path) -> int:
    """Creates and locks a file; its descriptor."""
    while True:
        descriptor = os.open(temporary, _NEW, 0o666)
        # Some network folders have no locks: nothing is locked there, and nothing removed.
        with contextlib.suppress(OSError):
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():  # not taken for a leftover before it was locked
            return descriptor
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left in the folder: our temporary files without a lock."""
    with contextlib.suppress(OSError):  # a folder that can be written and not listed
        names = [n for n in os.listdir(folder) if n.startswith(_PREFIX) and n.endswith(_SUFFIX)]
        for name in names:
            with contextlib.suppress(OSError):  # in use, or somebody else's
                _remove_leftover(folder / name)


def _remove_leftover(path: Path) -> None:
    if fcntl is None:
        path.unlink()
        return
    descriptor = os.open(path, _FOUND)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


def _check(file: io.BufferedRandom, verify: Callable[[BinaryIO], bool]) -> None:
    try:
        # Anew, as what was written by the descriptor has not moved the file.
        with open(file.fileno(), "rb", closefd=False) as written:
            written.seek(0)
            same, reason = verify(written), ""
    except Exception as error:  # whatever readers say of damaged files
        same, reason = False, f" ({error})"
    if not same:
        text = f"does not read back as it was written{reason}: is the disk full?"
        raise OSError(errno.EIO, text)


def _is_whole_archive(file: BinaryIO) -> bool:
    """Whether every member of an ``.npz`` file has its checksum."""
    with zipfile.ZipFile(file) as archive:
        return archive.testzip() is None


def _quietly(action: Callable[[], object]) -> None:
    """Clears up: what went wrong before is what there is to say."""
    with contextlib.suppress(OSError):
        action()


def _flush_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut, where the system flushes folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows, or a folder that can be written and not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network folders
            raise
    finally:
        os.close(descriptor)
