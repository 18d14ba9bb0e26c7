"""What a bin shows of speech: the features that boosted ferns ask about, a byte each.

    state, values = bin_features(state, mask, mixture, config, stft)

They tell of a bin what the neighbours' mask and speech presence say, here, around it and before it;
how far it stands above the tracked noise, its own past, the bins around it and the frame; whether
it lies on the comb of a voice; and where it is. All but its place are ratios, so a gain of the
whole signal changes nothing, and none needs a later frame.

Letters: T frames, F bins, D features.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

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
_PAST = 3  # frames that features look back to, one by one
_MOST_DEVIATION = 20.0  # dB
_BAND_HERTZ = (50.0, 1000.0, 3000.0, np.inf)
_VOICED_HERTZ = 375.0  # on either side of a bin, where its voicing is measured
_PITCHED_HERTZ = 60.0, 2000.0  # where a frame's voicing is
NUM_FEATURES = 39  # D


class Means(NamedTuple):
    """Running means of a bin, each of a memory of its own.

    Attributes:
        fast: (..., F) float32, of its energy.
        middle: the same.
        slow: the same.
        around_quick: (..., F) float32, of the energy of the bins around.
        around_middle: the same.
        around_slow: the same.
        unrest: (..., F) float32, of the square of how far it is from ``middle``, in dB².
        ratio: (..., F) float32, of its energy over that of the noise.
        mask: (..., F) float32, of the neighbours' mask.
    """

    fast: Array
    middle: Array
    slow: Array
    around_quick: Array
    around_middle: Array
    around_slow: Array
    unrest: Array
    ratio: Array
    mask: Array


# Frames of 16 ms: 0.08, 0.16, 0.3 and 1.6 seconds.
_MEMORIES = Means(*np.array([0.8, 0.95, 0.99, 0.9, 0.95, 0.99, 0.95, 0.9, 0.9], np.float32))


class BinPast(NamedTuple):
    """What the next frame needs of the past; all zeros before the first.

    Attributes:
        track: of speech presence.
        means: of each bin.
        snr: (..., 3, F) float32, of the last frames, in dB.
        ratio: (..., 3, F) float32, the same as ratios.
        log_odds: (..., 3, F) float32, of the neighbours' masks.
        voiced: (..., 3, F) float32.
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
    means = Means(*(jnp.zeros(shape, jnp.float32) for _ in Means._fields))
    return BinPast(speech_presence.nothing_heard(shape), means, *past)


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
    around = mean_nearby(energy, 2)
    past_frames, told = _follow(past, mask, energy, around, config, stft)
    joined, noise, past_snr, means = told
    ratio = _ratio(energy, noise)
    snr = _decibels(ratio)
    log_odds = speech_presence.log_odds(mask)
    fine, comb, voiced = _voices(magnitude, stft)
    snrs, ratios, odds, voices = (
        jnp.concatenate([before, now], axis=-2)
        for before, now in zip(past[2:], (snr, ratio, log_odds, voiced), strict=True)
    )
    count = mask.shape[-2]
    ago = lambda values, frames: values[..., _PAST - frames : _PAST - frames + count, :]
    in_three = (ratio + ago(ratios, 1) + ago(ratios, 2)) / 3
    joined_odds = speech_presence.log_odds(joined)
    low, middle_band, high = _bands(stft)
    hertz = spectra.bin_hertz(stft)
    pitched = (hertz >= _PITCHED_HERTZ[0]) & (hertz < _PITCHED_HERTZ[1])
    place = jnp.arange(stft.num_bins) / stft.num_bins
    features = (
        (joined_odds, _LOG_ODDS),
        (_shifted(joined_odds, 1), _LOG_ODDS),
        (_shifted(joined_odds, -1), _LOG_ODDS),
        (mean_nearby(joined, 2), _PART),
        (_mean(joined, low), _PART),
        (_mean(joined, middle_band), _PART),
        (log_odds, _LOG_ODDS),
        (ago(odds, 1), _LOG_ODDS),
        (ago(odds, 3), _LOG_ODDS),
        (means.mask, _PART),
        (_mean(mask, low), _PART),
        (_mean(mask, high), _PART),
        (past_snr, _LOG_ODDS),
        (ago(snrs, 1), _DECIBELS),
        (ago(snrs, 2), _DECIBELS),
        (ago(snrs, 3), _DECIBELS),
        (_shifted(snr, 4), _DECIBELS),
        (_shifted(snr, -4), _DECIBELS),
        (_decibels(mean_nearby(ratio, 2)), _DECIBELS),
        (_decibels(mean_nearby(in_three, 8)), _DECIBELS),
        (_decibels(mean_nearby(ratio, 32)), _DECIBELS),
        (_decibels(means.ratio), _DECIBELS),
        (_mean(snr, low), _DECIBELS),
        (_mean(snr, middle_band), _DECIBELS),
        (_mean(snr, high), _DECIBELS),
        (_decibels(_ratio(energy, means.fast)), _DECIBELS),
        (_decibels(_ratio(energy, means.slow)), _DECIBELS),
        (_decibels(_ratio(around, means.around_middle)), _DECIBELS),
        (_decibels(_ratio(means.around_quick, means.around_slow)), _DECIBELS),
        (jnp.sqrt(means.unrest), _DECIBELS),
        (_decibels(_ratio(energy, mean_nearby(energy, 8))), _DECIBELS),
        (_decibels(_ratio(energy, jnp.sum(energy, axis=-1, keepdims=True))), _DECIBELS),
        (fine, _FINE),
        (comb, _SIGNED),
        (voiced, _SIGNED),
        (comb * voiced, _SIGNED),
        (ago(voices, 1), _SIGNED),
        (_mean(voiced, pitched), _SIGNED),
        (place, _PART),
    )
    values = jnp.stack([_bytes(value, *scale, mask.shape) for value, scale in features])
    newest = (array[..., count:, :] for array in (snrs, ratios, odds, voices))
    return BinPast(*past_frames, *newest), values


def _follow(past, mask, energy, around, config, stft):
    """Frame after frame: the track and the running means, and what they are at every frame."""
    weights = speech_presence.bin_weights(config, stft, past.track.noise_weight.shape)
    running = functools.partial(jax.tree.map, lambda m, before, now: m * before + (1 - m) * now)

    def step(carry, frame):
        track, means = carry
        mask, energy, around = frame
        track, heard = speech_presence.follow_frame(track, mask, energy, weights)
        middle = running(_MEMORIES.middle, means.middle, energy)
        deviation = jnp.clip(_decibels(_ratio(energy, middle)), -_MOST_DEVIATION, _MOST_DEVIATION)
        energies, arounds = (energy,) * 3, (around,) * 3
        ratio = _ratio(energy, heard.noise)
        now = Means(*energies, *arounds, jnp.square(deviation), ratio, mask)
        means = running(_MEMORIES, means, now)
        return (track, means), (*heard, means)

    inputs = tuple(jnp.moveaxis(array, -2, 0) for array in (mask, energy, around))
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
