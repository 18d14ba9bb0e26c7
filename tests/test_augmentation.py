"""Augmentation: repeatable mixtures of the length and SNR wanted, and none of them silent."""

import dataclasses

import numpy as np
import pytest

from blsh_jax import corpora
from blsh_jax.config import AugmentationConfig, TrainConfig
from blsh_jax.robust.augmentation import training_mixtures
from blsh_jax.robust.synthetic_noise import synthetic_noises

RATE = 16_000
CONFIG = TrainConfig(
    augmentation=AugmentationConfig(
        num_mixtures=6, mixture_seconds=0.5, min_snr_db=-3.0, max_snr_db=9.0, unaugmented=0.0
    )
)


def _loaded(prefix, count, length, seed):
    rng = np.random.default_rng(seed)
    signals = [(0.1 * rng.standard_normal(length)).astype(np.float32) for _ in range(count)]
    recordings = tuple(corpora.Recording(f"{prefix}{i}") for i in range(count))
    return corpora.Loaded(signals, recordings)


SPEECH, NOISE = _loaded("s", 4, RATE, 0), _loaded("n", 3, 2 * RATE, 1)


def _with(**changes):
    return dataclasses.replace(
        CONFIG, augmentation=dataclasses.replace(CONFIG.augmentation, **changes)
    )


def test_mixtures_are_repeatable_and_of_the_length_and_snr_wanted():
    mixtures = training_mixtures(SPEECH, NOISE, CONFIG)
    again = training_mixtures(SPEECH, NOISE, CONFIG)
    other = training_mixtures(SPEECH, NOISE, dataclasses.replace(CONFIG, seed=1))
    assert len(mixtures) == 6 and mixtures.lengths.tolist() == [RATE // 2] * 6
    snrs = []
    for index in range(6):
        mixture = mixtures[index]
        assert mixture.speech.shape == mixture.noise.shape == (RATE // 2,)
        assert mixture.speech.dtype == mixture.noise.dtype == np.float32
        np.testing.assert_array_equal(mixture.mixture, again[index].mixture)
        assert not np.array_equal(mixture.mixture, other[index].mixture)
        speech, noise = (np.sum(x.astype(np.float64) ** 2) for x in mixture[:2])
        snrs.append(10 * np.log10(speech / noise))
        assert abs(snrs[-1] - mixture.snr_db) < 1e-4
    assert -3 <= min(snrs) < max(snrs) <= 9
    assert [m.speech_key for m in mixtures[:6]] == ["s0", "s1", "s2", "s3", "s0", "s1"]


def test_one_fold_draws_what_was_drawn_before_there_were_folds():
    settings = _with(num_mixtures=4, unaugmented=0.3)
    mixtures = training_mixtures(SPEECH, NOISE, settings)[:4]
    assert [mixture.noise_key for mixture in mixtures] == ["n0+n2", "n1+n2", "n1", "n2+n2"]
    snrs = [mixture.snr_db for mixture in mixtures]
    np.testing.assert_allclose(snrs, [3.858358, 1.261149, 0.0, 7.739948], atol=1e-6)
    golden = [-0.0699795, -0.0295218, -0.1067252]
    np.testing.assert_allclose(mixtures[0].mixture[1000:1003], golden, rtol=1e-4)


@pytest.mark.parametrize("unaugmented", [0.0, 0.5])
def test_a_mixture_has_noises_of_its_own_fold(unaugmented):
    noise = _loaded("n", 5, 2 * RATE, 1)
    settings = _with(num_mixtures=40, noise_folds=2, second_noise=0.8, unaugmented=unaugmented)
    mixtures = training_mixtures(SPEECH, noise, settings)
    heard = [{key for m in mixtures[f::2] for key in m.noise_key.split("+")} for f in (0, 1)]
    assert heard == [{"n0", "n2", "n4"}, {"n1", "n3"}]
    synthetic = training_mixtures(SPEECH, noise, _with(noise_folds=3, synthetic_noise=1.0))
    keys = [recording.key for recording in synthetic.synthetic.recordings]
    for index, mixture in enumerate(synthetic[:6]):
        assert {keys.index(key) % 3 for key in mixture.noise_key.split("+")} == {index % 3}


def test_a_fold_without_noise_is_refused():
    with pytest.raises(ValueError, match="3 noises cannot be cut into 4 folds: give more noises"):
        training_mixtures(SPEECH, NOISE, _with(noise_folds=4))


def test_without_augmentation_a_noise_is_a_cut_of_its_recording():
    plain = _with(max_speed=1.0, equalizer_db=0.0, second_noise=0.0)
    mixture = training_mixtures(SPEECH, NOISE, plain)[2]
    source = NOISE.signals[int(mixture.noise_key[1:])].astype(np.float64)
    found = np.correlate(source, mixture.noise.astype(np.float64), "valid").argmax()
    cut = source[found : found + len(mixture.noise)]
    scale = np.dot(cut, mixture.noise) / np.dot(cut, cut)
    np.testing.assert_allclose(mixture.noise, scale * cut, atol=2e-4 * np.abs(cut * scale).max())


def test_equalizer_colours_by_no_more_than_it_says_and_speed_moves_tones():
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    noise = corpora.Loaded([tone], (corpora.Recording("tone"),))
    moved = _with(equalizer_db=0.0, second_noise=0.0, num_mixtures=20)
    mixtures = training_mixtures(SPEECH, noise, moved)
    peaks = [np.abs(np.fft.rfft(m.noise)).argmax() / 0.5 for m in mixtures[:20]]
    assert 1000 / 1.41 < min(peaks) < 900 and 1100 < max(peaks) < 1410
    white = _with(max_speed=1.0, second_noise=0.0, equalizer_db=12.0)
    mixture = training_mixtures(SPEECH, NOISE, white)[0]
    bands = np.abs(np.fft.rfft(mixture.noise)[: RATE // 4]).reshape(20, -1)
    levels = 10 * np.log10(np.mean(bands**2, axis=1))
    assert 6 < np.ptp(levels) < 27


def _power(signal):
    return np.sum(np.square(signal, dtype=np.float64))


def test_a_room_keeps_the_sound_and_lets_it_die_away():
    click = np.zeros(2 * RATE, np.float32)
    click[::RATE] = 1.0
    speech = corpora.Loaded([click], (corpora.Recording("click"),))
    settings = _with(reverberant=1.0, equalizer_db=0.0, mixture_seconds=1.0, num_mixtures=20)
    ratios = []
    for mixture in training_mixtures(speech, NOISE, settings, "whole")[:20]:
        sound = mixture.speech
        (start,) = np.flatnonzero(sound == np.abs(sound).max())
        assert sound[start] == pytest.approx(1.0, abs=1e-5)
        tail = sound[start + 1 :]
        if len(tail) < 0.9 * RATE:  # the click is late in the cut
            continue
        assert np.abs(tail[: round(0.0049 * RATE)]).max() < 1e-5  # no reflection yet
        ratios.append(-10 * np.log10(_power(tail)))
        assert _power(tail[: RATE // 10]) > 10 * _power(tail[RATE // 5 : 3 * RATE // 10])
    assert -3.01 < min(ratios) < 4 < max(ratios) < 12.01


def test_a_narrow_band_is_that_of_speech_and_of_noise_at_the_snr_wanted():
    settings = _with(band_limited=1.0, max_speed=1.0, num_mixtures=30)
    tops = []
    for mixture in training_mixtures(SPEECH, NOISE, settings)[:30]:
        assert 10 * np.log10(_power(mixture.speech) / _power(mixture.noise)) == pytest.approx(
            mixture.snr_db, abs=1e-3
        )
        hertz = np.fft.rfftfreq(RATE // 2, 1 / RATE)
        both = [np.abs(np.fft.rfft(signal)) for signal in mixture[:2]]
        highest = [hertz[np.flatnonzero(x > 1e-3 * x.max())].max() for x in both]
        assert highest[0] == pytest.approx(highest[1], rel=0.02)
        tops.append(highest[0])
    edges = np.array([3400, 4000, 5500, 7000]) * 1.05
    nearest = edges[np.abs(edges - np.array(tops)[:, None]).argmin(1)]
    np.testing.assert_allclose(tops, nearest, rtol=0.02)
    assert set(nearest) == set(edges)


def test_a_clipped_mixture_is_clipped_speech_and_what_the_noise_did():
    clipped = training_mixtures(SPEECH, NOISE, _with(clipped=1.0))
    plain = training_mixtures(SPEECH, NOISE, _with(clipped=1e-9))
    for ours, before in zip(clipped[:6], plain[:6], strict=True):
        limit = np.abs(ours.mixture).max()
        assert 10 ** (-15 / 20) < limit / np.abs(before.mixture).max() < 10 ** (-3 / 20)
        np.testing.assert_allclose(
            ours.mixture, np.clip(before.mixture, -limit, limit), atol=1e-6 * limit
        )
        np.testing.assert_allclose(
            ours.speech, np.clip(before.speech, -limit, limit), atol=1e-6 * limit
        )


def test_what_happens_to_some_leaves_those_as_recorded_alone():
    every = {"reverberant": 1.0, "band_limited": 1.0, "clipped": 1.0}
    as_recorded = [
        training_mixtures(SPEECH, NOISE, _with(unaugmented=1.0, **changes))[:6]
        for changes in (every, {})
    ]
    for ours, theirs in zip(*as_recorded, strict=True):
        np.testing.assert_array_equal(ours.mixture, theirs.mixture)
    some = training_mixtures(SPEECH, NOISE, _with(clipped=0.3, num_mixtures=40))[:40]
    at_limit = [np.sum(np.abs(m.mixture) >= 0.9999 * np.abs(m.mixture).max()) for m in some]
    assert 4 < np.sum(np.array(at_limit) > 2) < 22


def test_some_are_made_of_the_recordings_as_they_are():
    some = training_mixtures(SPEECH, NOISE, _with(unaugmented=0.5, num_mixtures=40))
    plain = [m for m in some[:40] if m.snr_db == 0]
    assert 10 < len(plain) < 30
    for mixture in plain:
        assert "+" not in mixture.noise_key
        source = SPEECH.signals[int(mixture.speech_key[1:])].astype(np.float64)
        match = np.correlate(source, mixture.speech.astype(np.float64), "valid").max()
        energy = np.sum(np.square(mixture.speech, dtype=np.float64))
        assert abs(match / energy - 1) < 1e-4


def test_second_and_synthetic_noises_come_as_often_as_set():
    def keys(**changes):
        mixtures = training_mixtures(SPEECH, NOISE, _with(**changes))
        return [m.noise_key for m in mixtures[: len(mixtures)]]

    assert all("+" in key for key in keys(second_noise=1.0))
    recordings = keys(second_noise=0.0)
    assert not any("+" in key or key.startswith("synthetic/") for key in recordings)
    half = keys(second_noise=0.0, synthetic_noise=0.5, num_mixtures=40)
    assert 10 < sum(key.startswith("synthetic/") for key in half) < 30
    none = keys(second_noise=0.0, synthetic_noise=1.0, unaugmented=1.0)
    assert not any(key.startswith("synthetic/") for key in none)


def test_synthetic_noises_are_of_four_families_and_use_no_held_back_speech():
    speech = _loaded("s", 3, RATE, 0)
    tones = [np.where(np.arange(RATE) < 0.8 * RATE, 0.1, 7.0 * (-1.0) ** np.arange(RATE))] * 3
    speech = corpora.Loaded([tone.astype(np.float32) for tone in tones], speech.recordings)
    first, again, other = (synthetic_noises(speech, seed, "train", 0.2, RATE) for seed in (0, 0, 1))
    assert len({recording.key for recording in first.recordings}) == len(first) == 70
    kinds = [recording.name for recording in first.recordings]
    assert kinds.count("babble") == kinds.count("gust") == 20
    assert kinds.count("invented") == 20
    assert set(kinds) == {"babble", "gust", "invented", *corpora.synthetic.NOISE_NAMES}
    for index, signal in enumerate(first.signals):
        assert signal.shape == (4 * RATE,) and signal.dtype == np.float32
        assert 0 < np.abs(signal).max() <= 1
        np.testing.assert_array_equal(signal, again.signals[index])
        if kinds[index] == "babble":
            assert np.ptp(signal) < 1e-6  # the training part of this speech is constant
        else:
            assert not np.array_equal(signal, other.signals[index])


def test_silence_is_drawn_again_and_nothing_else_is_refused():
    silent = np.zeros(2 * RATE, np.float32)
    half = corpora.Loaded([silent, NOISE.signals[0]], NOISE.recordings[:2])
    mixtures = training_mixtures(SPEECH, half, _with(second_noise=0.0))
    assert {m.noise_key for m in mixtures[:6]} == {"n1"}
    mute = corpora.Loaded([silent], NOISE.recordings[:1])
    with pytest.raises(ValueError, match="silent wherever they were tried"):
        training_mixtures(SPEECH, mute, CONFIG)[0]
    with pytest.raises(IndexError, match="mixture 6 of 6"):
        mixtures[6]
    silence = corpora.Loaded([silent], SPEECH.recordings[:1])
    with pytest.raises(ValueError, match="all 1 utterances are silent"):
        synthetic_noises(silence, 0, "train", 0.2, RATE)


def test_a_slice_holds_the_same_mixtures():
    mixtures = training_mixtures(SPEECH, NOISE, CONFIG)
    some = mixtures[1::2][1:]
    assert len(some) == len(some.lengths) == 2
    for one, other in zip(some, (mixtures[3], mixtures[5]), strict=True):
        np.testing.assert_array_equal(one.mixture, other.mixture)
    with pytest.raises(IndexError, match="mixture 2 of 2"):
        some[2]


def test_a_recording_shorter_than_a_mixture_starts_over():
    short = _loaded("s", 1, RATE // 8, 3)
    mixture = training_mixtures(short, NOISE, _with(equalizer_db=0.0))[0]
    period = RATE // 8 - round(0.2 * (RATE // 8))
    np.testing.assert_array_equal(mixture.speech[period:], mixture.speech[:-period])
