"""Fit information: how training went, bit by bit, and how well the codes approximate their target.

Letters: L bits, B frames per block, D features.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax.config import FitConfig
from blsh_jax.paper.boosting import BitInfo
from blsh_jax.paper.codes import Hasher, project, sign
from blsh_jax.paper.similarity import self_similarity
from blsh_jax.training.blocks import HostBlocks

_APPROXIMATION_BLOCKS = 8  # blocks on which the growing code is compared with its target


@dataclasses.dataclass(frozen=True)
class FitInfo:
    """How training went.

    Attributes:
        objective: (L,) as in ``BitInfo``, and so are constant_objective, epsilon, beta, balance,
            steps and seconds.
        approximation_error: (L,) mean of (S - sum beta [a = b] / sum beta)^2 of the first l bits
            ([ICASSP20] eq. 3), on up to 8 blocks.
        plain_approximation_error: (L,) the same with equal weights, what a Hamming search uses.
        num_frames: frames trained on.
        num_left_over: frames that filled no block and were not trained on.
        num_blocks: G.
        block_size: B.
        plan: the memory plan.
        predicted_bytes: memory that the plan was predicted to take on each device.
        peak_bytes: memory that training took on the first device, measured; on a CPU, by how much
            the peak of the process exceeds what it held before.
        interrupted: training was stopped by the user before the last bit.
        fine_tuning_loss: (S,) loss of each step of fine-tuning, if there was any.
    """

    objective: np.ndarray
    constant_objective: np.ndarray
    epsilon: np.ndarray
    beta: np.ndarray
    balance: np.ndarray
    steps: np.ndarray
    seconds: np.ndarray
    approximation_error: np.ndarray
    plain_approximation_error: np.ndarray
    num_frames: int
    num_left_over: int
    num_blocks: int
    block_size: int
    plan: str
    predicted_bytes: int
    peak_bytes: int
    interrupted: bool = False
    fine_tuning_loss: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists and numbers, ready for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }


def by_field(infos: list[BitInfo]) -> dict[str, np.ndarray]:
    """Bits' entries as arrays of length L, by name."""
    return {name: np.asarray([getattr(i, name) for i in infos]) for name in BitInfo._fields}


def approximation_errors(
    blocks: HostBlocks, hasher: Hasher, config: FitConfig
) -> tuple[np.ndarray, np.ndarray]:
    """How far the codes' similarity is from the target, after each bit.

    Args:
        blocks: frames; at most 8 blocks are used, one block at a time.
        hasher: L hash functions.
        config: the target.

    Returns:
        Two (L,) arrays: the mean over pairs of (S - sum beta [a = b] / sum beta)^2, and the same
        with all betas 1.

    Source: [ICASSP20] eq. 3.
    """
    targets = blocks.frames if blocks.targets is None else blocks.targets
    dtype = jnp.result_type(float)
    errors = []
    for rows in blocks.rows[blocks.weights > 0][:_APPROXIMATION_BLOCKS]:
        parts = (values[rows].astype(dtype) for values in (blocks.frames, targets))
        errors.append(np.asarray(_block_errors(*parts, hasher, config)))
    weighted, plain = np.mean(errors, axis=0)
    return weighted, plain


@functools.partial(jax.jit, static_argnames=("config",))
def _block_errors(frames, target, hasher, config):
    """(2, L) mean squared errors of one block: weighted by the betas, and plain."""
    ssm = self_similarity(target, config.target, config.sigma2)
    bits = sign(project(frames, hasher.projections, hasher.biases))
    weights = jnp.stack([hasher.betas, jnp.ones_like(hasher.betas)], axis=1)

    def add_bit(carry, bit):
        agreements, totals = carry
        code, weight = bit
        agrees = (1.0 + code[:, None] * code[None, :]) / 2.0
        agreements = agreements + weight[:, None, None] * agrees[None]
        totals = totals + weight
        errors = jnp.square(ssm[None] - agreements / totals[:, None, None])
        return (agreements, totals), jnp.mean(errors, axis=(1, 2))

    start = (jnp.zeros((2, *ssm.shape), ssm.dtype), jnp.zeros(2, ssm.dtype))
    return jax.lax.scan(add_bit, start, (bits.T, weights))[1].T
