r"""What was tried in place of parts of the recipe: other bits, dictionaries, searches, and so on.

    python -m experiments.alternatives --recipe=general --speech DIR --noise DIR \
        --output alternatives.json

For validation, on training material alone, with noises left out in groups as in
``experiments.unseen``. All rows of a group have the same training mixtures. Takes two hours
on two CPU cores.

Letters: U utterances, T frames, F bins, N dictionary frames, Q queries, K neighbours, L bits,
C bands.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import (
    codes,
    corpora,
    evaluation,
    masks,
    refinement,
    residual,
    search,
    separation,
    spectra,
    training,
)
from blsh_jax.codes import Hasher
from blsh_jax.config import MASK_ALONE, EvidenceConfig, TrainConfig
from blsh_jax.separation import Dictionary
from blsh_jax.training import FrameSample
from experiments import reweighting, validation
from experiments.workbench import SpectrumMask, masking, random_hasher

_COLUMNS = ["part", "alternative", "num_bits", "sdr", "si_sdr"]
_MANY_NEIGHBORS = 80
_SMOOTHING = 0.3  # of the frame before in a mask
_NUM_GROUPS_OF_BANDS = 4
_RATIO_STEPS = 15  # ratio masks of four bits
_ROTATIONS = 50
# Sharpness s of the search as refinement learns it, exp(a + b log(l / 8)): close to these a and b.
_SHARPNESS = (0.25, -0.77)


@dataclasses.dataclass(frozen=True, eq=False)
class _Material:
    """What the alternatives of one group of noises are made of."""

    config: TrainConfig
    mixtures: Any
    sample: FrameSample
    hasher: Hasher

    def dictionary(self, hasher: Hasher) -> Dictionary:
        """The sample under other hash functions."""
        encoded = codes.encode(hasher, jnp.asarray(self.sample.frames))
        packed = jnp.asarray(self.sample.masks)
        return Dictionary(hasher, encoded, packed, self.config.stft.num_bins)

    @property
    def fitted(self) -> FrameSample:
        """What hash functions are learned on."""
        return self.frames_of(slice(self.config.max_fit_frames))

    def frames_of(self, chosen: slice | np.ndarray) -> FrameSample:
        """The frames of the sample at these places."""
        names = ("frames", "masks", "shares", "mixtures")
        return self.sample._replace(**{name: getattr(self.sample, name)[chosen] for name in names})

    @functools.cached_property
    def surprise(self) -> np.ndarray:
        """(N,) magnitude, of 1, on the wrong side of the mask that a frame's neighbours give.

        They are of other mixtures than the frame, and all bits count.
        """
        dictionary, mixtures = self.dictionary(self.hasher), jnp.asarray(self.sample.mixtures)
        shares = jnp.asarray(self.sample.shares, jnp.float32)
        # As many again, for those of the frame's own mixture, which do not count.
        k, length = min(2 * self.config.num_neighbors, len(mixtures)), self.hasher.num_bits
        found = search.hamming_top_k(dictionary.codes, dictionary.codes, k, num_bits=length)
        others = (mixtures[found.indices] != mixtures[:, None]).astype(jnp.float32)
        among_first = jnp.cumsum(others, axis=1) <= self.config.num_neighbors
        counted = jnp.where(among_first, others, 0)
        weights = counted / jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1)
        mask = _weighted_mean(masks.speech_parts(shares), found.indices, weights)
        return np.asarray(jnp.sum(shares[:, 0] * (1 - mask) + shares[:, 1] * mask, axis=1))

    @functools.cached_property
    def boosted(self) -> Hasher:
        """Bits boosted on the likeness of frames."""
        return self.boost()

    def boost(
        self,
        vectors: np.ndarray | None = None,
        *,
        rule: reweighting.Rule = reweighting.paper,
        part: reweighting.Part = reweighting.whole,
        **changes: Any,
    ) -> Hasher:
        """Bits boosted on the likeness of vectors, or of frames; ``changes`` of ``FitConfig``."""
        fit, key = dataclasses.replace(self.config.fit, **changes), jax.random.key(self.config.seed)
        return reweighting.boost(self.fitted.frames, fit, key, vectors, rule=rule, part=part)


_Maker = Callable[[_Material, Sequence[int]], dict[int, SpectrumMask]]


def alternatives(
    group: validation.Group, config: TrainConfig, num_bits: Sequence[int]
) -> validation.Rows:
    """A row per alternative and length, of one group of noises left out.

    Args:
        group: of ``validation.left_out_in_turn``.
        config: the recipe; its codes are as long as the longest length, or longer.
        num_bits: code lengths.
    """
    mixtures = corpora.training_mixtures(group.speech, group.noise, config)
    sample = training.sample_frames(mixtures, config, progress=True)
    model, _ = training.learn(sample, config, {}, progress=True)
    material = _Material(config, mixtures, sample, model.hasher)
    systems = {
        (part, name, length): masking(name, length, mask, config, config.evidence)
        for part, makers in _ALTERNATIVES.items()
        for name, make in makers.items()
        for length, mask in make(material, num_bits).items()
    }
    for length, mask in _recipe(material, num_bits).items():
        systems |= {
            ("evidence", name, length): masking(name, length, mask, config, evidence)
            for name, evidence in _EVIDENCE.items()
        }
        systems |= {
            ("attenuation", name, length): masking(
                name, length, mask, config, config.evidence, least
            )
            for name, least in _LEAST_GAINS.items()
        }
    return validation.scored(systems, ("part", "alternative", "num_bits"), group.tests)


# Jitted, as most alternatives share it: what is compiled once serves all.


@functools.partial(jax.jit, static_argnames=("config", "search_masks"))
def _masks(
    dictionary: Dictionary,
    spectrum: Array,
    config: TrainConfig,
    search_masks: Callable[[Dictionary, Array], Array] | None,
) -> Array:
    queries = _queries(dictionary, spectrum, config)
    if search_masks is None:
        found = separation.estimate_mask(dictionary, queries, config.num_neighbors)
    else:
        found = search_masks(dictionary, queries)
    return found.reshape(spectrum.shape)


def _by_length(
    material: _Material,
    hasher: Hasher,
    num_bits: Sequence[int],
    search_masks: Callable[[Dictionary, Array], Array] | None = None,
) -> dict[int, SpectrumMask]:
    """Masks by the first bits of a hasher; ``search_masks`` of a dictionary and its queries."""
    longest, config = material.dictionary(hasher), material.config

    def with_length(length: int) -> SpectrumMask:
        dictionary = longest.prefix(length)
        return lambda spectrum: _masks(dictionary, spectrum, config, search_masks)

    return {length: with_length(length) for length in num_bits}


def _queries(dictionary: Dictionary, spectrum: Array, config: TrainConfig) -> Array:
    frames = spectra.features(spectrum, config.features, config.stft)
    return dictionary.encode(frames.reshape(-1, frames.shape[-1]))


# Bits.


def _recipe(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    return _by_length(material, material.hasher, num_bits)


def _random(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    frames = jnp.asarray(material.fitted.frames)
    hasher = random_hasher(material.config.seed, material.config.fit.num_bits, frames)
    return _by_length(material, hasher, num_bits)


def _quantized_rotation(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """Every length has a rotation of its own, which mixes all its bits."""
    frames = np.asarray(material.fitted.frames, np.float64)
    found: dict[int, SpectrumMask] = {}
    for length in num_bits:
        hasher = _rotated(frames, length, material.config.seed)
        found |= _by_length(material, hasher, [length])
    return found


def _rotated(frames: np.ndarray, num_bits: int, seed: int) -> Hasher:
    """Principal components, rotated until their values are near their signs.

    Source: Y. Gong, S. Lazebnik, "Iterative Quantization: A Procrustean Approach to Learning Binary
    Codes", CVPR 2011.
    """
    mean = frames.mean(axis=0)
    axes = np.linalg.eigh(np.cov(frames.T))[1][:, ::-1][:, :num_bits]
    reduced = (frames - mean) @ axes
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((num_bits, num_bits)))
    for _ in range(_ROTATIONS):
        signs = np.where(reduced @ rotation >= 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(signs.T @ reduced)
        rotation = (left @ right).T
    projections = (axes @ rotation).T
    parts = projections, -projections @ mean, np.ones(num_bits)
    return Hasher(*(jnp.asarray(part, jnp.float32) for part in parts))


def _residuals(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    hasher, _ = residual.fit(jnp.asarray(material.fitted.frames), material.config.fit.num_bits)
    return _by_length(material, hasher, num_bits)


def _residuals_of(target: Callable[[_Material], np.ndarray]) -> _Maker:
    """Bits from residuals on the likeness of a target."""

    def make(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
        frames = jnp.asarray(material.fitted.frames)
        hasher, _ = residual.fit(frames, material.config.fit.num_bits, target(material))
        return _by_length(material, hasher, num_bits)

    return make


def _boosted(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    return _by_length(material, material.boosted, num_bits)


def _boosted_on(vectors: Callable[[_Material], np.ndarray] | None = None, **how: Any) -> _Maker:
    """Bits boosted on the likeness of these vectors, or of frames; ``how`` of ``boost``."""

    def make(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
        hasher = material.boost(None if vectors is None else vectors(material), **how)
        return _by_length(material, hasher, num_bits)

    return make


def _boosted_on_foretold(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """Bits boosted on the likeness of masks of the half of the frames that are foretold best.

    So pairs of frames whose masks do not follow from their spectra have no weight.
    """
    foretold = np.sort(np.argsort(material.surprise)[: len(material.surprise) // 2])
    learned = dataclasses.replace(material, sample=material.frames_of(foretold))
    return _by_length(material, learned.boost(_masks_target(learned)), num_bits)


def _balanced(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    return _by_length(material, _halving(material), num_bits)


def _halving(material: _Material) -> Hasher:
    """The recipe's projections with thresholds at medians: each bit is set in half of the frames.

    Source: Y. Weiss, A. Torralba, R. Fergus, "Spectral Hashing", NIPS 2008, section 1: a good code
    has balanced bits.
    """
    hasher = material.hasher
    values = codes.project(jnp.asarray(material.fitted.frames), hasher.projections, hasher.biases)
    return hasher._replace(biases=hasher.biases - jnp.median(values, axis=0))


def _boosted_and_weighted(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """Bits of a larger beta count more in the search: similarity sum of beta_l [a_l = b_l]."""
    k = material.config.num_neighbors

    def search_masks(dictionary: Dictionary, queries: Array) -> Array:
        found = search.weighted_hamming_top_k(queries, dictionary.codes, dictionary.hasher.betas, k)
        return masks.average_masks(dictionary.masks, found.indices, dictionary.num_bins)

    return _by_length(material, material.boosted, num_bits, search_masks)


# Targets that supervise bits; what counts is the cosine of two frames' vectors.


def _masks_target(material: _Material) -> np.ndarray:
    """(N, C) the part of each mel band that is speech, less its mean over all frames."""
    return _centered(_speech_parts(material))


def _binary_masks_target(material: _Material) -> np.ndarray:
    """(N, C) 1 where most of a mel band is speech, else 0, less its mean over all frames."""
    return _centered((_speech_parts(material) > 0.5).astype(np.float32))


def _speech_parts(material: _Material) -> np.ndarray:
    return np.asarray(masks.speech_parts(jnp.asarray(material.fitted.shares, jnp.float32)))


def _speech_and_noise_target(material: _Material) -> np.ndarray:
    """(N, 2 C) the spectra of a frame's speech and of its noise side by side, in mel bands.

    Roots of magnitudes, less their mean over all frames.
    """
    shares = np.asarray(material.fitted.shares, np.float32)
    return _centered(np.sqrt(shares).reshape(len(shares), -1))


def _blended_target(material: _Material) -> np.ndarray:
    """(N, D + C) a frame and its mask side by side, at the same norm: their cosines' mean."""
    parts = _centered(material.fitted.frames), _masks_target(material)
    return np.concatenate([np.asarray(spectra.unit_norm(jnp.asarray(p))) for p in parts], axis=1)


def _centered(values: Array | np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values - values.mean(axis=0)


# Dictionaries of half the frames, which the hash functions have learned with the others.


def _half_at_random(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    frames = len(material.sample.frames)
    order = np.random.default_rng(material.config.seed).permutation(frames)
    return _of_frames(material, order[: frames // 2], num_bits)


def _half_best_foretold(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """Frames whose neighbours are right about them.

    Source: D. L. Wilson, "Asymptotic Properties of Nearest Neighbor Rules Using Edited Data", IEEE
    Trans. SMC 2 (3), 1972.
    """
    order = np.argsort(material.surprise)
    return _of_frames(material, order[: len(order) // 2], num_bits)


def _half_worst_foretold(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """Frames that the others cannot stand in for.

    Source: P. E. Hart, "The Condensed Nearest Neighbor Rule", IEEE Trans. IT 14 (3), 1968.
    """
    order = np.argsort(material.surprise)
    return _of_frames(material, order[len(order) // 2 :], num_bits)


def _of_frames(
    material: _Material, chosen: np.ndarray, num_bits: Sequence[int]
) -> dict[int, SpectrumMask]:
    return _recipe(dataclasses.replace(material, sample=material.frames_of(chosen)), num_bits)


# Searches.


def _groups_of_bands(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """Each group of mel bands has hash functions of its own, a search, and its neighbours' masks.

    So speech and noise of a frame combine anew. A group has its part of the bits.
    """
    config, fitted, groups = material.config, material.fitted, _NUM_GROUPS_OF_BANDS
    num_bands = fitted.shares.shape[-1]
    group_of_band = np.arange(num_bands) * groups // num_bands
    filters = np.asarray(spectra.mel_filters(num_bands, config.stft))
    centres = (np.arange(len(filters)) @ filters) / filters.sum(axis=0)
    of_bin = group_of_band[np.abs(np.arange(len(filters))[:, None] - centres).argmin(axis=1)]
    found = []
    for group in range(groups):
        shares = np.where(group_of_band == group, fitted.shares, 0)
        hasher = refinement.refine(
            material.hasher.prefix(config.fit.num_bits // groups),
            fitted.frames,
            shares,
            fitted.mixtures,
            config.refine,
            jax.random.key(config.seed),
            progress=True,
        )[0]
        found.append(_by_length(material, hasher, [length // groups for length in num_bits]))

    def with_length(length: int) -> SpectrumMask:
        def mask(spectrum: Array) -> Array:
            each = jnp.stack([by_length[length // groups](spectrum) for by_length in found])
            return each[jnp.asarray(of_bin), :, :, jnp.arange(len(of_bin))].transpose(1, 2, 0)

        return mask

    return {length: with_length(length) for length in num_bits}


# Averages.


def _more_neighbors(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    estimate = lambda d, q: separation.estimate_mask(d, q, _MANY_NEIGHBORS)
    return _by_length(material, material.hasher, num_bits, estimate)


def _nearer_counts_more(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """Weights softmax(s h_q . h_r), the soft borders of the refinement, on the K nearest."""
    k = material.config.num_neighbors

    def search_masks(dictionary: Dictionary, queries: Array) -> Array:
        length = dictionary.hasher.num_bits
        found = search.hamming_top_k(queries, dictionary.codes, k, num_bits=length)
        sharpness = math.exp(_SHARPNESS[0] + _SHARPNESS[1] * math.log(length / 8))
        weights = jax.nn.softmax(-2 * sharpness * found.distances.astype(jnp.float32))
        bits = codes.unpack_bits(dictionary.masks, dictionary.num_bins)
        return _weighted_mean(bits, found.indices, weights)

    return _by_length(material, material.hasher, num_bits, search_masks)


def _smoothed(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    def smooth(mask: SpectrumMask) -> SpectrumMask:
        def smoothed(spectrum: Array) -> Array:
            now = mask(spectrum)
            before = jnp.concatenate([now[..., :1, :], now[..., :-1, :]], axis=-2)
            return (1 - _SMOOTHING) * now + _SMOOTHING * before

        return smoothed

    return {length: smooth(mask) for length, mask in _recipe(material, num_bits).items()}


def _ratio_masks(material: _Material, num_bits: Sequence[int]) -> dict[int, SpectrumMask]:
    """A dictionary of another draw of frames, whose masks are ideal ratio masks of four bits."""
    config = material.config
    frames, ratios = _draw_ratio_masks(material)
    encoded = codes.encode(material.hasher, jnp.asarray(frames))
    longest = Dictionary(material.hasher, encoded, jnp.asarray(ratios), config.stft.num_bins)

    def with_length(length: int) -> SpectrumMask:
        dictionary = longest.prefix(length)
        even = jnp.full((1, config.num_neighbors), 1 / config.num_neighbors)

        @jax.jit
        def mask(spectrum: Array) -> Array:
            nearest = dictionary.nearest(
                _queries(dictionary, spectrum, config), config.num_neighbors
            )
            weights = jnp.broadcast_to(even, nearest.shape)
            mean = _weighted_mean(dictionary.masks, nearest, weights) / _RATIO_STEPS
            return mean.reshape(spectrum.shape)

        return mask

    return {length: with_length(length) for length in num_bits}


def _draw_ratio_masks(material: _Material) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) float32 feature vectors, and (N, F) uint8, their ratio masks in steps of 1 / 15."""
    config, rng = material.config, np.random.default_rng(material.config.seed)

    @jax.jit
    def analyse(speech: Array, noise: Array) -> tuple[Array, Array]:
        *parts, frames = spectra.parts_and_features(speech, noise, config.features, config.stft)
        ratio = masks.ideal_ratio_mask(*parts)
        audible = masks.without_rumble(ratio > 0, config.lowest_speech_hz, config.stft)
        ratio = jnp.where(audible, ratio, 0)
        steps = jnp.round(ratio * _RATIO_STEPS).astype(jnp.uint8)
        return frames, steps

    drawn: list[tuple[np.ndarray, ...]] = []
    for batch in corpora.batches(material.mixtures, evaluation.BATCH_SIZE):
        frames, steps = analyse(jnp.asarray(batch.speech), jnp.asarray(batch.noise))
        within = spectra.frame_mask(jnp.asarray(batch.lengths), batch.speech.shape[-1], config.stft)
        sound = np.asarray(within & (jnp.max(jnp.abs(frames), axis=-1) > 0))
        chosen = sound & (rng.random(sound.shape) < config.dictionary_fraction)
        drawn.append((np.asarray(frames)[chosen], np.asarray(steps)[chosen]))
    frames, steps = (np.concatenate(same) for same in zip(*drawn, strict=True))
    return frames, steps


def _weighted_mean(values: Array, indices: Array, weights: Array) -> Array:
    """Sum over k of weights (Q, K) times rows indices (Q, K) of values (N, F): (Q, F) float32."""
    total = jnp.zeros((len(indices), values.shape[1]), jnp.float32)
    for k in range(indices.shape[1]):
        total += weights[:, k, None] * values[indices[:, k]].astype(jnp.float32)
    return total


_SUPERVISED = {"masks": _masks_target, "speech and noise": _speech_and_noise_target}
# Against pairs that no code can match, and for those that a search meets.
_REMEDIES: dict[str, dict[str, Any]] = {
    "weights by a fifth of beta": {"part": lambda bit: 0.2},
    "weights by ever less of beta": {"part": reweighting.later_less},
    "weights capped": {"rule": reweighting.capped},
    "logistic weights": {"rule": reweighting.logistic},
    "nearest pairs first": {"rule": reweighting.nearest_first},
}

_ALTERNATIVES: dict[str, dict[str, _Maker]] = {
    "": {"the recipe": _recipe},
    "bits": {
        "LSH, random projections": _random,
        "iterative quantization": _quantized_rotation,
        "the recipe's, each a half of the frames": _balanced,
        "residuals, likeness of frames": _residuals,
        "residuals, likeness of masks": _residuals_of(_masks_target),
        "residuals, likeness of speech and of noise": _residuals_of(_speech_and_noise_target),
        "residuals, likeness of frames and of masks": _residuals_of(_blended_target),
        "boosted, likeness of frames": _boosted,
        "not boosted: equal weights, random starts": _boosted_on(part=lambda bit: 0.0),
        "boosted, cosines of frames": _boosted_on(target="cosine"),
        "boosted, kernel a third as wide": _boosted_on(sigma2=0.1),
        "boosted, kernel three times as wide": _boosted_on(sigma2=0.9),
        "boosted, frames, nearest pairs first": _boosted_on(rule=reweighting.nearest_first),
        "boosted, likeness of frames and of masks": _boosted_on(_blended_target),
        "boosted, likeness of binary masks": _boosted_on(_binary_masks_target),
        "boosted, likeness of masks": _boosted_on(_masks_target),
        "boosted, likeness of speech and of noise": _boosted_on(_speech_and_noise_target),
        "boosted, masks, the frames foretold best alone": _boosted_on_foretold,
        **{
            f"boosted, {likeness}, {remedy}": _boosted_on(vectors, **how)
            for likeness, vectors in _SUPERVISED.items()
            for remedy, how in _REMEDIES.items()
        },
    },
    "dictionary": {
        "half of the frames, at random": _half_at_random,
        "half of the frames, those foretold best": _half_best_foretold,
        "half of the frames, those foretold worst": _half_worst_foretold,
    },
    "search": {
        "boosted bits, weighted by beta": _boosted_and_weighted,
        "four groups of bands, each with its part of the bits": _groups_of_bands,
    },
    "average": {
        "80 neighbours": _more_neighbors,
        "nearer neighbours count more": _nearer_counts_more,
        "smoothed over time": _smoothed,
        "ratio masks of four bits": _ratio_masks,
    },
}

# Weights chosen as the recipe's were, without the past, or without frequency and prior.
_EVIDENCE = {
    "neighbours alone": MASK_ALONE,
    "neighbours and the frame, not the past": EvidenceConfig(0.8, 1.6, 0.9, 0.3, lowest_hz=50.0),
    "equal weights at all frequencies": EvidenceConfig(1.0, 1.0, 0.4, 0.4, 0.4, 0.4),
}

_LEAST_GAINS = {"20 dB at most": 0.1, "12 dB at most": 0.25}


if __name__ == "__main__":
    validation.run("alternatives", alternatives, _COLUMNS)
