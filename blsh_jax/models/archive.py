"""An .npz file from elsewhere: checked as a whole before anything of it is unpacked.

Model files and checkpoints come through here. Neither the sizes that such a file declares nor the
bytes that it holds are believed: names, types, shapes and sizes of all arrays are compared with
what the file's own header asks for, and only then memory is taken. No pickle is ever read.
"""

import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

MOST_BYTES = 4 << 30  # that a file may unpack to, all arrays together
_ALWAYS_ALLOWED = 64 << 20  # bytes to unpack to, however few they are in the file
_MOST_RATIO = 20  # times that more than those may be compressed; masks are about 3 times
_MOST_HEADER_BYTES = 16 << 20
_MOST_MEMBERS = 32
_CHUNK = 1 << 20

# The end of a zip file without comment, as np.savez writes it: signature, disks, members (here, in
# all), bytes of the directory, its place, bytes of the comment.
_END = struct.Struct("<4s4H2LH")
_MOST_DIRECTORY_BYTES = 1 << 14
# The start of an .npy file: magic string, version, bytes of the description that follows.
_START = struct.Struct("<6s2BH")
_DESCRIPTION = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z]\d{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12}, ){0,2}(?:\d{1,12},?)?)\), \} *\n"
)
_TEXT = re.compile(r"<U\d+")

# What zipfile raises over damaged bytes; RuntimeError is for encryption and unknown methods.
_DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


class ModelError(ValueError):
    """A model file or checkpoint that cannot be used: which file, what is wrong, what to do."""


class Field(NamedTuple):
    """What an array of a file must be.

    Attributes:
        dtype: as .npy files spell it, such as ``<f4``.
        shape: of the array.
        optional: whether the file may do without it.
    """

    dtype: str
    shape: tuple[int, ...]
    optional: bool = False


class _Stored(NamedTuple):
    """An array as its .npy header describes it."""

    dtype: str
    shape: tuple[int, ...]
    fortran_order: bool
    start: int


class Archive:
    """The arrays of an .npz file, none of them unpacked yet.

    Args:
        path: the name for messages.
        file: the open file.
        kind: what it should be, such as ``model file``.
        remedy: what to do if it is not.

    Raises:
        ModelError: it is no such file, or damaged.
    """

    def __init__(self, path: str | os.PathLike, file: BinaryIO, kind: str, remedy: str):
        self._path, self._file, self._kind, self._remedy = path, file, kind, remedy
        self._num_bytes = file.seek(0, os.SEEK_END)
        self._check_end()
        with self._damage("its directory"):
            self._zip = zipfile.ZipFile(file)
        self._members = self._named(self._zip.infolist())
        self._stored = {name: self._describe(name) for name in self._members}

    def header(self) -> dict[str, Any]:
        """The member ``header``, which says what the file is: an object of JSON."""
        self._require("header")
        stored, size = self._stored["header"], self._members["header"].file_size
        if not _TEXT.fullmatch(stored.dtype) or stored.shape or size > _MOST_HEADER_BYTES:
            self.refuse("header", "is not the text that it should be")
        content = self._unpack("header").tobytes()
        try:
            text = content.decode("utf-32-le").rstrip("\0")
            header = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            self.refuse("header", f"cannot be read ({_brief(error)})")
        if not isinstance(header, dict):
            self.refuse("header", "is no object of JSON")
        return header

    def length(self, name: str) -> int:
        """The size of an array's first axis."""
        self._require(name)
        shape = self._stored[name].shape
        if not shape:
            self.refuse(name, "is a single number in place of an array")
        return shape[0]

    def arrays(self, fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
        """Unpack all arrays, once every one of them is known to be what it must be.

        Args:
            fields: what the file must hold besides ``header``, by name.

        Returns:
            The arrays by name, without the optional ones that are missing; all numbers are finite.

        Raises:
            ModelError: an array is missing, unknown, of another type or shape, damaged, or holds
                NaN or infinity.
        """
        for name in self._members:
            if name != "header" and name not in fields:
                self.refuse(_shown(name), f"is not known in a {self._kind}")
        present = [name for name in fields if name in self._members or not fields[name].optional]
        for name in present:
            self._require(name)
            self._compare(name, self._stored[name], fields[name])
        unpacked = {name: self._unpack(name) for name in present}
        for name, array in unpacked.items():
            if not np.isfinite(array).all():
                self.refuse(name, "holds NaN or infinite numbers")
        return unpacked

    def refuse(self, field: str, problem: str, remedy: str | None = None) -> NoReturn:
        """Raise ModelError about a field of the file."""
        raise ModelError(f"{self._path}: {field} {problem}: {remedy or self._remedy}") from None

    def _compare(self, name: str, found: _Stored, field: Field) -> None:
        if found.shape != field.shape:
            self.refuse(name, f"has shape {found.shape}, expected {field.shape}")
        if found.dtype != field.dtype:
            dtype = np.dtype(field.dtype)
            self.refuse(name, f"has the type {found.dtype}, expected {field.dtype} ({dtype})")

    def _require(self, name: str) -> None:
        if name not in self._members:
            raise ModelError(
                f"{self._path} is an .npz file, but no {self._kind} of this package, as it has no "
                f"{name}: {self._remedy}"
            )

    @contextmanager
    def _damage(self, field: str) -> Iterator[None]:
        """What is raised over damaged bytes becomes a ModelError about a field."""
        try:
            yield
        except ModelError:
            raise
        except _DAMAGE as error:
            raise ModelError(
                f"{self._path} is not a whole {self._kind}, {field} is damaged "
                f"({_brief(error)}): {self._remedy}"
            ) from error

    def _check_end(self) -> None:
        """The directory is small and at the end, before zipfile reads all of it."""
        with self._damage("its end"):
            self._file.seek(-min(self._num_bytes, _END.size), os.SEEK_END)
            signature, _, _, _, members, size, _, comment = _END.unpack(self._file.read())
            if signature != b"PK\5\6" or comment:
                raise ValueError("the end of an .npz file is missing")
            if members > _MOST_MEMBERS or size > _MOST_DIRECTORY_BYTES:
                raise ValueError(f"{members} arrays")
            if self._num_bytes >= 20 + _END.size:
                self._file.seek(-20 - _END.size, os.SEEK_END)
                if self._file.read(4) == b"PK\6\7":  # a second directory, for more than 4 GiB
                    raise ValueError("more than 4 GiB")

    def _named(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """Members by the names of their arrays, all of them of bounded size."""
        members: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                self.refuse(_shown(name), "is no array")
            if name in members:
                self.refuse(_shown(name), "is there twice")
            is_numpys = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if entry.flag_bits or not is_numpys:
                self.refuse(_shown(name), "is encrypted, or compressed as NumPy does not")
            members[name] = entry
        total = sum(entry.file_size for entry in entries)
        most = min(MOST_BYTES, max(_ALWAYS_ALLOWED, _MOST_RATIO * self._num_bytes))
        if total > most:
            largest = max(members, key=lambda name: members[name].file_size)
            self.refuse(
                _shown(largest),
                f"makes the file unpack to {total:,} bytes, more than the {most:,} that one of "
                f"{self._num_bytes:,} bytes may",
            )
        return members

    def _describe(self, name: str) -> _Stored:
        """Read the .npy header of a member, and compare it with the member's size."""
        with self._damage(_shown(name)), self._zip.open(self._members[name]) as member:
            magic, major, minor, length = _START.unpack(member.read(_START.size))
            if (magic, major, minor) != (b"\x93NUMPY", 1, 0):
                raise ValueError("no .npy header of version 1.0")
            match = _DESCRIPTION.fullmatch(member.read(length))
            if match is None:
                raise ValueError("its .npy header is none that NumPy writes")
        dtype, fortran_order, shape = (group.decode() for group in match.groups())
        sizes = tuple(int(size) for size in shape.replace(" ", "").split(",") if size)
        declared = math.prod(sizes) * _item_bytes(dtype)
        if _START.size + length + declared != self._members[name].file_size or declared == 0:
            self.refuse(
                _shown(name),
                f"declares {declared:,} bytes of numbers, and has "
                f"{self._members[name].file_size - _START.size - length:,}",
            )
        return _Stored(dtype, sizes, fortran_order == "True", _START.size + length)

    def _unpack(self, name: str) -> np.ndarray:
        stored, size = self._stored[name], self._members[name].file_size
        try:
            values = np.empty(size - stored.start, np.uint8)
        except MemoryError:
            self.refuse(name, f"has {size:,} bytes, more than this machine has memory for")
        with self._damage(name), self._zip.open(self._members[name]) as member:
            member.read(stored.start)
            for start in range(0, len(values), _CHUNK):
                part = values[start : start + _CHUNK]
                content = member.read(len(part))
                if len(content) < len(part):
                    raise EOFError("it is shorter than it says")
                part[:] = np.frombuffer(content, np.uint8)
        array = values.view(stored.dtype)
        if stored.fortran_order:
            return array.reshape(stored.shape[::-1]).T
        return array.reshape(stored.shape)


@contextmanager
def reading(path: str | os.PathLike, kind: str, remedy: str) -> Iterator[Archive]:
    """Open a file and check all that can be checked before it is unpacked.

    Args:
        path: the file.
        kind: what it should be, for messages, such as ``model file``.
        remedy: what to do if it is not.

    Yields:
        The archive.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: the file cannot be read, is no .npz file, or is damaged.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ModelError(f"{path} cannot be read, as it is no regular file: name a {kind}")
        with open(path, "rb") as file:
            yield Archive(path, file, kind, remedy)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check it") from error


def _item_bytes(dtype: str) -> int:
    """Bytes of a number, or of a text."""
    return int(dtype[2:]) * (4 if dtype[1] == "U" else 1)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _shown(name: str) -> str:
    """A name that anybody may have chosen, fit for a message."""
    return ascii(name)[1:-1][:60]


def _brief(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
