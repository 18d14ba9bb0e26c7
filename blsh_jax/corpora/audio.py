"""Audio files in and out, and resampling. Time is the last axis of every signal.

NIST SPHERE files (TIMIT's ``.WAV``) and RIFF files are told apart by their header, never by name.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from blsh_jax.corpora import containers, tags
from blsh_jax.files import replacing

# What is denoised and read: beyond that, small files would take memory and time without bounds.
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 256
# Energies overflow in float32 a little beyond the one, and vanish below the other, of which nobody
# hears anything: samples below it count as digital silence.
LOUDEST, QUIETEST = 1e10, 1e-18

AUDIO_SUFFIXES = frozenset(
    {
        *(
            ".wav",
            ".wave",
            ".bwf",
            ".rf64",
            ".w64",
            ".aif",
            ".aiff",
            ".aifc",
            ".caf",
            ".au",
            ".snd",
        ),
        *(".flac", ".ogg", ".oga", ".opus", ".mp2", ".mp3", ".voc", ".sph", ".nist"),
    }
)
# Named like sound that libsndfile does not read: found in folders, too, to be said so.
FOREIGN_SUFFIXES = frozenset(
    {
        *(".m4a", ".m4b", ".mp4", ".aac", ".webm", ".weba", ".mka", ".wma", ".amr", ".3gp", ".spx"),
        *(".ape", ".wv", ".tta", ".ac3", ".dts", ".dsf", ".dff", ".mpc", ".ra"),
    }
)

_FORMATS = {
    ".wave": "WAV",
    ".bwf": "WAV",
    ".aif": "AIFF",
    ".aifc": "AIFF",
    ".snd": "AU",
    ".oga": "OGG",
    ".opus": "OGG",
    ".sph": "NIST",
}
_NOT_WRITTEN = ("RAW", "SD2")  # headerless, and of two files
_INTEGER_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# Bits of a sample that formats keep, also those that only some containers have.
_LINEAR_BITS = _INTEGER_BITS | {"FLOAT": 25, "DOUBLE": 53}
_OTHER_BITS = {"ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32, "DWVW_24": 24, "DPCM_8": 8}
_CODED_BITS = 16  # of all others, as decoders of lossy formats give them
# Coded formats of a few rates: what is at another rate is resampled to the next one.
_CODED_RATES = {
    "OPUS": (8_000, 12_000, 16_000, 24_000, 48_000),
    "MPEG_LAYER_III": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
}
_WIDE_SUBTYPES = frozenset({"PCM_32", "DOUBLE"})  # more than the 24 bits that float32 holds exactly
_QUALITY = "VHQ"
_READ_BLOCK = 1 << 20
_TRIED_SAMPLES = 8
_CODED_BLOCK = 1 << 16  # samples for libsndfile at a time: a long block of Vorbis crashes it
_PARTIAL_BLOCK = 1 << 12  # what comes before an error in the same block is lost
_HEADER_BYTES = 1024
_UNKNOWN_FORMAT = 1  # libsndfile's number of the error
_UNKNOWN_FRAMES = 1 << 62  # libsndfile's count is of this order where a header holds none


class AudioError(ValueError):
    """A file that cannot be read or written as audio; the message names the file."""


class Format(NamedTuple):
    """How an audio file holds a signal, by libsndfile's names.

    Attributes:
        kind: container, such as WAV.
        subtype: sample format, such as PCM_24.
        endian: byte order; None is the format's default.
        sample_rate: in Hz.
    """

    kind: str
    subtype: str
    endian: str | None
    sample_rate: int


class _SoundFile(soundfile.SoundFile):
    """A file that is read or written from its start to its end, whatever its name and header."""

    def __init__(self, file: Path | BinaryIO | containers.Edited, *format: Any):
        # soundfile encodes names strictly, and names need not be valid in any encoding. Of open
        # files libsndfile takes the descriptor, as an interrupt would be lost in a call from it.
        opened: Any = file
        if os.name == "posix" and not isinstance(file, containers.Edited):
            opened = os.fsencode(file) if isinstance(file, Path) else file.fileno()
        super().__init__(opened, *format, closefd=False)

    def seekable(self) -> bool:
        """No, so that soundfile does not seek after each block, which fails without a length."""
        return False


class Reader:
    """An open audio file that is read block by block. Made by ``reading``.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        num_samples: n, as the header says; 0 where it does not say, or the format does not know.
        kind: container by libsndfile's name, such as WAV.
        subtype: sample format by libsndfile's name, such as PCM_24.
        endian: byte order by libsndfile's name.
        missing: what the file lacks, in words; empty if it is whole. Of FLAC known at its end.
    """

    def __init__(
        self,
        path: Path,
        opened: BinaryIO,
        file: soundfile.SoundFile,
        found: containers.Contents,
        partial: bool,
    ):
        self._path, self._opened, self._file, self._partial = path, opened, file, partial
        self._later = found.edits[1:]
        self.missing = found.missing
        self.sample_rate: int = file.samplerate
        self.channels: int = file.channels
        self.kind: str = file.format
        self.subtype: str = file.subtype
        self.endian: str = file.endian
        counted = not file.subtype.startswith("MPEG") and not self._later
        self.num_samples = _frames(file) if counted else 0

    def tags(self) -> tags.Tags:
        """What the file carries beside its samples."""
        of = tags.family(self.kind, self.endian)
        return tags.read(self._opened, of, self._file.copy_metadata())

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """All samples, in blocks of ``size`` (the last one shorter), or of fewer if ``partial``.

        Args:
            size: samples of a block.

        Yields:
            (channels, size), float32; float64 where the file holds more than 24 bits.

        Raises:
            AudioError: the file is empty, cut short, damaged, or holds samples that are NaN,
                infinite or beyond ``LOUDEST``.
        """
        size = min(size, _PARTIAL_BLOCK) if self._partial else size
        total = 0
        with _named_errors(self._path, "not readable as audio"):
            for file in self._parts():
                while (block := self._read(file, size, total)).size:
                    if not np.abs(block).max() <= LOUDEST:
                        raise AudioError(
                            f"{self._path}: holds samples that are NaN, infinite or beyond "
                            f"{LOUDEST:g}"
                        )
                    total += block.shape[-1]
                    yield block
        if total < self.num_samples and not self.missing:
            self.missing = f"{total} samples of {self.num_samples}"
        if self.missing and not self._partial:
            raise _not_whole(self._path, self.missing)
        if total == 0:
            raise AudioError(f"{self._path}: holds no samples ({self.channels} channels)")

    def _parts(self) -> Iterator[soundfile.SoundFile]:
        """The file, or one after another the streams that follow one another in it."""
        yield self._file
        for edit in self._later:
            with contextlib.ExitStack() as stack:
                try:
                    part = stack.enter_context(_SoundFile(containers.Edited(self._opened, edit)))
                except soundfile.LibsndfileError:
                    if not self.missing:
                        raise
                    return
                if (part.samplerate, part.channels) != (self.sample_rate, self.channels):
                    raise AudioError(
                        f"{self._path}: holds streams one after another that differ in rate or "
                        f"channels ({self.sample_rate} Hz, {self.channels} channels and "
                        f"{part.samplerate} Hz, {part.channels} channels): split it"
                    )
                yield part

    def _read(self, file: soundfile.SoundFile, size: int, done: int) -> np.ndarray:
        """The next (channels, size) samples, after ``done``; none at the end or at an error."""
        dtype = "float64" if self.subtype in _WIDE_SUBTYPES else "float32"
        try:
            return file.read(size, dtype=dtype, always_2d=True).T
        except soundfile.LibsndfileError as error:
            total = f" of {self.num_samples}" * bool(self.num_samples)
            self.missing = self.missing or f"{done} samples{total}, then: {error.error_string}"
            return np.zeros((self.channels, 0), dtype)


@contextlib.contextmanager
def reading(path: str | os.PathLike, partial: bool = False) -> Iterator[Reader]:
    """Opens an audio file to be read in blocks, in bounded memory.

    Args:
        path: any file that libsndfile reads; NIST SPHERE must be uncompressed.
        partial: take a file that is cut short or damaged as far as it goes; what it lacks is in
            ``Reader.missing``.

    Yields:
        The open file.

    Raises:
        AudioError: the file is missing, empty, not audio or, unless ``partial``, cut short or
            damaged; or its rate is not from ``MIN_RATE`` to ``MAX_RATE``, or it has more than
            ``MAX_CHANNELS`` channels.
    """
    path = Path(path)
    with _opened(path) as opened:
        with _named_errors(path, "not readable as audio"):
            found = containers.inspect(opened)
            if found.missing and not partial:
                raise _not_whole(path, found.missing)
            edited = containers.Edited(opened, found.edits[0]) if found.edits else path
            file = _SoundFile(edited)
        with file:
            _check_limits(path, file)
            yield Reader(path, opened, file, found, partial)


def seconds(path: str | os.PathLike) -> float:
    """Length of an audio file as its header says, unchecked: of MP3 a guess, else 0 for none."""
    path = Path(path)
    try:
        with _named_errors(path, ""), _opened(path), _SoundFile(path) as file:
            return _frames(file) / file.samplerate
    except AudioError:
        return 0.0


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
        AudioError: as of ``reading`` and ``Reader.blocks``.
    """
    with reading(path) as file:
        rate = file.sample_rate
        blocks = (block.astype(np.float32) for block in file.blocks(_READ_BLOCK // file.channels))
        if mono:
            blocks = (block.mean(axis=0, dtype=np.float32) for block in blocks)
        signal = np.concatenate(list(blocks), axis=-1)
    if sample_rate is not None and sample_rate != rate:
        signal, rate = resample(signal, rate, sample_rate), sample_rate
    return np.ascontiguousarray(signal), rate


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, opened, unless it is none that libsndfile could read, or would misname."""
    if not path.is_file():
        raise AudioError(f"{path}: {_why_no_file(path)}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from error
    with file:
        with _named_errors(path, "not readable"):
            header = file.read(_HEADER_BYTES)
        if not header:
            raise AudioError(f"{path}: the file is empty (0 bytes)")
        if header.startswith(b"NIST_1A") and b"shorten" in header:
            raise AudioError(
                f"{path}: NIST SPHERE compressed with shorten; expand it first, for example with "
                "`sph2pipe -f wav IN OUT`"
            )
        yield file


def _not_whole(path: Path, missing: str) -> AudioError:
    return AudioError(
        f"{path}: cut short or damaged ({missing}); copy it again, or denoise what there is of it "
        "(blsh denoise --partial, partial=True)"
    )


def _check_limits(path: Path, file: soundfile.SoundFile) -> None:
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise AudioError(
            f"{path}: its rate is {file.samplerate} Hz; rates from {MIN_RATE} to {MAX_RATE} Hz are "
            "read: is the header damaged?"
        )
    if file.channels > MAX_CHANNELS:
        raise AudioError(
            f"{path}: has {file.channels} channels; up to {MAX_CHANNELS} are read: split it"
        )


def _frames(file: soundfile.SoundFile) -> int:
    """Samples of a channel, as the header says; 0 where it does not."""
    frames: int = file.frames
    return frames if frames < _UNKNOWN_FRAMES else 0


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    if path.exists():
        return "is no regular file; send it to standard input"
    return "is a link to nothing, or to itself" if path.is_symlink() else "no such file"


@contextlib.contextmanager
def _named_errors(path: Path, what: str) -> Iterator[None]:
    """Errors of libsndfile and of the file system, as an ``AudioError`` that names the file."""
    try:
        yield
    except AudioError:
        raise
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().removesuffix(".")
        convert = "; if it is audio, convert it first, for example by `ffmpeg -i IN OUT.flac`"
        remedy = convert * (error.code == _UNKNOWN_FORMAT)
        raise AudioError(f"{path}: {what} ({reason}){remedy}") from error
    # TypeError: soundfile takes .raw for headerless and asks for its rate. AssertionError: it could
    # not write everything.
    except (OSError, ValueError, TypeError, AssertionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "incomplete"
        raise AudioError(f"{path}: {what} ({reason})") from error


class Writer:
    """An open audio file that takes blocks. Made by ``writing``.

    Attributes:
        num_samples: of a channel, so far.
        lost: what the file does not hold of the tags that it was to carry, known when it is done.
    """

    def __init__(self, path: Path, file: soundfile.SoundFile):
        self._path, self._file = path, file
        self.num_samples, self.lost = 0, list[str]()

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
            for start in range(0, samples.shape[-1], _CODED_BLOCK):
                block = samples[:, start : start + _CODED_BLOCK]
                self._file.write(_quantized(block, self._file.subtype).T)
        self.num_samples += samples.shape[-1]


@contextlib.contextmanager
def writing(
    path: str | os.PathLike,
    sample_rate: int,
    channels: int,
    subtype: str | None = None,
    kind: str | None = None,
    endian: str | None = None,
    carried: tags.Tags = tags.NONE,
) -> Iterator[Writer]:
    """Makes an audio file block by block, whole or not at all.

    Args:
        path: the file; folders above it are made.
        sample_rate: rate in Hz.
        channels: number of channels.
        subtype: sample format by libsndfile's name, such as PCM_24; None is the format's default.
        kind: container by libsndfile's name; None goes by the suffix of ``path``.
        endian: byte order by libsndfile's name; None is the format's default.
        carried: tags that it takes as far as it holds them.

    Yields:
        The open file. It appears under its name only when the block ends well and what was written
        has been decoded from its start to its end.

    Raises:
        AudioError: the format is unknown or does not hold this signal, or the disk is full or not
            writable; nothing is left behind, and what was there is kept.
    """
    path = Path(path)
    kind = kind or suffix_kind(path)
    subtype = subtype or default_subtype(path, kind)
    writer: Writer
    verify = lambda written: _holds(written, writer.num_samples, channels, sample_rate)
    with (
        _named_errors(path, "not written"),
        replacing(path, verify) as new,
    ):
        of = tags.family(kind, endian)
        with _SoundFile(new, "w", sample_rate, channels, subtype, endian, kind) as file:
            tags.set_strings(file, of, carried)
            writer = Writer(path, file)
            yield writer
        writer.lost = tags.write(new, of, carried)


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
    if kind in _NOT_WRITTEN or kind not in soundfile.available_formats():
        raise AudioError(f"{path}: no audio format for the suffix {suffix!r}; use .wav or .flac")
    return kind


def default_subtype(path: Path, kind: str) -> str:
    """The sample format of a new file of container ``kind``."""
    return "OPUS" if path.suffix.lower() == ".opus" else soundfile.default_subtype(kind)


def target_format(source: str | os.PathLike, target: str | os.PathLike, read: Reader) -> Format:
    """In which format to write what is read from another file.

    The container is that of ``source`` if the suffixes agree, else that of the suffix. The sample
    format is that of ``source`` where the container has it. Else it is the smallest one that keeps
    as many bits, or the one that keeps the most; 16 bits stand for lossy formats. The rate is kept,
    but by MP3 and Opus, which hold few: what they do not hold goes to the next one above.

    Args:
        source: the file that is read.
        target: the file to write.
        read: ``source``, open.

    Raises:
        AudioError: the suffix of ``target`` stands for no format, or for one that does not hold so
            many channels or the rate.
    """
    source, target = Path(source), Path(target)
    same = source.suffix.lower() == target.suffix.lower()
    kind = read.kind if same else suffix_kind(target)
    bits = _LINEAR_BITS.get(read.subtype, _OTHER_BITS.get(read.subtype, _CODED_BITS))
    rank = lambda subtype: (_LINEAR_BITS[subtype] < bits, abs(_LINEAR_BITS[subtype] - bits))
    linear = sorted(_LINEAR_BITS, key=rank)
    default = None if kind in _NOT_WRITTEN else default_subtype(target, kind)
    for subtype in dict.fromkeys([read.subtype, *linear, default]):
        for endian in (read.endian, None):
            if subtype is None or not soundfile.check_format(kind, subtype, endian):
                continue
            rate = _coded_rate(subtype, read.sample_rate)
            found = Format(kind, subtype, endian, rate)
            if _is_written(found, read.channels):
                return found
    raise AudioError(
        f"{target}: {kind} does not hold {read.channels} channels at {read.sample_rate} Hz; "
        "use .wav or .flac"
    )


def _coded_rate(subtype: str, rate: int) -> int:
    rates = _CODED_RATES.get(subtype, (rate,))
    return rate if rate in rates else min((r for r in rates if r > rate), default=rates[-1])


def _is_written(format: Format, channels: int) -> bool:
    """Whether libsndfile writes that and reads it back: it promises some that it does not write."""
    content = io.BytesIO()
    silence = np.zeros((_TRIED_SAMPLES, channels))
    kind, subtype, endian, rate = format
    try:
        soundfile.write(content, silence, rate, subtype, endian, kind)
        content.seek(0)
        with soundfile.SoundFile(content) as file:
            return (file.samplerate, file.channels) == (rate, channels)
    except (soundfile.LibsndfileError, AssertionError, ValueError):
        return False


def _holds(file: BinaryIO, num_samples: int, channels: int, sample_rate: int) -> bool:
    """Whether a file decodes to what was written: libsndfile passes over some failures.

    PCM, FLAC, Vorbis, Opus and MP3 give every sample back and no more. AIFF and VOC may add one to
    make bytes even, and codecs that work in blocks, such as ADPCM and GSM, fill the last one.
    """
    with _SoundFile(file) as decoded:
        if (decoded.channels, decoded.samplerate) != (channels, sample_rate):
            raise ValueError("the format does not hold this rate or these channels")
        total = 0
        while (block := decoded.read(_CODED_BLOCK, "float32", always_2d=True)).size:
            total += len(block)
        return total == decoded.frames >= num_samples


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


def find_audio(
    folder: str | os.PathLike, unreadable: Callable[[OSError], object] | None = None
) -> list[Path]:
    """Whatever is named like audio at any depth of a folder, sorted, through links too.

    Names starting with a dot are passed over, and so are files that are still being written.

    Args:
        folder: where to look; a folder that is met again through a link is passed over.
        unreadable: called with the error of each folder that cannot be listed. If not given, such
            folders are passed over.

    Raises:
        AudioError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder")
    visible = _visible(folder, unreadable)
    suffixes = AUDIO_SUFFIXES | FOREIGN_SUFFIXES
    return sorted(path for path in visible if path.suffix.lower() in suffixes)


def _visible(folder: Path, unreadable: Callable[[OSError], object] | None) -> Iterator[Path]:
    """Files below the folder, each real folder visited once."""
    seen = set()
    for root, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in files if not name.startswith("."))
