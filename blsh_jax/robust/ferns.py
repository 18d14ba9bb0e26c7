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

Features are bytes, so sums of g and h by leaf and byte, D 2^B kilobytes of them, tell the gain of
all thresholds at once. When leaves are cut, the sums of the rarer answer are taken, and what is
left of those before is the other's.

Values are multiples of 2^-10, so scores are sums of integers, equal on every machine.

Letters: S samples, D features, M ferns, B bits of a fern.
Sources: J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of
Statistics 29 (5), 2001; J. Friedman, T. Hastie, R. Tibshirani, "Additive logistic regression",
Annals of Statistics 28 (2), 2000 (Newton steps); M. Özuysal et al., "Fast keypoint recognition
using random ferns", IEEE Trans. PAMI 32 (3), 2010; R. Kohavi, "Bottom-up induction of oblivious
read-once decision graphs", ECML 1994.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.config import FernConfig

STEP = 2.0**-10  # of a value; whole numbers of it fit int16 up to 32
_LARGEST = 2**15 - 1
_LEVELS = 256  # of a feature
_IN_A_WORD = 4  # features, a byte each
_IN_A_TURN = 4  # ferns, whose values are looked up together
_IN_BOUNDS = "promise_in_bounds"


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
    # Values of ferns are looked up while the leaves of the next ones are found: as two loops, the
    # one over bytes runs in whole vectors, which it does not as part of the look-up. Several at a
    # time, as a hop of a stream has so few bins that every turn costs more than what is in it.
    count, bits = ferns.features.shape
    add_nothing = lambda array: jnp.pad(array, ((0, -count % _IN_A_TURN), (0, 0)))
    turns = jax.tree.map(
        lambda array: add_nothing(array).reshape(-1, _IN_A_TURN, array.shape[1]), ferns
    )

    def add_up(total: Array, tables: Array, leaves: tuple[Array, ...]) -> Array:
        return functools.reduce(jnp.add, map(_look_up, tables, leaves), total)

    def turn(carry: tuple[Array, tuple, Array], several: Ferns) -> tuple[tuple, None]:
        total, leaves, tables = carry
        total = add_up(total, tables, leaves)
        leaves = tuple(
            _leaves(*asked, values)
            for asked in zip(several.features, several.thresholds, strict=True)
        )
        return (total, leaves, several.tables), None

    total = jnp.zeros(values.shape[1:], jnp.int32)
    leaves = (jnp.zeros(values.shape[1:], _leaf_type(bits)),) * _IN_A_TURN
    before = total, leaves, jnp.zeros_like(turns.tables[0])
    (total, leaves, tables), _ = jax.lax.scan(turn, before, turns)
    return add_up(total, tables, leaves)


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
    slopes, words = _slopes(samples, scores), _words(samples.values)
    leaves = jnp.zeros(scores.shape, jnp.int32)
    below = _below(words, leaves, slopes, 1)
    questions: list[Array] = []
    for bit in range(count):
        gains = _gains(everywhere(below), ridge)[: len(samples.values)]
        feature, threshold = jnp.divmod(jnp.argmax(gains), _LEVELS - 1)
        questions.append(jnp.stack([feature, threshold]).astype(jnp.uint8))
        answers = samples.values[feature] > questions[-1][1]
        if bit < count - 1:
            below = _cut(below, answers, words, leaves, slopes)
        leaves = 2 * leaves + answers.astype(jnp.int32)
    features, thresholds = jnp.stack(questions, axis=1)
    return features, thresholds


def _words(values: Array) -> Array:
    """(D / 4, S) uint32 of (D, S) uint8, D rounded up: four features of a sample in a word."""
    padded = jnp.pad(values, ((0, -len(values) % _IN_A_WORD), (0, 0))).astype(jnp.uint32)
    fours = padded.reshape(-1, _IN_A_WORD, values.shape[1])
    return functools.reduce(jnp.bitwise_or, (fours[:, i] << 8 * i for i in range(_IN_A_WORD)))


def _below(
    words: Array, leaves: Array, slopes: Array, num_leaves: int, rows: Array | None = None
) -> Array:
    """Sums of slopes and curvatures over the samples of a leaf whose feature is at most a level.

    Args:
        words: of ``_words``.
        leaves: (R,) int32.
        slopes: (R, 2).
        num_leaves: of them, static.
        rows: (R,) int32, the samples that these are of; None for all.

    Returns:
        (D, 2, num_leaves, 256) float32.
    """

    def four_features(word: Array) -> Array:
        if rows is not None:
            word = word.at[rows].get(mode=_IN_BOUNDS)
        # Four scatters that do not wait for each other keep four cores busy.
        return jnp.stack(
            [
                jax.ops.segment_sum(
                    slopes,
                    leaves * _LEVELS + (word >> 8 * place & _LEVELS - 1).astype(jnp.int32),
                    num_leaves * _LEVELS,
                    mode=_IN_BOUNDS,
                )
                for place in range(_IN_A_WORD)
            ]
        )

    sums = jax.lax.map(four_features, words).reshape(-1, num_leaves, _LEVELS, 2)
    return _running_sums(jnp.moveaxis(sums, 3, 1))


def _cut(below: Array, answers: Array, words: Array, leaves: Array, slopes: Array) -> Array:
    """The sums once every leaf is cut in two by answers (S,) bool.

    Those of the rarer answer are added up; what is left is the other's.
    """
    num_features, kinds, num_leaves, _ = below.shape
    most = len(answers) // 2
    ones_are_rarer = jnp.sum(answers) <= most
    rarer = answers == ones_are_rarer
    places = jnp.cumsum(rarer)
    # The samples of the rarer answer, and the first sample where there are fewer than half.
    rows = jnp.zeros(most, jnp.int32)
    rows = rows.at[jnp.where(rarer, places - 1, most)].set(jnp.arange(len(answers)), mode="drop")
    theirs = jnp.where(jnp.arange(most)[:, None] < places[-1], slopes[rows], 0)
    part = _below(words, leaves[rows], theirs, num_leaves, rows)
    rest = below - part
    no_and_yes = jnp.stack(
        [jnp.where(ones_are_rarer, rest, part), jnp.where(ones_are_rarer, part, rest)], axis=3
    )
    return no_and_yes.reshape(num_features, kinds, 2 * num_leaves, _LEVELS)


def _running_sums(values: Array) -> Array:
    """Cumulative sums of (..., 256), in two levels of products: six times as fast as a scan."""
    squares = values.reshape(*values.shape[:-1], 16, 16)
    upto = jnp.triu(jnp.ones((16, 16), values.dtype))
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    within = product(squares, upto)
    before = product(within[..., -1], upto - jnp.eye(16, dtype=values.dtype))
    return (within + before[..., None]).reshape(values.shape)


def _gains(below: Array, ridge: Array | float) -> Array:
    """(D, 255): the gain of each threshold of each feature."""
    above = below[..., -1:] - below
    # What is left of a difference may be below zero.
    (g, h), (other_g, other_h) = (
        (half[:, 0], jnp.maximum(half[:, 1], 0) + ridge) for half in (below, above)
    )
    gains = (jnp.square(g) * other_h + jnp.square(other_g) * h) / (h * other_h)
    # As a product, as XLA adds up no vectors along this axis on CPUs.
    return jnp.einsum("dlt,l->dt", gains, jnp.ones(gains.shape[1]))[:, :-1]


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
    found = table.at[leaves.astype(jnp.int32)].get(mode=_IN_BOUNDS)
    return found.astype(jnp.int32)


def _slopes(samples: Samples, scores: Array) -> Array:
    """Slope and curvature of each sample's loss: (S, 2) float32."""
    p = jax.nn.sigmoid(scores.astype(jnp.float32) * STEP)
    return jnp.stack([p - samples.targets, p * (1 - p)], axis=-1) * samples.weights[:, None]


def _losses(targets: Array, scores: Array) -> Array:
    """Cross-entropies (S,) float32."""
    scores = scores.astype(jnp.float32) * STEP
    return jax.nn.softplus(scores) - targets * scores
