"""The synthetic corpus: the same for a key, finite, and as varied as speech and noise are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import corpora
from blsh_jax.corpora import synthetic

RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    return corpora.synthetic_speech(jax.random.key(0), 4, 3, seconds=2.0)


@pytest.fixture(scope="module")
def noise():
    return corpora.synthetic_noise(jax.random.key(0), seconds=4.0)


def _spectra(signal, window=512):
    frames = np.lib.stride_tricks.sliding_window_view(signal, window)[:: window // 2]
    return np.abs(np.fft.rfft(frames * np.hanning(window)))


def _distances(some, others):
    """Of all pairs, the distance of their long-term spectra in units of 10 dB."""
    profiles, against = (np.stack([_profile(s) for s in signals]) for signals in (some, others))
    return np.sqrt(np.mean((profiles[:, None] - against[None]) ** 2, axis=-1))


def _profile(signal):
    """Mean log spectrum in 16 bands, without its level."""
    power = np.mean(_spectra(signal) ** 2, axis=0)[1:]
    bands = np.log10([band.mean() for band in np.array_split(power, 16)])
    return bands - bands.mean()


def test_speech_is_named_and_shaped(speech):
    assert len(speech) == 12 and not speech.skipped
    assert [r.key for r in speech.recordings[:4]] == ["F00/U00", "F00/U01", "F00/U02", "M01/U00"]
    assert [r.sex for r in speech.recordings] == ["F"] * 3 + ["M"] * 3 + ["F"] * 3 + ["M"] * 3
    assert len({r.key for r in speech.recordings}) == 12
    assert all(s.shape == (2 * RATE,) and s.dtype == np.float32 for s in speech.signals)


def test_noise_is_ten_named_kinds(noise):
    assert len(noise) == 10
    assert [r.name for r in noise.recordings] == list(corpora.NOISE_NAMES)
    assert all(s.shape == (4 * RATE,) and s.dtype == np.float32 for s in noise.signals)


def test_levels_are_finite_and_within_one(speech, noise):
    for signal in (*speech.signals, *noise.signals):
        assert np.isfinite(signal).all() and np.abs(signal).max() <= 1.0
        assert 0.01 < np.sqrt(np.mean(signal**2)) < 0.2
        assert not corpora.mixing.is_silent(signal[: RATE // 4])


def test_a_key_gives_the_same_corpus_and_another_key_another(speech, noise):
    again = corpora.synthetic_speech(jax.random.key(0), 4, 3, seconds=2.0)
    np.testing.assert_array_equal(np.stack(again.signals), np.stack(speech.signals))
    other = corpora.synthetic_speech(jax.random.key(1), 4, 3, seconds=2.0)
    assert not any(np.allclose(a, b) for a, b in zip(other.signals, speech.signals, strict=True))
    same = corpora.synthetic_noise(jax.random.key(0), seconds=4.0)
    np.testing.assert_array_equal(np.stack(same.signals), np.stack(noise.signals))


def test_no_two_utterances_are_alike(speech):
    signals = np.stack(speech.signals).astype(np.float64)
    correlation = np.abs(np.corrcoef(signals))
    assert np.max(correlation - np.eye(len(signals))) < 0.5


def test_noises_differ_in_spectrum(noise):
    distance = _distances(noise.signals, noise.signals)
    assert np.min(distance + np.eye(10) * 9) > 0.1  # 1 dB


def test_noises_are_not_stationary(noise):
    for signal in noise.signals:
        frames = 10 * np.log10(_spectra(signal)[:, 4:200] ** 2 + 1e-12)
        still = np.random.default_rng(0).standard_normal(len(signal))
        white = 10 * np.log10(_spectra(still)[:, 4:200] ** 2)
        loudness, even = frames.mean(axis=1).std(), white.mean(axis=1).std()
        assert loudness > 2 * even


def test_invented_noises_are_all_different():
    first, again, other = (
        corpora.synthetic.invented_noise(jax.random.key(key), seconds=2.0) for key in (0, 0, 1)
    )
    assert [r.key for r in first.recordings] == [f"invented{i}" for i in range(10)]
    signals = np.stack([*first.signals, *other.signals])
    np.testing.assert_array_equal(signals[:10], np.stack(again.signals))
    assert np.isfinite(signals).all() and (np.abs(signals).max(axis=1) <= 1).all()
    apart = np.median(_distances(signals, signals)[~np.eye(20, dtype=bool)])
    kinds = [corpora.synthetic_noise(jax.random.key(key), seconds=2.0).signals for key in (0, 1)]
    of_a_kind = np.median(np.diag(_distances(*kinds)))
    assert apart > 3 * of_a_kind


def test_invented_recipes_lie_in_their_ranges():
    numbers = np.asarray(synthetic._invented_recipes(jax.random.key(0), 2000)).T
    recipes = dict(zip(synthetic._Recipe._fields, numbers, strict=True))
    assert set(synthetic._RANGES) == set(recipes)
    for name, (low, high) in synthetic._RANGES.items():
        values, odds = recipes[name], synthetic._ODDS.get(name, 1.0)
        assert abs(np.mean(values > 0) - odds) < 0.05
        if name.endswith("_high"):
            beneath = recipes[name.replace("_high", "_low")]
            assert (values >= beneath).all() and values.max() <= 7500
        else:
            assert values.max() <= high * 1.001 and values[values > 0].min() >= low * 0.999


def test_pauses_vowels_and_fricatives_are_all_there(speech):
    frames = np.concatenate([_spectra(s) for s in speech.signals]) ** 2
    level = 10 * np.log10(frames.mean(axis=1))
    high = frames[:, 96:].sum(axis=1) / frames.sum(axis=1)  # above 3 kHz
    loud = level > np.percentile(level, 50)
    assert np.percentile(level, 95) - np.percentile(level, 2) > 20
    assert np.mean(high[loud] < 0.3) > 0.5 and np.sum(high > 0.7) > 0.03 * len(high)


def test_women_speak_higher_than_men():
    voices = synthetic._voices(jax.random.uniform(jax.random.key(3), (6, 20)))
    assert float(jnp.min(voices.pitch[::2])) > float(jnp.max(voices.pitch[1::2]))
    assert float(jnp.min(voices.formant_scale[::2])) > float(jnp.max(voices.formant_scale[1::2]))
    assert all(len(np.unique(np.asarray(x))) == 20 for x in voices)


@pytest.mark.parametrize("size", [512, 1000, 128 * 9])
def test_shaping_with_unit_gain_changes_nothing(size):
    signal = jax.random.normal(jax.random.key(0), (size,))
    gain = jnp.ones((synthetic._num_frames(size), 257), jnp.float32)
    np.testing.assert_allclose(synthetic._shape(signal, gain), signal, atol=1e-5)


@pytest.mark.parametrize("size", [1, 127, 128, 1000])
def test_running_sum_is_a_cumulative_sum(size):
    values = np.random.default_rng(0).uniform(size=size).astype(np.float32)
    np.testing.assert_allclose(
        synthetic._running_sum(jnp.asarray(values)), np.cumsum(values, dtype=np.float64), rtol=1e-5
    )


def test_a_tone_has_unit_power_and_its_pitch():
    for brightness in (0.01, 1.0, 400.0):
        wave = np.asarray(synthetic._tone(jnp.full(RATE, 200.0), jnp.float32(brightness), RATE))
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        assert abs(np.mean(wave**2) - 1) < 1e-3 and abs(np.mean(wave)) < 1e-3
        assert spectrum[::200].sum() > 0.99 * spectrum.sum()
        assert (spectrum[400] > 1e-3 * spectrum[200]) == (brightness >= 1.0)


def test_mixtures_of_it_hold_both_sources(speech, noise):
    mixtures = corpora.make_mixtures(speech, noise, 0.0, 0)
    assert len(mixtures) == 120 and not mixtures.skipped
    for index in range(0, 120, 7):
        pair = mixtures[index]
        mask = _spectra(pair.speech) > _spectra(pair.noise)
        assert 0.03 < mask.mean() < 0.97, pair.key


@pytest.mark.parametrize("arguments", [{"seconds": 0.05}, {"sample_rate": 100}])
def test_bad_sizes_are_named(arguments):
    with pytest.raises(ValueError, match=r"seconds .* sample_rate"):
        corpora.synthetic_speech(jax.random.key(0), 1, 1, **arguments)
    with pytest.raises(ValueError, match=r"seconds .* sample_rate"):
        corpora.synthetic_noise(jax.random.key(0), **arguments)
    with pytest.raises(ValueError, match="num_speakers"):
        corpora.synthetic_speech(jax.random.key(0), 0, 1)
