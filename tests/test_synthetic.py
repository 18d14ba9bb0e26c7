"""The synthetic corpus: the same for a key, finite, and as varied as speech and noise are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import corpora
from blsh_jax.corpora import synthetic as made

RATE = 16_000


@pytest.fixture(scope="module")
def speech(synthetic):
    return synthetic[0]


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


def test_all_is_named_and_of_the_length_and_level_wanted(speech, noise):
    assert len(speech) == len({r.key for r in speech.recordings}) == 12 and not speech.skipped
    assert [r.key for r in speech.recordings[:4]] == ["F00/U00", "F00/U01", "F00/U02", "M01/U00"]
    assert [r.sex for r in speech.recordings] == ["F"] * 3 + ["M"] * 3 + ["F"] * 3 + ["M"] * 3
    assert [r.name for r in noise.recordings] == list(corpora.NOISE_NAMES) and len(noise) == 10
    for corpus, seconds in ((speech, 2), (noise, 4)):
        for signal in corpus.signals:
            assert signal.shape == (seconds * RATE,) and signal.dtype == np.float32
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


def test_no_two_utterances_or_noises_are_alike_and_noises_are_not_stationary(speech, noise):
    signals = np.stack(speech.signals).astype(np.float64)
    correlation = np.abs(np.corrcoef(signals))
    assert np.max(correlation - np.eye(len(signals))) < 0.5
    distance = _distances(noise.signals, noise.signals)
    assert np.min(distance + np.eye(10) * 9) > 0.1  # 1 dB
    still = np.random.default_rng(0).standard_normal(4 * RATE)
    even = (10 * np.log10(_spectra(still)[:, 4:200] ** 2)).mean(axis=1).std()
    for signal in noise.signals:
        frames = 10 * np.log10(_spectra(signal)[:, 4:200] ** 2 + 1e-12)
        assert frames.mean(axis=1).std() > 2 * even


def test_invented_noises_are_all_different():
    first, again, other = (
        corpora.synthetic.invented_noise(jax.random.key(key), seconds=4.0) for key in (0, 0, 1)
    )
    assert [r.key for r in first.recordings] == [f"invented{i}" for i in range(10)]
    signals = np.stack([*first.signals, *other.signals])
    np.testing.assert_array_equal(signals[:10], np.stack(again.signals))
    assert np.isfinite(signals).all() and (np.abs(signals).max(axis=1) <= 1).all()
    apart = np.median(_distances(signals, signals)[~np.eye(20, dtype=bool)])
    kinds = [corpora.synthetic_noise(jax.random.key(key), seconds=4.0).signals for key in (0, 1)]
    of_a_kind = np.median(np.diag(_distances(*kinds)))
    assert apart > 3 * of_a_kind


def test_invented_numbers_lie_in_their_ranges():
    drawn = jax.jit(made._invented_recipes, static_argnums=1)(jax.random.key(0), 2000)
    numbers = dict(zip(made._NUMBERS, np.asarray(drawn).T, strict=True))
    for name, (low, high, *kinds) in made._NUMBERS.items():
        values, odds = numbers[name], made._ODDS.get(name, 1.0)
        assert len(kinds) == len(corpora.NOISE_NAMES)
        assert abs(np.mean(values > 0) - odds) < 0.05
        if name.endswith("_high"):
            beneath = numbers[name.replace("_high", "_low")]
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
    voices = jax.jit(made._voices)(jax.random.uniform(jax.random.key(3), (6, 20)))
    assert float(jnp.min(voices.pitch[::2])) > float(jnp.max(voices.pitch[1::2]))
    assert float(jnp.min(voices.formant_scale[::2])) > float(jnp.max(voices.formant_scale[1::2]))
    assert all(len(np.unique(np.asarray(x))) == 20 for x in voices)


def test_a_tone_has_unit_power_and_its_pitch():
    tone = jax.jit(made._tone, static_argnums=2)
    for brightness in (0.01, 1.0, 400.0):
        wave = np.asarray(tone(jnp.full(RATE, 200.0), jnp.float32(brightness), RATE))
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        assert abs(np.mean(wave**2) - 1) < 1e-3 and abs(np.mean(wave)) < 1e-3
        assert spectrum[::200].sum() > 0.99 * spectrum.sum()
        assert (spectrum[400] > 1e-3 * spectrum[200]) == (brightness >= 1.0)


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (corpora.synthetic_noise, {"seconds": 0.05}, "seconds .* sample_rate"),
        (corpora.synthetic.invented_noise, {"sample_rate": 100}, "seconds .* sample_rate"),
        (corpora.synthetic_speech, {"num_speakers": 0}, "num_speakers"),
        (corpora.synthetic_speech, {"sample_rate": 100}, "seconds .* sample_rate"),
    ],
)
def test_bad_sizes_are_named(make, wrong, message):
    sizes = {"num_speakers": 1, "utterances_per_speaker": 1}
    with pytest.raises(ValueError, match=message):
        make(jax.random.key(0), **(sizes if make is corpora.synthetic_speech else {}) | wrong)
