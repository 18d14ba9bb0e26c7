"""Boosting whose pair weights follow another rule than the paper's.

The paper's weights grow without bound where codes miss their target again and again: a pair of
noisy spectra whose masks cannot be foretold from them ends with nearly all of the weight, as a
wrong label does in AdaBoost. The rules here are the known remedies.

A rule gives the weights of a block from u, the logarithm of the paper's weight of a pair but for a
constant,

    u = sum over l of beta_l (D_l - 1/2),

0 where the bits so far foretell a pair no better than chance does, below 0 where they are right.

Letters: N frames of D features, B frames of a block, D' numbers of a target, L bits.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import boosting, plans, similarity
from blsh_jax.blocks import Blocks, each_block
from blsh_jax.codes import Hasher
from blsh_jax.config import FitConfig
from blsh_jax.plans import Bits

_NARROWER = 5.0  # a kernel to this power is as many times as narrow

# Weights (B, B) that sum to 1, from target similarities (B, B) and u (B, B).
Rule = Callable[[Array, Array], Array]
# Of its beta that a bit changes the weights by, from the bit's number, counted from 0.
Part = Callable[[int], float]


def paper(ssm: Array, u: Array) -> Array:
    """Weights proportional to exp(u)."""
    return jax.nn.softmax(u.ravel()).reshape(u.shape)


def capped(ssm: Array, u: Array) -> Array:
    """Weights proportional to min(1, exp(u)): pairs beyond chance weigh no more than at chance.

    Source: C. Domingo, O. Watanabe, "MadaBoost: A Modification of AdaBoost", COLT 2000.
    """
    return paper(ssm, jnp.minimum(u, 0.0))


def logistic(ssm: Array, u: Array) -> Array:
    """Weights proportional to 1 / (1 + exp(-u)).

    Source: M. Collins, R. E. Schapire, Y. Singer, "Logistic Regression, AdaBoost and Bregman
    Distances", Machine Learning 48, 2002.
    """
    return paper(ssm, jax.nn.log_sigmoid(u))


def nearest_first(ssm: Array, u: Array) -> Array:
    """The paper's weights times others, half of which in sum are on the nearest pairs.

    Those follow a kernel a fifth as wide as the target's, without the pairs of a frame and itself;
    the other half is even, for bits that only have to keep near pairs together would be constant.
    """
    near = ssm**_NARROWER * (1.0 - jnp.eye(len(ssm)))
    return paper(ssm, u + jnp.log(near / jnp.mean(near) + 1.0))


def whole(bit: int) -> float:
    """All of beta, as published."""
    return 1.0


def later_less(bit: int) -> float:
    """The first bit takes all of its beta, the 26th half of it, the 150th a seventh."""
    return 1.0 / (1.0 + bit / 25.0)


def boost(
    frames: np.ndarray,
    config: FitConfig,
    key: Array,
    target: np.ndarray | None = None,
    *,
    rule: Rule = paper,
    part: Part = whole,
) -> Hasher:
    """Bits boosted by a rule; by default they are those of ``boosting.fit``.

    Args:
        frames: (N, D).
        config: how to fit; the metric has to be ``squared_error``.
        key: PRNG key.
        target: (N, D') vectors whose similarity is the target; default: the frames.
        rule: gives the pair weights.
        part: of its beta that a bit changes the weights by.

    Returns:
        L bits; their betas are the parts.
    """
    order_key, bits_key = jax.random.split(key)
    training_set = boosting.prepare(frames, config, order_key, target, plan="float32")
    blocks = training_set.blocks
    state = boosting.init(training_set, config, bits_key)
    for bit in tqdm(range(config.num_bits), desc="boosting", unit="bit", leave=False):
        # "rebuild" computes what blocks lack, and these lack nothing.
        weighted = training_set._replace(blocks=_weigh(blocks, state.bits, rule), plan="rebuild")
        state, info = boosting.step(state, weighted, config)
        betas = state.bits.hasher.betas.at[bit].set(part(bit) * info.beta)
        hasher = state.bits.hasher._replace(betas=betas)
        state = state._replace(bits=state.bits._replace(hasher=hasher))
    return state.hasher


@functools.partial(jax.jit, static_argnames="rule")
def _weigh(blocks: Blocks, bits: Bits, rule: Rule) -> Blocks:
    """Blocks with the terms c = sum V A and M = V C under the rule's weights V."""

    def weigh(ssm: Array, agreement: Array, beta_sum: Array) -> Array:
        offset, slope = similarity.affine(ssm, "squared_error")
        return rule(ssm, (offset - 0.5) * beta_sum + slope * agreement)

    terms = lambda frames, ssm: plans.block_terms(frames, ssm, bits, "squared_error", weigh)
    of_step = lambda step: each_block(terms, step.frames, step.ssms)
    constants, matrices = jax.lax.map(of_step, blocks)
    return blocks._replace(constants=constants, matrices=matrices)
