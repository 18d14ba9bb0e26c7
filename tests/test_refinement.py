"""Refinement: its loss against a slow one, codes that find better masks, prefixes, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import codes, masks, model, refinement, residual, separation, training
from blsh_jax.config import FitConfig, RefineConfig, TrainConfig

CONFIG = RefineConfig(
    refine_steps=120, refine_queries=64, refine_answers=256, refine_learning_rate=0.02
)
# So few answers that some queries have none from another mixture.
FEW = dataclasses.replace(CONFIG, refine_steps=5, refine_answers=2)


def _material(count=600, length=16, num_bands=6, seed=0):
    """Features of which a few decide the masks, and others, stronger ones, say nothing of them."""
    keys = jax.random.split(jax.random.key(seed), 3)
    telling = jax.random.normal(keys[0], (count, num_bands))
    idle = 3 * jax.random.normal(keys[1], (count, length - num_bands))
    magnitudes = 0.1 + jax.random.uniform(keys[2], (count, num_bands))
    magnitudes = magnitudes / jnp.sum(magnitudes, axis=1, keepdims=True)
    speech = jnp.where(telling > 0, magnitudes, 0)
    shares = jnp.stack([speech, magnitudes - speech], axis=1)
    return jnp.concatenate([telling, idle], axis=1), shares, jnp.arange(count) // 3


def _mask_error(hasher, frames, shares):
    """Weighted error of the mean mask of the 5 nearest frames of other mixtures, by a slow loop."""
    bits = np.asarray(codes.project(frames, hasher.projections, hasher.biases) >= 0)
    shares, errors = np.asarray(shares, np.float64), []
    own = shares[:, 0] / shares.sum(1)
    for query in range(0, len(bits), 7):
        distance = (bits != bits[query]).sum(1).astype(float)
        distance[query // 3 * 3 : query // 3 * 3 + 3] = np.inf
        found = own[np.argsort(distance, kind="stable")[:5]].mean(0)
        errors.append((shares[query].sum(0) * np.abs(found - own[query])).sum())
    return np.mean(errors)


def test_neighbours_have_better_masks_at_every_length():
    frames, shares, mixtures = _material()
    hasher, _ = residual.fit(frames, 16)
    refined, losses = refinement.refine(hasher, frames, shares, mixtures, CONFIG, jax.random.key(1))
    assert losses.shape == (120,) and losses[-20:].mean() < 0.8 * losses[:10].mean()
    others, their_shares, _ = _material(seed=5)
    for length in (8, 12, 16):
        before, after = (
            _mask_error(h.prefix(length), others, their_shares) for h in (hasher, refined)
        )
        assert after < 0.75 * before
    assert refined.betas.tolist() == [1.0] * 16


def test_the_loss_is_a_search_with_soft_borders():
    frames, shares, mixtures = (np.asarray(part) for part in _material(40))
    rng = np.random.default_rng(0)
    rows, offsets = rng.standard_normal((10, 16)), rng.standard_normal(10)
    sharpness, lengths = np.array([-0.5, -0.3]), np.tile([8.0, 9.0, 10.0, 8.0, 10.0], 2)
    asking, answering = slice(0, 10), slice(5, 40)
    expected = []
    for query in range(10):
        length = int(lengths[query])
        h = np.where(frames[query] @ rows.T + offsets >= 0, 1.0, -1.0)[:length]
        weights, answers = [], []
        for other in range(5, 40):
            if mixtures[other] != mixtures[query]:
                g = np.where(frames[other] @ rows.T + offsets >= 0, 1.0, -1.0)[:length]
                weights.append(np.exp(np.exp(-0.5 - 0.3 * np.log(length / 8)) * (h @ g)))
                answers.append(shares[other, 0] / shares[other].sum(0))
        mask = np.average(answers, axis=0, weights=weights).clip(0.01, 0.99)
        speech, rest = shares[query]
        expected.append(-(speech * np.log(mask) + rest * np.log(1 - mask)).sum())
    variables = refinement._Variables(
        *(jnp.asarray(part, jnp.float32) for part in (rows, offsets, sharpness))
    )
    chosen = [
        tuple(jnp.asarray(part[rows]) for part in (frames, shares, mixtures))
        for rows in (asking, answering)
    ]
    found = refinement._loss(variables, *chosen, jnp.asarray(lengths, jnp.float32))
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)


def test_no_learning_changes_no_bit():
    frames, shares, mixtures = _material(length=9)
    hasher = codes.random_hasher(jax.random.key(2), 12, frames)
    still = dataclasses.replace(CONFIG, refine_steps=3, refine_learning_rate=1e-12)
    same, _ = refinement.refine(hasher, frames, shares, mixtures, still, jax.random.key(0))
    before, after = (codes.encode(h, frames) for h in (hasher, same))
    differing = codes.unpack_bits(before ^ after, 12)
    assert float(differing.mean()) < 1e-3  # next to a hyperplane, rounding decides


def test_constant_bits_and_lonely_queries_do_no_harm():
    frames, shares, mixtures = _material(60)
    hasher = codes.random_hasher(jax.random.key(2), 9, frames)
    constant = hasher._replace(projections=hasher.projections.at[3].set(0.0))
    refined, losses = refinement.refine(
        constant, frames, shares, mixtures // 10, FEW, jax.random.key(0)
    )
    assert np.isfinite(losses).all()
    assert all(np.isfinite(part).all() for part in refined)


def test_the_key_decides_all():
    frames, shares, mixtures = _material(60)
    hasher = codes.random_hasher(jax.random.key(2), 9, frames)
    first, again, other = (
        refinement.refine(hasher, frames, shares, mixtures, FEW, jax.random.key(seed))[0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.projections, again.projections)
    assert not np.array_equal(first.projections, other.projections)


def test_bad_input_is_refused():
    frames, shares, mixtures = _material(60)
    hasher = codes.random_hasher(jax.random.key(2), 9, frames)
    with pytest.raises(ValueError, match="not a number"):
        refinement.refine(hasher, frames * jnp.nan, shares, mixtures, FEW, jax.random.key(0))
    with pytest.raises(ValueError, match="shares has shape"):
        refinement.refine(hasher, frames, shares[:9], mixtures, FEW, jax.random.key(0))
    with pytest.raises(ValueError, match="mixtures has shape"):
        refinement.refine(hasher, frames, shares, mixtures[:9], FEW, jax.random.key(0))
    with pytest.raises(ValueError, match="one mixture only"):
        refinement.refine(hasher, frames, shares, 0 * mixtures, FEW, jax.random.key(0))
    for name in ("refine_steps", "refine_queries", "refine_learning_rate"):
        with pytest.raises(ValueError, match=name):
            RefineConfig(**{name: -1})


def test_shares_are_the_magnitudes_of_bands():
    rng = np.random.default_rng(0)
    mixture = (rng.standard_normal((3, 7)) + 1j * rng.standard_normal((3, 7))).astype(np.complex64)
    mixture[2] = 0
    binary, filters = rng.random((3, 7)) < 0.5, rng.random((7, 4)).astype(np.float32)
    found = np.asarray(masks.band_shares(binary, mixture, filters))
    speech = (np.abs(mixture) * binary) @ filters
    rest = (np.abs(mixture) * ~binary) @ filters
    whole = (speech + rest).sum(1)[:2]
    np.testing.assert_allclose(found[:2, 0], speech[:2] / whole[:, None], rtol=1e-5)
    np.testing.assert_allclose(found[:2, 1], rest[:2] / whole[:, None], rtol=1e-5, atol=1e-7)
    assert not found[2].any()


def test_a_refined_model_is_a_model(synthetic, tmp_path):
    from blsh_jax import corpora

    config = TrainConfig(
        learner="residual",
        fit=FitConfig(num_bits=40),
        refine=dataclasses.replace(CONFIG, refine_steps=10),
        dictionary_fraction=0.2,
    )
    mixtures = corpora.make_mixtures(*synthetic, 0.0, 0, "train", 0.2, max_mixtures=8)
    trained, info = training.train(mixtures, config, {})
    assert info.loss.shape == (10,) and info.to_dict().keys() == {"learned", "loss"}
    started = training.train(mixtures, dataclasses.replace(config, refine=RefineConfig()), {})[0]
    assert not np.array_equal(trained.hasher.projections, started.hasher.projections)
    model.save(trained, tmp_path / "m.npz")
    loaded = model.load(tmp_path / "m.npz")
    assert loaded.config == config
    signal = jnp.asarray(mixtures[0].mixture)[None]
    for each in (trained, loaded):
        speech = separation.separate(signal, each.dictionary, config.stft, config.features, 10)
        assert np.isfinite(speech).all()


def test_boosted_bits_are_refined_too():
    frames, shares, mixtures = (np.asarray(part) for part in _material(100, length=513))
    config = TrainConfig(
        fit=FitConfig(num_bits=3, block_size=50, fast_candidates=2, fast_steps=3),
        refine=dataclasses.replace(CONFIG, refine_steps=5),
    )
    sample = training.FrameSample(frames, np.zeros((100, 17), np.uint32), shares, mixtures, 100)
    trained, info = training.learn(sample, config, {})
    assert info.learned.num_blocks == 2 and info.loss.shape == (5,)
    published, boosted = training.learn(
        sample, dataclasses.replace(config, refine=RefineConfig()), {}
    )
    assert boosted.num_blocks == 2
    np.testing.assert_allclose(boosted.epsilon, info.learned.epsilon)
    assert not np.array_equal(trained.hasher.projections, published.hasher.projections)
