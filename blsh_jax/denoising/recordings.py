"""Denoising arrays and files of any rate, channel count and length with a model.

The model works at its own rate, 16 kHz. Other rates are resampled there and back, without delay. It
knows nothing of the band above half its rate: what a recording has there is kept and follows the
gain that the mask gives, on average, to the quarter below (6 to 8 kHz), smoothly over time. So
sibilants stay bright, and hiss above 8 kHz falls silent with the hiss below.

Whole recordings get the pre-roll that the model's features ask for (``robust.pre_roll``), so
their noise is known from the first sample on.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from blsh_jax.corpora import audio
from blsh_jax.denoising.buffers import SampleQueue, Turns
from blsh_jax.denoising.pipeline import separate
from blsh_jax.denoising.stream import Stream, as_samples, check_samples
from blsh_jax.models.model import Model, load_pretrained

# 2 s at a time: frames enough to keep the search busy, few enough to stay in a core's cache, little
# work on the silence after a short recording, and one compiled shape whatever the lengths. Less of
# very many channels or a very high rate, so that memory does not grow with either.
BLOCK_HOPS = 128
_BLOCK_SAMPLES = 1 << 20
_READ_SAMPLES = 1 << 17


class Denoiser:
    """Denoises one recording of any rate that comes in pieces of any length, in bounded memory.

    All that ``feed`` and ``flush`` return, side by side, is the denoised recording: of the same
    length, aligned to the sample. ``flush`` ends a recording; the denoiser is as new then. A piece
    that is refused changes nothing. One thread at a time may work on a recording, and after a call
    that was stopped in the middle (Ctrl-C, no memory) it takes a new denoiser (``buffers.Turns``).

    Args:
        model: what to denoise with.
        sample_rate: of the recording, in Hz.
        channels: C; every channel is denoised by itself.
        dry_wet: 1 gives the denoised recording, 0 the recording as it is, and values between a
            mixture of both.
        max_attenuation_db: no frequency is attenuated by more than this, in dB.
        hops: hops that are worked on at a time: 1 for the least delay; None for many, as files
            need, within bounded memory.
        pre_roll: as in ``stream.Stream``: without it, nothing is held back at the start.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        model: Model,
        sample_rate: float,
        channels: int,
        dry_wet: float = 1.0,
        max_attenuation_db: float = math.inf,
        hops: int | None = None,
        pre_roll: bool = True,
    ):
        sample_rate = _checked_rate(sample_rate)
        _check_channels(channels)
        check_settings(dry_wet, max_attenuation_db)
        rate = model.separation.stft.sample_rate
        if hops is None:
            hop = model.separation.stft.hop_length * channels * max(1.0, sample_rate / rate)
            hops = min(BLOCK_HOPS, max(1, int(_BLOCK_SAMPLES / hop)))
        self._channels, self._dry_wet = channels, dry_wet
        # Above the model's rate, the loss of the high band is resampled beside the speech.
        self._has_high_band = sample_rate > rate
        self._stream = Stream(model, channels, _floor(max_attenuation_db), hops, pre_roll)
        # Enough silence after the end for the resamplers to give every sample before it.
        self._tail = 2 * math.ceil(max(1.0, sample_rate / rate))
        self._sample_rate, self._model_rate, self._turns = sample_rate, rate, Turns()
        self._restart()

    def feed(self, samples: npt.ArrayLike) -> np.ndarray:
        """Take the next samples; return those that are done.

        Args:
            samples: (C, n) floats, n of any size.

        Returns:
            (C, m), of the dtype of ``samples``.

        Raises:
            ValueError: ``samples`` is of other channels, not floating point, or holds NaN,
                infinity or more than ``audio.LOUDEST``.
            RuntimeError: as ``buffers.Turns``.
        """
        samples = as_samples(samples)
        if samples.ndim != 2 or samples.shape[0] != self._channels:
            raise ValueError(f"samples has shape {samples.shape}: give ({self._channels}, n)")
        check_samples(samples)
        with self._turns:
            self._dry.put(samples)
            low = self._down.feed(samples.astype(np.float32))
            self._low.put(low)
            return self._finish(self._rejoin(*self._stream.feed_rows(low))).astype(samples.dtype)

    def flush(self) -> np.ndarray:
        """The rest of the recording, (C, m) float64; then the denoiser takes a new one.

        Raises:
            RuntimeError: as ``buffers.Turns``.
        """
        with self._turns:
            silence = np.zeros((self._channels, self._tail), np.float32)
            low = self._down.feed(silence, last=True)
            self._low.put(low)
            fed = self._finish(self._rejoin(*self._stream.feed_rows(low)))
            rest = self._finish(self._rejoin(*self._stream.flush_rows(), last=True))
            self._restart()
        return np.concatenate([fed, rest], axis=-1)

    def _restart(self) -> None:
        rate, channels = self._model_rate, self._channels
        self._down = audio.Resampler(self._sample_rate, rate, channels)
        self._up = audio.Resampler(rate, self._sample_rate, channels * (1 + self._has_high_band))
        self._low = SampleQueue(channels)
        self._dry = SampleQueue(channels, np.float64)

    def _rejoin(self, speech: np.ndarray, gain: np.ndarray, last: bool = False) -> np.ndarray:
        """The model's output at the recording's rate, the loss of the high band below it.

        With the gain g, the recording x and its low band l, the result is s + g (x - l): rejoined
        as g x + (s - g l), which is exact wherever the mask takes nothing away. The loss 1 - g
        is resampled, not g, as it is zero beyond both ends.
        """
        low = self._low.take(speech.shape[-1])
        if self._has_high_band:
            speech = np.concatenate([speech - gain * low, 1 - gain])
        return self._up.feed(speech, last)

    def _finish(self, joined: np.ndarray) -> np.ndarray:
        """Add the high band and the dry recording; drop what is past its end."""
        dry = self._dry.take(joined.shape[-1])
        joined = joined[:, : dry.shape[-1]]
        wet = joined[: self._channels]
        if self._has_high_band:
            wet = wet + (1 - np.clip(joined[self._channels :], 0, 1)) * dry
        return dry + self._dry_wet * (wet - dry) if self._dry_wet < 1 else wet


@overload
def denoise(  # type: ignore[overload-overlap]  # JAX arrays are arrays of any library, too
    noisy: Array,
    sample_rate: float,
    model: Model | None = None,
    *,
    strength: float | str = 1.0,
    dry_wet: float = 1.0,
    max_attenuation_db: float = math.inf,
) -> Array: ...


@overload
def denoise(
    noisy: npt.ArrayLike,
    sample_rate: float,
    model: Model | None = None,
    *,
    strength: float | str = 1.0,
    dry_wet: float = 1.0,
    max_attenuation_db: float = math.inf,
) -> np.ndarray: ...


def denoise(
    noisy: npt.ArrayLike | Array,
    sample_rate: float,
    model: Model | None = None,
    *,
    strength: float | str = 1.0,
    dry_wet: float = 1.0,
    max_attenuation_db: float = math.inf,
) -> np.ndarray | Array:
    """Remove the noise from speech.

    Every channel is denoised by itself. Rates other than the model's are resampled there and back;
    see the module on what lies above half the model's rate. Where the loudest sample is from 1e-10
    to ``audio.LOUDEST``, ``noisy`` times a power of two gives the result times it; samples below
    ``audio.QUIETEST`` count as digital silence. Traced samples cannot be refused: keep to that.

    Args:
        noisy: (samples,) or (channels, samples) floating point: an array of any library, a list or
            a buffer. JAX arrays inside ``jit`` and ``vmap`` too, if ``sample_rate`` is the model's.
        sample_rate: of ``noisy``, in Hz.
        model: what to denoise with; the pretrained model if not given.
        strength: above 1 more is taken away, noise and speech; below 1 more is kept; or a name
            (``Model.with_strength``).
        dry_wet: 1 gives the denoised signal, 0 ``noisy`` as it is, and values between a mixture.
        max_attenuation_db: no frequency is attenuated by more than this, in dB.

    Returns:
        The speech: same dtype, shape, rate, and aligned to the sample; a JAX array if ``noisy`` is
        one, else a NumPy array.

    Raises:
        ValueError: ``noisy`` has no samples, more than two axes or ``audio.MAX_CHANNELS`` channels,
            more channels than samples, which is the wrong way round, samples that are NaN, infinite
            or beyond ``audio.LOUDEST``, or is not floating point; a setting is out of range, such
            as a rate not from ``audio.MIN_RATE`` to ``audio.MAX_RATE``; or ``noisy`` is traced at a
            rate that is not the model's.

    Source: [ICASSP20] Algorithm 1.
    """
    sample_rate = _checked_rate(sample_rate)
    check_settings(dry_wet, max_attenuation_db)
    model = _used(model, strength)
    if isinstance(noisy, jax.core.Tracer):
        _check_signal(noisy)
        return _denoise_traced(noisy, sample_rate, model, dry_wet, _floor(max_attenuation_db))
    signal = as_samples(noisy, "noisy")
    _check_signal(signal)
    rows = np.atleast_2d(signal)
    check_samples(rows)
    denoiser = Denoiser(model, sample_rate, len(rows), dry_wet, max_attenuation_db)
    speech = _denoise_whole(denoiser, rows).reshape(signal.shape)
    return jnp.asarray(speech) if isinstance(noisy, Array) else speech


def _used(model: Model | None, strength: float | str) -> Model:
    """The model to denoise with."""
    if isinstance(model, str):
        raise ValueError(f"model is {model!r}: give load_pretrained({model!r}), or what load gave")
    return (_pretrained_model() if model is None else model).with_strength(strength)


def denoise_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    model: Model | None = None,
    *,
    strength: float | str = 1.0,
    dry_wet: float = 1.0,
    max_attenuation_db: float = math.inf,
    partial: bool = False,
    progress: Callable[[float], object] | None = None,
    cut_short: Callable[[str], object] = warnings.warn,
    note: Callable[[str], object] = warnings.warn,
    limit: float = math.inf,
) -> float:
    """Denoise an audio file of any length in bounded memory.

    The same rate, channels, length and sample format come out, and the same container if the
    suffixes agree. What another container does not hold is replaced as ``audio.target_format``
    says.

    Args:
        source: the file to read.
        target: the file to write, whole or not at all; missing folders are made.
        model: what to denoise with; the pretrained model if not given.
        strength: as in ``denoise``.
        dry_wet: as in ``denoise``.
        max_attenuation_db: as in ``denoise``.
        partial: denoise a file that is cut short or damaged as far as it goes.
        progress: called with the seconds of audio that were read since the last call.
        cut_short: called of such a file with a sentence that names it and what it lacks.
        note: called with a sentence on what ``target`` does not hold of ``source``.
        limit: seconds to denoise, from the start.

    Returns:
        Seconds of audio.

    Raises:
        AudioError: ``source`` cannot be read as audio or, unless ``partial``, is not whole; or
            ``target`` cannot be written.
        ValueError: a setting is out of range, or ``source`` and ``target`` are the same file.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"{source}: is also the output; name another one")
    model = _used(model, strength)
    with audio.reading(source, partial) as read:
        kind, subtype, endian, rate = audio.target_format(source, target, read)
        denoiser = Denoiser(model, read.sample_rate, read.channels, dry_wet, max_attenuation_db)
        resampler = audio.Resampler(read.sample_rate, rate, read.channels)
        with audio.writing(
            target, rate, read.channels, subtype, kind, endian, read.tags()
        ) as written:
            for block in _first(read, limit):
                written.write(resampler.feed(denoiser.feed(block)))
                if progress is not None:
                    progress(block.shape[-1] / read.sample_rate)
            written.write(resampler.feed(denoiser.flush(), last=True))
    if rate != read.sample_rate:
        note(f"{target}: at {rate} Hz, as {subtype} does not hold {read.sample_rate} Hz")
    if written.lost:
        note(f"{target}: does not hold of its input: {', '.join(written.lost)}")
    if read.missing:
        cut_short(f"{source}: cut short or damaged ({read.missing}): denoised as far as it goes")
    return written.num_samples / rate


def _first(read: audio.Reader, limit: float) -> Iterator[np.ndarray]:
    """Blocks of a file until so many seconds of it are read."""
    left = limit * read.sample_rate
    for block in read.blocks(_read_samples(read.channels)):
        yield block[:, : math.ceil(min(left, block.shape[-1]))]
        left -= block.shape[-1]
        if left <= 0:
            break


def _denoise_whole(denoiser: Denoiser, signals: np.ndarray) -> np.ndarray:
    """(C, n) samples through a new denoiser, in pieces, so that little is in work at a time."""
    size = _read_samples(len(signals))
    starts = range(0, signals.shape[-1], size)
    pieces = [denoiser.feed(signals[:, start : start + size]) for start in starts]
    return np.concatenate([*pieces, denoiser.flush()], axis=-1, dtype=signals.dtype)


def _read_samples(channels: int) -> int:
    """Samples of a channel to take at a time; resampling makes up to 16 of each."""
    return min(_READ_SAMPLES, _BLOCK_SAMPLES // 4 // channels)


def _denoise_traced(
    noisy: Array, sample_rate: float, model: Model, dry_wet: float, floor: float
) -> Array:
    config = model.separation
    if sample_rate != config.stft.sample_rate:
        raise ValueError(
            f"sample_rate is {sample_rate}, the model's is {config.stft.sample_rate}: resample "
            "before jit or vmap (blsh_jax.corpora.audio.resample), or call denoise outside of them"
        )
    signals = jnp.atleast_2d(noisy).astype(jnp.float32)
    pre_roll = config.features.pre_roll_frames
    wet = separate(signals, model.mask_function, config.stft, pre_roll, floor).speech
    return (signals + dry_wet * (wet - signals)).reshape(noisy.shape).astype(noisy.dtype)


def _floor(max_attenuation_db: float) -> float:
    """The smallest gain."""
    return 10 ** (-max_attenuation_db / 20)


def check_settings(dry_wet: float, max_attenuation_db: float) -> None:
    """Raise ValueError unless ``denoise`` takes these settings."""
    if not 0 <= dry_wet <= 1:
        raise ValueError(f"dry_wet is {dry_wet}: give 0 (the input) to 1 (denoised)")
    if not max_attenuation_db >= 0:
        raise ValueError(f"max_attenuation_db is {max_attenuation_db}: give 0 dB or more")


def _checked_rate(sample_rate: float) -> float:
    """The rate as a number of Python, whatever library it is of."""
    try:
        rate = (
            math.nan if isinstance(sample_rate, str) or np.ndim(sample_rate) else float(sample_rate)
        )
    except TypeError:  # such as None
        rate = math.nan
    if not audio.MIN_RATE <= rate <= audio.MAX_RATE:
        raise ValueError(
            f"sample_rate is {sample_rate}: give {audio.MIN_RATE} to {audio.MAX_RATE} Hz"
        )
    return rate


def _check_channels(channels: int) -> None:
    if not 1 <= channels <= audio.MAX_CHANNELS:
        raise ValueError(f"{channels} channels: give 1 to {audio.MAX_CHANNELS}")


def _check_signal(noisy: np.ndarray | Array) -> None:
    if noisy.ndim not in (1, 2) or noisy.size == 0:
        raise ValueError(
            f"noisy has shape {noisy.shape}: give (samples,) or (channels, samples), not empty"
        )
    if noisy.ndim == 2 and noisy.shape[0] > min(audio.MAX_CHANNELS, noisy.shape[1]):
        raise ValueError(
            f"noisy has shape {noisy.shape}, {noisy.shape[0]} channels: give (channels, samples), "
            f"so transpose what soundfile reads (noisy.T); at most {audio.MAX_CHANNELS} channels, "
            "and no more than samples"
        )
    if not jnp.issubdtype(noisy.dtype, jnp.floating):  # of traced samples
        raise ValueError(f"noisy is {noisy.dtype}: give floating point samples in [-1, 1]")


@cache
def _pretrained_model() -> Model:
    return load_pretrained()
