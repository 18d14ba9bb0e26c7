"""Boosted Locality Sensitive Hashing in JAX: speech denoising by a projection, a sign, a popcount.

    import blsh_jax as blsh
    clean = blsh.denoise(noisy, sample_rate)

Papers, cited throughout by these keys:

[ICASSP20] S. Kim, H. Yang, M. Kim, "Boosted Locality Sensitive Hashing: Discriminative Binary Codes
for Source Separation", ICASSP 2020, arXiv 2002.06239.

[TASLP22] S. Kim, M. Kim, "Boosted Locality Sensitive Hashing: Discriminative, Efficient, and
Scalable Binary Codes for Source Separation", IEEE/ACM Transactions on Audio, Speech, and Language
Processing 30, 2022.
"""

import importlib
from typing import TYPE_CHECKING, Any

from blsh_jax import _startup  # noqa: F401
from blsh_jax._version import __version__
from blsh_jax.config import (
    AdaptationConfig,
    FeatureConfig,
    FitConfig,
    SeparationConfig,
    StftConfig,
    TrainConfig,
)
from blsh_jax.denoising.pipeline import separate
from blsh_jax.denoising.recordings import Denoiser, denoise
from blsh_jax.denoising.stream import Stream
from blsh_jax.models.archive import ModelError
from blsh_jax.models.model import Model, load, load_pretrained, save
from blsh_jax.paper.codes import Hasher, encode, random_hasher, straight_through_sign
from blsh_jax.paper.learner import pair_terms, weighted_ssm_loss
from blsh_jax.paper.separation import (
    Dictionary,
    SpectralDictionary,
    build_dictionary,
    estimate_mask,
)
from blsh_jax.search import (
    Neighbors,
    cosine_top_k,
    hamming_top_k,
    sharded_hamming_top_k,
    weighted_hamming_top_k,
)

if TYPE_CHECKING:
    from blsh_jax.evaluation.metrics import BssEval, bss_eval, si_sdr
    from blsh_jax.training.adaptation import adapt
    from blsh_jax.training.driver import FitInfo, fit

__all__ = [
    "AdaptationConfig",
    "BssEval",
    "Denoiser",
    "Dictionary",
    "FeatureConfig",
    "FitConfig",
    "FitInfo",
    "Hasher",
    "Model",
    "ModelError",
    "Neighbors",
    "SeparationConfig",
    "SpectralDictionary",
    "StftConfig",
    "Stream",
    "TrainConfig",
    "__version__",
    "adapt",
    "bss_eval",
    "build_dictionary",
    "cosine_top_k",
    "denoise",
    "encode",
    "estimate_mask",
    "fit",
    "hamming_top_k",
    "load",
    "load_pretrained",
    "pair_terms",
    "random_hasher",
    "save",
    "separate",
    "sharded_hamming_top_k",
    "si_sdr",
    "straight_through_sign",
    "weighted_hamming_top_k",
    "weighted_ssm_loss",
]

# What denoising does without is imported when somebody asks for it.
_LATER = dict.fromkeys(("BssEval", "bss_eval", "si_sdr"), "evaluation.metrics")
_LATER |= {"adapt": "training.adaptation"} | dict.fromkeys(("FitInfo", "fit"), "training.driver")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    if name in ("evaluation", "training"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
