"""Tools that people pick today, and measures of how speech sounds: each a package of its own.

They are no part of blsh_jax and are imported when they are asked for; to install them all:
pip install -e '.[tools]'

logmmse      Y. Ephraim, D. Malah, "Speech enhancement using a minimum mean-square error
             log-spectral amplitude estimator", IEEE Trans. ASSP 33 (2), 1985.
noisereduce  T. Sainburg et al., spectral gating, non-stationary by default.
rnnoise      J.-M. Valin, "A hybrid DSP/deep learning approach to real-time full-band speech
             enhancement", MMSP 2018: a recurrent network trained on other data, at 48 kHz.
rnnoise_pre_roll  the same, with the start of the mixture before it as in the recipe (its authors do
             without): what it does where it, too, knows the noise from the first sample on.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax._extras import extra
from blsh_jax.config import RECIPES
from blsh_jax.evaluation import Estimate, Measure, System
from blsh_jax.robust.pre_roll import with_pre_roll

SAMPLE_RATE = 16_000
# RNNoise as packaged puts out what it heard so much earlier, at 16 kHz.
_RNNOISE_DELAY = 320
_FULL_SCALE = 32_767


def system(name: str) -> System:
    """A tool as a system to evaluate.

    Args:
        name: one of ``TOOLS``.

    Raises:
        ValueError: its package is not installed.
    """
    package, denoise = TOOLS[name]
    module = _import(package)

    def separate(speech: Array, noise: Array) -> Estimate:
        mixtures = np.asarray(speech + noise)
        estimates = [denoise(module, x) if x.any() else x for x in mixtures]
        return Estimate(jnp.stack([_of_length(x, mixtures.shape[-1]) for x in estimates]))

    return System(name, None, separate)


def measures() -> dict[str, Measure]:
    """STOI, ESTOI (0 to 1) and wide-band PESQ (1 to 4.6) of speech and an estimate at 16 kHz.

    Raises:
        ValueError: their packages are not installed.

    Source: C. Taal et al., IEEE Trans. ASLP 19 (7), 2011; J. Jensen, C. Taal, IEEE/ACM Trans. ASLP
    24 (11), 2016; ITU-T P.862.2.
    """
    stoi, pesq = _import("pystoi"), _import("pesq")
    return {
        "stoi": lambda speech, estimate: float(stoi.stoi(speech, estimate, SAMPLE_RATE)),
        "estoi": lambda speech, estimate: float(stoi.stoi(speech, estimate, SAMPLE_RATE, True)),
        "pesq": lambda speech, estimate: float(pesq.pesq(SAMPLE_RATE, speech, estimate, "wb")),
    }


def _import(package: str) -> Any:
    # logmmse makes NumPy raise on underflow everywhere; the context undoes that.
    with extra("tools"), np.errstate():
        return importlib.import_module(package)


def _of_length(signal: np.ndarray, length: int) -> np.ndarray:
    return np.pad(signal, (0, max(0, length - len(signal))))[:length].astype(np.float32)


def _rnnoise(module: Any, mixture: np.ndarray) -> np.ndarray:
    whole = np.pad(mixture, (0, 2 * _RNNOISE_DELAY))
    steps = np.clip(whole * _FULL_SCALE, -_FULL_SCALE - 1, _FULL_SCALE).astype(np.int16)
    network = module.RNNoise(sample_rate=SAMPLE_RATE)
    frames = [frame for _, frame in network.denoise_chunk(steps[None], partial=True)]
    return np.concatenate(frames, axis=-1)[0, _RNNOISE_DELAY:] / np.float32(_FULL_SCALE)


def _rnnoise_pre_roll(module: Any, mixture: np.ndarray) -> np.ndarray:
    recipe = RECIPES["general"].separation
    pre_rolled = with_pre_roll(mixture, recipe.features.pre_roll_frames, recipe.stft)
    return _rnnoise(module, np.asarray(pre_rolled))[len(pre_rolled) - len(mixture) :]


_Denoise = Callable[[Any, np.ndarray], np.ndarray]
TOOLS: dict[str, tuple[str, _Denoise]] = {
    "logmmse": ("logmmse", lambda module, x: module.logmmse(x, SAMPLE_RATE)),
    "noisereduce": ("noisereduce", lambda module, x: module.reduce_noise(x, SAMPLE_RATE)),
    "rnnoise": ("pyrnnoise", _rnnoise),
    "rnnoise_pre_roll": ("pyrnnoise", _rnnoise_pre_roll),
}
