"""Pre-roll: the start of a recording once more before it, backwards.

What follows a signal's noise needs a second of it. Backwards, the first second has the same noise,
and goes over into the signal without a seam.
"""

from typing import Any

from blsh_jax.config import StftConfig


def with_pre_roll(signals: Any, num_frames: int, stft: StftConfig) -> Any:
    """Signals with their start before them.

    Args:
        signals: (..., n) floats, n at least 1, of NumPy or JAX.
        num_frames: frames whose hops come before the signal.
        stft: the transform.

    Returns:
        (..., m + n) of the same library, m = num_frames * hop; silence stands for what a shorter
        signal lacks.
    """
    xp = signals.__array_namespace__()
    length = num_frames * stft.hop_length
    lacking = max(0, length + 1 - signals.shape[-1])
    padded = xp.pad(signals, [(0, 0)] * (signals.ndim - 1) + [(0, lacking)])
    return xp.concat([xp.flip(padded[..., 1 : length + 1], axis=-1), signals], axis=-1)
