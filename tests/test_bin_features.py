"""Features of bins: against a loop over frames in float64, in blocks, and for silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.config import SpeechPresenceConfig, StftConfig
from blsh_jax.robust import speech_presence
from blsh_jax.robust.bin_features import NUM_FEATURES, bin_features, nothing_heard

CONFIG = SpeechPresenceConfig(0.6, 1.3, 0.8, 0.3, 0.25, 0.5, prior_log_odds=-0.3, lowest_hz=50.0)
STFT = StftConfig(sample_rate=8000, window_length=256, hop_length=64)
FRAMES, BINS, HERTZ = 12, 129, 31.25 * np.arange(129)

features = jax.jit(lambda past, mask, mixture: bin_features(past, mask, mixture, CONFIG, STFT))


def _inputs():
    """Neighbours' masks and mixtures of two channels; the second is silent."""
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 11, (2, FRAMES, BINS)).astype(np.float32) / 10
    pitch = 120 + 8 * np.arange(FRAMES)[:, None]
    voice = 1 + 6 * np.cos(np.pi * HERTZ / pitch) ** 8
    parts = rng.standard_normal((2, FRAMES, BINS))
    mixture = (parts[0] + 1j * parts[1]) * voice / (1 + HERTZ / 500)
    mixture[:2] = mixture[8] = 0
    mixture[3, 40:60] = 0
    mixture[9:] *= 100
    return jnp.asarray(mask), jnp.asarray(np.stack([mixture, 0 * mixture]), jnp.complex64)


MASK, MIXTURE = _inputs()


@pytest.fixture(scope="module")
def whole():
    """The features in one block, and the state after them."""
    return features(nothing_heard((2, BINS)), MASK, MIXTURE)


def around(values, reach):
    """The mean of a bin and those on either side, of which the last go on at the ends."""
    return np.mean([shifted(values, k) for k in range(-reach, reach + 1)], axis=0)


def shifted(values, bins):
    return values[np.clip(np.arange(BINS) + bins, 0, BINS - 1)]


def over(value, reference):
    safe = np.where(reference > 0, reference, 1)
    return np.minimum(np.where(reference > 0, value / safe, 1), 1e5)


def decibels(ratio):
    return 10 * np.log10(np.clip(ratio, 1e-8, 1e5))


def log_odds(mask):
    presence = np.clip(mask, 0.01, 0.99)
    return np.log(presence / (1 - presence))


def weights():
    octaves = np.log2(np.clip(HERTZ, 125, 4000) / 125) / 5
    c = CONFIG
    pairs = [
        (c.mask_weight_low, c.mask_weight_high),
        (c.snr_weight_low, c.snr_weight_high),
        (c.past_snr_weight_low, c.past_snr_weight_high),
    ]
    found = [np.full(BINS, c.prior_log_odds), *(a + (b - a) * octaves for a, b in pairs)]
    return [np.where(c.lowest_hz > HERTZ, x, w) for x, w in zip((0, 1, 0, 0), found, strict=True)]


def presence(masks, energies):
    """Of each frame the joined mask, the noise, and the log of the past SNR."""
    known = speech_presence.constants()
    memory, prior, a, b, c = known["memory"], *weights()
    limited = lambda x: np.log(np.clip(x, known["least_snr"], known["most_snr"]))
    snr = lambda energy, noise: energy / np.where(noise > 0, noise, np.inf)
    magnitude, total, last, kept, taken = np.zeros((5, BINS))
    for mask, energy in zip(masks, energies, strict=True):
        p = np.clip(mask, 1 - known["certainty"], known["certainty"])
        noise = (magnitude / np.where(total > 0, total, 1)) ** 2
        weight = np.where(energy > 0, (1 - p) / (1 + known["outliers"] * snr(energy, noise)), 0)
        magnitude, total = memory * magnitude + weight * energy**0.5, memory * total + weight
        noise = (magnitude / np.where(total > 0, total, 1)) ** 2
        speech_memory = known["speech_memory"]
        xi = speech_memory * snr(last, noise)
        xi += (1 - speech_memory) * np.maximum(snr(energy, noise) - 1, 0)
        rho = limited(np.where(taken > 0, snr(kept, taken), 1))
        joined = 1 / (1 + np.exp(-(prior + a * np.log(p / (1 - p)) + b * limited(xi) + c * rho)))
        last = joined**2 * energy
        kept, taken = memory * kept + p**2 * energy, memory * taken + (1 - p) ** 2 * energy
        yield joined, noise, rho


def voices(magnitude):
    """Fine structure, comb, and their correlation over 375 Hz on either side."""
    root = magnitude**0.5
    mean = around(root, 4)
    fine = np.where(mean > 0, root / np.where(mean > 0, mean, 1) - 1, 0)
    combs = np.cos(2 * np.pi * np.outer(np.arange(20, 115), np.arange(BINS)) / 256)
    comb = combs[np.argmax([np.dot(fine[2:96], c[2:96]) for c in combs])]
    product, energies = around(fine * comb, 12), around(fine**2, 12) * around(comb**2, 12)
    return fine, comb, np.where(energies > 0, product / np.sqrt(np.maximum(energies, 1e-300)), 0)


def oracle(masks, mixture):
    """(D, T, F), a frame at a time."""
    masks, magnitudes = np.asarray(masks, np.float64), np.abs(np.asarray(mixture, np.complex128))
    energies = magnitudes**2
    low, middle_band = (HERTZ >= 50) & (HERTZ < 1000), (HERTZ >= 1000) & (HERTZ < 3000)
    high, pitched = HERTZ >= 3000, (HERTZ >= 60) & (HERTZ < 2000)
    mean = lambda values, within: np.full(BINS, values[within].mean())
    nothing = np.zeros(BINS)
    odds, snrs, ratios, voiced = ([nothing] * 2 for _ in range(4))
    memories = np.array([0.8, 0.9, 0.95, 0.99, 0.95, 0.9, 0.9, 0.93, 0.93, 0.98, 0.98, 0.98, 0.99])
    means, frames = np.zeros((13, BINS)), []
    for mask, energy, magnitude, (joined, noise, rho) in zip(
        masks, energies, magnitudes, presence(masks, energies), strict=True
    ):
        ratio, level = over(energy, noise), np.full(BINS, energy.sum())
        fine, comb, alike = voices(magnitude)
        odds, snrs = [*odds, log_odds(mask)], [*snrs, decibels(ratio)]
        ratios, voiced = [*ratios, ratio], [*voiced, alike]
        unrest = np.clip(decibels(over(energy, 0.95 * means[2] + 0.05 * energy)), -20, 20) ** 2
        now = [*[energy] * 4, unrest, ratio, mask, 1 - joined, (1 - joined) * energy]
        now += [mean(snrs[-1], low), mean(snrs[-1], high), mean(alike, pitched), level]
        means = memories[:, None] * means + (1 - memories[:, None]) * np.array(now)
        fast, quick, middle, slow, unrest, mean_ratio, mean_mask, absence, rest = means[:9]
        low_snr, high_snr, mean_voiced, mean_level = means[9:]
        joined_odds, three = log_odds(joined), (ratios[-1] + ratios[-2] + ratios[-3]) / 3
        of_odds = [
            *(joined_odds, shifted(joined_odds, 1), shifted(joined_odds, -1)),
            *(odds[-1], odds[-2], odds[-3], rho),
        ]
        of_decibels = [
            *(snrs[-3], shifted(snrs[-1], 4)),
            *(decibels(around(x, r)) for x, r in ((ratio, 2), (three, 8), (ratio, 32))),
            *(decibels(mean_ratio), *(mean(snrs[-1], band) for band in (low, middle_band, high))),
            *(low_snr, high_snr, decibels(over(around(energy, 2), around(middle, 2)))),
            decibels(over(around(quick, 2), around(slow, 2))),
            *(decibels(over(around(energy, 8), around(fast, 8))), np.sqrt(unrest)),
            decibels(over(energy * absence, rest)),
            decibels(over(energy * around(absence, 8), around(rest, 8))),
            *(decibels(over(energy, level)), decibels(over(level, mean_level))),
        ]
        of_parts = [
            *(around(joined, 2), mean(joined, low), mean(joined, middle_band)),
            *(mean_mask, mean(mask, low), mean(mask, high)),
        ]
        of_signs = [comb, alike, comb * alike, voiced[-2], mean(alike, pitched), mean_voiced]
        scaled = [16 * np.array(of_odds) + 128, 255 * np.array(of_parts) + 0.5]
        scaled += [2 * np.array(of_decibels) + 160, 64 * fine[None] + 64]
        scaled += [127 * np.array(of_signs) + 127.5, 255 * np.arange(BINS)[None] / BINS + 0.5]
        frames.append(np.clip(np.floor(np.concatenate(scaled)), 0, 255))
    return np.stack(frames, axis=1)[_order()]


def _order():
    """Where each feature is among those of ``oracle``, which come by their scale."""
    kinds = {"odds": 7, "part": 6, "decibels": 19, "fine": 1, "signed": 6, "place": 1}
    starts = dict(zip(kinds, np.cumsum([0, *kinds.values()]), strict=False))
    names = ["odds"] * 3 + ["part"] * 3 + ["odds"] * 3 + ["part"] * 3 + ["odds"]
    names += ["decibels"] * 19 + ["fine"] + ["signed"] * 6 + ["place"]
    return [starts[name] + names[:place].count(name) for place, name in enumerate(names)]


@pytest.mark.parametrize("channel", [0, 1], ids=["voice and noise", "silence"])
def test_each_feature_is_what_a_loop_says_within_a_byte(whole, channel):
    _, values = whole
    assert values.shape == (NUM_FEATURES, 2, FRAMES, BINS) and values.dtype == np.uint8
    expected = oracle(MASK[channel], MIXTURE[channel])
    assert len(expected) == NUM_FEATURES
    apart = np.abs(np.asarray(values, int)[:, channel] - expected).max(axis=(1, 2))
    assert {place: size for place, size in enumerate(apart) if size > 1} == {}


@pytest.mark.parametrize("size", [1, 4])
def test_blocks_are_the_whole(whole, size):
    past, parts = nothing_heard((2, BINS)), []
    for start in range(0, FRAMES, size):
        block = slice(start, start + size)
        past, values = features(past, MASK[:, block], MIXTURE[:, block])
        parts.append(values)
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), whole[1])
    for one, other in zip(jax.tree.leaves(past), jax.tree.leaves(whole[0]), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_gain_changes_nothing_and_vmap_is_a_leading_axis(whole):
    # Roots are taken of magnitudes: a power of 4 is exact.
    for gain in (4.0**-5, 4.0**4):
        _, values = features(nothing_heard((2, BINS)), MASK, MIXTURE * gain)
        np.testing.assert_array_equal(values, whole[1])
    _, values = jax.vmap(features, out_axes=(0, 1))(nothing_heard((2, BINS)), MASK, MIXTURE)
    np.testing.assert_array_equal(values, whole[1])
