"""Boosting: one bit after another, each fitted where the bits before it are wrong (Algorithm 2).

    state = init(num_features, config, key)                    no bits yet
    state, info = step(state, frames, ssms, config)            one more bit
    hasher, infos = boost(frames, ssms, config, key)           all of them: a scan over bits

Each bit minimises eq. 5 under the pair weights V (``learner``), has the error rate eps and the
weight beta (eq. 6), and multiplies the weight of a pair by exp(beta D) (eq. 4). All is pure: it
jits, scans over bits, and vmaps over keys. ``training.driver`` drives the same functions over
blocks on disk, on many devices and under memory plans, by giving ``next_bit`` other ``Visits``.

Letters: D features, L bits, G blocks of B frames, k blocks of a step, R candidates.
Source: [ICASSP20] section 3 and Algorithm 2.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.config import FitConfig
from blsh_jax.paper import codes, learner, similarity
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.learner import PairTerms, Walk
from blsh_jax.search.packing import WORD_BITS, num_words

Move = Callable[[Walk, Array, FitConfig], Walk]
WalkAll = Callable[[Array, "Visits", FitConfig], tuple[Walk, Any]]
Mean = Callable[[Array, Array], Array]
"""Values (k, ...) and weights (k,) of the blocks of a step to the weighted mean (...)."""


class Bits(NamedTuple):
    """The bits learned so far.

    Attributes:
        hasher: their hash functions, padded with betas of 0 to one length L', a multiple of 32: one
            shape, hence one compilation, however many bits are learned.
        learned: () int32, how many they are.
    """

    hasher: Hasher
    learned: Array


class State(NamedTuple):
    """All that the next bit depends on.

    Attributes:
        bits: learned so far.
        key: PRNG key; bit l uses ``fold_in(key, l)``.
    """

    bits: Bits
    key: Array


class BitInfo(NamedTuple):
    """How one bit came out; every entry is a number.

    Attributes:
        objective: mean over blocks of sum V D under the fitting metric, exact, all blocks.
        constant_objective: the same of the constant code h = 1: a good bit is far below it.
        epsilon: the same as ``objective`` under squared error (eq. 6).
        beta: ln((1 - epsilon) / epsilon) / 2.
        balance: mean of the bit over all frames, 0 when it splits them in halves.
        steps: optimiser steps taken.
        seconds: wall-clock time, compilation included; 0 where nobody looked at a clock.
    """

    objective: Array | float
    constant_objective: Array | float
    epsilon: Array | float
    beta: Array | float
    balance: Array | float
    steps: Array | int
    seconds: float = 0.0


class Blocks(NamedTuple):
    """What a step sees of its blocks.

    Attributes:
        frames: (k, B, D).
        weights: (k,) 1 for a block of frames, 0 for one that only fills the step.
        terms: (k, ...) of the current bit.
    """

    frames: Array
    weights: Array
    terms: PairTerms


class Visits(NamedTuple):
    """How the blocks are visited for one bit, wherever they are.

    Attributes:
        descend: (walk, (T,) step numbers) to the walk after these optimiser steps, and the (R,)
            mean losses before each.
        judge: (candidates (R, D + 1), metric) to their exact losses and balances on all blocks,
            (R,) each.
        num_steps: steps of a pass over all blocks.
        num_features: D.
        loop: as ``jax.lax.while_loop``.
    """

    descend: Callable[[Walk, Array], tuple[Walk, Array]]
    judge: Callable[[Array, similarity.Metric], tuple[Array, Array]]
    num_steps: int
    num_features: int
    loop: Callable


def pair_weights(ssm: Array, agreement: Array, beta_sum: Array) -> Array:
    """Eq. 4 in closed form: the pair weights V of one block, after all bits so far.

    Iterated from uniform weights, V <- V exp(beta D) over its sum is, with D = A + z C,

        log V = A sum(beta) + (H diag(beta) H^T) C + const.

    Args:
        ssm: (B, B) target similarities.
        agreement: (B, B) H diag(beta) H^T, from ``weighted_agreement``.
        beta_sum: () sum of the betas so far; 0 gives uniform weights.

    Returns:
        (B, B), non-negative, summing to 1.

    Source: [ICASSP20] eq. 4; D is the squared error.
    """
    offset, slope = similarity.affine(ssm, "squared_error")
    return jax.nn.softmax((offset * beta_sum + slope * agreement).ravel()).reshape(ssm.shape)


def error_rate(code: Array, weights: Array, ssm: Array) -> Array:
    """The error eps of a bit on one block: sum of V D, D being the squared error.

    Args:
        code: (B,) of -1 and +1, floating point.
        weights: (B, B) pair weights V.
        ssm: (B, B) target similarities S.

    Returns:
        () in [0, 1] for similarities in [0, 1]. Of several blocks take the mean.

    Source: [ICASSP20] eq. 5, of the bit that was kept.
    """
    return learner.weighted_ssm_loss(code, learner.pair_terms(weights, ssm))


def beta(epsilon: Array) -> Array:
    """Eq. 6: the weight ln((1 - eps) / eps) / 2 of a bit; its error eps strictly within 0 and 1."""
    return jnp.log((1.0 - epsilon) / epsilon) / 2.0


def init(num_features: int, config: FitConfig, key: Array, known: Hasher | None = None) -> State:
    """The state before the next bit.

    Args:
        num_features: D.
        config: how many bits.
        key: PRNG key of all of them.
        known: the bits learned so far; default: none.
    """
    length = num_words(config.num_bits) * WORD_BITS
    zeros = jnp.zeros(length)
    hasher = Hasher(jnp.zeros((length, num_features)), zeros, zeros)
    count = 0 if known is None else known.num_bits
    if known is not None:
        hasher = jax.tree.map(lambda blank, bits: blank.at[:count].set(bits), hasher, known)
    return State(Bits(hasher, jnp.int32(count)), key)


def until_converged(key: Array, visits: Visits, config: FitConfig) -> tuple[Walk, Array]:
    """The published schedule: passes over the blocks until the loss has converged.

    Args:
        key: PRNG key of where candidates start.
        visits: of the blocks.
        config: the optimiser, the least and the most passes.

    Returns:
        The candidates, and the optimiser steps taken.
    """

    def one_pass(carry):
        walk, losses, count = carry
        walk, of_pass = visits.descend(walk, jnp.arange(visits.num_steps))
        return walk, losses.at[count].set(of_pass[0]), count + 1

    def going_on(carry):
        _, losses, count = carry
        return (count < config.max_epochs) & ~learner.has_converged(losses, count, config)

    start_key, _ = jax.random.split(key)
    walk = learner.start(start_key, visits.num_features, config)
    losses = jnp.zeros(config.max_epochs, walk.rows.dtype)
    walk, _, count = visits.loop(going_on, one_pass, (walk, losses, jnp.int32(0)))
    return walk, count * visits.num_steps


def step(state: State, frames: Array, ssms: Array, config: FitConfig) -> tuple[State, BitInfo]:
    """Learn one more bit as published. Pure.

    An error rate outside (0, 1) makes beta NaN or infinite.

    Args:
        state: the bits so far; fewer than ``config.num_bits``.
        frames: (G, B, D) floating point, G a multiple of ``config.blocks_per_step``.
        ssms: (G, B, B) their target similarities, as of ``similarity.self_similarity``.
        config: how to fit; static.

    Returns:
        The state with one more bit, and how it came out.

    Raises:
        ValueError: G is no such multiple.

    Source: [ICASSP20] Algorithm 2, the body of its loop.
    """
    return next_bit(state, in_memory(frames, ssms, state.bits, config), config)


def next_bit(
    state: State, visits: Visits, config: FitConfig, walk: WalkAll = until_converged
) -> tuple[State, BitInfo]:
    """``step``, wherever the blocks are: fit a projection, keep the best, weigh it.

    Gives, as ``step``, the state with one more bit, and how it came out.

    Args:
        state: the bits so far.
        visits: of the blocks, for this bit.
        config: how to fit.
        walk: (key, visits, config) to the candidates after fitting, and the steps taken.
    """
    key = jax.random.fold_in(state.key, state.bits.learned)
    candidates, num_steps = walk(key, visits, config)
    objectives, balances = visits.judge(_with_constant(candidates.rows), config.metric)
    best = jnp.argmin(objectives[:-1])
    chosen, epsilon = candidates.rows[best], objectives[best]
    if config.metric != "squared_error":
        epsilon = visits.judge(chosen[None], "squared_error")[0][0]
    weight = beta(epsilon)
    info = BitInfo(objectives[best], objectives[-1], epsilon, weight, balances[best], num_steps)
    return State(append(state.bits, chosen, weight), state.key), info


def boost(frames: Array, ssms: Array, config: FitConfig, key: Array) -> tuple[Hasher, BitInfo]:
    """All bits: Algorithm 2 as a scan. Pure; vmap it over keys.

    Args:
        frames: as in ``step``, and so the next two.
        ssms: target similarities.
        config: how to fit.
        key: PRNG key.

    Returns:
        A hasher of L bits, and (L,) entries of how they came out.

    Source: [ICASSP20] Algorithm 2.
    """
    start = init(frames.shape[-1], config, key)
    one = lambda state, _: step(state, frames, ssms, config)
    state, infos = jax.lax.scan(one, start, None, config.num_bits)
    return state.bits.hasher.prefix(config.num_bits), infos


def weighted_agreement(frames: Array, bits: Bits) -> Array:
    """H diag(beta) H^T, the signed similarity of codes.

    Args:
        frames: (B, D).
        bits: learned so far.

    Returns:
        (B, B) between -sum(beta) and sum(beta).
    """

    def of_words(words):
        def compute(frames):
            part = jax.tree.map(lambda array: array[: words * WORD_BITS], bits.hasher)
            code = codes.sign(codes.project(frames, part.projections, part.biases))
            scaled = code * jnp.broadcast_to(part.betas, code.shape)
            return jnp.matmul(scaled, code.T, precision=jax.lax.Precision.HIGHEST)

        return compute

    # Whole words make few static shapes; only as many as there are so far keep short codes cheap.
    all_words = bits.hasher.num_bits // WORD_BITS
    words = (bits.learned + WORD_BITS - 1) // WORD_BITS
    return jax.lax.switch(words, [of_words(words) for words in range(all_words + 1)], frames)


def block_terms(
    frames: Array, ssm: Array, bits: Bits, metric: similarity.Metric, parabola: bool = True
) -> PairTerms:
    """The terms of the next bit on one block.

    Args:
        frames: (B, D).
        ssm: (B, B) target similarities.
        bits: learned so far.
        metric: what the bit is fitted under.
        parabola: as in ``learner.pair_terms``.
    """
    agreement = weighted_agreement(frames, bits)
    weights = pair_weights(ssm, agreement, jnp.sum(bits.hasher.betas))
    return learner.pair_terms(weights, ssm, metric, parabola)


def descend(
    walk: Walk, blocks: Blocks, config: FitConfig, move: Move, mean: Mean
) -> tuple[Walk, Array]:
    """One optimiser step of all candidates.

    Args:
        walk: the candidates, as hyperplanes.
        blocks: of the step.
        config: how to fit.
        move: ``learner.move``, or in its place.
        mean: over the blocks of the step.

    Returns:
        The moved candidates, and the (R,) losses before the move.
    """
    one = lambda block: learner.loss_and_gradient(walk.rows, *block)
    losses, gradients = jax.lax.map(one, (blocks.frames, blocks.terms))
    moved = move(walk, mean(gradients, blocks.weights), config)
    return moved, mean(losses, blocks.weights)


def judge(candidates: Array, blocks: Blocks, mean: Mean) -> tuple[Array, Array]:
    """Exact losses and balances of candidates (R, D + 1) on the blocks of a step, (R,) each."""

    def one(block: tuple[Array, PairTerms]) -> tuple[Array, Array]:
        code = learner.candidate_codes(candidates, block[0])
        return learner.weighted_ssm_loss(code, block[1]), jnp.mean(code, axis=0)

    losses, balances = jax.lax.map(one, (blocks.frames, blocks.terms))
    return mean(losses, blocks.weights), mean(balances, blocks.weights)


def append(bits: Bits, candidate: Array, weight: Array) -> Bits:
    """Bits with one more: a candidate (D + 1,) and its beta ()."""
    last = (candidate[:-1], candidate[-1], weight)
    hasher = Hasher(
        *(array.at[bits.learned].set(new) for array, new in zip(bits.hasher, last, strict=True))
    )
    return Bits(hasher, bits.learned + 1)


def weighted_mean(values: Array, weights: Array) -> Array:
    """The ``Mean`` of one device."""
    return jnp.tensordot(weights, values, axes=1) / jnp.sum(weights)


def in_memory(
    frames: Array, ssms: Array, bits: Bits, config: FitConfig, move: Move = learner.move
) -> Visits:
    """Visits of blocks that are arrays.

    Args:
        frames: (G, B, D).
        ssms: (G, B, B).
        bits: learned so far.
        config: how to fit.
        move: ``learner.move``, or in its place.

    Raises:
        ValueError: G is no multiple of ``config.blocks_per_step``.
    """
    if len(frames) % config.blocks_per_step:
        raise ValueError(
            f"frames has {len(frames)} blocks: give a multiple of blocks_per_step, "
            f"{config.blocks_per_step}"
        )
    parabola = config.slope != "line" if move is learner.move else config.parabola

    def blocks(metric: similarity.Metric) -> Blocks:
        terms = functools.partial(block_terms, bits=bits, metric=metric, parabola=parabola)
        made = jax.lax.map(lambda block: terms(*block), (frames, ssms))
        all_blocks = Blocks(frames, jnp.ones(len(frames), frames.dtype), made)
        by_step = lambda array: array.reshape(-1, config.blocks_per_step, *array.shape[1:])
        return jax.tree.map(by_step, all_blocks)

    fitted = blocks(config.metric)

    def visit(walk: Walk, number: Array) -> tuple[Walk, Array]:
        of_step = jax.tree.map(lambda array: array[number], fitted)
        return descend(walk, of_step, config, move, weighted_mean)

    def descend_all(walk: Walk, order: Array) -> tuple[Walk, Array]:
        walk, losses = jax.lax.scan(visit, walk, order)
        return walk, jnp.mean(losses, axis=0)

    def judge_all(candidates: Array, metric: similarity.Metric) -> tuple[Array, Array]:
        of_metric = fitted if metric == config.metric else blocks(metric)
        one = functools.partial(judge, candidates, mean=weighted_mean)
        losses, balances = jax.lax.map(one, of_metric)
        return jnp.mean(losses, axis=0), jnp.mean(balances, axis=0)

    num_steps = len(frames) // config.blocks_per_step
    return Visits(descend_all, judge_all, num_steps, frames.shape[-1], jax.lax.while_loop)


def _with_constant(candidates: Array) -> Array:
    """Candidates (R, D + 1) and, last, the constant code h = 1."""
    constant = jnp.zeros_like(candidates[:1]).at[:, -1].set(1.0)
    return jnp.concatenate([candidates, constant])
