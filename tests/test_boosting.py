"""Algorithm 2 as pure functions: closed forms, automatic differentiation, jit, scan and vmap."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from blsh_jax import corpora
from blsh_jax.config import FitConfig, TrainConfig
from blsh_jax.paper import boosting, codes, learner, spectra
from blsh_jax.paper.boosting import Bits
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.similarity import self_similarity
from blsh_jax.training import driver, sample_frames
from tests.test_driver import PUBLISHED, as_cut, make_frames


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
        agreement = boosting.weighted_agreement(jnp.asarray(frames), bits)
        got = boosting.pair_weights(
            jnp.asarray(ssm, jnp.float32), agreement, jnp.sum(bits.hasher.betas)
        )
        np.testing.assert_allclose(got, expected, rtol=1e-3)
        assert abs(float(np.sum(got)) - 1) < 1e-5


def test_block_terms_give_the_weighted_error_of_any_code():
    frames, bits = make_frames(40), make_bits(5)
    ssm = jnp.asarray(np.exp((frames @ frames.T - 1) / 0.3), jnp.float32)
    agreement = boosting.weighted_agreement(jnp.asarray(frames), bits)
    weights = np.asarray(boosting.pair_weights(ssm, agreement, jnp.sum(bits.hasher.betas)))
    terms = boosting.block_terms(jnp.asarray(frames), ssm, bits, "squared_error")
    for seed in range(3):
        code = np.random.default_rng(seed).choice([-1.0, 1.0], 40)
        direct = np.sum(weights * ((np.outer(code, code) + 1) / 2 - np.asarray(ssm)) ** 2)
        np.testing.assert_allclose(
            learner.weighted_ssm_loss(jnp.asarray(code, jnp.float32), terms), direct, rtol=1e-4
        )
        np.testing.assert_allclose(
            boosting.error_rate(jnp.asarray(code, jnp.float32), weights, ssm), direct, rtol=1e-4
        )


def test_bits_not_yet_learned_have_no_say():
    frames = jnp.asarray(make_frames(20))
    few, padded = make_bits(3, 32), make_bits(3, 96)
    shared = Hasher(*(a.at[:32].set(b) for a, b in zip(padded.hasher, few.hasher, strict=True)))
    np.testing.assert_array_equal(
        boosting.weighted_agreement(frames, few),
        boosting.weighted_agreement(frames, Bits(shared, few.learned)),
    )


def in_blocks(frames, size=40):
    blocks = jnp.asarray(frames).reshape(-1, size, frames.shape[1])
    return blocks, jax.vmap(self_similarity)(blocks)


def test_the_pure_update_is_what_training_drives():
    """The same bits from the scan over bits as from the driver, on the blocks that it cut."""
    frames = make_frames(200)
    hasher, info = driver.fit(frames, PUBLISHED, jax.random.key(3))
    bits_key, blocks = as_cut(frames, jax.random.key(3), 40)
    pure = jax.jit(boosting.boost, static_argnames="config")
    found, infos = pure(blocks, jax.vmap(self_similarity)(blocks), PUBLISHED, bits_key)
    for ours, theirs in zip(found, hasher, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    np.testing.assert_allclose(infos.epsilon, info.epsilon, atol=1e-6)
    np.testing.assert_allclose(infos.balance, info.balance, atol=1e-6)
    assert infos.steps.tolist() == info.steps.tolist()


def test_steps_jit_and_map_over_keys():
    blocks, ssms = in_blocks(make_frames(120))
    config = dataclasses.replace(PUBLISHED, num_bits=2, metric="cross_entropy", blocks_per_step=3)
    keys = jax.random.split(jax.random.key(0), 3)
    step = jax.jit(boosting.step, static_argnames="config")
    many, _ = jax.jit(jax.vmap(lambda key: boosting.boost(blocks, ssms, config, key)))(keys)
    for key, projections in zip(keys, many.projections, strict=True):
        state = boosting.init(9, config, key)
        for _ in range(2):
            state, info = step(state, blocks, ssms, config)
        assert int(state.bits.learned) == 2 and 0 < float(info.epsilon) < 1
        np.testing.assert_allclose(state.bits.hasher.projections[:2], projections, atol=1e-5)


def test_blocks_that_do_not_fill_a_step_are_refused():
    blocks, ssms = in_blocks(make_frames(80))
    config = dataclasses.replace(PUBLISHED, blocks_per_step=3)
    state = boosting.init(9, config, jax.random.key(0))
    with pytest.raises(ValueError, match="2 blocks: give a multiple of blocks_per_step, 3"):
        boosting.step(state, blocks, ssms, config)


def authors_bits(blocks, ssms, config, key):
    """Algorithm 2 by automatic differentiation of eq. 5 pair by pair, eq. 4 iterated, in JAX."""
    weights = jnp.full_like(ssms, 1 / ssms[0].size)
    adam = optax.adam(config.learning_rate, config.adam_b1, config.adam_b2)

    def loss(row, block, ssm, weight):
        code = codes.straight_through_sign(block @ row[:-1] + row[-1])
        return jnp.sum(weight * ((1 + jnp.outer(code, code)) / 2 - ssm) ** 2), code

    def visit(carry, block):
        row, state = carry
        (value, _), slope = jax.value_and_grad(loss, has_aux=True)(row, *block)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = adam.update(slope, state)
            return (optax.apply_updates(row, updates), state), value

    one_pass = jax.jit(lambda carry, weights: jax.lax.scan(visit, carry, (blocks, ssms, weights)))
    rows = []
    for bit in range(config.num_bits):
        start_key, _ = jax.random.split(jax.random.fold_in(key, bit))
        row = jax.random.normal(start_key, (1, blocks.shape[-1] + 1), blocks.dtype)[0]
        row, losses = row * (2 / (row.size + 1)) ** 0.5, []
        carry = row, adam.init(row)
        while len(losses) < config.max_epochs:
            carry, of_blocks = one_pass(carry, weights)
            losses.append(float(jnp.mean(of_blocks)))
            if len(losses) < max(config.min_epochs, 11):
                continue
            if (losses[-11] - losses[-1]) / 10 < 1 / config.block_size**2:
                break
        rows.append(carry[0])
        error, code = jax.vmap(functools.partial(loss, carry[0]))(blocks, ssms, weights)
        epsilon = jnp.mean(error)
        beta = jnp.log((1 - epsilon) / epsilon) / 2
        misfit = ((1 + code[:, :, None] * code[:, None, :]) / 2 - ssms) ** 2
        weights = weights * jnp.exp(beta * misfit)
        weights = weights / jnp.sum(weights, axis=(1, 2), keepdims=True)
    return jnp.stack(rows)


@pytest.fixture(scope="module")
def real_frames(real_data):
    """Two blocks of 150 frames of real recordings, as training draws them."""
    speech = corpora.load(corpora.list_speech(str(real_data / "LibriSpeech")), 16_000)
    noise = corpora.load(corpora.list_noise(str(real_data / "noise" / "train")), 16_000)
    mixtures = corpora.make_mixtures(speech.some(range(6)), noise.some(range(3)), 0.0, 0)
    return sample_frames(mixtures, TrainConfig()).frames[:300]


def test_published_bits_are_the_authors_bit_for_bit_on_real_frames(real_frames):
    """Ten bits: codes equal exactly, hyperplanes to what rounding in float64 leaves."""
    config = FitConfig(
        num_bits=10,
        block_size=150,
        mode="published",
        sigma2=0.9,
        learning_rate=1e-3,
        min_epochs=20,
        max_epochs=40,
    )
    with jax.enable_x64():
        frames = spectra.unit_norm(jnp.asarray(real_frames, jnp.float64))
        blocks = frames.reshape(2, 150, -1)
        ssms = jax.vmap(lambda block: self_similarity(block, "rbf", 0.9))(blocks)
        pure = jax.jit(boosting.boost, static_argnames="config")
        hasher, infos = pure(blocks, ssms, config, jax.random.key(0))
        rows = authors_bits(blocks, ssms, config, jax.random.key(0))
        ours = codes.project(frames, hasher.projections, hasher.biases) >= 0
        theirs = codes.project(frames, rows[:, :-1], rows[:, -1]) >= 0
    np.testing.assert_allclose(hasher.projections, rows[:, :-1], atol=1e-9)
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(infos.balance).mean() < 0.5
