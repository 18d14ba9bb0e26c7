"""High-pass: what lies below any voice counts as noise in the masks of a dictionary."""

import jax.numpy as jnp
from jax import Array

from blsh_jax.config import StftConfig
from blsh_jax.paper import spectra


def high_pass(mask: Array, lowest_hz: float, stft: StftConfig) -> Array:
    """A binary mask without the bins below a frequency.

    What recordings of speech hold below any voice is rumble of the room and of the microphone. A
    mask that counts it as speech passes wind and hum wherever the noise of a dictionary frame had
    none.

    Args:
        mask: (..., F) bool or float32.
        lowest_hz: centre frequency of the lowest bin that may hold speech, in Hz.
        stft: the transform whose bins these are.

    Returns:
        (..., F), of the type of ``mask``.
    """
    audible = jnp.asarray(spectra.bin_hertz(stft) >= lowest_hz)
    return jnp.where(audible, mask, jnp.zeros((), mask.dtype))
