"""Fine-tuning: all hyperplanes moved together, until the neighbours' masks are the right ones.

    hasher, losses = fine_tune(hasher, frames, shares, mixtures, config, key)

Bits are learned for the similarity of frames. A search is for masks: alike are frames whose masks
help each other. In each step some frames are queries and others candidates. With codes h, the mask
of a query q in a band is a search with soft borders,

    m_q = sum over r of softmax_r(s h_q . h_r) m_r,

r being the candidates from other mixtures than the query's. Its cross-entropy to the query's own
mask, weighted by the magnitudes of the query's bands, is what hyperplanes and the sharpness s
descend. Sign counts as tanh in the backward direction, at activations of unit variance.

Every query asks with its first l bits only, l drawn anew each time, so that bits stay in order of
importance and one model serves every length.

Letters: N frames, D features, L bits, C bands, Q queries and R candidates of a step.
Source: J. Goldberger, S. Roweis, G. Hinton, R. Salakhutdinov, "Neighbourhood Components Analysis",
NIPS 2004, for neighbours with soft borders; O. Rippel, M. Gelbart, R. Adams, "Learning Ordered
Representations with Nested Dropout", ICML 2014, for the lengths. The straight-through sign as in
[ICASSP20] section 3.2.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax._extras import extra
from blsh_jax.config import FineTuningConfig
from blsh_jax.paper.codes import Hasher, project, straight_through_sign
from blsh_jax.paper.learner import Walk, update
from blsh_jax.robust.band_shares import speech_parts

if TYPE_CHECKING:
    import optax

_STEPS_PER_CALL = 50
_SHORTEST = 8  # bits that a query has at least
_FLATTEST = 1e-4  # least standard deviation that a feature counts as having
_MARGIN = 0.01  # masks are kept so far from 0 and 1, as the mean of a hundred neighbours would be
# The sharpness s = exp(a + b log(l / 8)) of l bits: where a and b start, and their learning rate.
_SHARPNESS = (0.6, -0.7)
_SHARPNESS_RATE = 0.01
_NEVER = -1e9  # finite, for the case that a query has no candidate from another mixture


class _Variables(NamedTuple):
    """What descends: hyperplanes in standardised features, and the sharpness of the search."""

    rows: Any
    offsets: Any
    sharpness: Any


def fine_tune(
    hasher: Hasher,
    frames: Array | np.ndarray,
    shares: Array | np.ndarray,
    mixtures: Array | np.ndarray,
    config: FineTuningConfig,
    key: Array,
    progress: bool = False,
) -> tuple[Hasher, np.ndarray]:
    """Move all hyperplanes together towards neighbours whose masks are right.

    Args:
        hasher: L hash functions to start from; their scale and betas are of no account.
        frames: (N, D) float32 features, all in device memory.
        shares: (N, 2, C) floats of ``band_shares``: in each band, the magnitude of the bins
            that are speech, and of the others.
        mixtures: (N,) int32, which mixture a frame is of.
        config: steps, batch sizes, learning rate.
        key: PRNG key.
        progress: show a progress bar.

    Returns:
        A hasher with unit betas, and (config.fine_tuning_steps,) losses.

    Raises:
        ValueError: the shapes do not fit, all frames are of one mixture, or the loss is not a
            number.

    Source: see the module.
    """
    for name, given, ndim in (
        ("frames", frames, 2),
        ("shares", shares, 3),
        ("mixtures", mixtures, 1),
    ):
        if given.ndim != ndim or len(given) != len(frames):
            raise ValueError(
                f"{name} has shape {given.shape}: give {ndim} axes and a row for each of the "
                f"{len(frames)} frames"
            )
    if (np.asarray(mixtures) == mixtures[0]).all():
        raise ValueError("mixtures names one mixture only: neighbours must come from others")
    frames = jnp.asarray(frames)
    mean, scale = jnp.mean(frames, axis=0), jnp.maximum(jnp.std(frames, axis=0), _FLATTEST)
    start = _standardised(hasher, frames, mean, scale)
    state = Walk(start, _optimizer(config).init(start))
    data = frames, jnp.asarray(shares, frames.dtype), jnp.asarray(mixtures)
    keys = jax.random.split(key, config.fine_tuning_steps)
    losses: list[np.ndarray] = []
    bar = tqdm(
        total=config.fine_tuning_steps, desc="fine-tuning", unit="step", disable=not progress
    )
    for first in range(0, config.fine_tuning_steps, _STEPS_PER_CALL):
        now = keys[first : first + _STEPS_PER_CALL]
        state, loss = _descend(state, data, (mean, scale), now, config)
        losses.append(np.asarray(loss))
        bar.set_postfix_str(f"loss {losses[-1].mean():.4f}")
        bar.update(len(loss))
    bar.close()
    course = np.concatenate(losses)
    # A sign is never NaN, so the loss of a spoilt hyperplane may be a number.
    if not all(np.isfinite(part).all() for part in (course, *state.rows)):
        raise ValueError("the loss is not a number: look for NaN or infinite values in the frames")
    rows, offsets, _ = state.rows
    projections = rows / scale[None]
    biases = offsets - jnp.matmul(projections, mean, precision=jax.lax.Precision.HIGHEST)
    return Hasher(projections, biases, jnp.ones_like(biases)), course


def _standardised(hasher: Hasher, frames: Array, mean: Array, scale: Array) -> _Variables:
    """The same hyperplanes in standardised features, with activations of unit variance."""
    spread = jnp.std(project(frames, hasher.projections, hasher.biases), axis=0)
    spread = jnp.where(spread > 0, spread, 1)  # a constant bit stays as it is
    rows = hasher.projections / spread[:, None]
    offsets = project(mean, rows, hasher.biases / spread)
    return _Variables(rows * scale[None], offsets, jnp.asarray(_SHARPNESS, frames.dtype))


def _optimizer(config: FineTuningConfig) -> "optax.GradientTransformation":
    with extra("train"):
        import optax
    decay = optax.cosine_decay_schedule(config.fine_tuning_learning_rate, config.fine_tuning_steps)
    moved_by = {"hyperplanes": optax.adam(decay), "sharpness": optax.adam(_SHARPNESS_RATE)}
    return optax.multi_transform(moved_by, _Variables("hyperplanes", "hyperplanes", "sharpness"))


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def _descend(state, data, standard, keys, config: FineTuningConfig):
    """One step per key, and the loss of each."""

    def step(walk, key):
        batch = _batch(data, standard, walk.rows.offsets.shape[0], key, config)
        loss, gradient = jax.value_and_grad(_loss)(walk.rows, *batch)
        return update(_optimizer(config), walk, gradient), loss

    return jax.lax.scan(step, state, keys)


def _batch(data, standard, num_bits: int, key: Array, config: FineTuningConfig):
    """Queries and candidates, each (features, shares, mixtures), and the queries' lengths (Q,)."""
    query_key, candidate_key, length_key = jax.random.split(key, 3)
    frames, shares, mixtures = data
    mean, scale = standard

    def drawn(key: Array, count: int):
        rows = jax.random.randint(key, (count,), 0, len(frames))
        return (frames[rows] - mean[None]) / scale[None], shares[rows], mixtures[rows]

    shortest = min(_SHORTEST, num_bits)
    exponent = jax.random.uniform(length_key, (config.fine_tuning_queries,), frames.dtype)
    lengths = jnp.floor(shortest * ((num_bits + 1) / shortest) ** exponent)
    lengths = jnp.minimum(lengths, num_bits)
    queries = drawn(query_key, config.fine_tuning_queries)
    return queries, drawn(candidate_key, config.fine_tuning_candidates), lengths


def _loss(variables: _Variables, queries, candidates, lengths: Array) -> Array:
    """Mean cross-entropy between the queries' masks and those that the candidates give them."""
    rows, offsets, sharpness = variables
    features, shares, mixtures = queries
    other_features, other_shares, other_mixtures = candidates
    within = jnp.arange(len(offsets), dtype=lengths.dtype)[None] < lengths[:, None]
    codes = jnp.where(within, straight_through_sign(project(features, rows, offsets)), 0)
    agreement = jnp.matmul(codes, straight_through_sign(project(other_features, rows, offsets)).T)
    log_sharpness = sharpness[0] + sharpness[1] * jnp.log(lengths / _SHORTEST)
    same = mixtures[:, None] == other_mixtures[None]
    logits = jnp.where(same, _NEVER, jnp.exp(log_sharpness)[:, None] * agreement)
    mask = jnp.matmul(jax.nn.softmax(logits), speech_parts(other_shares))
    mask = jnp.clip(mask, _MARGIN, 1 - _MARGIN)
    speech, rest = shares[:, 0], shares[:, 1]
    return -jnp.mean(jnp.sum(speech * jnp.log(mask) + rest * jnp.log1p(-mask), axis=1))
