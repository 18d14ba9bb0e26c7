"""Audio files in and out, and resampling. Time is the last axis of every signal.

NIST SPHERE files (TIMIT's ``.WAV``) and RIFF files are told apart by their header, never by name.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from blsh_jax.files import replacing

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".sph", ".nist"}
)

_FORMATS = {".aif": "AIFF", ".oga": "OGG", ".opus": "OGG", ".sph": "NIST"}
_INTEGER_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_WIDE_SUBTYPES = frozenset({"PCM_32", "DOUBLE"})  # more than the 24 bits that float32 holds exactly
_INEXACT_KINDS = frozenset({"MP3", "OGG"})  # their encoders may round the length up
_QUALITY = "VHQ"
_READ_BLOCK = 1 << 20
_HEADER_BYTES = 1024
# Writers that stream do not know the size yet and write one of this order or above, or zero.
_UNKNOWN_RIFF_SIZE = 0x7F000000
_UNKNOWN_FRAMES = 1 << 62  # libsndfile's count is of this order where a header holds none


class AudioError(ValueError):
    """A file that cannot be read or written as audio; the message names the file."""


class _SoundFile(soundfile.SoundFile):
    """A file that is read or written from its start to its end, whatever its name and header."""

    def __init__(self, path: Path, *format: Any):
        # soundfile encodes names strictly, and names need not be valid in any encoding.
        super().__init__(os.fsencode(path) if os.name == "posix" else path, *format)

    def seekable(self) -> bool:
        """No, so that soundfile does not seek after each block, which fails without a length."""
        return False


class Reader:
    """An open audio file that is read block by block. Made by ``reading``.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        num_samples: n, as the header says; 0 where it does not say, or the format does not know.
        seconds: length, which for MP3 may be a guess; 0 where there is none.
        kind: container by libsndfile's name, such as WAV.
        subtype: sample format by libsndfile's name, such as PCM_24.
        endian: byte order by libsndfile's name.
    """

    def __init__(self, path: Path, file: soundfile.SoundFile, header: bytes):
        self._path, self._file = path, file
        self.sample_rate: int = file.samplerate
        self.channels: int = file.channels
        self.kind: str = file.format
        self.subtype: str = file.subtype
        self.endian: str = file.endian
        frames = file.frames if file.frames < _UNKNOWN_FRAMES else 0
        self.num_samples: int = frames if file.format != "MP3" else 0
        self.seconds: float = frames / file.samplerate
        if header.startswith(b"NIST_1A"):
            declared = _sphere_field(header, b"sample_count") or 0
            self.num_samples = max(self.num_samples, declared)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """All samples, in blocks of ``size`` (the last one shorter).

        Args:
            size: samples of a block.

        Yields:
            (channels, size), float32; float64 where the file holds more than 24 bits.

        Raises:
            AudioError: the file is empty, cut short, damaged, or holds NaN or infinity.
        """
        dtype = "float64" if self.subtype in _WIDE_SUBTYPES else "float32"
        total = 0
        with _named_errors(self._path, "not readable as audio"):
            while (block := self._file.read(size, dtype=dtype, always_2d=True).T).size:
                if not np.isfinite(block).all():
                    raise AudioError(f"{self._path}: holds samples that are NaN or infinite")
                total += block.shape[-1]
                yield block
        if total < self.num_samples:
            raise AudioError(
                f"{self._path}: cut short ({total} samples of {self.num_samples}); copy it again"
            )
        if total == 0:
            raise AudioError(f"{self._path}: holds no samples ({self.channels} channels)")


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[Reader]:
    """Opens an audio file to be read in blocks, in bounded memory.

    Args:
        path: any file that libsndfile reads; NIST SPHERE must be uncompressed.

    Yields:
        The open file.

    Raises:
        AudioError: the file is missing, empty, cut short or not audio.
    """
    path = Path(path)
    header = _header(path)
    with _named_errors(path, "not readable as audio"):
        file = _SoundFile(path)
    with file:
        yield Reader(path, file, header)


def read(
    path: str | os.PathLike, sample_rate: int | None = None, mono: bool = True
) -> tuple[np.ndarray, int]:
    """Reads an audio file.

    Args:
        path: any file that libsndfile reads; NIST SPHERE must be uncompressed.
        sample_rate: rate in Hz to resample to; None keeps the rate of the file.
        mono: average the channels.

    Returns:
        The signal, float32, (n,) if ``mono`` and else (channels, n), and its rate in Hz.

    Raises:
        AudioError: the file is missing, empty, cut short, not audio, or holds NaN or infinity.
    """
    with reading(path) as file:
        rate = file.sample_rate
        signal = np.concatenate(list(file.blocks(_READ_BLOCK)), axis=-1).astype(np.float32)
    if mono:
        signal = signal.mean(axis=0, dtype=np.float32)
    if sample_rate is not None and sample_rate != rate:
        signal, rate = resample(signal, rate, sample_rate), sample_rate
    return np.ascontiguousarray(signal), rate


def _header(path: Path) -> bytes:
    """The first bytes of the file, checked for what libsndfile would pass over or misname."""
    if not path.is_file():
        raise AudioError(f"{path}: {_why_no_file(path)}")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from error
    if not header:
        raise AudioError(f"{path}: the file is empty (0 bytes)")
    if header.startswith(b"NIST_1A") and b"shorten" in header:
        raise AudioError(
            f"{path}: NIST SPHERE compressed with shorten; expand it first, for example with "
            "`sph2pipe -f wav IN OUT`"
        )
    _check_riff_size(path, header)
    return header


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    return "is no regular file; send it to standard input" if path.exists() else "no such file"


def _check_riff_size(path: Path, header: bytes) -> None:
    """Raises if a RIFF file is shorter than it says; libsndfile would read what is left."""
    if header[:4] != b"RIFF" or len(header) < 8:
        return
    declared = int.from_bytes(header[4:8], "little")
    if declared < _UNKNOWN_RIFF_SIZE and declared + 8 > path.stat().st_size + 1:
        raise AudioError(
            f"{path}: cut short ({path.stat().st_size} bytes of {declared + 8}); copy it again"
        )


def _sphere_field(header: bytes, name: bytes) -> int | None:
    """An integer field of a NIST SPHERE header, such as ``sample_count -i 46797``."""
    for line in header.split(b"\n"):
        words = line.split()
        if len(words) == 3 and words[0] == name and words[2].isdigit():
            return int(words[2])
    return None


@contextmanager
def _named_errors(path: Path, what: str) -> Iterator[None]:
    """Errors of libsndfile and of the file system, as an ``AudioError`` that names the file."""
    try:
        yield
    except AudioError:
        raise
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: {what} ({error.error_string})") from error
    # TypeError: soundfile takes .raw for headerless and asks for its rate. AssertionError: it could
    # not write everything.
    except (OSError, ValueError, TypeError, AssertionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "incomplete"
        raise AudioError(f"{path}: {what} ({reason})") from error


class Writer:
    """An open audio file that takes blocks. Made by ``writing``."""

    def __init__(self, path: Path, file: soundfile.SoundFile):
        self._path, self._file = path, file
        self.num_samples = 0

    def write(self, signal: npt.ArrayLike) -> None:
        """Appends samples.

        Args:
            signal: (channels, n) floats in [-1, 1]. Beyond that they are clipped, never wrapped
                around, unless the subtype is FLOAT or DOUBLE, which hold them as they are.

        Raises:
            AudioError: the samples are no floats or not finite, or cannot be stored.
        """
        samples = _checked_for_writing(self._path, signal)
        with _named_errors(self._path, "not written; is the disk full?"):
            self._file.write(_quantized(samples, self._file.subtype).T)
        self.num_samples += samples.shape[-1]


@contextmanager
def writing(
    path: str | os.PathLike,
    sample_rate: int,
    channels: int,
    subtype: str | None = None,
    kind: str | None = None,
    endian: str | None = None,
) -> Iterator[Writer]:
    """Makes an audio file block by block, whole or not at all.

    Args:
        path: the file; folders above it are made.
        sample_rate: rate in Hz.
        channels: number of channels.
        subtype: sample format by libsndfile's name, such as PCM_24; None is the format's default.
        kind: container by libsndfile's name; None goes by the suffix of ``path``.
        endian: byte order by libsndfile's name; None is the format's default.

    Yields:
        The open file. It appears under its name only when the block ends well.

    Raises:
        AudioError: the format is unknown or does not hold this signal, or the disk is full or not
            writable; nothing is left behind, and what was there is kept.
    """
    path = Path(path)
    kind = kind or suffix_kind(path)
    subtype = subtype or default_subtype(path, kind)
    with _named_errors(path, "not written"), replacing(path) as temporary:
        with _SoundFile(temporary, "w", sample_rate, channels, subtype, endian, kind) as file:
            writer = Writer(path, file)
            yield writer
        _check_written(temporary, writer.num_samples, kind)


def write(
    path: str | os.PathLike,
    signal: npt.ArrayLike,
    sample_rate: int,
    subtype: str | None = None,
) -> None:
    """Writes an audio file, whole or not at all.

    Args:
        path: the file; its suffix names the format, folders above it are made.
        signal: (n,) or (channels, n), floats in [-1, 1]. Beyond that they are clipped, never
            wrapped around, unless the subtype is FLOAT or DOUBLE, which hold them as they are.
        sample_rate: rate in Hz.
        subtype: sample format by libsndfile's name, such as PCM_24; None is the format's default.

    Raises:
        AudioError: the format is unknown or does not hold this signal; nothing is written.
    """
    samples = np.asarray(signal)
    rows = samples[None] if samples.ndim == 1 else samples
    checked = _checked_for_writing(Path(path), rows)
    with writing(path, sample_rate, len(checked), subtype) as file:
        file.write(checked)


def suffix_kind(path: Path) -> str:
    """The container that the suffix of ``path`` stands for, by libsndfile's name.

    Raises:
        AudioError: it stands for none.
    """
    suffix = path.suffix.lower()
    kind = _FORMATS.get(suffix, suffix[1:].upper())
    if kind not in soundfile.available_formats():
        raise AudioError(f"{path}: no audio format for the suffix {suffix!r}; use .wav or .flac")
    return kind


def default_subtype(path: Path, kind: str) -> str:
    """The sample format of a new file of container ``kind``."""
    return "OPUS" if path.suffix.lower() == ".opus" else soundfile.default_subtype(kind)


def _check_written(path: Path, num_samples: int, kind: str) -> None:
    """Raises if the file does not hold what was written: some failures go unreported."""
    if kind in _INEXACT_KINDS:
        return
    with _SoundFile(path) as file:
        if file.frames < num_samples:
            raise OSError("the file is incomplete: is the disk full?")


def _quantized(samples: np.ndarray, subtype: str) -> np.ndarray:
    """Samples clipped to what the subtype holds; for integers rounded to the nearest.

    libsndfile cuts low bits off, which would shift every sample down by half a step. Integers are
    passed on with 32 bits, of which it keeps the highest.
    """
    if subtype in ("FLOAT", "DOUBLE"):
        return samples
    if subtype not in _INTEGER_BITS:
        return np.clip(samples, -1.0, 1.0)
    bits = _INTEGER_BITS[subtype]
    top = 2.0 ** (bits - 1)
    steps = np.clip(np.rint(samples * top, dtype=np.float64), -top, top - 1)
    return steps.astype(np.int32) << (32 - bits)


def _checked_for_writing(path: Path, signal: npt.ArrayLike) -> np.ndarray:
    samples = np.asarray(signal)
    if samples.ndim != 2 or samples.shape[0] == 0:
        raise AudioError(f"{path}: signal is {samples.shape}; give (n,) or (channels, n)")
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"{path}: signal is {samples.dtype}; give floats in [-1, 1]")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: signal holds NaN or infinite samples")
    return samples if samples.dtype == np.float64 else samples.astype(np.float32)


class Resampler:
    """Changes the sample rate of a signal that comes in pieces; the result is that of the whole.

    Args:
        from_rate: rate of what comes in, in Hz.
        to_rate: rate to change to, in Hz.
        channels: number of channels.
    """

    def __init__(self, from_rate: float, to_rate: float, channels: int):
        self._stream = (
            None
            if from_rate == to_rate
            else soxr.ResampleStream(from_rate, to_rate, channels, "float32", _QUALITY)
        )

    def feed(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """The next samples of the result, those that no later input can change.

        Args:
            samples: (channels, n) float32, n of any size.
            last: the signal ends with these.

        Returns:
            (channels, m) float32, aligned: the filter's delay is taken out.
        """
        if self._stream is None:
            return samples
        rows = np.ascontiguousarray(samples.T, np.float32)
        return self._stream.resample_chunk(rows, last=last).T


def resample(
    signal: np.ndarray, from_rate: float, to_rate: float, num_samples: int | None = None
) -> np.ndarray:
    """Changes the sample rate, without delay, by a linear-phase filter (soxr, very high quality).

    Args:
        signal: (..., n), floats.
        from_rate: rate of ``signal`` in Hz.
        to_rate: rate to change to, in Hz.
        num_samples: exact length of the result; zeros are added or samples cut at the end. None
            is n · to_rate / from_rate, rounded.

    Returns:
        (..., num_samples), float64 if ``signal`` is, else float32.

    Raises:
        ValueError: a rate is not positive.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"from_rate {from_rate} and to_rate {to_rate} must be positive")
    signal = np.asarray(signal)
    signal = signal if signal.dtype == np.float64 else signal.astype(np.float32)
    length = signal.shape[-1]
    if num_samples is None:
        num_samples = round(length * to_rate / from_rate)
    rows = signal.reshape(-1, length)
    if from_rate != to_rate and rows.size:
        rows = soxr.resample(rows.T, from_rate, to_rate, quality=_QUALITY).T
    result = np.zeros((rows.shape[0], num_samples), signal.dtype)
    kept = min(num_samples, rows.shape[1])
    result[:, :kept] = rows[:, :kept]
    return result.reshape(*signal.shape[:-1], num_samples)


def find_audio(folder: str | os.PathLike) -> list[Path]:
    """Audio files at any depth of a folder, sorted; names starting with a dot are passed over.

    Raises:
        AudioError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder")
    return sorted(path for path in _visible(folder) if path.suffix.lower() in AUDIO_SUFFIXES)


def _visible(folder: Path) -> Iterator[Path]:
    """Files below the folder, through links too, each real folder visited once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if not name.startswith("."))
