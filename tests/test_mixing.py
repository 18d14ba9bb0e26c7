"""Mixing: exact ratios, offsets that depend on seed and keys alone, batches that lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blsh_jax import corpora


def _snr(mixture):
    speech, noise = (np.sum(x.astype(np.float64) ** 2) for x in (mixture.speech, mixture.noise))
    return 10 * np.log10(speech / noise)


def _loaded(prefix, lengths, seed=0):
    rng = np.random.default_rng(seed)
    signals = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in lengths]
    recordings = tuple(corpora.Recording(f"{prefix}{i}") for i in range(len(lengths)))
    return corpora.Loaded(signals, recordings)


SPEECH = _loaded("s", [900, 1500, 2300, 1000, 400, 1501])
NOISE = _loaded("n", [5000, 700, 9000], seed=1)


@settings(deadline=None, max_examples=20)
@given(
    snr_db=st.floats(-40, 40),
    length=st.integers(50, 3000),
    noise_length=st.integers(10, 3000),
    gain=st.floats(1e-2, 1e2),
    seed=st.integers(0, 2**32 - 1),
)
def test_snr_is_exact(snr_db, length, noise_length, gain, seed):
    rng = np.random.default_rng(seed)
    speech = (gain * rng.standard_normal(length)).astype(np.float32)
    noise = rng.standard_normal(noise_length).astype(np.float32)
    mixture = corpora.mix(speech, noise, snr_db, rng)
    assert abs(_snr(mixture) - snr_db) < 1e-4
    np.testing.assert_array_equal(mixture.speech, speech)
    np.testing.assert_array_equal(mixture.mixture, mixture.speech + mixture.noise)


def test_noise_is_cut_in_one_piece_that_sounds_and_starts_over_at_its_end():
    ramp = np.arange(1, 101, dtype=np.float32)
    late = np.float32(np.arange(1000) // 200 == 2)
    for seed in range(20):
        cut = corpora.mix(np.ones(90, np.float32), ramp, 0.0, np.random.default_rng(seed)).noise
        np.testing.assert_allclose(np.diff(cut), cut[1] - cut[0], rtol=1e-4)
        mixture = corpora.mix(np.ones(100, np.float32), late, 0.0, np.random.default_rng(seed))
        assert abs(_snr(mixture)) < 1e-4
    over = corpora.mix(np.ones(8, np.float32), np.float32([1, 2, 3]), 0.0, 2).noise
    np.testing.assert_allclose(over / over[1], np.float32([3, 1, 2, 3, 1, 2, 3, 1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("speech", "noise", "offset", "message"),
    [
        (np.zeros(9), np.ones(9), 0, "speech 'a' is silent"),
        (np.ones(9), np.zeros(9), np.random.default_rng(0), "noise 'b' is silent"),
        (np.ones(3), np.float32([1, 0, 0, 0]), 1, "noise 'b' is silent"),
    ],
)
def test_silence_is_named(speech, noise, offset, message):
    with pytest.raises(ValueError, match=message):
        corpora.mix(speech, noise, 0.0, offset, "a", "b")


def _assert_same(one, other):
    assert one.key == other.key
    np.testing.assert_array_equal(one.speech, other.speech)
    np.testing.assert_array_equal(one.noise, other.noise)


def test_every_utterance_meets_every_noise():
    mixtures = corpora.make_mixtures(SPEECH, NOISE, 5.0, 0)
    assert len(mixtures) == 18 and len({m.key for m in mixtures}) == 18
    assert mixtures[4].key == "s1+n1" and mixtures[-1].key == "s5+n2"
    assert all(abs(_snr(m) - 5.0) < 1e-4 for m in mixtures)
    np.testing.assert_array_equal(mixtures.lengths, [len(m.speech) for m in mixtures])
    with pytest.raises(IndexError):
        mixtures[18]
    _assert_same(mixtures[2:9][3], mixtures[5])


def test_offsets_depend_on_seed_and_keys_alone():
    whole = {m.key: m for m in corpora.make_mixtures(SPEECH, NOISE, 0.0, 7)}
    subset = corpora.make_mixtures(SPEECH.some([4, 1]), NOISE.some([2, 0]), 0.0, 7)
    for mixture in subset:
        _assert_same(mixture, whole[mixture.key])
    other = corpora.make_mixtures(SPEECH, NOISE, 0.0, 8)
    assert not np.array_equal(other[0].noise, whole[other[0].key].noise)


def test_parts_are_disjoint_and_share_no_noise():
    ramp = corpora.Loaded([np.arange(1, 4_001, dtype=np.float32)], (corpora.Recording("ramp"),))
    train, closed, whole = (
        corpora.make_mixtures(SPEECH, ramp, 0.0, 0, part, held_back=0.25)
        for part in ("train", "closed", "whole")
    )
    for index in range(len(SPEECH)):
        first, last, both = train[index], closed[index], whole[index]
        np.testing.assert_array_equal(np.concatenate([first.speech, last.speech]), both.speech)
        assert len(last.speech) == round(0.25 * len(both.speech))
        # The noise is a ramp, so it tells the place in it, once its gain is divided out.
        places = [x.noise / (np.ptp(x.noise) / (len(x.noise) - 1)) for x in (first, last)]
        assert abs(places[1][0] - places[0][-1] - 1) < 0.5
        assert abs(_snr(first)) < 1e-4 and abs(_snr(last)) < 1e-4


@pytest.mark.parametrize("count", [5, 7, 17])
def test_a_choice_is_balanced_nested_and_seeded(count):
    chosen = corpora.make_mixtures(SPEECH, NOISE, 0.0, 3, max_mixtures=count)
    assert len(chosen) == count == len(set(chosen.pairs))
    per_utterance = np.bincount([u for u, _ in chosen.pairs], minlength=6)
    per_noise = np.bincount([n for _, n in chosen.pairs], minlength=3)
    assert np.ptp(per_utterance) <= 1 and np.ptp(per_noise) <= 1
    larger = corpora.make_mixtures(SPEECH, NOISE, 0.0, 3, max_mixtures=count + 1)
    assert set(chosen.pairs) <= set(larger.pairs)
    whole = {m.key: m for m in corpora.make_mixtures(SPEECH, NOISE, 0.0, 3)}
    for mixture in chosen:
        _assert_same(mixture, whole[mixture.key])
    others = (corpora.make_mixtures(SPEECH, NOISE, 0.0, s, max_mixtures=count) for s in range(6))
    assert len({other.pairs for other in others}) > 1


def test_silent_parts_are_left_out_by_name():
    speech = _loaded("s", [1000, 1000])
    speech.signals[0][800:] = 0
    noise = _loaded("n", [500, 500])
    noise.signals[1][:] = 0
    closed = corpora.make_mixtures(speech, noise, 0.0, 0, "closed")
    assert [m.key for m in closed] == ["s1+n0"]
    assert [key for key, _ in closed.skipped] == ["s0", "n1"]
    assert len(corpora.make_mixtures(speech, noise, 0.0, 0, "train")) == 2
    with pytest.raises(ValueError, match="0 of 1 noises"):
        corpora.make_mixtures(speech, noise.some([1]), 0.0, 0)


def test_bad_arguments_are_named():
    for arguments, message in (
        ({"part": "middle"}, "part is 'middle'"),
        ({"held_back": 1.0}, "held_back is 1.0"),
        ({"part": "closed", "held_back": 0.0}, "held_back is 0.0"),
        ({"max_mixtures": 0}, "max_mixtures is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            corpora.make_mixtures(SPEECH, NOISE, 0.0, 0, **arguments)


@pytest.mark.parametrize(("batch_size", "as_list"), [(4, False), (25, True)])
def test_batches_hold_every_mixture_once(batch_size, as_list):
    mixtures = corpora.make_mixtures(SPEECH, NOISE, 0.0, 0)
    if as_list:
        mixtures = list(mixtures)
    seen = []
    for batch in corpora.batches(mixtures, batch_size, multiple=256):
        assert batch.speech.shape == batch.noise.shape == (batch_size, batch.speech.shape[1])
        assert batch.speech.shape[1] % 256 == 0 and batch.speech.dtype == np.float32
        assert batch.speech.shape[1] - batch.lengths.max() < 256
        for row, (index, length) in enumerate(zip(batch.indices, batch.lengths, strict=True)):
            assert not batch.mixture[row, length:].any()
            if index < 0:
                assert length == 0
                continue
            seen.append(index)
            np.testing.assert_array_equal(batch.mixture[row, :length], mixtures[index].mixture)
            np.testing.assert_array_equal(batch.speech[row, :length], mixtures[index].speech)
    assert sorted(seen) == list(range(18))
    with pytest.raises(ValueError, match="batch_size 0"):
        next(corpora.batches([], 0))


def test_batches_have_few_shapes_longest_first():
    speech = _loaded("s", list(range(1000, 3000, 25)))
    mixtures = corpora.make_mixtures(speech, _loaded("n", [4000]), 0.0, 0)
    widths = [b.speech.shape[1] for b in corpora.batches(mixtures, 4, multiple=500)]
    assert widths == sorted(widths, reverse=True) and set(widths) <= {1500, 2000, 2500, 3000}
