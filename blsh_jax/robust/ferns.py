"""Boosted ferns: small tables whose sum is learned, each on what those before it get wrong.

    ferns, losses = boost(samples, config, key)       all of them: a scan of ``step``
    scores = score(ferns, values)                     log-odds of the target, for new samples

A *fern* asks B questions of a sample, each whether one of its features is above a threshold. The
answers are the bits of an index into a table of 2^B values, and the value is what the fern adds to
the sample's score f. So a score costs comparisons and look-ups alone. A fern is learned as the
paper learns a bit: on samples weighed by how wrong the sum of those before it is. With target y in
[0, 1], importance w and p = sigmoid(f), loss, slope and curvature are

    L = sum w (log(1 + exp(f)) - y f),   g = w (p - y),   h = w p (1 - p).

The next question is the one for which the sum over leaves of G^2 / (H + ridge) is greatest, where G
and H are the sums of g and h in a leaf. The value of a leaf is a shortened Newton step, -rate G /
(H + ridge). Ferns come in order: the first of them are a smaller sum of their own (``prefix``).

Features are bytes, so sums of g and h by leaf and byte tell the gain of all thresholds at once.
Values are multiples of 2^-10, so scores are sums of integers, equal on every machine.

Letters: S samples, D features, M ferns, B bits of a fern.
Sources: J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of
Statistics 29 (5), 2001; J. Friedman, T. Hastie, R. Tibshirani, "Additive logistic regression",
Annals of Statistics 28 (2), 2000 (Newton steps); M. Özuysal et al., "Fast keypoint recognition
using random ferns", IEEE Trans. PAMI 32 (3), 2010; R. Kohavi, "Bottom-up induction of oblivious
read-once decision graphs", ECML 1994.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.config import FernConfig

STEP = 2.0**-10  # of a value; whole numbers of it fit int16 up to 32
_LARGEST = 2**15 - 1
_LEVELS = 256  # of a feature


class Ferns(NamedTuple):
    """Ferns in order of importance.

    Attributes:
        features: (M, B) uint8, which feature each question is about.
        thresholds: (M, B) uint8; the answer is 1 where the feature is above.
        tables: (M, 2^B) int16, values in units of ``STEP``; the first question is the highest bit.
    """

    features: Array
    thresholds: Array
    tables: Array

    def prefix(self, count: int) -> "Ferns":
        """The first ``count`` ferns."""
        return Ferns(*(array[:count] for array in self))


class Samples(NamedTuple):
    """What ferns are learned on, in random order.

    Attributes:
        values: (D, S) uint8 features.
        targets: (S,) float32 in [0, 1].
        weights: (S,) float32, not negative: importance, of mean 1.
    """

    values: Array
    targets: Array
    weights: Array


class State(NamedTuple):
    """Where boosting stands.

    Attributes:
        ferns: all M, those not learned yet zero.
        learned: () int32, how many are.
        scores: (S,) int32 of the samples, in units of ``STEP``.
        key: PRNG key.
    """

    ferns: Ferns
    learned: Array
    scores: Array
    key: Array


def score(ferns: Ferns, values: Array) -> Array:
    """Scores of samples.

    Args:
        ferns: M ferns.
        values: (D, ...) uint8 features.

    Returns:
        (...) float32, log-odds of the target.
    """
    return _score(ferns, values).astype(jnp.float32) * STEP


def _score(ferns: Ferns, values: Array) -> Array:
    """The same in units of ``STEP``, (...) int32."""

    # A fern's values are looked up while the next one's leaves are found: as two loops, the one
    # over bytes runs in whole vectors, which it does not as part of the look-up.
    def add(carry: tuple[Array, Array, Array], fern: Ferns) -> tuple[tuple, None]:
        total, leaves, table = carry
        total = total + _look_up(table, leaves)
        return (total, _leaves(fern.features, fern.thresholds, values), fern.tables), None

    total = jnp.zeros(values.shape[1:], jnp.int32)
    leaves = jnp.zeros(values.shape[1:], _leaf_type(ferns.features.shape[1]))
    before = total, leaves, jnp.zeros_like(ferns.tables[0])
    (total, leaves, table), _ = jax.lax.scan(add, before, ferns)
    return total + _look_up(table, leaves)


def init(samples: Samples, config: FernConfig, key: Array, before: Ferns | None = None) -> State:
    """The state before the first fern.

    Args:
        samples: S samples.
        config: how to learn.
        key: PRNG key.
        before: ferns that are there already; boosting goes on from their sum.
    """
    shape = (config.num_ferns, config.fern_bits)
    tables = jnp.zeros((config.num_ferns, 1 << config.fern_bits), jnp.int16)
    ferns = Ferns(jnp.zeros(shape, jnp.uint8), jnp.zeros(shape, jnp.uint8), tables)
    scores = jnp.zeros(samples.targets.shape, jnp.int32)
    if before is not None:
        scores = _score(before, samples.values)
    return State(ferns, jnp.int32(0), scores, key)


def step(
    state: State, samples: Samples, config: FernConfig, axis: str | None = None
) -> tuple[State, Array]:
    """Learn one more fern. Pure: jits, scans over ferns, and runs under ``shard_map``.

    Its questions are chosen on ``fern_samples`` samples of each device, those from a random place
    on; its values are of all samples.

    Args:
        state: from ``init`` or the step before.
        samples: S samples; under ``shard_map`` those of this device, as many on each.
        config: how to learn; static.
        axis: mesh axis along which samples are cut; static.

    Returns:
        The state with one more fern, and the mean loss with it, () float32.
    """
    everywhere = lambda sums: sums if axis is None else jax.lax.psum(sums, axis)
    size = samples.targets.shape[0]
    used = min(config.fern_samples, size)
    start = jax.random.randint(jax.random.fold_in(state.key, state.learned), (), 0, size - used + 1)
    some, scores = jax.tree.map(
        lambda array: jax.lax.dynamic_slice_in_dim(array, start, used, axis=-1),
        (samples, state.scores),
    )
    # Of so few samples the sums are smaller, and so is the ridge.
    ridge = config.fern_ridge * used / size
    features, thresholds = _questions(some, scores, ridge, config.fern_bits, everywhere)
    leaves = _leaves(features, thresholds, samples.values)
    slope, curvature = everywhere(
        jax.ops.segment_sum(
            _slopes(samples, state.scores), leaves.astype(jnp.int32), 1 << config.fern_bits
        )
    ).T
    newton = -config.fern_rate * slope / (curvature + config.fern_ridge)
    table = jnp.clip(jnp.rint(newton / STEP), -_LARGEST, _LARGEST).astype(jnp.int16)
    scores = state.scores + _look_up(table, leaves)
    place = lambda array, new: array.at[state.learned].set(new)
    ferns = Ferns(*map(place, state.ferns, Ferns(features, thresholds, table)))
    loss = everywhere(jnp.sum(samples.weights * _losses(samples.targets, scores)))
    loss = loss / everywhere(jnp.sum(samples.weights))
    return State(ferns, state.learned + 1, scores, state.key), loss


def boost(
    samples: Samples,
    config: FernConfig,
    key: Array,
    validation: Samples | None = None,
    before: Ferns | None = None,
) -> tuple[Ferns, Array]:
    """All ferns: a scan of ``step``. Pure.

    Args:
        samples: S samples in random order.
        config: how to learn; static.
        key: PRNG key.
        validation: samples that nothing is learned on.
        before: ferns that are there already; boosting goes on from their sum.

    Returns:
        The new ferns, and after each the mean loss of ``validation``, or of the samples: (M,)
        float32. ``ferns.prefix(1 + argmin(losses))`` is early stopping.
    """
    heard = samples if validation is None else validation

    def body(carry: tuple[State, Array], _: None) -> tuple[tuple[State, Array], Array]:
        state, scores = carry
        newer, loss = step(state, samples, config)
        if validation is not None:
            fern = jax.tree.map(lambda array: array[state.learned], newer.ferns)
            leaves = _leaves(fern.features, fern.thresholds, validation.values)
            scores = scores + _look_up(fern.tables, leaves)
            losses = _losses(validation.targets, scores)
            loss = jnp.average(losses, weights=validation.weights)
        return (newer, scores), loss

    start = init(samples, config, key, before), init(heard, config, key, before).scores
    (state, _), losses = jax.lax.scan(body, start, length=config.num_ferns)
    return state.ferns, losses


def _questions(samples, scores, ridge, count, everywhere) -> tuple[Array, Array]:
    """The features and thresholds (B,) uint8 of a fern, one after another by their gain."""
    slopes = _slopes(samples, scores)
    leaves = jnp.zeros(scores.shape, jnp.int32)
    questions = []
    for bit in range(count):
        gains = partial(_gains, leaves, slopes, ridge, 1 << bit, everywhere)
        best = jnp.argmax(jax.lax.map(gains, samples.values))
        feature, threshold = jnp.divmod(best, _LEVELS - 1)
        questions.append(jnp.stack([feature, threshold]).astype(jnp.uint8))
        leaves = 2 * leaves + (samples.values[feature] > questions[-1][1]).astype(jnp.int32)
    features, thresholds = jnp.stack(questions, axis=1)
    return features, thresholds


def _gains(leaves, slopes, ridge, count, everywhere, values) -> Array:
    """(255,): the gain of each threshold of a feature, whose values (S,) uint8 are given."""
    cells = leaves * _LEVELS + values.astype(jnp.int32)
    sums = everywhere(jax.ops.segment_sum(slopes, cells, count * _LEVELS))
    below = jnp.cumsum(sums.reshape(count, _LEVELS, 2), axis=1)
    above = below[:, -1:] - below
    gain = lambda half: jnp.square(half[..., 0]) / (half[..., 1] + ridge)
    return jnp.sum(gain(below) + gain(above), axis=0)[:-1]


def _leaves(features: Array, thresholds: Array, values: Array) -> Array:
    """The index (...) into the table that the answers make, of features (D, ...)."""
    leaves = jnp.zeros(values.shape[1:], _leaf_type(len(features)))
    for feature, threshold in zip(features, thresholds, strict=True):
        leaves = leaves + leaves + (values[feature] > threshold).astype(leaves.dtype)
    return leaves


def _leaf_type(num_bits: int) -> type:
    return jnp.uint8 if num_bits <= 8 else jnp.uint16


def _look_up(table: Array, leaves: Array) -> Array:
    """What one fern adds to the scores: (...) int32."""
    found = table.at[leaves.astype(jnp.int32)].get(mode="promise_in_bounds")
    return found.astype(jnp.int32)


def _slopes(samples: Samples, scores: Array) -> Array:
    """Slope and curvature of each sample's loss: (S, 2) float32."""
    p = jax.nn.sigmoid(scores.astype(jnp.float32) * STEP)
    return jnp.stack([p - samples.targets, p * (1 - p)], axis=-1) * samples.weights[:, None]


def _losses(targets: Array, scores: Array) -> Array:
    """Cross-entropies (S,) float32."""
    scores = scores.astype(jnp.float32) * STEP
    return jax.nn.softplus(scores) - targets * scores
