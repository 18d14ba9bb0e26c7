"""Spectra: short-time Fourier transform, its inverse, and the features of frames.

Letters: n samples, T frames, F = window / 2 + 1 bins, D features, M mel bands. Time is the last
axis of signals and the axis before the bins of spectra. Frame t holds the window's samples
that end with sample (t + 1) * hop - 1, and there is a frame for every window that touches the
signal. So every sample lies in window / hop frames, and zeros before or after a signal add frames
of silence but change none: utterances padded to a batch, cut into chunks or fed hop by hop come out
the same.
"""

import dataclasses
import functools
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.config import FeatureConfig, StftConfig

# Log-mel values are taken relative to the loudest band of the frame and cut this far below it, so
# that they do not depend on the recording level and never reach log(0).
LOG_MEL_RANGE_DB = 60.0


def num_frames(num_samples: int, config: StftConfig) -> int:
    """T, the frames of a signal of ``num_samples`` samples."""
    return math.ceil(num_samples / config.hop_length) + lead_frames(config)


def frame_mask(lengths: Array, num_samples: int, config: StftConfig) -> Array:
    """Which frames of padded utterances hold signal.

    Args:
        lengths: (U,) int32, samples of each utterance before padding.
        num_samples: n, samples after padding.
        config: the transform.

    Returns:
        (U, T) bool. An utterance of length 0 (a row that only fills the batch) has no frames.
    """
    frames = jnp.arange(num_frames(num_samples, config), dtype=lengths.dtype)
    hops = (lengths + config.hop_length - 1) // config.hop_length
    valid = hops + lead_frames(config)
    valid = jnp.where(lengths > 0, valid, jnp.zeros_like(valid))
    return frames[None, :] < valid[:, None]


def stft(signals: Array, config: StftConfig) -> Array:
    """Short-time Fourier transform, zeros beyond both ends.

    Args:
        signals: (..., n) float32, n >= 1.
        config: the transform; periodic Hann window.

    Returns:
        (..., T, F) complex64.

    Raises:
        ValueError: the signals have no samples.

    Source: [ICASSP20] section 4.1 for the sizes.
    """
    num_samples = signals.shape[-1]
    if num_samples < 1:
        raise ValueError("signals have no samples (last axis is empty)")
    hop, window_length = config.hop_length, config.window_length
    frames = num_frames(num_samples, config)
    total = (frames - 1) * hop + window_length
    before = window_length - hop
    padding = [(0, 0)] * (signals.ndim - 1) + [(before, total - before - num_samples)]
    padded = jnp.pad(signals, padding)
    # The hop divides the window, so frames are hops side by side: slices instead of a gather.
    hops = padded.reshape(*signals.shape[:-1], total // hop, hop)
    framed = jnp.concatenate(
        [hops[..., i : i + frames, :] for i in range(window_length // hop)], axis=-1
    )
    window = jnp.asarray(hann(window_length), signals.dtype)
    return jnp.fft.rfft(framed * jnp.broadcast_to(window, framed.shape))


def istft(spectra: Array, num_samples: int, config: StftConfig) -> Array:
    """The signal whose transform is nearest to ``spectra`` in squared error.

    Args:
        spectra: (..., T, F) complex64 with T = ``num_frames(num_samples)``.
        num_samples: n.
        config: the transform that made the spectra.

    Returns:
        (..., n) float32; ``istft(stft(x), n)`` is x to rounding.

    Raises:
        ValueError: the number of frames does not belong to ``num_samples``.
    """
    hop, window_length = config.hop_length, config.window_length
    frames = num_frames(num_samples, config)
    if spectra.shape[-2] != frames:
        raise ValueError(
            f"spectra have {spectra.shape[-2]} frames, but {num_samples} samples make {frames}"
        )
    framed = jnp.fft.irfft(spectra, n=window_length)
    window = jnp.asarray(hann(window_length), framed.dtype)
    overlapped = _overlap_add(framed * jnp.broadcast_to(window, framed.shape), hop)
    before = window_length - hop
    kept = overlapped[..., before : before + num_samples]
    norm = jnp.sum(jnp.square(window).reshape(-1, hop), axis=0)[jnp.arange(num_samples) % hop]
    return kept / jnp.broadcast_to(norm, kept.shape)


def to_samples(values: Array, config: StftConfig) -> Array:
    """Values of frames as values of samples, weighted as ``istft`` weighs frames.

    Args:
        values: (..., P - 1 + T) float32, of consecutive frames; P = window / hop.
        config: the transform.

    Returns:
        (..., T * hop), of the samples that lie in P of the frames each.
    """
    per_window = config.window_length // config.hop_length
    squares = np.square(hann(config.window_length)).reshape(per_window, config.hop_length)
    weights = jnp.asarray(squares / squares.sum(0), values.dtype)
    hops = values.shape[-1] - per_window + 1
    framed = [values[..., i : i + hops] for i in reversed(range(per_window))]
    samples = jnp.matmul(jnp.stack(framed, axis=-1), weights, precision=jax.lax.Precision.HIGHEST)
    return samples.reshape(*values.shape[:-1], -1)


def unit_norm(frames: Array) -> Array:
    """Frames divided by their L2 norm.

    Args:
        frames: (..., D) float32.

    Returns:
        (..., D), each of norm 1; a frame of zeros has no direction and stays zero.

    Source: [ICASSP20] section 4.1.
    """
    # Scaling by the peak first keeps the squares of very quiet frames from underflowing.
    peak = jnp.max(jnp.abs(frames), axis=-1, keepdims=True)
    scaled = frames / jnp.where(peak > 0, peak, jnp.ones_like(peak))
    norm = jnp.sqrt(jnp.sum(scaled * scaled, axis=-1, keepdims=True))
    return scaled / jnp.where(norm > 0, norm, jnp.ones_like(norm))


class FeatureFunction(Protocol):
    """What makes unit vectors of spectra, block by block; frozen and hashable.

    A block of frames gives as many vectors, which belong to the frames ``look_ahead`` before.
    """

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's vector needs."""

    @property
    def size(self) -> int:
        """D, the length of a vector."""

    def init(self, shape: tuple[int, ...]) -> Any:
        """The state before the first frame, silence; ``shape`` is that of the axes before time."""

    def __call__(self, state: Any, spectra: Array, /) -> tuple[Any, Array]:
        """(..., T, F) complex64 to the next state and (..., T, D) float32."""


@dataclasses.dataclass(frozen=True)
class SpectralFeatures:
    """Magnitudes of bins or mel bands, several frames side by side, at unit norm.

    Attributes:
        config: which of them.
        stft: the transform.

    Source: [ICASSP20] section 4.1; several frames are its future work, section 5.
    """

    config: FeatureConfig
    stft: StftConfig

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's vector needs."""
        return self.config.context // 2

    @property
    def size(self) -> int:
        """D, the length of a vector."""
        return self.config.context * self._width

    def init(self, shape: tuple[int, ...]) -> Array:
        """(..., 2 R, D / context) of silence."""
        return jnp.zeros((*shape, 2 * self.look_ahead, self._width), jnp.float32)

    def __call__(self, state: Array, spectra: Array) -> tuple[Array, Array]:
        """(..., T, F) complex64 to the newest 2 R rows and (..., T, D) unit vectors.

        Digitally silent frames have no direction and stay zero.
        """
        shown = magnitude = jnp.abs(spectra)
        if self.config.kind != "magnitude":
            mel = mel_magnitudes(magnitude, self.config.num_mels, self.stft)
            shown = _log_mel(mel) if self.config.kind == "log_mel" else mel
        rows = jnp.concatenate([state, shown], axis=-2)
        count = shown.shape[-2]
        beside = [rows[..., i : i + count, :] for i in range(self.config.context)]
        return rows[..., count:, :], unit_norm(jnp.concatenate(beside, axis=-1))

    @property
    def _width(self) -> int:
        mel = self.config.kind != "magnitude"
        return self.config.num_mels if mel else self.stft.num_bins


def features(function: FeatureFunction, spectra: Array) -> Array:
    """The unit vectors of whole utterances: one block, and silence after it.

    Args:
        function: what makes them.
        spectra: (..., T, F) complex64.

    Returns:
        (..., T, D) float32.
    """
    ahead = function.look_ahead
    padding = [(0, 0)] * (spectra.ndim - 2) + [(0, ahead), (0, 0)]
    _, frames = function(function.init(spectra.shape[:-2]), jnp.pad(spectra, padding))
    return frames[..., ahead:, :]


def bin_hertz(config: StftConfig) -> np.ndarray:
    """(F,) float64, the frequency of each bin in Hz."""
    return np.linspace(0, config.sample_rate / 2, config.num_bins)


@functools.cache
def mel_filters(num_mels: int, config: StftConfig) -> np.ndarray:
    """Triangular filters, equally spaced on the mel scale 2595 log10(1 + f / 700) from 0 Hz up.

    Args:
        num_mels: number of bands.
        config: the transform.

    Returns:
        (F, num_mels) float64, each filter's peak 1; a filter too narrow to hold a bin takes the
        nearest one, so that no band is empty.
    """
    top = 2595 * np.log10(1 + config.sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, num_mels + 2) / 2595) - 1)
    bins = bin_hertz(config)[:, None]
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - lower) / (center - lower)
    falling = (upper - bins) / (upper - center)
    filters = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(filters.sum(0) == 0)
    filters[np.abs(bins - center[empty]).argmin(0), empty] = 1
    return filters


def mel_magnitudes(magnitude: Array, num_mels: int, config: StftConfig) -> Array:
    """Magnitudes (..., T, F) float32 under mel filters: (..., T, num_mels)."""
    filters = jnp.asarray(mel_filters(num_mels, config), magnitude.dtype)
    return jnp.matmul(magnitude, filters, precision=jax.lax.Precision.HIGHEST)


def _log_mel(mel: Array) -> Array:
    """Decibels above the floor: 0 at ``LOG_MEL_RANGE_DB`` below the frame's loudest band."""
    peak = jnp.max(mel, axis=-1, keepdims=True)
    relative = mel / jnp.where(peak > 0, peak, jnp.ones_like(peak))
    floor = 10 ** (-LOG_MEL_RANGE_DB / 20)
    # Exactly 0 at the floor, compiled or not, so that a silent frame has no direction.
    return 20 * jnp.log10(jnp.maximum(relative / floor, 1.0))


def lead_frames(config: StftConfig) -> int:
    """P - 1, frames that begin before the first sample: window / hop - 1."""
    return config.window_length // config.hop_length - 1


def _overlap_add(framed: Array, hop: int) -> Array:
    """(..., T, window) frames added at multiples of ``hop``: (..., (T - 1) * hop + window)."""
    per_window = framed.shape[-1] // hop
    frames = framed.shape[-2]
    lead = framed.shape[:-2]
    summed = jnp.zeros((*lead, frames + per_window - 1, hop), framed.dtype)
    for i in range(per_window):
        summed = summed.at[..., i : i + frames, :].add(framed[..., i * hop : (i + 1) * hop])
    return summed.reshape(*lead, -1)


def hann(length: int) -> np.ndarray:
    """(length,) float64, the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
