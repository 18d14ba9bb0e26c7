"""Boosted ferns: against a loop over questions and samples, on one device and on eight."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from blsh_jax.config import FernConfig
from blsh_jax.robust import ferns
from blsh_jax.robust.ferns import Ferns, Samples

SIZE, FEATURES = 800, 5
CONFIG = FernConfig(num_ferns=4, fern_bits=3, fern_rate=0.4, fern_ridge=2.0, fern_samples=SIZE)

boost = jax.jit(ferns.boost, static_argnames="config")
score = jax.jit(ferns.score)


def samples(seed=0):
    """Three features matter, in different ways, and two do not."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (FEATURES, SIZE)).astype(np.uint8)
    odds = 0.02 * values[0] - 3.0 * (values[2] < 90) * (values[0] > 60) + 0.01 * values[3] - 2.5
    targets = 1 / (1 + np.exp(-odds - 0.5 * rng.standard_normal(SIZE)))
    weights = rng.exponential(size=SIZE)
    arrays = targets.astype(np.float32), (weights / weights.mean()).astype(np.float32)
    return Samples(*map(jnp.asarray, (values, *arrays)))


SAMPLES = samples()


@pytest.fixture(scope="module")
def learned():
    """All ferns, and the mean loss after each."""
    return boost(SAMPLES, CONFIG, jax.random.key(0))


def _oracle(samples, config):
    """A question, then a feature, then a threshold at a time; and the losses."""
    values, targets, weights = (np.asarray(array, np.float64) for array in samples)
    scores = np.zeros(len(targets))
    for _ in range(config.num_ferns):
        p = 1 / (1 + np.exp(-scores))
        slopes, curvatures = weights * (p - targets), weights * p * (1 - p)
        leaves, questions = np.zeros(len(targets), int), []

        def sums(leaves, slopes=slopes, curvatures=curvatures):
            return np.bincount(leaves, slopes), np.bincount(leaves, curvatures) + config.fern_ridge

        for _ in range(config.fern_bits):
            best = (-1.0, 0, 0)
            for feature in range(len(values)):
                for threshold in range(255):
                    slope, curvature = sums(2 * leaves + (values[feature] > threshold))
                    gain = np.sum(slope**2 / curvature)
                    if gain > best[0] + 1e-9:
                        best = (gain, feature, threshold)
            questions.append(best[1:])
            leaves = 2 * leaves + (values[best[1]] > best[2])
        slope, curvature = sums(leaves)
        table = np.rint(-config.fern_rate * slope / curvature * 1024)
        scores = scores + table[leaves] / 1024
        yield questions, table, np.average(_losses(scores, targets), weights=weights)


def _losses(scores, targets):
    return np.logaddexp(0, scores) - targets * scores


def _slow_scores(learned, values):
    """Samples of log-odds, in units of 2^-10, a sample and a fern at a time."""
    features, thresholds, tables = map(np.asarray, learned)
    values, totals = np.asarray(values), np.zeros(values.shape[1], int)
    for sample in range(len(totals)):
        for asked, limits, table in zip(features, thresholds, tables, strict=True):
            answers = [str(int(values[d, sample] > t)) for d, t in zip(asked, limits, strict=True)]
            totals[sample] += int(table[int("".join(answers), 2)])
    return totals


def assert_close(one, other):
    """The same questions, and the same tables but for a unit of rounding."""
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.thresholds, other.thresholds)
    assert np.abs(np.asarray(one.tables, int) - np.asarray(other.tables, int)).max() <= 1


def test_ferns_are_what_a_loop_over_questions_finds_and_each_lowers_the_loss(learned):
    found, losses = learned
    for index, (questions, table, loss) in enumerate(_oracle(SAMPLES, CONFIG)):
        asked = zip(found.features[index].tolist(), found.thresholds[index].tolist(), strict=True)
        assert list(asked) == questions
        assert np.abs(table - np.asarray(found.tables[index])).max() <= 1
        assert abs(loss - losses[index]) < 1e-4
    assert len({*np.asarray(found.features).ravel().tolist()}) > 1
    assert losses[0] < np.log(2) and (np.diff(losses) < 0).all()
    assert [array.dtype for array in found] == [np.uint8, np.uint8, np.int16]


def test_scores_are_sums_of_whole_numbers_in_any_order_and_of_any_prefix(learned):
    found, _ = learned
    scores = score(found, SAMPLES.values)
    np.testing.assert_array_equal(scores * 1024, _slow_scores(found, SAMPLES.values))
    backwards = Ferns(*(array[::-1] for array in found))
    np.testing.assert_array_equal(score(backwards, SAMPLES.values), scores)
    shaped = SAMPLES.values.reshape(FEATURES, 8, -1)
    np.testing.assert_array_equal(score(found, shaped), scores.reshape(8, -1))
    prefix = found.prefix(2)
    assert prefix.tables.shape == (2, 8)
    slow = _slow_scores(prefix, SAMPLES.values)
    np.testing.assert_array_equal(score(prefix, SAMPLES.values) * 1024, slow)


def test_validation_losses_are_those_of_the_samples_given(learned):
    other = samples(seed=1)
    found, losses = boost(SAMPLES, CONFIG, jax.random.key(0), other)
    assert_close(found, learned[0])
    for count in (1, CONFIG.num_ferns):
        scores = _slow_scores(found.prefix(count), other.values) / 1024
        expected = np.average(_losses(scores, np.asarray(other.targets)), weights=other.weights)
        assert abs(losses[count - 1] - expected) < 1e-5


def test_keys_choose_the_samples_of_questions_under_vmap_too():
    few = FernConfig(num_ferns=2, fern_bits=2, fern_samples=100, fern_ridge=2.0)
    keys = jax.random.split(jax.random.key(1), 3)
    together, _ = jax.jit(jax.vmap(lambda key: ferns.boost(SAMPLES, few, key)))(keys)
    for index in range(3):
        alone, _ = boost(SAMPLES, few, keys[index])
        assert_close(Ferns(*(array[index] for array in together)), alone)
    assert len(np.unique(together.thresholds.reshape(3, -1), axis=0)) == 3


def test_eight_devices_learn_what_one_does(learned):
    mesh = jax.make_mesh((8,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = P("device")
    state_specs = ferns.State(P(), P(), cut, P())
    sample_specs = Samples(P(None, "device"), cut, cut)
    step = functools.partial(ferns.step, config=CONFIG, axis="device")
    sharded = jax.jit(
        jax.shard_map(
            step, mesh=mesh, in_specs=(state_specs, sample_specs), out_specs=(state_specs, P())
        )
    )
    state, losses = ferns.init(SAMPLES, CONFIG, jax.random.key(0)), []
    for _ in range(CONFIG.num_ferns):
        state, loss = sharded(state, SAMPLES)
        losses.append(loss)
    assert_close(state.ferns, learned[0])
    np.testing.assert_allclose(losses, learned[1], atol=1e-4)
    np.testing.assert_array_equal(state.scores, score(state.ferns, SAMPLES.values) * 1024)


def test_boosting_goes_on_from_ferns_that_are_there(learned):
    half = dataclasses.replace(CONFIG, num_ferns=2)
    first, before = boost(SAMPLES, half, jax.random.key(0))
    more, after = boost(SAMPLES, half, jax.random.key(0), before=first)
    for whole, *parts in zip(learned[0], first, more, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_allclose(np.concatenate([before, after]), learned[1], rtol=1e-6)
    other = samples(seed=1)
    _, losses = boost(SAMPLES, half, jax.random.key(0), other, first)
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), first, more)
    scores = score(both, other.values)
    expected = jnp.average(jax.nn.softplus(scores) - other.targets * scores, weights=other.weights)
    np.testing.assert_allclose(losses[-1], expected, rtol=1e-5)


def test_values_beyond_int16_are_clipped():
    sure = SAMPLES._replace(targets=(SAMPLES.values[0] > 100).astype(jnp.float32))
    steep = FernConfig(num_ferns=1, fern_bits=2, fern_rate=100.0, fern_ridge=0.1)
    found, losses = boost(sure, steep, jax.random.key(0))
    assert {-(2**15) + 1, 2**15 - 1} <= {*found.tables.ravel().tolist()}
    assert np.isfinite(losses).all()
