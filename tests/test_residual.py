"""Bits from residuals: the algorithm on whole similarity matrices, prefixes, better than chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import codes, residual, training
from blsh_jax.config import FitConfig, TrainConfig


def _frames(count=200, length=12, seed=0):
    """Unit vectors of unlike variances, as spectra are."""
    scales = jnp.exp(-jnp.linspace(0.0, 4.0, length))
    frames = jax.random.normal(jax.random.key(seed), (count, length)) * scales[None] + 0.3
    return frames / jnp.linalg.norm(frames, axis=1, keepdims=True)


def _cosines(vectors):
    centered = vectors - vectors.mean(0)
    centered = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    return centered @ centered.T


def _slow(frames, num_bits, target=None):
    """The same with (N, N) matrices and a new residual for every bit, in float64."""
    frames = np.asarray(frames, np.float64)
    similarity = _cosines(frames if target is None else np.asarray(target, np.float64))
    centered = frames - frames.mean(0)
    found, reached = [], np.zeros_like(similarity)
    for length in range(1, num_bits + 1):
        missing = length * 2 / np.pi * similarity - reached
        vector = np.linalg.eigh(centered.T @ missing @ centered)[1][:, -1]
        vector *= np.sign(vector[np.abs(vector).argmax()])
        code = np.where(centered @ vector >= 0, 1.0, -1.0)
        reached += np.outer(code, code)
        found.append(vector)
    return np.array(found)


@pytest.mark.parametrize("with_target", [False, True])
def test_it_is_the_residual_of_whole_matrices(with_target):
    frames = _frames()
    target = _frames(length=7, seed=1) if with_target else None
    hasher, info = residual.fit(frames, 6, target)
    np.testing.assert_allclose(hasher.projections, _slow(frames, 6, target), atol=2e-3)
    middle = codes.project(frames.mean(0), hasher.projections, hasher.biases)
    np.testing.assert_allclose(middle, 0, atol=1e-5)
    assert hasher.betas.tolist() == [1.0] * 6
    bits = codes.sign(codes.project(frames, hasher.projections, hasher.biases))
    np.testing.assert_allclose(info.balance, bits.mean(0), atol=0.011)
    assert all(np.asarray(info.eigenvalue) > 0)
    assert info.to_dict().keys() == {"eigenvalue", "balance"}


def test_a_prefix_is_the_shorter_code():
    frames = _frames()
    long, short = (residual.fit(frames, n)[0] for n in (9, 4))
    for ours, theirs in zip(long.prefix(4), short, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_codes_are_nearer_to_the_similarities_than_random_ones():
    # With hardly more features than bits there would be nothing to choose.
    frames = _frames(400, length=100)
    similarity = _cosines(np.asarray(frames))

    def error(hasher):
        bits = np.asarray(codes.sign(codes.project(frames, hasher.projections, hasher.biases)))
        return np.mean((similarity - bits @ bits.T / bits.shape[1]) ** 2)

    learned = error(residual.fit(frames, 16)[0])
    drawn = [error(codes.random_hasher(jax.random.key(i), 16, frames)) for i in range(5)]
    assert learned < 0.8 * min(drawn)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="frames has shape"):
        residual.fit(jnp.zeros(5), 3)
    with pytest.raises(ValueError, match="target has shape"):
        residual.fit(jnp.zeros((5, 2)), 3, jnp.zeros((4, 2)))


def test_a_model_learned_from_residuals():
    frames = np.asarray(_frames(300, 513))
    packed = np.zeros((300, 17), np.uint32)
    unused = np.zeros((300, 2, 4), np.float16), np.zeros(300, np.int32)
    sample = training.FrameSample(frames, packed, *unused, num_seen=300)
    config = TrainConfig(learner="residual", fit=FitConfig(num_bits=5))
    model, _ = training.learn(sample, config, {})
    np.testing.assert_allclose(
        model.hasher.projections, residual.fit(jnp.asarray(frames), 5)[0].projections, atol=1e-6
    )
    assert model.dictionary.num_frames == 300 and model.provenance["fit_frames"] == 300
    with pytest.raises(ValueError, match="learner is 'magic'"):
        TrainConfig(learner="magic")  # type: ignore[arg-type]
