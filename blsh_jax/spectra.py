"""Spectra: short-time Fourier transform, its inverse, and the features of frames.

Letters: n samples, T frames, F = window / 2 + 1 bins, D features, M bands of levels. Time is the
last axis of signals and the axis before the bins of spectra. Frame t holds the window's samples
that end with sample (t + 1) * hop - 1, and there is a frame for every window that touches the
signal. So every sample lies in window / hop frames, and zeros before or after a signal add frames
of silence but change none: utterances padded to a batch, cut into chunks or fed hop by hop come out
the same.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import voicing
from blsh_jax.config import FeatureConfig, StftConfig

# Log-mel values are taken relative to the loudest band of the frame and cut this far below it, so
# that they do not depend on the recording level and never reach log(0).
LOG_MEL_RANGE_DB = 60.0

# Levels above the noise floor are cut here: what stands higher is no noise, however loud.
LEVEL_RANGE_DB = 40.0


def num_frames(num_samples: int, config: StftConfig) -> int:
    """T, the frames of a signal of ``num_samples`` samples."""
    return math.ceil(num_samples / config.hop_length) + _lead_frames(config)


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
    valid = hops + _lead_frames(config)
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


def with_lead_in(signals: Array | np.ndarray, features: FeatureConfig, config: StftConfig) -> Array:
    """Signals with their start once more before it, backwards.

    What follows a signal's noise needs a second of it; backwards, the first second has the same
    noise, and goes over into the signal without a seam.

    Args:
        signals: (..., n) floats, n at least 1.
        features: says for how many frames; their hops come before the signal.
        config: the transform.

    Returns:
        (..., m + n), m = ``lead_in_samples``; silence stands for what a shorter signal lacks.
    """
    length = lead_in_samples(features, config)
    lacking = max(0, length + 1 - signals.shape[-1])
    padded = jnp.pad(signals, [(0, 0)] * (signals.ndim - 1) + [(0, lacking)])
    return jnp.concatenate([jnp.flip(padded[..., 1 : length + 1], axis=-1), signals], axis=-1)


def heard(signals: Array, features: FeatureConfig, config: StftConfig) -> Array:
    """The transform of signals after their lead-in: (..., n) to (..., lead_in_frames + T, F)."""
    return stft(with_lead_in(signals, features, config), config)


def unheard(spectra: Array, num_samples: int, features: FeatureConfig, config: StftConfig) -> Array:
    """The signals of ``num_samples`` that spectra of ``heard`` stand for, without the lead-in."""
    lead_in = lead_in_samples(features, config)
    return istft(spectra, lead_in + num_samples, config)[..., lead_in:]


def lead_in_samples(features: FeatureConfig, config: StftConfig) -> int:
    """Samples that ``with_lead_in`` puts before a signal."""
    return features.lead_in_frames * config.hop_length


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


def features(
    spectra: Array, features: FeatureConfig, config: StftConfig, past: Array | None = None
) -> Array:
    """The unit vectors that frames are compared by.

    Args:
        spectra: (..., T, F) complex64.
        features: kind of features, and how many frames stand side by side.
        config: the transform that made the spectra.
        past: (..., J, M) float32, ``level_bands`` of the ``num_past_frames`` frames before the
            first; default: silence.

    Returns:
        (..., T, D) float32 of unit norm; digitally silent frames are zero.

    Source: [ICASSP20] section 4.1; several frames are its future work, section 5.
    """
    magnitude = jnp.abs(spectra)
    shown = magnitude
    if features.kind != "magnitude":
        mel = _mel(magnitude, features.num_mels, config)
        shown = _log_mel(mel) if features.kind == "log_mel" else mel
    parts = [unit_norm(stack_frames(shown, features.context))]
    if features.levels:
        bands = level_bands(spectra, features, config)
        if past is None:
            shape = (*bands.shape[:-2], num_past_frames(features, config), features.levels)
            past = jnp.zeros(shape, bands.dtype)
        levels = levels_above_floor(jnp.concatenate([past, bands], axis=-2), features, config)
        parts.append(unit_norm(levels))
    if features.voicing:
        filters = mel_filters(features.voicing, config)
        # Of norm 1 where every band is voiced, and near 0 where none is.
        parts.append(voicing.band_voicing(magnitude, filters, config) / math.sqrt(features.voicing))
    return unit_norm(jnp.concatenate(parts, axis=-1)) if len(parts) > 1 else parts[0]


Extract = Callable[[Array, FeatureConfig, StftConfig], Array]
"""What makes feature vectors (..., T, D) of spectra (..., T, F): ``features``, or in its place."""


def parts_and_features(
    speech: Array,
    noise: Array,
    feature_config: FeatureConfig,
    config: StftConfig,
    extract: Extract = features,
) -> tuple[Array, Array, Array]:
    """What training needs of mixtures, without the frames of the lead-in.

    Args:
        speech: (..., n) float32.
        noise: (..., n) float32.
        feature_config: kind of features.
        config: the transform.
        extract: what makes feature vectors of spectra.

    Returns:
        The spectra of speech and noise, (..., T, F) complex64 each, and the features of their
        sum, (..., T, D).
    """
    spoken, rest = (heard(part, feature_config, config) for part in (speech, noise))
    frames = extract(spoken + rest, feature_config, config)
    first = feature_config.lead_in_frames
    return spoken[..., first:, :], rest[..., first:, :], frames[..., first:, :]


def level_bands(spectra: Array, features: FeatureConfig, config: StftConfig) -> Array:
    """Mel magnitudes whose levels are compared: (..., T, F) complex64 to (..., T, M) float32."""
    return _mel(jnp.abs(spectra), features.levels, config)


def num_past_frames(features: FeatureConfig, config: StftConfig) -> int:
    """J, frames before a frame that its levels depend on; 0 without levels."""
    return features.floor_frames - 1 + _lead_frames(config) if features.levels else 0


def levels_above_floor(bands: Array, features: FeatureConfig, config: StftConfig) -> Array:
    """How far each band stands above the noise, which is what speech pauses leave of it.

    The floor of a band is its least magnitude in the last ``floor_frames`` frames. A frame whose
    window reaches into digital silence says nothing about noise and does not count, so a signal
    begins without a floor, and without levels.

    Args:
        bands: (..., J + T, M) float32 mel magnitudes, the first J = ``num_past_frames`` of them
            only for the floors of the others.
        features: number of bands and of frames.
        config: the transform that made them.

    Returns:
        (..., T, M) float32 in dB, 0 to ``LEVEL_RANGE_DB``.

    Source: minimum statistics, R. Martin, IEEE Trans. Speech and Audio Processing 9 (5), 2001.
    """
    lead, reach = _lead_frames(config), features.floor_frames
    silent = jnp.max(bands, axis=-1, keepdims=True) == 0
    count = bands.shape[-2] - lead
    near_silence = functools.reduce(
        jnp.logical_or, [silent[..., i : i + count, :] for i in range(lead + 1)]
    )
    counted = bands[..., lead:, :]
    never = jnp.full((), jnp.inf, bands.dtype)
    window = (1,) * (bands.ndim - 2) + (reach, 1)
    strides = (1,) * bands.ndim
    floor = jax.lax.reduce_window(
        jnp.where(near_silence, never, counted), never, jax.lax.min, window, strides, "VALID"
    )
    current = counted[..., reach - 1 :, :]
    known = (floor > 0) & (floor < never)
    ratio = jnp.where(known, current, 1.0) / jnp.where(known, floor, 1.0)
    return jnp.clip(20 * jnp.log10(jnp.maximum(ratio, 1.0)), 0.0, LEVEL_RANGE_DB)


def num_features(features: FeatureConfig, config: StftConfig) -> int:
    """D, the length of a feature vector."""
    per_frame = config.num_bins if features.kind == "magnitude" else features.num_mels
    return per_frame * features.context + features.levels + features.voicing


def stack_frames(frames: Array, context: int) -> Array:
    """Each frame with its neighbours side by side; frames beyond the ends are zero.

    Args:
        frames: (..., T, D).
        context: odd number of frames, the frame itself in the middle.

    Returns:
        (..., T, context * D), oldest frame first.
    """
    count, reach = frames.shape[-2], context // 2
    padding = [(0, 0)] * (frames.ndim - 2) + [(reach, reach), (0, 0)]
    padded = jnp.pad(frames, padding)
    return jnp.concatenate([padded[..., i : i + count, :] for i in range(context)], axis=-1)


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


def _mel(magnitude: Array, num_mels: int, config: StftConfig) -> Array:
    """Magnitudes (..., T, F) under mel filters: (..., T, num_mels)."""
    filters = jnp.asarray(mel_filters(num_mels, config), magnitude.dtype)
    return jnp.matmul(magnitude, filters, precision=jax.lax.Precision.HIGHEST)


def _log_mel(mel: Array) -> Array:
    """Decibels above the floor: 0 at ``LOG_MEL_RANGE_DB`` below the frame's loudest band."""
    peak = jnp.max(mel, axis=-1, keepdims=True)
    relative = mel / jnp.where(peak > 0, peak, jnp.ones_like(peak))
    floor = 10 ** (-LOG_MEL_RANGE_DB / 20)
    # Exactly 0 at the floor, compiled or not, so that a silent frame has no direction.
    return 20 * jnp.log10(jnp.maximum(relative / floor, 1.0))


def _lead_frames(config: StftConfig) -> int:
    """Frames that begin before the first sample."""
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
