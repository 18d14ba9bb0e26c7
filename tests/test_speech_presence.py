"""Speech presence of neighbours and utterance, joined: against a loop over frames and bins."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.config import SeparationConfig, SpeechPresenceConfig, StftConfig
from blsh_jax.robust import speech_presence

CONFIG = SpeechPresenceConfig(0.6, 1.3, 0.8, 0.3, 0.25, 0.5, prior_log_odds=-0.3)
STFT = StftConfig(sample_rate=8000, window_length=10, hop_length=5)  # bins 800 Hz apart
FRAMES, BINS = 50, 6

_join = jax.jit(speech_presence.join, static_argnames=("config", "stft"))


def join(mask, mixture, config=CONFIG, track=None):
    track = track or speech_presence.nothing_heard((*mask.shape[:-2], BINS))
    return _join(mask, mixture, config=config, stft=STFT, track=track)


def _random(seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 11, (FRAMES, BINS)).astype(np.float32) / 10
    mixture = rng.standard_normal((FRAMES, BINS)) + 1j * rng.standard_normal((FRAMES, BINS))
    mixture[:3] = 0
    mixture[20:40] *= 30
    return jnp.asarray(mask), jnp.asarray(mixture.astype(np.complex64))


def _oracle(mask, mixture, config):
    """A bin, then a frame at a time, in the words of the module."""
    known = speech_presence.constants()
    memory, speech_memory = known["memory"], known["speech_memory"]
    joined = np.zeros(mask.shape)
    for f in range(mask.shape[1]):
        mask_weight, snr_weight, past_snr_weight = _weights(800 * f, config)
        magnitudes, weights, last, kept, taken = [], [], 0.0, [], []
        for t in range(mask.shape[0]):
            p = min(max(float(mask[t, f]), 1 - known["certainty"]), known["certainty"])
            energy = abs(complex(mixture[t, f])) ** 2
            noise = _mean(magnitudes, weights, memory) ** 2
            weight = (1 - p) / (1 + known["outliers"] * (energy / noise if noise else 0))
            magnitudes.append(math.sqrt(energy))
            weights.append(weight if energy else 0)
            noise = _mean(magnitudes, weights, memory) ** 2
            snr = 0.0
            if noise:
                new = max(energy / noise - 1, 0)
                snr = speech_memory * last / noise + (1 - speech_memory) * new
            snr = min(max(snr, known["least_snr"]), known["most_snr"])
            past = _sum(kept, memory) / _sum(taken, memory) if any(taken) else 1.0
            past = min(max(past, known["least_snr"]), known["most_snr"])
            odds = math.exp(config.prior_log_odds) * (p / (1 - p)) ** mask_weight
            odds *= snr**snr_weight * past**past_snr_weight
            joined[t, f] = odds / (1 + odds)
            last = joined[t, f] ** 2 * energy
            kept.append(p**2 * energy)
            taken.append((1 - p) ** 2 * energy)
    return joined


def _weights(hertz, config):
    """Five octaves lie between the low and the high weights."""
    octaves = math.log2(min(max(hertz, 125), 4000) / 125)
    pairs = zip(*_lows_and_highs(config), strict=True)
    return [low + (high - low) * octaves / 5 for low, high in pairs]


def _sum(values, memory):
    return sum(value * memory**age for age, value in enumerate(reversed(values)))


def _mean(magnitudes, weights, memory):
    decayed = [w * memory**age for age, w in enumerate(reversed(weights))][::-1]
    return np.dot(magnitudes, decayed) / sum(decayed) if sum(decayed) else 0.0


def test_it_is_what_the_formula_says_finite_for_zeros_and_without_weights_the_mask():
    mask, mixture = _random()
    joined, track = join(mask, mixture)
    np.testing.assert_allclose(joined, _oracle(mask, mixture, CONFIG), rtol=2e-4)
    assert {array.shape for array in track} == {(BINS,)}
    joined, track = join(0 * mask, 0 * mixture)
    assert np.isfinite(joined).all() and np.isfinite(track.noise_magnitude).all()
    inner = object()
    assert speech_presence.with_presence(inner, SeparationConfig()) is inner


def test_pieces_one_after_another_equal_the_whole():
    mask, mixture = _random()
    whole, last = join(mask, mixture)
    first, track = join(mask[:25], mixture[:25])
    second, track = join(mask[25:], mixture[25:], track=track)
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, rtol=1e-6)
    for a, b in zip(track, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_loudness_and_silence_before_change_nothing_and_batches_come_out_one_by_one():
    (mask, mixture), (other, others) = _random(), _random(1)
    silence = jnp.zeros((9, BINS))
    late = jnp.concatenate([silence.astype(others.dtype), 1e-3 * others[:-9]])
    masks = jnp.stack([mask, jnp.concatenate([silence, other[:-9]])])
    batch, _ = join(masks, jnp.stack([mixture, late]))
    np.testing.assert_allclose(batch[0], join(mask, mixture)[0], rtol=1e-5)
    np.testing.assert_allclose(batch[1, 9:], join(other, others)[0][:-9], rtol=1e-4)


def test_the_noise_spectrum_is_found_beneath_louder_speech():
    rng = np.random.default_rng(3)
    level = np.array([0.1, 1.0, 3.0, 0.3, 0.01, 10.0])
    noise = level * (rng.standard_normal((300, BINS)) + 1j * rng.standard_normal((300, BINS)))
    present = rng.random((300, BINS)) < 0.3
    mixture = noise + present * 20 * level * np.exp(2j * np.pi * rng.random((300, BINS)))
    # Neighbours that are hardly sure: 0.4 and 0.6.
    mask = jnp.asarray(np.where(present, 0.6, 0.4), jnp.float32)
    joined, track = join(mask, jnp.asarray(mixture, jnp.complex64))
    found = np.asarray(track.noise_magnitude / track.noise_weight)
    np.testing.assert_allclose(found, level * math.sqrt(np.pi / 2), rtol=0.3)
    joined = np.asarray(joined)[50:]
    speech, pauses = joined[present[50:]].mean(), joined[~present[50:]].mean()
    assert speech - pauses > 2 * (0.6 - 0.4)


def test_a_burst_is_no_more_likely_speech_however_loud():
    mask = jnp.full((FRAMES, BINS), 0.2)
    mixtures = [np.ones((FRAMES, BINS), np.complex64) for _ in range(2)]
    for mixture, level in zip(mixtures, (1e3, 1e6), strict=True):
        mixture[25] = level
    loud, louder = (np.asarray(join(mask, mixture)[0])[25] for mixture in mixtures)
    np.testing.assert_allclose(loud, louder, rtol=1e-5)
    np.testing.assert_allclose(loud, _oracle(mask, mixtures[1], CONFIG)[25], rtol=1e-4)


@pytest.mark.parametrize(("presence", "most"), [(0.99, 10**1.7), (0.01, 0.01)])
def test_where_speech_was_it_is_likely_again_within_limits(presence, most):
    mask = jnp.asarray(np.r_[np.full(49, presence), 0.5][:, None] * np.ones(BINS), jnp.float32)
    config = SpeechPresenceConfig(past_snr_weight_low=0.25, past_snr_weight_high=0.25)
    joined, _ = join(mask, jnp.ones((FRAMES, BINS), jnp.complex64), config)
    np.testing.assert_allclose(joined[49], most**0.25 / (1 + most**0.25), rtol=1e-5)


def test_below_the_lowest_frequency_the_neighbours_alone_count():
    mask, mixture = _random()
    joined, _ = join(mask, mixture, dataclasses.replace(CONFIG, lowest_hz=900.0))  # above two bins
    np.testing.assert_allclose(joined[:, :2], jnp.clip(mask[:, :2], 0.01, 0.99), rtol=1e-5)
    expected, _ = join(mask, mixture)
    np.testing.assert_array_equal(joined[:, 2:], expected[:, 2:])


def _lows_and_highs(config):
    *weights, _, _ = dataclasses.astuple(config)
    return weights[::2], weights[1::2]
