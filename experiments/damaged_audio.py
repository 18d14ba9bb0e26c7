"""Damaged audio files, made by code: what ``experiments.fuzz`` and the tests read.

damaged = damaged_audio(numpy.random.default_rng(0))    bytes of an audio file, damaged at random
outcome = denoise(damaged, model, partial, folder)      "whole", "partial" or "refused"
"""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from blsh_jax.corpora import audio
from blsh_jax.denoising import recordings
from blsh_jax.models import Model

# Headerless, and of two files.
_NOT_WRITTEN = ("RAW", "SD2")
# Where nothing says how long the audio is, a shorter file is as whole as a longer one.
_NO_LENGTH = ("PAF", "PVF", "IRCAM", "XI")
# Codecs that fill their last block.
_IN_BLOCKS = ("GSM610", "IMA_ADPCM", "MS_ADPCM")
_MOST_FILLED = 4096
_RATES = (8_000, 16_000, 44_100, 48_000)
_MOST_SAMPLES = 60_000  # several pages of Ogg
_HEADER = 128
_EXTREMES = (b"\0", b"\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x80\0\0\0\0\0\0\0", b"\1\0")


class Damaged(NamedTuple):
    """A file that is not what it was.

    Attributes:
        kind: container by libsndfile's name.
        content: the bytes that there are.
        whole: the bytes that there were, if all that happened is that it was cut; else None.
    """

    kind: str
    content: bytes
    whole: bytes | None


@functools.cache
def formats() -> tuple[tuple[str, str], ...]:
    """Every container and sample format that soundfile writes, and an array can be read back of."""
    found = []
    for kind in sorted(set(soundfile.available_formats()) - set(_NOT_WRITTEN)):
        for subtype in sorted(soundfile.available_subtypes(kind)):
            try:
                whole_audio(kind, subtype, np.zeros((1, 800)), 8_000)
            except (soundfile.LibsndfileError, ValueError, AssertionError):
                continue
            found.append((kind, subtype))
    return tuple(found)


def whole_audio(kind: str, subtype: str, samples: np.ndarray, rate: int) -> bytes:
    """An audio file in memory.

    Args:
        kind: container by libsndfile's name.
        subtype: sample format by libsndfile's name.
        samples: (C, n) floats in [-1, 1].
        rate: in Hz.

    Raises:
        LibsndfileError: the format does not hold that.
    """
    content = io.BytesIO()
    soundfile.write(content, samples.T, rate, subtype, format=kind)
    return content.getvalue()


def noise(rng: np.random.Generator, channels: int, length: int) -> np.ndarray:
    """(C, n) float64, of a level that comes and goes."""
    level = 0.15 * (1 + np.sin(np.arange(length) / 300))
    return np.clip(level * rng.standard_normal((channels, length)), -1, 1)


def declares_length(kind: str) -> bool:
    """Whether a file of this container says how long it is, so that a cut can be seen."""
    return kind not in _NO_LENGTH


def damaged_audio(rng: np.random.Generator) -> Damaged:
    """A file of any format with one kind of damage at random, or none."""
    kind, subtype = formats()[rng.integers(len(formats()))]
    channels, rate = int(rng.integers(1, 3)), int(rng.choice(_RATES))
    samples = noise(rng, channels, int(np.exp(rng.uniform(0, np.log(_MOST_SAMPLES)))))
    try:
        whole = whole_audio(kind, subtype, samples, rate)
    except soundfile.LibsndfileError:  # of one channel only, or not of this rate
        whole = whole_audio(kind, subtype, samples[:1], 8_000)
    damage = _DAMAGES[rng.integers(len(_DAMAGES))]
    return Damaged(kind, damage(rng, whole), whole if damage in (_cut, _keep) else None)


def denoise(damaged: Damaged, model: Model, partial: bool, folder: Path) -> str:
    """Denoise a damaged file, and look at what came of it.

    Args:
        damaged: the file.
        model: what to denoise with.
        partial: as in ``recordings.denoise_file``.
        folder: for files.

    Returns:
        ``whole``, ``partial`` or ``refused``.

    Raises:
        AssertionError: samples are missing in what counts as done, or a refusal does not say of
            what file.
    """
    source, target, lacks = folder / "in.audio", folder / "out.wav", list[str]()
    source.write_bytes(damaged.content)
    target.unlink(missing_ok=True)
    try:
        recordings.denoise_file(
            source, target, model, partial=partial, cut_short=lacks.append, note=str
        )
    except audio.AudioError as error:
        assert str(source) in str(error) or str(target) in str(error), error
        assert sorted(folder.iterdir()) == [source], "something is left of a file that was refused"
        return "refused"
    with audio.reading(source, partial) as file:
        heard = np.concatenate(list(file.blocks(1 << 20)), axis=-1)
    with soundfile.SoundFile(target) as file_out:
        written, rate = file_out.read(file_out.frames, always_2d=True).T, file_out.samplerate
        filled = written.shape[1] - heard.shape[1] if file_out.subtype in _IN_BLOCKS else 0
    assert (len(written), rate) == (len(heard), file.sample_rate), "another format"
    assert written.shape[1] == heard.shape[1] + filled, "not all that was read"
    assert 0 <= filled < _MOST_FILLED, "not all that was read"
    assert bool(lacks) == bool(file.missing), "a cut file is not named"
    if lacks:
        return "partial"
    if damaged.whole is not None and declares_length(damaged.kind):
        (folder / "whole.audio").write_bytes(damaged.whole)
        with audio.reading(folder / "whole.audio") as file:
            before = np.concatenate(list(file.blocks(1 << 20)), axis=-1)
        (folder / "whole.audio").unlink()
        assert before.shape == heard.shape, f"{heard.shape} of {before.shape} samples"
    return "whole"


def _keep(rng: np.random.Generator, whole: bytes) -> bytes:
    return whole


def _cut(rng: np.random.Generator, whole: bytes) -> bytes:
    return whole[: rng.integers(1, len(whole) + 1)]


def flip(rng: np.random.Generator, whole: bytes) -> bytes:
    """Some bits turned over."""
    content = bytearray(whole)
    for place in rng.integers(0, len(whole), rng.integers(1, 9)):
        content[place] ^= 1 << rng.integers(8)
    return bytes(content)


def _set_fields(rng: np.random.Generator, whole: bytes) -> bytes:
    """Numbers of the header, set to what no file has."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(4, max(5, min(_HEADER, len(whole)))))
        size = int(rng.choice([1, 2, 4, 8]))
        value = _EXTREMES[rng.integers(len(_EXTREMES))]
        field = (value * 8)[:size] if rng.random() < 0.8 else rng.bytes(size)
        field = field[::-1] if rng.random() < 0.5 else field
        content[place : place + size] = field[: len(whole) - place]
    return bytes(content)


def _splice(rng: np.random.Generator, whole: bytes) -> bytes:
    """A part left out, there twice, moved, or from another file."""
    start, end = sorted(rng.integers(0, len(whole) + 1, 2))
    parts = whole[:start], whole[start:end], whole[end:]
    joined = (parts[0] + parts[2], b"".join(parts[:2]) * 2, parts[0] + parts[2] + parts[1])
    if (choice := rng.integers(4)) < 3:
        return joined[choice] or whole
    kind, subtype = formats()[rng.integers(len(formats()))]
    return parts[0] + whole_audio(kind, subtype, noise(rng, 1, 800), 8_000) + parts[2]


def _fill(rng: np.random.Generator, whole: bytes) -> bytes:
    """A run of zeros or of one byte, as of a disk that failed."""
    start, end = sorted(rng.integers(0, len(whole) + 1, 2))
    return whole[:start] + (b"\0", b"\xff", b"U")[rng.integers(3)] * (end - start) + whole[end:]


def _append(rng: np.random.Generator, whole: bytes) -> bytes:
    """Bytes after the end: tags, padding, junk, the file again."""
    tag = b"TAG" + bytes(125)
    return whole + (tag, bytes(600), rng.bytes(700), whole)[rng.integers(4)]


_DAMAGES: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    *(_keep, _cut, _cut, flip, _set_fields, _set_fields, _splice, _fill, _append),
)
