"""Evaluation: systems side by side on the same mixtures, the same transform, the same scorer.

Letters: U utterances of n samples, T frames, F bins, L bits.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import corpora
from blsh_jax._extras import extra
from blsh_jax.config import SeparationConfig, StftConfig
from blsh_jax.corpora import Mixture
from blsh_jax.denoising import pipeline
from blsh_jax.evaluation import metrics
from blsh_jax.models.model import Model
from blsh_jax.paper import codes, masks, spectra
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.separation import Dictionary, MaskFunction, SpectralDictionary
from blsh_jax.robust.ferns import Ferns
from blsh_jax.robust.mask_stage import mask_function

METHODS = ("blsh", "lsh", "knn", "ibm", "irm", "noisy")
NEED_FRAMES = ("lsh", "knn")  # a model that keeps the dictionary's frames
NAMES = {
    "noisy": "unprocessed mixture",
    "lsh": "LSH, random projections",
    "blsh": "BLSH",
    "lsh_origin": "LSH, hyperplanes through the origin",
    "blsh_live": "BLSH, live, without looking ahead",
    "blsh_presence": "BLSH, speech presence, no ferns",
    "ferns": "ferns alone, no search",
    "blsh_cosine": "BLSH, cosine target",
    "blsh_cross_entropy": "BLSH, fitted by cross-entropy",
    "knn": "KNN on raw spectra",
    "knn_mel": "KNN on mel spectra",
    "fc": "fully connected network",
    "blstm": "bidirectional LSTM",
    "logmmse": "logMMSE",
    "noisereduce": "noisereduce",
    "rnnoise": "RNNoise",
    "rnnoise_pre_roll": "RNNoise, with the pre-roll",
    "dtln": "DTLN",
    "gtcrn": "GTCRN",
    "ibm": "ideal binary mask",
    "irm": "ideal ratio mask",
}
"""What people call a method."""
SCORERS = ("blsh_jax", "mir_eval")
BATCH_SIZE = 16
# Everything random in an evaluation that is not data: the projections of LSH.
_LSH_STREAM = 1
_CEILING_DB = 100.0  # no estimate from float32 signals is as good as that
_SCORES = ("sdr", "sir", "sar", "si_sdr")
Measure = Callable[[np.ndarray, np.ndarray], float]


class Estimate(NamedTuple):
    """What a system makes of mixtures.

    Attributes:
        speech: (U, n) float32.
        mask: (U, T, F) float32 in [0, 1], the mask behind it; None if there is none.
    """

    speech: Array
    mask: Array | None = None


@dataclasses.dataclass(frozen=True)
class System:
    """A way to estimate speech.

    Attributes:
        method: its name, such as those of ``NAMES``.
        num_bits: L, or None where there are no codes.
        separate: speech (U, n) and noise (U, n) to the estimate; all but the oracles hear their
            sum alone.
    """

    method: str
    num_bits: int | None
    separate: Callable[[Array, Array], Estimate]


UNPROCESSED = System("noisy", None, lambda speech, noise: Estimate(speech + noise))
"""The mixture as it is."""


class OracleMask(NamedTuple):
    """The mask function of an oracle, which knows the masks.

    Attributes:
        ideal: (U, T, F) float32 in [0, 1].

    Source: [ICASSP20] table 1, the upper bound.
    """

    ideal: Array

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""
        return 0

    def init(self, shape: tuple[int, ...]) -> Array:
        """The number of frames so far."""
        del shape
        return jnp.int32(0)

    def __call__(self, state: Array, newest: Array, current: Array) -> tuple[Array, Array]:
        """As ``MaskFunction``."""
        del newest
        count = current.shape[-2]
        return state + count, jax.lax.dynamic_slice_in_dim(self.ideal, state, count, axis=-2)


def masking(
    method: str, num_bits: int | None, function: MaskFunction, separation: SeparationConfig
) -> System:
    """The system that applies the masks of a function.

    Args:
        method: its name.
        num_bits: L, or None.
        function: what makes the masks.
        separation: the transform and the pre-roll.
    """
    return System(
        method, num_bits, lambda speech, noise: _estimate(speech + noise, function, separation)
    )


def searching(
    method: str,
    num_bits: int | None,
    dictionary: Dictionary | SpectralDictionary,
    separation: SeparationConfig,
    ferns: Sequence[Ferns] = (),
) -> System:
    """The system that searches a dictionary.

    Args:
        method: its name.
        num_bits: L, the first bits of the dictionary's codes, or None where it has no codes.
        dictionary: what is searched.
        separation: how.
        ferns: those of each stage, if masks are learned.

    Raises:
        ValueError: the dictionary has fewer bits.
    """
    if isinstance(dictionary, Dictionary) and num_bits is not None:
        dictionary = dictionary.prefix(num_bits)
    return masking(method, num_bits, mask_function(dictionary, separation, ferns), separation)


def random_hasher(
    seed: int, num_bits: int, frames: Array, draw: int = 0, centered: bool = True
) -> Hasher:
    """Hash functions of LSH.

    Args:
        seed: of the experiment.
        num_bits: L.
        frames: (N, D) float32, whose mean the hyperplanes pass through.
        draw: a number; each gives other functions.
        centered: through the mean, not through the origin.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _LSH_STREAM), draw)
    return codes.random_hasher(key, num_bits, frames, centered)


def random_dictionary(model: Model, num_bits: int, seed: int, centered: bool = True) -> Dictionary:
    """The frames of a model's dictionary under hash functions of LSH; see ``random_hasher``.

    Raises:
        ModelError: the model was saved without its frames.
    """
    spectral = model.spectral_dictionary()
    hasher = random_hasher(seed, num_bits, spectral.frames, centered=centered)
    encoded = codes.encode(hasher, spectral.frames)
    return Dictionary(hasher, encoded, spectral.masks, spectral.num_bins)


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
    separation = model.separation
    systems = []
    for method in methods:
        if method in ("ibm", "irm"):
            oracle = functools.partial(_oracle, method=method, stft=separation.stft)
            systems.append(System(method, None, oracle))
        elif method == "noisy":
            systems.append(UNPROCESSED)
        elif method == "knn":
            spectral = model.spectral_dictionary()
            systems.append(searching(method, None, spectral, separation, model.ferns))
        else:
            lsh = method == "lsh"
            hashed = random_dictionary(model, max(num_bits), seed) if lsh else model.dictionary
            systems += [searching(method, n, hashed, separation, model.ferns) for n in num_bits]
    return systems


def evaluate(
    systems: Sequence[System],
    mixtures: Sequence[Mixture],
    scorer: str = "blsh_jax",
    progress: bool = False,
    measures: Mapping[str, Measure] = MappingProxyType({}),
    timed: bool = True,
) -> list[dict[str, Any]]:
    """Score systems on mixtures.

    Args:
        systems: what to compare.
        mixtures: what to compare on.
        scorer: ``blsh_jax`` for our BSS_Eval, ``mir_eval`` for mir_eval's (slow, one core).
        progress: show a progress bar.
        measures: other scores by name, made of the speech and its estimate, (n,) float32 each.
        timed: run each system once more for each shape, so that its seconds leave out compiling.

    Returns:
        One row per system: means of SDR, SIR, SAR, SI-SDR in dB weighted by utterance length, plain
        means under ``*_plain`` (None where infinite: the mixture itself has no artifacts), the
        standard deviation of SDR over utterances, how many utterances, and the seconds of
        computation that the separation took (scoring left out).

    Source: [ICASSP20] section 4.1: references are speech and noise, means weighted by length.
    """
    if scorer not in SCORERS:
        raise ValueError(f"unknown scorer {scorer!r}: choose from {', '.join(SCORERS)}")
    scores: list[list[np.ndarray]] = [[] for _ in systems]
    seconds = np.zeros(len(systems))
    lengths, compiled = [], set()
    bar = tqdm(total=len(mixtures), desc="scoring", unit="mix", disable=not progress)
    for batch in corpora.batches(mixtures, max(1, min(BATCH_SIZE, len(mixtures)))):
        speech, noise = jnp.asarray(batch.speech), jnp.asarray(batch.noise)
        lengths.append(batch.lengths[: np.count_nonzero(batch.lengths)])
        for i, system in enumerate(systems):
            if timed and (i, speech.shape) not in compiled:
                jax.block_until_ready(system.separate(speech, noise))
                compiled.add((i, speech.shape))
            start = time.perf_counter()
            estimate = jax.block_until_ready(system.separate(speech, noise)).speech
            seconds[i] += time.perf_counter() - start
            try:
                found = _score(scorer, measures, speech, noise, estimate, lengths[-1])
            except ValueError as error:
                used = batch.indices[: len(lengths[-1])]
                keys = ", ".join(mixtures[int(index)].key for index in used)
                raise ValueError(f"{system.method}, of {keys}: {error}") from error
            scores[i].append(found)
        bar.update(len(lengths[-1]))
    bar.close()
    weights = np.concatenate(lengths)
    return [
        _row(system, (*_SCORES, *measures), np.concatenate(parts), weights, taken)
        for system, parts, taken in zip(systems, scores, seconds, strict=True)
    ]


def _estimate(mixture: Array, function: MaskFunction, separation: SeparationConfig) -> Estimate:
    frames = separation.features.pre_roll_frames
    output = pipeline.separate(mixture, function, separation.stft, frames)
    return Estimate(output.speech, output.mask)


def _oracle(speech: Array, noise: Array, method: str, stft: StftConfig) -> Estimate:
    made = _ideal_mask(speech, noise, method, stft)
    return _estimate(speech + noise, OracleMask(made), SeparationConfig(stft))


@functools.partial(jax.jit, static_argnames=("method", "stft"))
def _ideal_mask(speech: Array, noise: Array, method: str, stft: StftConfig) -> Array:
    ideal = masks.ideal_binary_mask if method == "ibm" else masks.ideal_ratio_mask
    return ideal(spectra.stft(speech, stft), spectra.stft(noise, stft)).astype(jnp.float32)


def _score(scorer, measures, speech, noise, estimate, lengths) -> np.ndarray:
    """(count, scores): SDR, SIR, SAR, SI-SDR and the measures of the speech of the first rows."""
    count = len(lengths)
    # Scores of the speech depend on its own estimate alone. The published second estimate, what is
    # left of the mixture, has no score where nothing is left, as for the mixture itself.
    reference, estimates = (np.stack([x[:count], noise[:count]], 1) for x in (speech, estimate))
    if scorer == "mir_eval":
        bss = _mir_eval(reference, estimates, lengths)
    else:
        bss = np.stack(metrics.bss_eval(reference, estimates, lengths), axis=-1)[:, 0]
    si_sdr = metrics.si_sdr(reference[:, 0], estimates[:, 0], lengths)
    pairs = zip(reference[:, 0], estimates[:, 0], lengths, strict=True)
    others = [[measure(s[:n], e[:n]) for measure in measures.values()] for s, e, n in pairs]
    return np.concatenate([bss, si_sdr[:, None], others], axis=-1)


def _mir_eval(references, estimates, lengths) -> np.ndarray:
    with extra("bench"):
        from mir_eval.separation import bss_eval_sources
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for reference, estimate, length in zip(references, estimates, lengths, strict=True):
            sources = reference[:, :length], estimate[:, :length]
            scores.append(np.stack(bss_eval_sources(*sources, compute_permutation=False))[:3, 0])
    return np.array(scores)


def _row(
    system: System, names: Sequence[str], scores: np.ndarray, lengths: np.ndarray, seconds: float
) -> dict[str, Any]:
    weighted, plain = np.average(scores, axis=0, weights=lengths), scores.mean(0)
    return {
        "method": system.method,
        "num_bits": system.num_bits,
        **{name: _finite(value) for name, value in zip(names, weighted, strict=True)},
        "sdr_std": float(scores[:, 0].std()),
        "utterances": len(scores),
        "seconds": round(float(seconds), 3),
        **{f"{name}_plain": _finite(value) for name, value in zip(names, plain, strict=True)},
    }


def _finite(value: float) -> float | None:
    """None for the SAR of an estimate without artifacts, infinite but for rounding."""
    return float(value) if value < _CEILING_DB else None
