"""Evidence of neighbours and of the utterance, joined: against a loop over frames and bins."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import noise_tracking
from blsh_jax.config import EvidenceConfig, StftConfig

EVIDENCE = EvidenceConfig(0.6, 1.3, 0.8, 0.3, 0.25, 0.5, prior_log_odds=-0.3)
WITHOUT_PAST = EvidenceConfig(1.3, 1.3, 0.4, 0.4)
STFT = StftConfig(sample_rate=8000, window_length=10, hop_length=5)  # bins 800 Hz apart
FRAMES, BINS = 50, 6


def _random(seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 11, (FRAMES, BINS)).astype(np.float32) / 10
    mixture = rng.standard_normal((FRAMES, BINS)) + 1j * rng.standard_normal((FRAMES, BINS))
    mixture[:3] = 0
    mixture[20:40] *= 30
    return jnp.asarray(mask), jnp.asarray(mixture.astype(np.complex64))


def _oracle(mask, mixture, evidence):
    """A bin, then a frame at a time, in the words of the module."""
    known = noise_tracking.constants()
    memory, speech_memory = known["memory"], known["speech_memory"]
    joined = np.zeros(mask.shape)
    for f in range(mask.shape[1]):
        mask_weight, snr_weight, past_snr_weight = _weights(800 * f, evidence)
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
            snr = min(max(snr, known["least_ratio"]), known["most_ratio"])
            past = _sum(kept, memory) / _sum(taken, memory) if any(taken) else 1.0
            past = min(max(past, known["least_ratio"]), known["most_ratio"])
            odds = math.exp(evidence.prior_log_odds) * (p / (1 - p)) ** mask_weight
            odds *= snr**snr_weight * past**past_snr_weight
            joined[t, f] = odds / (1 + odds)
            last = joined[t, f] ** 2 * energy
            kept.append(p**2 * energy)
            taken.append((1 - p) ** 2 * energy)
    return joined


def _weights(hertz, evidence):
    """Five octaves lie between the low and the high weights."""
    octaves = math.log2(min(max(hertz, 125), 4000) / 125)
    pairs = zip(*_lows_and_highs(evidence), strict=True)
    return [low + (high - low) * octaves / 5 for low, high in pairs]


def _sum(values, memory):
    return sum(value * memory**age for age, value in enumerate(reversed(values)))


def _mean(magnitudes, weights, memory):
    decayed = [w * memory**age for age, w in enumerate(reversed(weights))][::-1]
    return np.dot(magnitudes, decayed) / sum(decayed) if sum(decayed) else 0.0


def test_it_is_what_the_formula_says():
    mask, mixture = _random()
    joined, track = noise_tracking.join(mask, mixture, EVIDENCE, STFT)
    np.testing.assert_allclose(joined, _oracle(mask, mixture, EVIDENCE), rtol=2e-4)
    assert {array.shape for array in track} == {(BINS,)}


def test_no_weight_on_the_ratio_leaves_the_mask():
    mask, mixture = _random()
    joined, _ = noise_tracking.join(mask, mixture, EvidenceConfig(), STFT)
    np.testing.assert_array_equal(joined, mask)


def test_pieces_one_after_another_equal_the_whole():
    mask, mixture = _random()
    whole, last = noise_tracking.join(mask, mixture, EVIDENCE, STFT)
    first, track = noise_tracking.join(mask[:17], mixture[:17], EVIDENCE, STFT)
    second, track = noise_tracking.join(mask[17:], mixture[17:], EVIDENCE, STFT, track)
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, rtol=1e-6)
    for a, b in zip(track, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_loudness_does_not_count_and_batches_are_jitted_one_by_one():
    mask, mixture = _random()
    other, others = _random(1)
    join = jax.jit(lambda mask, mixture: noise_tracking.join(mask, mixture, EVIDENCE, STFT)[0])
    batch = join(jnp.stack([mask, other]), jnp.stack([mixture, 1e-3 * others]))
    np.testing.assert_allclose(batch[0], join(mask, mixture), rtol=1e-5)
    np.testing.assert_allclose(batch[1], join(other, others), rtol=1e-4)


def test_silence_before_the_signal_changes_nothing():
    mask, mixture = _random()
    later = jnp.concatenate([jnp.zeros((9, BINS), mixture.dtype), mixture])
    joined, _ = noise_tracking.join(jnp.concatenate([mask[:9], mask]), later, EVIDENCE, STFT)
    np.testing.assert_allclose(
        joined[9:], noise_tracking.join(mask, mixture, EVIDENCE, STFT)[0], rtol=1e-6
    )


@pytest.mark.parametrize("evidence", [WITHOUT_PAST, EVIDENCE])
def test_the_noise_spectrum_is_found_beneath_louder_speech(evidence):
    rng = np.random.default_rng(3)
    level = np.array([0.1, 1.0, 3.0, 0.3, 0.01, 10.0])
    noise = level * (rng.standard_normal((300, BINS)) + 1j * rng.standard_normal((300, BINS)))
    present = rng.random((300, BINS)) < 0.3
    mixture = noise + present * 20 * level * np.exp(2j * np.pi * rng.random((300, BINS)))
    # Neighbours that are hardly sure: 0.4 and 0.6.
    mask = jnp.asarray(np.where(present, 0.6, 0.4), jnp.float32)
    joined, track = noise_tracking.join(mask, jnp.asarray(mixture, jnp.complex64), evidence, STFT)
    found = np.asarray(track.noise_magnitude / track.noise_weight)
    np.testing.assert_allclose(found, level * math.sqrt(np.pi / 2), rtol=0.3)
    speech, pauses = joined[50:][present[50:]].mean(), joined[50:][~present[50:]].mean()
    assert speech - pauses > 2 * (0.6 - 0.4)


def test_a_burst_is_no_more_likely_speech_however_loud():
    mask = jnp.full((60, BINS), 0.2)
    loud, louder = (jnp.ones((60, BINS), jnp.complex64).at[50].set(level) for level in (1e3, 1e6))
    join = lambda mixture: noise_tracking.join(mask, mixture, EVIDENCE, STFT)[0][50]
    joined = join(loud)
    np.testing.assert_allclose(joined, join(louder), rtol=1e-5)
    _, before = noise_tracking.join(mask[:50], loud[:50], EVIDENCE, STFT)
    past = np.clip(before.past_speech / before.past_rest, 0.01, 10**1.7)
    for f in range(BINS):
        mask_weight, snr_weight, past_snr_weight = _weights(800 * f, EVIDENCE)
        odds = (
            math.exp(EVIDENCE.prior_log_odds)
            * 0.25**mask_weight
            * 10 ** (1.7 * snr_weight)
            * past[f] ** past_snr_weight
        )
        np.testing.assert_allclose(joined[f], odds / (1 + odds), rtol=1e-4)


@pytest.mark.parametrize(("presence", "most"), [(0.99, 10**1.7), (0.01, 0.01)])
def test_where_speech_was_it_is_likely_again_within_limits(presence, most):
    mask = jnp.full((60, BINS), presence).at[50:].set(0.5)
    evidence = EvidenceConfig(past_snr_weight_low=0.25, past_snr_weight_high=0.25)
    joined, _ = noise_tracking.join(mask, jnp.ones((60, BINS), jnp.complex64), evidence, STFT)
    np.testing.assert_allclose(joined[50], most**0.25 / (1 + most**0.25), rtol=1e-5)


def test_all_zeros_stay_finite():
    joined, track = noise_tracking.join(
        jnp.zeros((5, BINS)), jnp.zeros((5, BINS), jnp.complex64), EVIDENCE, STFT
    )
    assert np.isfinite(joined).all() and np.isfinite(track.noise_magnitude).all()


def test_weights_go_from_low_to_high_by_the_octave():
    found = noise_tracking.bin_weights(EVIDENCE, StftConfig())
    assert (found.prior == np.float32(EVIDENCE.prior_log_odds)).all()
    for weight, low, high in zip(found[1:], *_lows_and_highs(EVIDENCE), strict=True):
        np.testing.assert_allclose(weight[:9], low, rtol=1e-6)  # to 125 Hz
        np.testing.assert_allclose(weight[256:], high, rtol=1e-6)  # from 4 kHz
        # 250, 500 and 1,000 Hz
        np.testing.assert_allclose(np.diff(weight[[16, 32, 64]]), (high - low) / 5, rtol=1e-5)


def test_below_the_lowest_frequency_the_neighbours_alone_count():
    mask, mixture = _random()
    evidence = dataclasses.replace(EVIDENCE, lowest_hz=900.0)  # above two bins
    joined, _ = noise_tracking.join(mask, mixture, evidence, STFT)
    np.testing.assert_allclose(joined[:, :2], jnp.clip(mask[:, :2], 0.01, 0.99), rtol=1e-5)
    expected, _ = noise_tracking.join(mask, mixture, EVIDENCE, STFT)
    np.testing.assert_array_equal(joined[:, 2:], expected[:, 2:])


def _lows_and_highs(evidence):
    *weights, _, _ = dataclasses.astuple(evidence)
    return weights[::2], weights[1::2]


_NAMES = [field.name for field in dataclasses.fields(EvidenceConfig)]


@pytest.mark.parametrize("wrong", [name for name in _NAMES if "weight" in name])
def test_negative_weights_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{wrong} is -0.1"):
        EvidenceConfig(**{wrong: -0.1})
