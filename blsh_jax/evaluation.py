"""Evaluation: systems side by side on the same mixtures, the same transform, the same scorer."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import codes, corpora, masks, metrics, separation, spectra
from blsh_jax.config import StftConfig
from blsh_jax.corpora import Mixture
from blsh_jax.model import Model
from blsh_jax.separation import Dictionary, FrameDictionary

METHODS = ("blsh", "lsh", "knn", "ibm", "irm", "noisy")
NEED_FRAMES = ("lsh", "knn")  # a model that keeps the dictionary's frames
SCORERS = ("blsh_jax", "mir_eval")
BATCH_SIZE = 16
# Everything random in an evaluation that is not data: the projections of LSH.
_LSH_STREAM = 1
_CEILING_DB = 100.0  # no estimate from float32 signals is as good as that
_SCORES = ("sdr", "sir", "sar", "si_sdr")
_Call = Callable[[Array, Array], Array]
Measure = Callable[[np.ndarray, np.ndarray], float]


@dataclasses.dataclass(frozen=True)
class System:
    """A way to estimate speech.

    Attributes:
        method: its name, one of ``METHODS``.
        num_bits: L, or None where there are no codes.
        estimate: speech (U, n) and noise (U, n) to the estimated speech (U, n).
        mask: the same to the mask behind the estimate, (U, T, F) in [0, 1]; None if there is none.
    """

    method: str
    num_bits: int | None
    estimate: _Call
    mask: _Call | None = None


def make_systems(
    model: Model, methods: Sequence[str], num_bits: Sequence[int], seed: int = 0
) -> list[System]:
    """The systems to compare, all with the model's transform, features and dictionary frames.

    Args:
        model: a trained model; ``NEED_FRAMES`` need one with its frames.
        methods: some of ``METHODS``.
        num_bits: code lengths of ``blsh`` and ``lsh``.
        seed: of LSH's random projections.

    Returns:
        One system per method, and per length where there are codes, in the order given.

    Raises:
        ValueError: an unknown method, or more bits than the model has.
        ModelError: ``lsh`` or ``knn`` asked of a model without frames.

    Source: [ICASSP20] section 4.2, table 1.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise ValueError(f"unknown method {', '.join(unknown)}: choose from {', '.join(METHODS)}")
    systems = []
    for method in methods:
        if method in ("blsh", "lsh"):
            longest = _hashed_dictionary(model, method, max(num_bits), seed)
            systems += [
                System(method, length, *_searching(longest.prefix(length), model))
                for length in num_bits
            ]
        else:
            systems.append(System(method, None, *_without_codes(method, model)))
    return systems


def evaluate(
    systems: Sequence[System],
    mixtures: Sequence[Mixture],
    scorer: str = "blsh_jax",
    progress: bool = False,
    measures: Mapping[str, Measure] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Score systems on mixtures.

    Args:
        systems: what to compare.
        mixtures: what to compare on.
        scorer: ``blsh_jax`` for our BSS_Eval, ``mir_eval`` for mir_eval's (slow, one core).
        progress: show a progress bar.
        measures: other scores by name, made of the speech and its estimate, (n,) float32 each.

    Returns:
        One row per system: means of SDR, SIR, SAR, SI-SDR in dB weighted by utterance length, plain
        means under ``*_plain`` (None where infinite: the mixture itself has no artifacts), the
        standard deviation of SDR over utterances, how many utterances, and the seconds of
        computation that the separation took (scoring and compiling left out).

    Source: [ICASSP20] section 4.1: references are speech and noise, means weighted by length.
    """
    if scorer not in SCORERS:
        raise ValueError(f"unknown scorer {scorer!r}: choose from {', '.join(SCORERS)}")
    scores: list[list[np.ndarray]] = [[] for _ in systems]
    seconds = [0.0 for _ in systems]
    lengths, compiled = [], set()
    bar = tqdm(total=len(mixtures), desc="scoring", unit="mix", disable=not progress)
    for batch in corpora.batches(mixtures, max(1, min(BATCH_SIZE, len(mixtures)))):
        count = np.count_nonzero(batch.lengths)
        speech, noise = jnp.asarray(batch.speech), jnp.asarray(batch.noise)
        lengths.append(batch.lengths[:count])
        for i, system in enumerate(systems):
            if (i, speech.shape) not in compiled:
                jax.block_until_ready(system.estimate(speech, noise))
                compiled.add((i, speech.shape))
            start = time.perf_counter()
            estimate = jax.block_until_ready(system.estimate(speech, noise))
            seconds[i] += time.perf_counter() - start
            try:
                bss = _score(scorer, speech, noise, estimate, batch.lengths, count)
            except ValueError as error:
                keys = ", ".join(mixtures[int(index)].key for index in batch.indices[:count])
                raise ValueError(f"{system.method}, of {keys}: {error}") from error
            others = _measure(measures, speech, estimate, batch.lengths[:count])
            scores[i].append(np.concatenate([bss, others], axis=-1))
        bar.update(count)
    bar.close()
    weights = np.concatenate(lengths)
    return [
        _row(system, (*_SCORES, *measures), np.concatenate(parts), weights, taken)
        for system, parts, taken in zip(systems, scores, seconds, strict=True)
    ]


def _hashed_dictionary(model: Model, method: str, num_bits: int, seed: int) -> Dictionary:
    if method == "blsh":
        return model.dictionary.prefix(num_bits)
    spectral = model.spectral_dictionary()
    key = jax.random.fold_in(jax.random.key(seed), _LSH_STREAM)
    hasher = codes.random_hasher(key, num_bits, spectral.frames)
    return Dictionary(
        hasher, codes.encode(hasher, spectral.frames), spectral.masks, spectral.num_bins
    )


def _searching(dictionary: FrameDictionary, model: Model) -> tuple[_Call, _Call]:
    config = model.config

    def call(apply: Callable[..., Array]) -> _Call:
        return lambda speech, noise: apply(
            speech + noise,
            dictionary,
            config.stft,
            config.features,
            config.num_neighbors,
            config.evidence,
        )

    return call(separation.separate), call(separation.separation_masks)


def _without_codes(method: str, model: Model) -> tuple[_Call, _Call | None]:
    if method == "knn":
        return _searching(model.spectral_dictionary(), model)
    if method == "noisy":
        return lambda speech, noise: speech + noise, None
    settings = {"method": method, "stft": model.config.stft}
    return functools.partial(_oracle, **settings), functools.partial(_oracle_mask, **settings)


@functools.partial(jax.jit, static_argnames=("method", "stft"))
def _oracle(speech: Array, noise: Array, method: str, stft: StftConfig) -> Array:
    """The mixture under its own ideal mask, the upper bound of table 1."""
    mask = _oracle_mask(speech, noise, method, stft)
    masked = masks.apply_mask(mask, spectra.stft(speech + noise, stft))
    return spectra.istft(masked, speech.shape[-1], stft)


@functools.partial(jax.jit, static_argnames=("method", "stft"))
def _oracle_mask(speech: Array, noise: Array, method: str, stft: StftConfig) -> Array:
    """(U, T, F) float32."""
    ideal = masks.ideal_binary_mask if method == "ibm" else masks.ideal_ratio_mask
    return ideal(spectra.stft(speech, stft), spectra.stft(noise, stft)).astype(jnp.float32)


def _score(scorer, speech, noise, estimate, lengths, count) -> np.ndarray:
    """(count, 4): SDR, SIR, SAR, SI-SDR of the speech."""
    reference = jnp.stack([speech, noise], axis=1)[:count]
    # Scores of the speech depend on its own estimate alone. The published second estimate, what is
    # left of the mixture, has no score where nothing is left, as for the mixture itself.
    estimates = jnp.stack([estimate, noise], axis=1)[:count]
    lengths = jnp.asarray(lengths)[:count]
    if scorer == "mir_eval":
        bss = _mir_eval(np.asarray(reference), np.asarray(estimates), np.asarray(lengths))
    else:
        bss = np.stack(metrics.bss_eval(reference, estimates, lengths), axis=-1)[:, 0]
    si_sdr = metrics.si_sdr(reference[:, 0], estimates[:, 0], lengths)
    return np.concatenate([np.asarray(bss), np.asarray(si_sdr)[:, None]], axis=-1)


def _mir_eval(references, estimates, lengths) -> np.ndarray:
    import warnings

    try:
        from mir_eval.separation import bss_eval_sources
    except ImportError:
        raise ValueError("scorer mir_eval is not installed: pip install 'mir_eval<0.9'") from None
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for reference, estimate, length in zip(references, estimates, lengths, strict=True):
            sdr, sir, sar, _ = bss_eval_sources(
                reference[:, :length], estimate[:, :length], compute_permutation=False
            )
            scores.append([sdr[0], sir[0], sar[0]])
    return np.array(scores)


def _measure(
    measures: Mapping[str, Measure], speech: Array, estimate: Array, lengths: np.ndarray
) -> np.ndarray:
    """(count, number of measures)."""
    pairs = zip(np.asarray(speech), np.asarray(estimate), lengths, strict=False)
    scores = [[measure(s[:n], e[:n]) for measure in measures.values()] for s, e, n in pairs]
    return np.array(scores).reshape(len(lengths), len(measures))


def _row(
    system: System, names: Sequence[str], scores: np.ndarray, lengths: np.ndarray, seconds: float
) -> dict[str, Any]:
    weighted, plain = metrics.length_weighted_mean(scores, lengths), scores.mean(0)
    return {
        "method": system.method,
        "num_bits": system.num_bits,
        **{name: _finite(value) for name, value in zip(names, weighted, strict=True)},
        "sdr_std": float(scores[:, 0].std()),
        "utterances": len(scores),
        "seconds": round(seconds, 3),
        **{f"{name}_plain": _finite(value) for name, value in zip(names, plain, strict=True)},
    }


def _finite(value: float) -> float | None:
    """None for the SAR of an estimate without artifacts, infinite but for rounding."""
    return float(value) if value < _CEILING_DB else None
