"""Memory plans: where the pair matrices of a training run live.

All plans answer one question, the constant c = sum V A and the pair matrix M = V C of the blocks of
a step, from the closed form of the pair weights: after l bits

    log V = A sum(beta) + (H diag(beta) H^T) C + const per block,

so V itself is never stored, and the bits learned so far are all that a run has to remember.

    float32   keeps the target SSMs all along and the matrices of the current bit: 8 bytes a pair;
    bfloat16  keeps the matrices of the current bit, rounded: 2 bytes a pair (accelerators);
    rebuild   keeps nothing of size B x B: every step computes what it needs from the frames.

Letters: G blocks in all, cut into S steps of k blocks; B frames per block, D features, L bits.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import codes, similarity
from blsh_jax.codes import WORD_BITS, Hasher
from blsh_jax.config import FitConfig

Plan = Literal["float32", "bfloat16", "rebuild"]
PLANS: tuple[Plan, ...] = ("float32", "bfloat16", "rebuild")


class Blocks(NamedTuple):
    """Training frames, permuted and cut.

    Attributes:
        frames: (S, k, B, D) features.
        targets: (S, k, B, D') vectors whose similarity is the target; often the frames themselves.
        weights: (S, k) 1 for a block of frames, 0 for one that only fills the last step.
    """

    frames: Array
    targets: Array
    weights: Array


class Resident(NamedTuple):
    """What a plan keeps in memory; None for what it does not.

    Attributes:
        ssms: (S, k, B, B) float32 target SSMs.
        constants: (S, k) float32, c of the current bit under the fitting metric.
        matrices: (S, k, B, B) float32 or bfloat16, M of the current bit, likewise.
    """

    ssms: Array | None = None
    constants: Array | None = None
    matrices: Array | None = None


def weighted_agreement(frames: Array, hasher: Hasher, num_bits: Array) -> Array:
    """H diag(beta) H^T over the first ``num_bits`` bits, the signed similarity of codes.

    Args:
        frames: (B, D).
        hasher: L' hash functions, L' a multiple of 32, with betas of 0 from ``num_bits`` on: one
            shape, hence one compilation and one rounding, however many bits are learned.
        num_bits: () int32.

    Returns:
        (B, B) between -sum(beta) and sum(beta).
    """

    def add_word(word, total):
        part = jax.tree.map(
            lambda a: jax.lax.dynamic_slice_in_dim(a, word * WORD_BITS, WORD_BITS), hasher
        )
        bits = codes.sign(codes.project(frames, part.projections, part.biases))
        scaled = bits * jnp.broadcast_to(part.betas, bits.shape)
        return total + jnp.matmul(scaled, bits.T, precision=jax.lax.Precision.HIGHEST)

    size = frames.shape[0]
    words = (num_bits + WORD_BITS - 1) // WORD_BITS
    return jax.lax.fori_loop(0, words, add_word, jnp.zeros((size, size), frames.dtype))


def pair_weights(ssm: Array, agreement: Array, beta_sum: Array) -> Array:
    """The pair weights V of one block, in closed form.

    Args:
        ssm: (B, B) target similarities.
        agreement: (B, B) from ``weighted_agreement``.
        beta_sum: () sum of the betas so far; 0 gives uniform weights.

    Returns:
        (B, B), non-negative, summing to 1.

    Source: [ICASSP20] eq. 4, iterated from uniform weights; D is the squared error.
    """
    offset, slope = similarity.affine(ssm, "squared_error")
    return jax.nn.softmax((offset * beta_sum + slope * agreement).ravel()).reshape(ssm.shape)


def block_ssm(target: Array, config: FitConfig) -> Array:
    """(B, D') target vectors to the (B, B) target SSM that the configuration names."""
    return similarity.self_similarity(target, config.target, config.sigma2)


def block_terms(
    frames: Array, ssm: Array, hasher: Hasher, num_bits: Array, metric: similarity.Metric
) -> tuple[Array, Array]:
    """The constant c = sum V A and the pair matrix M = V C of one block under ``metric``."""
    agreement = weighted_agreement(frames, hasher, num_bits)
    weights = pair_weights(ssm, agreement, jnp.sum(hasher.betas))
    offset, slope = similarity.affine(ssm, metric)
    return jnp.sum(weights * offset), weights * slope


def step_terms(
    step: Array,
    blocks: Blocks,
    resident: Resident,
    hasher: Hasher,
    num_bits: Array,
    config: FitConfig,
    metric: similarity.Metric,
) -> tuple[Array, Array]:
    """Terms c and M of the k blocks of a step: looked up where they are resident, else computed.

    Args:
        step: () int32 in [0, S).
        blocks: frames and targets.
        resident: what the plan keeps.
        hasher: bits learned so far, padded as ``weighted_agreement`` wants it.
        num_bits: () int32, how many they are.
        config: the target.
        metric: resident matrices serve only the configuration's own metric.

    Returns:
        (k,) and (k, B, B).
    """
    if resident.matrices is not None and metric == config.metric:
        return resident.constants[step], resident.matrices[step]
    if resident.ssms is not None:
        ssms = resident.ssms[step]
    else:
        ssms = jax.vmap(lambda target: block_ssm(target, config))(blocks.targets[step])
    terms = jax.vmap(lambda frames, ssm: block_terms(frames, ssm, hasher, num_bits, metric))
    return terms(blocks.frames[step], ssms)


def keep_ssms(blocks: Blocks, plan: Plan, config: FitConfig) -> Resident:
    """What a plan keeps from the first bit to the last."""
    if plan != "float32":
        return Resident()
    return Resident(
        ssms=jax.lax.map(jax.vmap(lambda target: block_ssm(target, config)), blocks.targets)
    )


def keep_matrices(
    blocks: Blocks,
    resident: Resident,
    plan: Plan,
    hasher: Hasher,
    num_bits: Array,
    config: FitConfig,
) -> Resident:
    """What a plan keeps for the current bit only."""
    if plan == "rebuild":
        return Resident()

    def terms(step):
        constants, matrices = step_terms(
            step, blocks, resident, hasher, num_bits, config, config.metric
        )
        return constants, matrices.astype(jnp.bfloat16) if plan == "bfloat16" else matrices

    constants, matrices = jax.lax.map(terms, jnp.arange(blocks.frames.shape[0]))
    return Resident(constants=constants, matrices=matrices)
