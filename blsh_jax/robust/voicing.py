"""Voicing: how far a frame's spectrum is the comb of a voice, band by band.

    strengths = band_voicing(magnitude, filters, stft)

A unit spectrum says where a frame has its energy. Noise that has it where vowels do, as croaking
frogs, looks like a vowel then. But a voice is a comb there, whose teeth stand at the multiples of
its pitch, and a noise is not; and what of a mixture is a comb is speech. From the magnitudes A the
fine structure f = sqrt(A) / mean(sqrt(A)) - 1 is taken, the mean being that of the bins near by, so
that envelope and level are gone. The pitch period is the lag at which f is most like a comb,

    lag = argmax over t of sum over k of f_k cos(2 pi k t / N),

and the voicing of a band is the correlation of f with that comb under the band's weights w,

    v = sum w f c / sqrt(sum w f^2 sum w c^2),   c_k = cos(2 pi k lag / N).

Letters: T frames, F bins, N samples of a window, M bands.
Source: voicing band by band at the pitch of a frame: D. Griffin, J. Lim, "Multiband Excitation
Vocoder", IEEE Trans. ASSP 36 (8), 1988, section III; as features of a denoiser: J.-M. Valin, "A
Hybrid DSP/Deep Learning Approach to Real-Time Full-Band Speech Enhancement", MMSP 2018, section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.config import StftConfig

_PITCH_HZ = 70.0, 400.0
# Where combs are looked for: above, a pitch that moves within the window blurs its harmonics.
_COMB_HZ = 60.0, 3000.0
_NEARBY_HZ = 125.0  # the fine structure is relative to the bins up to so far away


class Layout(NamedTuple):
    """The same in lags and bins of a transform.

    Attributes:
        lags: first lag in samples, and the one after the last.
        bins: first bin in which combs are looked for, and the one after the last.
        reach: bins on either side that the fine structure is relative to.
    """

    lags: tuple[int, int]
    bins: tuple[int, int]
    reach: int


def layout(config: StftConfig) -> Layout:
    """Lags and bins of a transform.

    Args:
        config: the transform.

    Raises:
        ValueError: the window is shorter than two periods of the lowest pitch.
    """
    longest = round(config.sample_rate / _PITCH_HZ[0])
    if config.window_length < 2 * longest:
        raise ValueError(
            f"window_length is {config.window_length}: voicing needs {2 * longest} samples or "
            "more, two periods of a deep voice"
        )
    low, high, reach = (
        round(hertz * config.window_length / config.sample_rate)
        for hertz in (*_COMB_HZ, _NEARBY_HZ)
    )
    shortest = round(config.sample_rate / _PITCH_HZ[1])
    return Layout((shortest, longest + 1), (low, min(high, config.num_bins)), reach)


def band_voicing(magnitude: Array, filters: np.ndarray, config: StftConfig) -> Array:
    """Voicing of each band.

    Args:
        magnitude: (..., T, F) float32.
        filters: (F, M), the weights of the bins in each band.
        config: the transform that made the magnitudes.

    Returns:
        (..., T, M) float32 in [-1, 1]: 1 for a comb, about 0 for noise, and 0 for silence.

    Raises:
        ValueError: as ``layout``.
    """
    fine = fine_structure(magnitude, config)
    comb = pitch_comb(fine, config)
    products = jnp.stack([fine * comb, jnp.square(fine), jnp.square(comb)])
    weights = jnp.asarray(filters, magnitude.dtype)
    sums = jnp.matmul(products, weights, precision=jax.lax.Precision.HIGHEST)
    strength, energies = sums[0], sums[1] * sums[2]
    return jnp.where(energies > 0, strength / jnp.sqrt(jnp.where(energies > 0, energies, 1)), 0)


def fine_structure(magnitude: Array, config: StftConfig) -> Array:
    """Root magnitudes relative to the mean of those near by: f of the formula.

    Args:
        magnitude: (..., F) float32.
        config: the transform that made it.

    Returns:
        (..., F) float32, at least -1; 0 in silence.

    Raises:
        ValueError: as ``layout``.
    """
    root = jnp.sqrt(magnitude)
    mean = mean_nearby(root, layout(config).reach)
    return jnp.where(mean > 0, root / jnp.where(mean > 0, mean, 1) - 1, 0)


def mean_nearby(values: Array, reach: int) -> Array:
    """The mean over a bin and so many bins on either side; the last bin stands for those beyond.

    Args:
        values: (..., F) float32.
        reach: bins on either side; static.

    Returns:
        (..., F) float32.
    """
    sides = [(0, 0)] * (values.ndim - 1) + [(reach, reach)]
    around = jnp.pad(values, sides, mode="edge")
    window = (1,) * (values.ndim - 1) + (2 * reach + 1,)
    # A sum of shifted values would have each of them computed anew for every shift.
    total = jax.lax.reduce_window(around, 0.0, jax.lax.add, window, (1,) * values.ndim, "valid")
    return total / (2 * reach + 1)


def pitch_comb(fine: Array, config: StftConfig) -> Array:
    """Cosines with teeth at the multiples of the pitch: c of the formula.

    Args:
        fine: (..., F) float32 of ``fine_structure``.
        config: the transform.

    Returns:
        (..., F) float32 in [-1, 1].

    Raises:
        ValueError: as ``layout``.
    """
    (shortest, end), (low, high), _ = layout(config)
    turns = np.outer(np.arange(shortest, end), np.arange(config.num_bins)) / config.window_length
    combs = jnp.asarray(np.cos(2 * np.pi * turns), fine.dtype)
    heard, looked_for = fine[..., low:high], combs[:, low:high].T
    likeness = jnp.matmul(heard, looked_for, precision=jax.lax.Precision.HIGHEST)
    return combs[jnp.argmax(likeness, axis=-1)]
