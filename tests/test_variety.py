"""Random mixtures: repeatable, of the length and ratio asked, varied, and none of them silent."""

import dataclasses

import numpy as np
import pytest

from blsh_jax import corpora, training
from blsh_jax.config import FeatureConfig, StftConfig, TrainConfig, VarietyConfig
from blsh_jax.corpora.made_noise import made_noises

RATE = 16_000
CONFIG = TrainConfig(
    variety=VarietyConfig(
        num_mixtures=6, mixture_seconds=0.5, min_snr_db=-3.0, max_snr_db=9.0, unvaried=0.0
    )
)


def _loaded(prefix, count, length, seed):
    rng = np.random.default_rng(seed)
    signals = [(0.1 * rng.standard_normal(length)).astype(np.float32) for _ in range(count)]
    recordings = tuple(corpora.Recording(f"{prefix}{i}") for i in range(count))
    return corpora.Loaded(signals, recordings)


SPEECH, NOISE = _loaded("s", 4, RATE, 0), _loaded("n", 3, 2 * RATE, 1)


def _with(**changes):
    return dataclasses.replace(CONFIG, variety=dataclasses.replace(CONFIG.variety, **changes))


def test_none_asked_gives_the_published_mixtures():
    published = corpora.training_mixtures(SPEECH, NOISE, TrainConfig())
    assert isinstance(published, corpora.Mixtures) and len(published) == 12
    assert published.part == "train"


def test_mixtures_are_repeatable_and_of_the_size_and_ratio_asked():
    mixtures = corpora.training_mixtures(SPEECH, NOISE, CONFIG)
    again = corpora.training_mixtures(SPEECH, NOISE, CONFIG)
    other = corpora.training_mixtures(SPEECH, NOISE, dataclasses.replace(CONFIG, seed=1))
    assert len(mixtures) == 6 and mixtures.lengths.tolist() == [RATE // 2] * 6
    ratios = []
    for index in range(6):
        mixture = mixtures[index]
        assert mixture.speech.shape == mixture.noise.shape == (RATE // 2,)
        assert mixture.speech.dtype == mixture.noise.dtype == np.float32
        np.testing.assert_array_equal(mixture.mixture, again[index].mixture)
        assert not np.array_equal(mixture.mixture, other[index].mixture)
        speech, noise = (np.sum(x.astype(np.float64) ** 2) for x in mixture[:2])
        ratios.append(10 * np.log10(speech / noise))
        assert abs(ratios[-1] - mixture.snr_db) < 1e-4
    assert -3 <= min(ratios) < max(ratios) <= 9
    assert [m.speech_key for m in mixtures[:6]] == ["s0", "s1", "s2", "s3", "s0", "s1"]


def test_without_variety_a_noise_is_a_cut_of_its_recording():
    plain = _with(max_speed=1.0, equalizer_db=0.0, second_noise=0.0)
    mixture = corpora.training_mixtures(SPEECH, NOISE, plain)[2]
    source = NOISE.signals[int(mixture.noise_key[1:])].astype(np.float64)
    found = np.correlate(source, mixture.noise.astype(np.float64), "valid").argmax()
    cut = source[found : found + len(mixture.noise)]
    scale = np.dot(cut, mixture.noise) / np.dot(cut, cut)
    np.testing.assert_allclose(mixture.noise, scale * cut, atol=2e-4 * np.abs(cut * scale).max())


def test_equalizer_colours_by_no_more_than_it_says_and_speed_moves_tones():
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    noise = corpora.Loaded([tone], (corpora.Recording("tone"),))
    moved = _with(equalizer_db=0.0, second_noise=0.0, num_mixtures=20)
    mixtures = corpora.training_mixtures(SPEECH, noise, moved)
    peaks = [np.abs(np.fft.rfft(m.noise)).argmax() / 0.5 for m in mixtures[:20]]
    assert 1000 / 1.41 < min(peaks) < 900 and 1100 < max(peaks) < 1410
    white = _with(max_speed=1.0, second_noise=0.0, equalizer_db=12.0)
    mixture = corpora.training_mixtures(SPEECH, NOISE, white)[0]
    bands = np.abs(np.fft.rfft(mixture.noise)[: RATE // 4]).reshape(20, -1)
    levels = 10 * np.log10(np.mean(bands**2, axis=1))
    assert 6 < np.ptp(levels) < 27


def test_as_many_as_asked_are_made_of_the_recordings_as_they_are():
    some = corpora.training_mixtures(SPEECH, NOISE, _with(unvaried=0.5, num_mixtures=40))
    plain = [m for m in some[:40] if m.snr_db == 0]
    assert 10 < len(plain) < 30
    for mixture in plain:
        assert "+" not in mixture.noise_key
        source = SPEECH.signals[int(mixture.speech_key[1:])].astype(np.float64)
        match = np.correlate(source, mixture.speech.astype(np.float64), "valid").max()
        energy = np.sum(np.square(mixture.speech, dtype=np.float64))
        assert abs(match / energy - 1) < 1e-4


def test_a_second_noise_joins_as_often_as_asked():
    always, never = (
        corpora.training_mixtures(SPEECH, NOISE, _with(second_noise=p)) for p in (1.0, 0.0)
    )
    assert all("+" in m.noise_key for m in always[:6])
    assert not any("+" in m.noise_key for m in never[:6])


def test_made_noises_take_turns_with_recordings():
    def made(**changes):
        mixtures = corpora.training_mixtures(SPEECH, NOISE, _with(second_noise=0.0, **changes))
        return [m.noise_key.startswith("made/") for m in mixtures[: len(mixtures)]]

    assert not any(made())
    assert 10 < sum(made(made_noise=0.5, num_mixtures=40)) < 30
    assert not any(made(made_noise=1.0, unvaried=1.0))


def test_made_noises_are_of_four_families_and_use_no_held_back_speech():
    speech = _loaded("s", 3, RATE, 0)
    tones = [np.where(np.arange(RATE) < 0.8 * RATE, 0.1, 7.0 * (-1.0) ** np.arange(RATE))] * 3
    speech = corpora.Loaded([tone.astype(np.float32) for tone in tones], speech.recordings)
    first, again, other = (made_noises(speech, seed, "train", 0.2, RATE) for seed in (0, 0, 1))
    assert len({recording.key for recording in first.recordings}) == len(first) == 160
    kinds = [recording.name for recording in first.recordings]
    assert kinds.count("babble") == kinds.count("gust") == 20
    assert kinds.count("invented") == 80
    assert set(kinds) == {"babble", "gust", "invented", *corpora.synthetic.NOISE_NAMES}
    for index, signal in enumerate(first.signals):
        assert signal.shape == (2 * RATE,) and signal.dtype == np.float32
        assert 0 < np.abs(signal).max() <= 1
        np.testing.assert_array_equal(signal, again.signals[index])
        if kinds[index] == "babble":
            assert np.ptp(signal) < 1e-6  # the training part of this speech is constant
        else:
            assert not np.array_equal(signal, other.signals[index])


def test_babble_of_silence_is_refused():
    silent = corpora.Loaded([np.zeros(RATE, np.float32)], SPEECH.recordings[:1])
    with pytest.raises(ValueError, match="all 1 utterances are silent"):
        made_noises(silent, 0, "train", 0.2, RATE)


def test_silence_is_drawn_again_and_nothing_else_is_refused():
    silent = np.zeros(2 * RATE, np.float32)
    half = corpora.Loaded([silent, NOISE.signals[0]], NOISE.recordings[:2])
    mixtures = corpora.training_mixtures(SPEECH, half, _with(second_noise=0.0))
    assert {m.noise_key for m in mixtures[:6]} == {"n1"}
    mute = corpora.Loaded([silent], NOISE.recordings[:1])
    with pytest.raises(ValueError, match="silent wherever they were tried"):
        corpora.training_mixtures(SPEECH, mute, CONFIG)[0]
    with pytest.raises(IndexError, match="mixture 6 of 6"):
        mixtures[6]


def test_a_recording_shorter_than_a_mixture_starts_over():
    short = _loaded("s", 1, RATE // 8, 3)
    mixture = corpora.training_mixtures(short, NOISE, _with(equalizer_db=0.0))[0]
    period = RATE // 8 - round(0.2 * (RATE // 8))
    np.testing.assert_array_equal(mixture.speech[period:], mixture.speech[:-period])


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_mixtures": -1},
        {"mixture_seconds": 0.0},
        {"min_snr_db": 5.0, "max_snr_db": 0.0},
        {"max_speed": 0.5},
        {"second_noise": 1.5},
        {"made_noise": -1.0},
        {"unvaried": -0.1},
    ],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VarietyConfig(**wrong)


def test_frames_are_drawn_from_them_like_from_any_mixtures():
    config = dataclasses.replace(
        CONFIG, features=FeatureConfig(levels=8, floor_frames=6), dictionary_fraction=1.0
    )
    sample = training.sample_frames(corpora.training_mixtures(SPEECH, NOISE, config), config)
    per_mixture = -(-(RATE // 2) // 256) + 3
    assert sample.frames.shape == (6 * per_mixture, StftConfig().num_bins + 8)
    np.testing.assert_allclose(np.linalg.norm(sample.frames, axis=1), 1, atol=1e-5)
