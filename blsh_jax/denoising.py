"""Denoising arrays of any rate, channel count and length with a model."""

import math
import os
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
from jax import Array

from blsh_jax import audio, separation
from blsh_jax.model import Model, load_shipped

# Long signals are cut into chunks of this many frames, short ones into the smallest power of two
# that holds them: a handful of compiled shapes whatever the lengths, and bounded memory.
_MIN_CHUNK_FRAMES = 64
_MAX_CHUNK_FRAMES = 2048


def denoise(
    noisy: np.ndarray | Array, sample_rate: int, model: Model | None = None
) -> np.ndarray | Array:
    """Remove the noise from speech.

    Every channel is denoised by itself. Rates other than the model's are resampled there and back;
    the model knows nothing above half its own rate, so the output is silent above that.

    Args:
        noisy: (samples,) or (channels, samples) floating point, NumPy or JAX. Inside ``jit`` and
            ``vmap`` too, if ``sample_rate`` is the model's.
        sample_rate: of ``noisy``, in Hz.
        model: what to denoise with; the shipped model if not given.

    Returns:
        The speech: same kind of array, dtype, shape, rate, and aligned to the sample.

    Raises:
        ValueError: ``noisy`` has no samples, more than two axes, NaN or infinite samples, or is
            not floating point; or it is traced at a rate that is not the model's.

    Source: [ICASSP20] Algorithm 1.
    """
    model = _shipped_model() if model is None else model
    _check(noisy, sample_rate)
    if isinstance(noisy, jax.core.Tracer):
        return _denoise_traced(noisy, sample_rate, model)
    signals = np.atleast_2d(np.asarray(noisy, np.float32))
    if not np.isfinite(signals).all():
        raise ValueError("noisy has NaN or infinite samples: replace them before denoising")
    rate = model.config.stft.sample_rate
    at_rate = audio.resample(
        signals, sample_rate, rate, num_samples=math.ceil(signals.shape[-1] * rate / sample_rate)
    )
    speech = audio.resample(
        denoise_chunks(at_rate, model), rate, sample_rate, num_samples=signals.shape[-1]
    )
    like = jnp.asarray if isinstance(noisy, Array) else np.asarray
    return like(speech.reshape(noisy.shape), dtype=noisy.dtype)


def denoise_file(
    source: str | os.PathLike, target: str | os.PathLike, model: Model | None = None
) -> None:
    """Denoise an audio file; the same rate, channels, length and sample format come out.

    Args:
        source: the file to read.
        target: the file to write, whole or not at all; missing folders are made.
        model: what to denoise with; the shipped model if not given.

    Raises:
        AudioError: ``source`` cannot be read as audio, or ``target`` cannot be written.
    """
    noisy, rate = audio.read(source, mono=False)
    subtype = soundfile.info(source).subtype
    speech = denoise(noisy, rate, model)
    audio.write(target, speech, rate, subtype)


def denoise_chunks(signals: np.ndarray, model: Model) -> np.ndarray:
    """Denoise signals of any length in chunks of a fixed size.

    Frames depend on nothing outside their window and context, and chunks overlap by as much, so the
    result is that of the whole signal at once, to rounding.

    Args:
        signals: (channels, n) float32 at the model's rate.
        model: what to denoise with.

    Returns:
        (channels, n) float32.
    """
    config = model.config
    hop, reach = config.stft.hop_length, config.features.context // 2
    margin = config.stft.window_length + reach * hop
    num_samples = signals.shape[-1]
    chunk = _chunk_frames(num_samples, hop) * hop
    count = -(-num_samples // chunk)
    padded = np.pad(signals, ((0, 0), (margin, margin + count * chunk - num_samples)))
    pieces = []
    for start in range(0, count * chunk, chunk):
        piece = jnp.asarray(padded[:, start : start + chunk + 2 * margin])
        pieces.append(np.asarray(_separate(piece, model))[:, margin : margin + chunk])
    return np.concatenate(pieces, axis=-1)[:, :num_samples]


def _separate(signals: Array, model: Model) -> Array:
    config = model.config
    return separation.separate(
        signals, model.dictionary, config.stft, config.features, config.num_neighbors
    )


def _denoise_traced(noisy: Array, sample_rate: int, model: Model) -> Array:
    rate = model.config.stft.sample_rate
    if sample_rate != rate:
        raise ValueError(
            f"sample_rate is {sample_rate}, the model's is {rate}: resample before jit or vmap "
            "(blsh_jax.audio.resample), or call denoise outside of them"
        )
    signals = jnp.atleast_2d(noisy).astype(jnp.float32)
    return _separate(signals, model).reshape(noisy.shape).astype(noisy.dtype)


def _chunk_frames(num_samples: int, hop: int) -> int:
    frames = _MIN_CHUNK_FRAMES
    while frames < _MAX_CHUNK_FRAMES and frames * hop < num_samples:
        frames *= 2
    return frames


def _check(noisy: np.ndarray | Array, sample_rate: int) -> None:
    if noisy.ndim not in (1, 2) or noisy.size == 0:
        raise ValueError(
            f"noisy has shape {noisy.shape}: give (samples,) or (channels, samples), not empty"
        )
    if not jnp.issubdtype(noisy.dtype, jnp.floating):
        raise ValueError(f"noisy is {noisy.dtype}: give floating point samples in [-1, 1]")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate}: give samples per second")


@cache
def _shipped_model() -> Model:
    return load_shipped()
