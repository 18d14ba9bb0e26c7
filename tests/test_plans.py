import sys

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import plans
from blsh_jax.codes import Hasher
from blsh_jax.plans import Bits
from tests.test_boosting import make_frames


def make_bits(count, length=64, features=9, seed=0):
    rng = np.random.default_rng(seed)
    betas = np.zeros(length)
    betas[:count] = rng.uniform(0.1, 0.9, count)
    arrays = rng.normal(size=(length, features)), 0.1 * rng.normal(size=length), betas
    hasher = Hasher(*(jnp.asarray(array, jnp.float32) for array in arrays))
    return Bits(hasher, jnp.int32(count))


def numpy_code(frames, bits, bit):
    projection, bias = (np.asarray(array)[bit] for array in bits.hasher[:2])
    return np.where(frames @ projection + bias >= 0, 1.0, -1.0)


def test_closed_form_equals_iterated_weights():
    """Multiply by exp(beta D) and renormalise, bit after bit, beyond one word."""
    frames = make_frames(40)
    ssm = np.exp((frames @ frames.T - 1) / 0.3).astype(np.float64)
    for count in (0, 1, 31, 33, 64):
        bits = make_bits(count)
        expected = np.full(ssm.shape, 1 / ssm.size)
        for bit in range(count):
            code = numpy_code(frames, bits, bit)
            error = ((np.outer(code, code) + 1) / 2 - ssm) ** 2
            expected *= np.exp(float(bits.hasher.betas[bit]) * error)
            expected /= expected.sum()
        agreement = plans.weighted_agreement(jnp.asarray(frames), bits)
        got = plans.pair_weights(
            jnp.asarray(ssm, jnp.float32), agreement, jnp.sum(bits.hasher.betas)
        )
        np.testing.assert_allclose(got, expected, rtol=1e-3)
        assert abs(float(np.sum(got)) - 1) < 1e-5


def test_block_terms_give_the_weighted_error_of_any_code():
    frames, bits = make_frames(40), make_bits(5)
    ssm = jnp.asarray(np.exp((frames @ frames.T - 1) / 0.3), jnp.float32)
    agreement = plans.weighted_agreement(jnp.asarray(frames), bits)
    weights = np.asarray(plans.pair_weights(ssm, agreement, jnp.sum(bits.hasher.betas)))
    constant, matrix = plans.block_terms(jnp.asarray(frames), ssm, bits, "squared_error")
    for seed in range(3):
        code = np.random.default_rng(seed).choice([-1.0, 1.0], 40)
        direct = np.sum(weights * ((np.outer(code, code) + 1) / 2 - np.asarray(ssm)) ** 2)
        np.testing.assert_allclose(constant + code @ np.asarray(matrix) @ code, direct, rtol=1e-4)


def test_bits_not_yet_learned_have_no_say():
    frames = jnp.asarray(make_frames(20))
    few, padded = make_bits(3, 32), make_bits(3, 96)
    shared = Hasher(*(a.at[:32].set(b) for a, b in zip(padded.hasher, few.hasher, strict=True)))
    np.testing.assert_array_equal(
        plans.weighted_agreement(frames, few),
        plans.weighted_agreement(frames, Bits(shared, few.learned)),
    )


def test_a_system_that_does_not_count_memory_does_no_harm(monkeypatch):
    mesh = jax.make_mesh((1,), ("blocks",), devices=jax.devices("cpu")[:1])
    assert plans.peak_memory(mesh) > 1e7
    monkeypatch.setitem(sys.modules, "resource", None)
    assert plans.peak_memory(mesh) == 0
