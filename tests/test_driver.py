"""Boosting over blocks: the published mode against a NumPy program, the fast mode against it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.config import FitConfig
from blsh_jax.paper import boosting, codes
from blsh_jax.training import driver

PUBLISHED = FitConfig(
    num_bits=4, block_size=40, mode="published", learning_rate=1e-2, min_epochs=12, max_epochs=30
)
FAST = FitConfig(num_bits=5, block_size=50, fast_candidates=8, fast_steps=60)


def make_frames(num_frames=210, num_features=9, seed=0):
    """Unit non-negative vectors around a few directions, as magnitude spectra are."""
    rng = np.random.default_rng(seed)
    centers = np.abs(rng.normal(size=(6, num_features))) ** 2
    frames = centers[rng.integers(0, 6, num_frames)]
    frames = np.abs(frames + 0.4 * rng.normal(size=frames.shape))
    return (frames / np.linalg.norm(frames, axis=1, keepdims=True)).astype(np.float32)


def as_cut(frames, key, size):
    """Key of the bits, and the blocks that ``fit`` makes of a multiple of ``size`` frames."""
    order_key, bits_key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(order_key, len(frames)))
    return bits_key, jnp.asarray(frames[np.sort(order.reshape(-1, size), axis=1)])


class Oracle:
    """Algorithm 2 in NumPy, pair by pair matrices, nothing shared with the library."""

    def __init__(self, blocks, target_blocks, config):
        self.x, self.config = blocks, config
        unit = target_blocks / np.linalg.norm(target_blocks, axis=2, keepdims=True)
        cosine = np.einsum("gid,gjd->gij", unit, unit)
        self.s = cosine if config.target == "cosine" else np.exp((cosine - 1) / config.sigma2)
        size = blocks.shape[1]
        self.v = np.full_like(self.s, 1 / size**2)

    def error(self, code, g, metric):
        agree = (np.outer(code, code) + 1) / 2
        if metric == "squared_error":
            return (agree - self.s[g]) ** 2
        s = np.clip(self.s[g], 1e-6, 1 - 1e-6)
        return -agree * np.log(s) - (1 - agree) * np.log(1 - s)

    def error_slope(self, code, g):
        """dD/dz at z = h_i h_j of the metric, constant for cross-entropy."""
        s = self.s[g]
        if self.config.metric == "cross_entropy":
            s = np.clip(s, 1e-6, 1 - 1e-6)
            return -(np.log(s) - np.log(1 - s)) / 2
        return (np.outer(code, code) + 1) / 2 - s

    @staticmethod
    def code(p, b, x):
        return np.where(x @ p + b >= 0, 1.0, -1.0)

    def mean_error(self, p, b, metric):
        sums = [
            np.sum(self.v[g] * self.error(self.code(p, b, x), g, metric))
            for g, x in enumerate(self.x)
        ]
        return np.mean(sums)

    def learn(self, p, b):
        """Adam with bias correction, one step per block; then eq. 6 and eq. 4."""
        config, losses = self.config, []
        theta, m, v, t = np.append(p, b), 0.0, 0.0, 0
        for epoch in range(config.max_epochs):
            running = []
            for g, x in enumerate(self.x):
                u = x @ theta[:-1] + theta[-1]
                h = np.where(u >= 0, 1.0, -1.0)
                running.append(np.sum(self.v[g] * self.error(h, g, config.metric)))
                dz = self.v[g] * self.error_slope(h, g)
                dh = (dz * h[None, :]).sum(1) + (dz * h[:, None]).sum(0)
                du = dh * (1 - np.tanh(u) ** 2)
                gradient = np.append(x.T @ du, du.sum())
                t += 1
                m = config.adam_b1 * m + (1 - config.adam_b1) * gradient
                v = config.adam_b2 * v + (1 - config.adam_b2) * gradient**2
                mean = m / (1 - config.adam_b1**t)
                scale = np.sqrt(v / (1 - config.adam_b2**t)) + 1e-8
                theta = theta - config.learning_rate * mean / scale
            losses.append(np.mean(running))
            if epoch + 1 >= config.min_epochs and epoch + 1 > 10:
                gain = np.mean(losses[-11:-1]) - np.mean(losses[-10:])
                if gain < 1 / config.block_size**2:
                    break
        p, b = theta[:-1], theta[-1]
        epsilon = self.mean_error(p, b, "squared_error")
        beta = 0.5 * np.log((1 - epsilon) / epsilon)
        objective = self.mean_error(p, b, config.metric)
        for g, x in enumerate(self.x):
            self.v[g] *= np.exp(beta * self.error(self.code(p, b, x), g, "squared_error"))
            self.v[g] /= self.v[g].sum()
        return p, b, beta, epsilon, objective, len(losses)


@pytest.mark.parametrize(
    ("metric", "target"),
    [
        ("squared_error", "rbf"),
        pytest.param("cross_entropy", "rbf", marks=pytest.mark.slow),
        pytest.param("squared_error", "cosine", marks=pytest.mark.slow),
    ],
)
def test_published_mode_equals_the_oracle(metric, target):
    config = dataclasses.replace(PUBLISHED, metric=metric, target=target)
    with jax.enable_x64():
        frames = make_frames(215).astype(np.float64)
        order_key, bits_key = jax.random.split(jax.random.key(3))
        hasher, info = driver.fit(frames, config, jax.random.key(3))
        order = np.asarray(jax.random.permutation(order_key, 215))[:200]
        blocks = frames[order].reshape(5, 40, -1)
        oracle = Oracle(blocks, blocks, config)
        for bit in range(config.num_bits):
            start_key, _ = jax.random.split(jax.random.fold_in(bits_key, bit))
            start = jax.random.normal(start_key, (1, 10), jnp.float64)
            theta = np.asarray(start)[0] * np.sqrt(2 / 11)
            p, b, beta, epsilon, objective, epochs = oracle.learn(theta[:-1], theta[-1])
            np.testing.assert_allclose(hasher.projections[bit], p, atol=1e-9)
            np.testing.assert_allclose(hasher.biases[bit], b, atol=1e-9)
            np.testing.assert_allclose(hasher.betas[bit], beta, atol=1e-9)
            np.testing.assert_allclose(info.epsilon[bit], epsilon, atol=1e-9)
            np.testing.assert_allclose(info.objective[bit], objective, atol=1e-9)
            assert info.steps[bit] == epochs * 5
            ours = codes.sign(codes.project(frames, hasher.projections, hasher.biases))[:, bit]
            assert np.array_equal(ours, Oracle.code(p, b, frames))
    assert info.num_left_over == 15
    assert info.num_frames == 200


@pytest.mark.slow
def test_fast_mode_is_never_above_published_from_the_same_weights():
    """Bit by bit, both modes go on from the bits that the published mode learned."""
    frames = make_frames(400, seed=1)
    published = dataclasses.replace(PUBLISHED, block_size=50, max_epochs=60)
    slow_set = driver.prepare(frames, published, jax.random.key(5))
    fast_set = driver.prepare(frames, FAST, jax.random.key(5))
    state = boosting.init(9, published, jax.random.key(6))
    for _ in range(4):
        _, fast_info = driver.step(state, fast_set, FAST)
        state, slow_info = driver.step(state, slow_set, published)
        assert fast_info.objective <= slow_info.objective
        assert fast_info.constant_objective == pytest.approx(slow_info.constant_objective)


def test_boosting_brings_the_code_closer_to_its_target():
    hasher, info = driver.fit(make_frames(), FAST, jax.random.key(1))
    assert hasher.num_bits == 5
    assert info.approximation_error[-1] < 0.7 * info.approximation_error[0]
    assert np.all(info.objective < info.constant_objective)
    assert np.all(np.abs(info.balance) < 0.9)
    np.testing.assert_allclose(info.beta, np.log((1 - info.epsilon) / info.epsilon) / 2)
    np.testing.assert_allclose(hasher.betas, info.beta, rtol=1e-6)


def test_approximation_error_equals_the_direct_mean():
    frames = make_frames(30, seed=2)  # fewer than a block
    hasher, info = driver.fit(frames, FAST, jax.random.key(1))
    assert (info.num_blocks, info.block_size, info.num_left_over) == (1, 30, 0)
    bits = np.asarray(frames @ np.asarray(hasher.projections).T + np.asarray(hasher.biases) >= 0)
    ssm = np.exp((frames @ frames.T - 1) / FAST.sigma2)
    betas = np.asarray(hasher.betas)
    for count in (1, 5):
        agree = bits[:, None, :count] == bits[None, :, :count]
        weighted = (agree * betas[:count]).sum(-1) / betas[:count].sum()
        assert info.approximation_error[count - 1] == pytest.approx(
            np.mean((ssm - weighted) ** 2), rel=1e-4
        )
        assert info.plain_approximation_error[count - 1] == pytest.approx(
            np.mean((ssm - agree.mean(-1)) ** 2), rel=1e-4
        )


def test_target_vectors_decide_the_similarity():
    """Features with noise in them, similarity from the clean ones: codes follow the clean ones."""
    clean = make_frames(200, seed=3)
    noise = np.abs(np.random.default_rng(0).normal(size=clean.shape)).astype(np.float32)
    noisy = np.concatenate([clean, 3 * noise], axis=1)
    whitened = dataclasses.replace(FAST, ridge=0.01)  # most of the variance is noise here
    _, guided = driver.fit(noisy, whitened, jax.random.key(0), clean)
    _, plain = driver.fit(clean, FAST, jax.random.key(0))
    assert guided.approximation_error[-1] < 1.5 * plain.approximation_error[-1]


def test_the_key_decides_all_shorter_training_gives_a_prefix_and_silence_no_nan():
    frames, key = make_frames(), lambda: jax.random.key(0)
    first, _ = driver.fit(frames, FAST, key())
    again, _ = driver.fit(frames, FAST, key())
    other, _ = driver.fit(frames, FAST, jax.random.key(1))
    short, _ = driver.fit(frames, dataclasses.replace(FAST, num_bits=2), key())
    assert np.array_equal(first.projections, again.projections)
    assert not np.array_equal(first.projections, other.projections)
    assert np.array_equal(first.prefix(2).projections, short.projections)
    frames[::10] = 0.0
    hasher, info = driver.fit(frames, FAST, key())
    assert np.isfinite(hasher.projections).all() and np.isfinite(info.objective).all()


def test_known_hyperplanes_are_weighed_as_when_they_were_learned():
    frames = make_frames(200)
    hasher, _ = driver.fit(frames, FAST, jax.random.key(0))
    forgotten = hasher._replace(betas=np.ones(5, np.float32))
    # Other blocks of the same frames: about the same betas.
    weighed = driver.weigh(forgotten, frames, FAST, jax.random.key(1))
    np.testing.assert_array_equal(weighed.projections, hasher.projections)
    np.testing.assert_allclose(weighed.betas, hasher.betas, rtol=0.1)


def test_frames_without_end_and_a_target_reproduced_exactly_stop_training():
    frames = make_frames()
    for value, config in ((np.nan, PUBLISHED), (np.inf, FAST)):
        frames[3, 4] = value
        with pytest.raises(ValueError, match="epsilon is nan"):
            driver.fit(frames, config, jax.random.key(0))
    frames = np.repeat(np.eye(2, dtype=np.float32), 40, axis=0)
    config = dataclasses.replace(FAST, target="cosine", block_size=80)
    with pytest.raises(ValueError, match="bit 0: its error epsilon"):
        driver.fit(frames, config, jax.random.key(0))


@pytest.mark.parametrize(
    ("frames", "target", "message"),
    [
        (np.zeros(5, np.float32), None, "frames has shape"),
        (np.zeros((1, 5), np.float32), None, "frames has shape"),
        (make_frames(), make_frames(10), "target has shape"),
    ],
)
def test_bad_shapes_are_named(frames, target, message):
    with pytest.raises(ValueError, match=message):
        driver.fit(frames, FAST, jax.random.key(0), target)
