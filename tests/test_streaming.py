"""Streaming: hop by hop, in odd pieces or in blocks, the result is that of the whole signal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_model

from blsh_jax import denoising, separation, streaming

HOP = 256


def whole(noisy, used):
    """The denoised signal in one piece, by the batch path."""
    settings = used.config
    return np.asarray(
        separation.separate(
            jnp.asarray(np.atleast_2d(noisy)),
            used.dictionary,
            settings.stft,
            settings.features,
            settings.num_neighbors,
            settings.evidence,
        )
    ).reshape(noisy.shape)


@pytest.fixture(
    scope="module", params=[("magnitude", 1), ("mel", 3), ("magnitude", 3, 24, 0.5)], ids=str
)
def used(request):
    return random_model(*request.param)


def speech_like(length, channels=None, seed=0):
    """Noise that comes and goes, with silence inside."""
    rng = np.random.default_rng(seed)
    shape = (length,) if channels is None else (channels, length)
    envelope = np.maximum(0, np.sin(np.arange(length) / 4000)) ** 2
    return (0.2 * rng.standard_normal(shape) * envelope).astype(np.float32)


def test_steps_in_a_scan_equal_the_whole_signal(used):
    noisy = speech_like(60 * HOP, channels=2)
    hops = jnp.asarray(noisy).reshape(2, 60, HOP).transpose(1, 0, 2)
    start = streaming.init(used.config, channels=2)
    _, out = jax.jit(
        lambda state, hops: jax.lax.scan(
            lambda state, hop: streaming.step(used, state, hop), state, hops
        )
    )(start, hops)
    out = np.asarray(out).transpose(1, 0, 2).reshape(2, -1)
    lag = streaming.latency(used.config)
    np.testing.assert_allclose(out[:, lag:], whole(noisy, used)[:, :-lag], atol=1e-6)


def test_latency_is_what_the_transform_and_the_context_need(used):
    reach = used.config.features.context // 2
    assert streaming.latency(used.config) == 1024 - HOP + reach * HOP


@pytest.mark.parametrize("hops", [1, 7])
@pytest.mark.parametrize("length", [0, 1, 256, 9001])
def test_feed_and_flush_give_the_signal_back_aligned(used, hops, length):
    noisy = speech_like(length + 1)[1:]
    stream = streaming.Stream(used, hops=hops)
    cuts = np.sort(np.random.default_rng(1).integers(0, length + 1, 5))
    for _ in range(2):  # a flushed stream takes the next signal
        pieces = [stream.feed(piece) for piece in np.split(noisy, cuts)] + [stream.flush()]
        out = np.concatenate(pieces)
        assert out.shape == noisy.shape and out.dtype == np.float32
        if length:
            np.testing.assert_allclose(out, whole(noisy, used), atol=1e-6)


def test_nothing_is_held_back_longer_than_the_latency_and_a_hop(used):
    stream = streaming.Stream(used, channels=1)
    noisy, given = speech_like(9000, channels=1), 0
    for start in range(0, 9000, 100):
        given += stream.feed(noisy[:, start : start + 100]).shape[-1]
        fed = start + 100
        assert given == max(0, fed // HOP * HOP - streaming.latency(used.config))


@pytest.mark.parametrize("hops", [1, 7])
@pytest.mark.parametrize("length", [0, 1, 900, 20 * HOP, 20 * HOP + 1, 9001])
def test_a_lead_in_holds_the_start_back_and_nothing_else(hops, length):
    used = random_model("magnitude", 3, 24, 0.5, lead_in_frames=20)
    noisy = speech_like(length + 1)[1:]
    stream = streaming.Stream(used, hops=hops)
    for _ in range(2):
        pieces = [stream.feed(piece) for piece in np.array_split(noisy, 9)] + [stream.flush()]
        out = np.concatenate(pieces)
        assert out.shape == noisy.shape
        if length:
            np.testing.assert_allclose(out, whole(noisy, used), atol=1e-6)


def test_a_lead_in_is_what_the_signal_says_backwards_before_it():
    used = random_model("magnitude", 1, 24, 0.5, lead_in_frames=20)
    without = random_model("magnitude", 1, 24, 0.5)
    noisy = speech_like(9000, seed=2)
    backwards = np.concatenate([noisy[20 * HOP : 0 : -1], noisy])
    expected = whole(backwards, without)[20 * HOP :]
    np.testing.assert_allclose(whole(noisy, used), expected, atol=1e-6)
    assert np.abs(expected - whole(noisy, without)).max() > 1e-3
    live = streaming.Stream(used, lead_in=False)
    out = np.concatenate([live.feed(noisy), live.flush()])
    np.testing.assert_allclose(out, whole(noisy, without), atol=1e-6)
    live.feed(noisy[:HOP])
    assert len(live.feed(noisy[HOP : 4 * HOP])) == HOP  # nothing is held back


def test_a_trained_model_streams_like_denoise(trained):
    used = trained[0]
    noisy = speech_like(32_000, seed=3)
    stream = streaming.Stream(used)
    out = np.concatenate([stream.feed(noisy), stream.flush()])
    np.testing.assert_allclose(out, denoising.denoise(noisy, 16_000, used), atol=1e-6)


def test_the_floor_limits_what_is_taken_away(used):
    noisy = speech_like(9000)
    untouched = streaming.Stream(used, floor=1.0)
    out = np.concatenate([untouched.feed(noisy), untouched.flush()])
    np.testing.assert_allclose(out, noisy, atol=1e-6)
    floored = streaming.Stream(used, channels=1, floor=0.25)
    gain = floored.feed_rows(noisy[None])[1]
    assert gain.shape[1] > 20 * HOP and gain.min() >= 0.25 - 1e-6 and gain.max() <= 1 + 1e-6


def test_steps_vmap():
    used = random_model()
    noisy = jnp.asarray(speech_like(4 * HOP, channels=3))[:, None]
    state = jax.vmap(lambda _: streaming.init(used.config))(jnp.arange(3))
    _, out = jax.vmap(lambda state, hop: streaming.step(used, state, hop))(state, noisy)
    both = streaming.step(used, streaming.init(used.config, 3), noisy[:, 0])[1]
    np.testing.assert_allclose(np.asarray(out)[:, 0], np.asarray(both), atol=1e-6)


def test_bad_pieces_are_refused(used):
    with pytest.raises(ValueError, match="multiple of 256"):
        streaming.step(used, streaming.init(used.config), jnp.zeros((1, 100)))
    with pytest.raises(ValueError, match=r"give \(2, a multiple"):
        streaming.step(used, streaming.init(used.config, 2), jnp.zeros((1, HOP)))
    with pytest.raises(ValueError, match=r"give \(n,\)"):
        streaming.Stream(used).feed(np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match=r"give \(2, n\)"):
        streaming.Stream(used, channels=2).feed(np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match="NaN"):
        streaming.Stream(used).feed(np.float32([0, np.nan]))
