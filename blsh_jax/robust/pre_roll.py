"""Pre-roll: the start of a recording once more before it, backwards.

What follows a signal's noise needs a second of it. Backwards, the first second has the same noise,
and goes over into the signal without a seam.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.config import StftConfig


def with_pre_roll(signals: Array | np.ndarray, num_frames: int, stft: StftConfig) -> Array:
    """Signals with their start before them.

    Args:
        signals: (..., n) floats, n at least 1.
        num_frames: frames whose hops come before the signal.
        stft: the transform.

    Returns:
        (..., m + n), m = num_frames * hop; silence stands for what a shorter signal lacks.
    """
    length = num_frames * stft.hop_length
    lacking = max(0, length + 1 - signals.shape[-1])
    padded = jnp.pad(signals, [(0, 0)] * (signals.ndim - 1) + [(0, lacking)])
    return jnp.concatenate([jnp.flip(padded[..., 1 : length + 1], axis=-1), signals], axis=-1)
