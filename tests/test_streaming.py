"""Streaming: hop by hop, in odd pieces or in blocks, the result is that of the whole signal."""

import dataclasses
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_model

from blsh_jax.denoising import pipeline, stream
from blsh_jax.denoising.stream import Stream

HOP, LONGEST = 256, 20 * 256
MODELS = {
    "magnitude": random_model(),
    "mel, context 3": random_model("mel", 3),
    "levels, voicing, presence": random_model("log_mel", 3, 24, 0.5, voicing=8),
}
PRE_ROLL = random_model("magnitude", 3, 24, 0.5, pre_roll_frames=6)


@pytest.fixture(scope="module", params=MODELS)
def used(request):
    return MODELS[request.param]


def whole(noisy, used):
    """The denoised signal in one piece; padded, so that all lengths are compiled once."""
    rows = np.atleast_2d(noisy)
    padded = np.pad(rows, ((0, 2 - len(rows)), (0, LONGEST - noisy.shape[-1])))
    config = used.separation
    speech = pipeline.separate(
        padded, used.mask_function, config.stft, config.features.pre_roll_frames
    ).speech
    return np.asarray(speech)[: len(rows), : noisy.shape[-1]].reshape(noisy.shape)


def speech_like(*shape, seed=0):
    """Noise that comes and goes, with silence inside."""
    envelope = np.maximum(0, np.sin(np.arange(shape[-1]) / 1500)) ** 2
    return (0.2 * np.random.default_rng(seed).standard_normal(shape) * envelope).astype(np.float32)


def in_pieces(streamed, noisy, count=6):
    """What comes out of a stream that is fed pieces of random lengths."""
    cuts = np.sort(np.random.default_rng(1).integers(0, noisy.shape[-1] + 1, count - 1))
    pieces = [streamed.feed(piece) for piece in np.split(noisy, cuts, axis=-1)]
    return np.concatenate([*pieces, streamed.flush()], axis=-1)


@pytest.mark.parametrize("hops", [1, 5])
def test_random_pieces_give_the_signal_back_aligned(used, hops):
    streamed = Stream(used, hops=hops)
    for length in (0, 1, 256, LONGEST - 119):  # a flushed stream takes the next signal
        noisy = speech_like(length + 1)[1:]
        out = in_pieces(streamed, noisy)
        assert out.shape == noisy.shape and out.dtype == np.float32
        np.testing.assert_allclose(out, whole(noisy, used), atol=1e-6)


def test_steps_scan_and_vmap_with_the_model_as_an_argument(used):
    noisy = speech_like(2, LONGEST)
    hops = jnp.asarray(noisy).reshape(2, -1, HOP)

    @jax.jit
    def run(model, hops):
        def step(state, hop):
            return stream.step(model, state, hop[None])

        return jax.lax.scan(step, stream.init(model), hops)[1]

    out = np.asarray(jax.vmap(run, in_axes=(None, 0))(used, hops)).reshape(2, -1)
    lag = stream.latency(used)
    assert lag == 1024 - HOP + used.separation.features.context // 2 * HOP
    np.testing.assert_allclose(out[:, lag:], whole(noisy, used)[:, :-lag], atol=1e-6)
    streamed, given = Stream(used), 0  # nothing is held back longer than the latency and a hop
    for start in range(0, 3000, 100):
        given += len(streamed.feed(noisy[0, start : start + 100]))
        assert given == max(0, (start + 100) // HOP * HOP - lag)


def test_a_pre_roll_holds_the_start_back_and_nothing_else():
    streamed = Stream(PRE_ROLL, channels=2, hops=5)
    for length in (0, 1, 900, 6 * HOP, 6 * HOP + 1, LONGEST, LONGEST):
        noisy = speech_like(2, length + 1)[:, 1:]
        out = in_pieces(streamed, noisy)
        assert out.shape == noisy.shape
        np.testing.assert_allclose(out, whole(noisy, PRE_ROLL), atol=1e-6)


def test_a_pre_roll_is_the_start_of_the_signal_backwards_before_it():
    features = dataclasses.replace(PRE_ROLL.separation.features, pre_roll_frames=0)
    separation = dataclasses.replace(PRE_ROLL.separation, features=features)
    config = dataclasses.replace(PRE_ROLL.config, separation=separation)
    without = dataclasses.replace(PRE_ROLL, config=config)
    noisy = speech_like(3000, seed=2)
    backwards = np.concatenate([noisy[6 * HOP : 0 : -1], noisy])
    expected = whole(backwards, without)[6 * HOP :]
    np.testing.assert_allclose(whole(noisy, PRE_ROLL), expected, atol=1e-6)
    assert np.abs(expected - whole(noisy, without)).max() > 1e-3
    live = Stream(PRE_ROLL, pre_roll=False)
    np.testing.assert_allclose(in_pieces(live, noisy), whole(noisy, without), atol=1e-6)
    live.feed(noisy[:HOP])
    assert len(live.feed(noisy[HOP : 5 * HOP])) == HOP  # nothing is held back


def test_the_floor_limits_what_is_taken_away():
    used, noisy = MODELS["magnitude"], speech_like(LONGEST)
    out = in_pieces(Stream(used, floor=1.0), noisy)
    np.testing.assert_allclose(out, noisy, atol=1e-6)
    gain = Stream(used, floor=0.25).feed_rows(noisy[None])[1]
    assert gain.shape[1] > 10 * HOP and gain.min() >= 0.25 - 1e-6 and gain.max() <= 1 + 1e-6


def test_bad_pieces_are_refused():
    used = MODELS["magnitude"]
    with pytest.raises(ValueError, match="multiple of 256"):
        stream.step(used, stream.init(used), jnp.zeros((1, 100)))
    with pytest.raises(ValueError, match=r"give \(2, a multiple"):
        stream.step(used, stream.init(used, 2), jnp.zeros((1, HOP)))
    with pytest.raises(ValueError, match=r"give \(n,\)"):
        Stream(used).feed(np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match=r"give \(2, n\)"):
        Stream(used, channels=2).feed(np.zeros((3, 5), np.float32))
    for bad in (np.nan, np.inf, -2e10):
        with pytest.raises(ValueError, match="NaN, infinity, or more"):
            Stream(used).feed(np.float32([0, bad]))
    with pytest.raises(ValueError, match="samples is int16"):
        Stream(used).feed(np.zeros(5, np.int16))


def test_after_a_refused_piece_a_stream_goes_on_as_if_it_had_never_come():
    noisy = speech_like(5000)
    streamed, expected = Stream(PRE_ROLL, hops=2), in_pieces(Stream(PRE_ROLL, hops=2), noisy, 4)
    out = []
    for piece in np.split(noisy, [100, 2500, 2501]):
        for bad in (np.append(piece, np.nan), piece[None], piece.astype(np.int32), piece + 1j):
            with pytest.raises(ValueError, match="samples"):
                streamed.feed(bad)
        out.append(streamed.feed(piece))
    np.testing.assert_allclose(np.concatenate([*out, streamed.flush()]), expected, atol=1e-6)


def test_a_call_that_was_stopped_in_the_middle_breaks_the_signal_off(monkeypatch):
    streamed = Stream(MODELS["magnitude"])
    streamed.feed(speech_like(3000))
    with monkeypatch.context() as patch:
        patch.setattr(streamed, "_ways", itertools.repeat(interrupted))
        with pytest.raises(KeyboardInterrupt):
            streamed.feed(speech_like(3000))
    for call in (streamed.flush, lambda: streamed.feed(np.zeros(5, np.float32))):
        with pytest.raises(RuntimeError, match="stopped in the middle of this signal: begin a new"):
            call()


def interrupted(*_):
    raise KeyboardInterrupt


def test_two_threads_at_once_are_refused_and_one_after_the_other_are_not(monkeypatch):
    streamed, noisy = Stream(MODELS["magnitude"]), speech_like(6000)
    inside, go_on, advance = threading.Event(), threading.Event(), stream._advance_at_once

    def slow(*arguments):
        inside.set()
        assert go_on.wait(60)
        return advance(*arguments)

    with ThreadPoolExecutor(1) as other:
        with monkeypatch.context() as patch:
            patch.setattr(streamed, "_ways", itertools.repeat(slow))
            first = other.submit(streamed.feed, noisy[:3000])
            assert inside.wait(60)
            for call in (streamed.flush, lambda: streamed.feed(noisy[:9])):
                with pytest.raises(RuntimeError, match="two threads work on this signal at once"):
                    call()
            go_on.set()
            pieces = [first.result()]
        pieces += [streamed.feed(noisy[3000:]), other.submit(streamed.flush).result()]
    expected = whole(noisy[: 20 * HOP], MODELS["magnitude"])
    np.testing.assert_allclose(np.concatenate(pieces)[: 15 * HOP], expected[: 15 * HOP], atol=1e-6)


def test_steps_take_samples_that_nothing_can_be_made_of_as_silence(used):
    noisy = speech_like(1, 20 * HOP)
    bad, silent = noisy.copy(), noisy.copy()
    bad[0, [5, 900, 901, 2000, 2600]] = np.nan, np.inf, -np.inf, 2e10, -3e38
    silent[0, [5, 900, 901, 2000, 2600]] = 0
    out, expected = (stream.step(used, stream.init(used), x)[1] for x in (bad, silent))
    np.testing.assert_array_equal(out, expected)
