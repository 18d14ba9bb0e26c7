"""Audio files in and out, and resampling. Time is the last axis of every signal.

NIST SPHERE files (TIMIT's ``.WAV``) and RIFF files are told apart by their header, never by name.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".sph", ".nist"}
)

_FORMATS = {".aif": "AIFF", ".oga": "OGG", ".opus": "OGG", ".sph": "NIST"}
_HEADER_BYTES = 1024
# Writers that stream do not know the size yet and write one of this order or above, or zero.
_UNKNOWN_RIFF_SIZE = 0x7F000000


class AudioError(ValueError):
    """A file that cannot be read or written as audio; the message names the file."""


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
    path = Path(path)
    header = _header(path)
    try:
        with soundfile.SoundFile(path) as file:
            expected, rate, kind = file.frames, file.samplerate, file.format
            signal = file.read(dtype="float32", always_2d=True).T
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not readable as audio ({error.error_string})") from error
    except TypeError as error:  # soundfile takes .raw for headerless and asks for its rate
        raise AudioError(f"{path}: not readable as audio ({error})") from error
    if header.startswith(b"NIST_1A"):
        expected = max(expected, _sphere_field(header, b"sample_count") or 0)
    _check_samples(path, signal, expected if kind != "MP3" else 0)
    if mono:
        signal = signal.mean(axis=0, dtype=np.float32)
    if sample_rate is not None and sample_rate != rate:
        signal, rate = resample(signal, rate, sample_rate), sample_rate
    return np.ascontiguousarray(signal), rate


def _header(path: Path) -> bytes:
    """The first bytes of the file, checked for what libsndfile would pass over or misname."""
    if not path.is_file():
        raise AudioError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
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


def _check_samples(path: Path, signal: np.ndarray, expected: int) -> None:
    channels, samples = signal.shape
    if samples < expected:
        raise AudioError(f"{path}: cut short ({samples} samples of {expected}); copy it again")
    if channels == 0 or samples == 0:
        raise AudioError(f"{path}: holds no samples ({channels} channels, {samples} samples)")
    if not np.isfinite(signal).all():
        raise AudioError(f"{path}: holds samples that are NaN or infinite")


def write(
    path: str | os.PathLike,
    signal: npt.ArrayLike,
    sample_rate: int,
    subtype: str | None = None,
) -> None:
    """Writes an audio file in one step: under a temporary name beside it, then renamed.

    Args:
        path: the file; its suffix names the format, folders above it are made.
        signal: (n,) or (channels, n), floats in [-1, 1]. Beyond that they are clipped, never
            wrapped around, unless the subtype is FLOAT or DOUBLE, which hold them as they are.
        sample_rate: rate in Hz.
        subtype: sample format by libsndfile's name, such as PCM_24; None is the format's default.

    Raises:
        AudioError: the format is unknown or does not hold this signal; nothing is written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    kind = _FORMATS.get(suffix, suffix[1:].upper())
    if kind not in soundfile.available_formats():
        raise AudioError(f"{path}: no audio format for the suffix {suffix!r}; use .wav or .flac")
    subtype = subtype or ("OPUS" if suffix == ".opus" else soundfile.default_subtype(kind))
    samples = _checked_for_writing(path, signal)
    if subtype not in ("FLOAT", "DOUBLE"):
        samples = np.clip(samples, -1.0, 1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(temporary, samples.T, sample_rate, format=kind, subtype=subtype)
        os.replace(temporary, path)
    except (soundfile.LibsndfileError, ValueError, OSError) as error:
        raise AudioError(f"{path}: not written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _checked_for_writing(path: Path, signal: npt.ArrayLike) -> np.ndarray:
    samples = np.asarray(signal)
    if samples.ndim not in (1, 2) or 0 in samples.shape[:-1]:
        raise AudioError(f"{path}: signal is {samples.shape}; give (n,) or (channels, n)")
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"{path}: signal is {samples.dtype}; give floats in [-1, 1]")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: signal holds NaN or infinite samples")
    return samples if samples.dtype == np.float64 else samples.astype(np.float32)


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
        rows = soxr.resample(rows.T, from_rate, to_rate, quality="VHQ").T
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
