"""What a bin shows of speech: the features that boosted ferns ask about, a byte each.

    state, values = bin_features(state, mask, mixture, config, stft)

They tell of a bin what the neighbours' mask and speech presence say, here, around it and before it;
how far it stands above the tracked noise, the last frames' noise, its own past and the frame;
whether it lies on the comb of a voice; how much was voiced of late; and where it is. All but its
place are ratios, so a gain of the whole signal changes nothing, and none needs a later frame.

Letters: T frames, F bins, D features.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import kept
from blsh_jax.config import SpeechPresenceConfig, StftConfig
from blsh_jax.paper import spectra
from blsh_jax.robust import speech_presence, voicing
from blsh_jax.robust.speech_presence import NoiseTrack
from blsh_jax.robust.voicing import mean_nearby

# A byte is a value times the one, plus the other, rounded down: decibels by halves from -80,
# log-odds by sixteenths from -8, parts of 1 by 255ths, parts of -1 to 1 by 127ths.
_DECIBELS, _LOG_ODDS, _PART, _SIGNED = (2.0, 160.0), (16.0, 128.0), (255.0, 0.5), (127.0, 127.5)
_FINE = (64.0, 64.0)  # -1 to 3
_RATIOS = 1e-8, 1e5
_PAST = 2  # frames that features look back to, one by one
_MOST_DEVIATION = 20.0  # dB
_BAND_HERTZ = (50.0, 1000.0, 3000.0, np.inf)
_VOICED_HERTZ = 375.0  # on either side of a bin, where its voicing is measured
_PITCHED_HERTZ = 60.0, 2000.0  # where a frame's voicing is
NUM_FEATURES = 40  # D


class Means(NamedTuple):
    """Running means, each of a memory of its own.

    Attributes:
        fast: (..., F) float32, of a bin's energy.
        quick: the same.
        middle: the same.
        slow: the same.
        unrest: (..., F) float32, of the square of how far a bin is from ``middle``, in dB².
        ratio: (..., F) float32, of a bin's energy over that of the noise.
        mask: (..., F) float32, of the neighbours' mask.
        absence: (..., F) float32, of how likely a bin is no speech.
        rest: (..., F) float32, of its energy times that: over ``absence``, the noise of late.
        low_snr: (..., 1) float32, of the mean over the low bins, in dB.
        high_snr: (..., 1) float32, of that over the high bins.
        voiced: (..., 1) float32, of the frame's voicing.
        level: (..., 1) float32, of the frame's energy.
    """

    fast: Array | float
    quick: Array | float
    middle: Array | float
    slow: Array | float
    unrest: Array | float
    ratio: Array | float
    mask: Array | float
    absence: Array | float
    rest: Array | float
    low_snr: Array | float
    high_snr: Array | float
    voiced: Array | float
    level: Array | float


# Frames of 16 ms: from 0.08 seconds to 1.6.
_MEMORIES = Means(
    fast=0.8,
    quick=0.9,
    middle=0.95,
    slow=0.99,
    unrest=0.95,
    ratio=0.9,
    mask=0.9,
    absence=0.93,
    rest=0.93,
    low_snr=0.98,
    high_snr=0.98,
    voiced=0.98,
    level=0.99,
)
_OF_FRAMES = ("low_snr", "high_snr", "voiced", "level")  # one value for all bins


class BinPast(NamedTuple):
    """What the next frame needs of the past; all zeros before the first.

    Attributes:
        track: of speech presence.
        means: of each bin.
        snr: (..., 2, F) float32, of the last frames, in dB.
        ratio: (..., 2, F) float32, the same as ratios.
        log_odds: (..., 2, F) float32, of the neighbours' masks.
        voiced: (..., 2, F) float32.
    """

    track: NoiseTrack
    means: Means
    snr: Array
    ratio: Array
    log_odds: Array
    voiced: Array


def nothing_heard(shape: tuple[int, ...]) -> BinPast:
    """The state before the first frame.

    Args:
        shape: (..., F).
    """
    past = (jnp.zeros((*shape[:-1], _PAST, shape[-1]), jnp.float32) for _ in range(4))
    sizes = (1 if name in _OF_FRAMES else shape[-1] for name in Means._fields)
    means = Means(*(jnp.zeros((*shape[:-1], size), jnp.float32) for size in sizes))
    return BinPast(speech_presence.nothing_heard(shape), means, *past)


# Both stages of a mask trace it once, and outside of jit compile it once.
@functools.partial(kept.jit, static_argnames=("config", "stft"))
def bin_features(
    past: BinPast, mask: Array, mixture: Array, config: SpeechPresenceConfig, stft: StftConfig
) -> tuple[BinPast, Array]:
    """The features of all bins of some frames.

    Args:
        past: from ``nothing_heard`` or the call before.
        mask: (..., T, F) float32 in [0, 1], of the neighbours.
        mixture: (..., T, F) complex64.
        config: of speech presence.
        stft: the transform that made the mixture.

    Returns:
        The next state, and (D, ..., T, F) uint8.
    """
    magnitude = jnp.abs(mixture)
    energy = jnp.square(magnitude)
    fine, comb, voiced = _voices(magnitude, stft)
    hertz = spectra.bin_hertz(stft)
    pitched = (hertz >= _PITCHED_HERTZ[0]) & (hertz < _PITCHED_HERTZ[1])
    frame_voiced = _mean(voiced, pitched)
    past_frames, told = _follow(past, mask, energy, frame_voiced, config, stft)
    joined, noise, past_snr, means = told
    ratio = _ratio(energy, noise)
    snr = _decibels(ratio)
    log_odds = speech_presence.log_odds(mask)
    snrs, ratios, odds, voices = (
        jnp.concatenate([before, now], axis=-2)
        for before, now in zip(past[2:], (snr, ratio, log_odds, voiced), strict=True)
    )
    count = mask.shape[-2]
    ago = lambda values, frames: values[..., _PAST - frames : _PAST - frames + count, :]
    in_three = (ratio + ago(ratios, 1) + ago(ratios, 2)) / 3
    joined_odds = speech_presence.log_odds(joined)
    low, middle_band, high = _bands(stft)
    around, wide = (functools.partial(mean_nearby, reach=reach) for reach in (2, 8))
    level = jnp.sum(energy, axis=-1, keepdims=True)
    place = jnp.arange(stft.num_bins) / stft.num_bins
    features = (
        (joined_odds, _LOG_ODDS),
        (_shifted(joined_odds, 1), _LOG_ODDS),
        (_shifted(joined_odds, -1), _LOG_ODDS),
        (around(joined), _PART),
        (_mean(joined, low), _PART),
        (_mean(joined, middle_band), _PART),
        (log_odds, _LOG_ODDS),
        (ago(odds, 1), _LOG_ODDS),
        (ago(odds, 2), _LOG_ODDS),
        (means.mask, _PART),
        (_mean(mask, low), _PART),
        (_mean(mask, high), _PART),
        (past_snr, _LOG_ODDS),
        (ago(snrs, 2), _DECIBELS),
        (_shifted(snr, 4), _DECIBELS),
        (_decibels(around(ratio)), _DECIBELS),
        (_decibels(wide(in_three)), _DECIBELS),
        (_decibels(mean_nearby(ratio, 32)), _DECIBELS),
        (_decibels(means.ratio), _DECIBELS),
        (_mean(snr, low), _DECIBELS),
        (_mean(snr, middle_band), _DECIBELS),
        (_mean(snr, high), _DECIBELS),
        (means.low_snr, _DECIBELS),
        (means.high_snr, _DECIBELS),
        (_decibels(_ratio(around(energy), around(means.middle))), _DECIBELS),
        (_decibels(_ratio(around(means.quick), around(means.slow))), _DECIBELS),
        (_decibels(_ratio(wide(energy), wide(means.fast))), _DECIBELS),
        (jnp.sqrt(means.unrest), _DECIBELS),
        (_decibels(_ratio(energy * means.absence, means.rest)), _DECIBELS),
        (_decibels(_ratio(energy * wide(means.absence), wide(means.rest))), _DECIBELS),
        (_decibels(_ratio(energy, level)), _DECIBELS),
        (_decibels(_ratio(level, means.level)), _DECIBELS),
        (fine, _FINE),
        (comb, _SIGNED),
        (voiced, _SIGNED),
        (comb * voiced, _SIGNED),
        (ago(voices, 1), _SIGNED),
        (frame_voiced, _SIGNED),
        (means.voiced, _SIGNED),
        (place, _PART),
    )
    rows = tuple(_bytes(value, *scale, mask.shape) for value, scale in features)
    values = jnp.stack(jax.lax.optimization_barrier(rows))  # as one loop, six times slower on CPUs
    newest = (array[..., count:, :] for array in (snrs, ratios, odds, voices))
    return BinPast(*past_frames, *newest), values


def _follow(past, mask, energy, voiced, config, stft):
    """Frame after frame: the track and the running means, and what they are at every frame."""
    weights = speech_presence.bin_weights(config, stft, past.track.noise_weight.shape)
    low, _, high = _bands(stft)
    follow = lambda memory, before, now: memory * before + (1 - memory) * now

    def step(carry, frame):
        track, means = carry
        mask, energy, voiced = frame
        track, heard = speech_presence.follow_frame(track, mask, energy, weights)
        middle = follow(_MEMORIES.middle, means.middle, energy)
        deviation = jnp.clip(_decibels(_ratio(energy, middle)), -_MOST_DEVIATION, _MOST_DEVIATION)
        ratio, absence = _ratio(energy, heard.noise), 1 - heard.mask
        snr = _decibels(ratio)
        now = Means(
            *(energy, energy, energy, energy, jnp.square(deviation), ratio, mask),
            *(absence, absence * energy, _mean(snr, low), _mean(snr, high), voiced),
            jnp.sum(energy, axis=-1, keepdims=True),
        )
        means = Means(*map(follow, _MEMORIES, means, now))
        return (track, means), (*heard, means)

    inputs = tuple(jnp.moveaxis(array, -2, 0) for array in (mask, energy, voiced))
    carry, told = jax.lax.scan(step, (past.track, past.means), inputs)
    return carry, jax.tree.map(lambda array: jnp.moveaxis(array, 0, -2), told)


def _voices(magnitude: Array, stft: StftConfig) -> tuple[Array, Array, Array]:
    """Fine structure, the comb of the pitch, and how alike they are around each bin."""
    fine = voicing.fine_structure(magnitude, stft)
    comb = voicing.pitch_comb(fine, stft)
    reach = round(_VOICED_HERTZ * stft.window_length / stft.sample_rate)
    product, own, other = (mean_nearby(x, reach) for x in (fine * comb, fine * fine, comb * comb))
    energies = own * other
    return (
        fine,
        comb,
        jnp.where(energies > 0, product / jnp.sqrt(jnp.where(energies > 0, energies, 1)), 0),
    )


def _bands(stft: StftConfig) -> list[np.ndarray]:
    hertz = spectra.bin_hertz(stft)
    edges = itertools.pairwise(_BAND_HERTZ)
    return [(hertz >= low) & (hertz < high) for low, high in edges]


def _bytes(value: Array, scale: float, offset: float, shape: tuple[int, ...]) -> Array:
    value = jnp.clip(jnp.floor(value * scale + offset), 0, 255).astype(jnp.uint8)
    return jnp.broadcast_to(value, shape)


def _decibels(ratio: Array) -> Array:
    return 10 * jnp.log10(jnp.clip(ratio, *_RATIOS))


def _ratio(value: Array, reference: Array) -> Array:
    """Their ratio, limited above; 1 where there is no reference."""
    safe = jnp.where(reference > 0, reference, 1.0)
    return jnp.minimum(jnp.where(reference > 0, value / safe, 1.0), _RATIOS[1])


def _mean(values: Array, within: np.ndarray) -> Array:
    total = jnp.sum(jnp.where(within, values, 0), axis=-1, keepdims=True)
    return total / max(1, int(within.sum()))


def _shifted(values: Array, bins: int) -> Array:
    """The value so many bins above, at the ends that of the last."""
    places = jnp.clip(jnp.arange(values.shape[-1]) + bins, 0, values.shape[-1] - 1)
    return values[..., places]
