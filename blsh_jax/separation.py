"""Separation: dictionaries, masks from nearest neighbours, whole batches of utterances.

Letters: U utterances, n samples, T frames, F bins, D features, N dictionary frames, Q queries,
K neighbours, W words of a code, Wf words of a packed mask.
"""

import dataclasses
import functools
from typing import Protocol

import jax
import numpy as np
from jax import Array

from blsh_jax import codes, masks, noise_tracking, search, spectra
from blsh_jax.codes import Hasher
from blsh_jax.config import MASK_ALONE, EvidenceConfig, FeatureConfig, StftConfig


class FrameDictionary(Protocol):
    """Frames of training mixtures that can be searched, and the masks that belong to them."""

    @property
    def masks(self) -> Array:
        """(N, Wf) uint32, packed."""

    @property
    def num_bins(self) -> int:
        """F."""

    def encode(self, frames: Array) -> Array:
        """What the search compares, made of feature vectors (Q, D)."""

    def nearest(self, queries: Array, k: int) -> Array:
        """Indices (Q, K) int32 of the nearest dictionary frames, nearest first."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["hasher", "codes", "masks"],
    meta_fields=["num_bins"],
)
@dataclasses.dataclass(frozen=True)
class Dictionary:
    """Codes of training frames and their ideal binary masks.

    Attributes:
        hasher: L hash functions that made the codes.
        codes: (N, W) uint32.
        masks: (N, Wf) uint32, packed.
        num_bins: F.

    Source: [ICASSP20] section 2.2.
    """

    hasher: Hasher
    codes: Array
    masks: Array
    num_bins: int

    @property
    def num_frames(self) -> int:
        """N, the number of frames."""
        return self.codes.shape[0]

    def encode(self, frames: Array) -> Array:
        """Codes (Q, W) uint32 of feature vectors (Q, D)."""
        return codes.encode(self.hasher, frames)

    def nearest(self, queries: Array, k: int) -> Array:
        """The K nearest by Hamming distance, ties to the lowest index: (Q, K) int32."""
        return search.hamming_top_k(queries, self.codes, k, num_bits=self.hasher.num_bits).indices

    def prefix(self, num_bits: int) -> "Dictionary":
        """The dictionary of the first ``num_bits`` bits; nothing is repacked."""
        shorter = codes.prefix_codes(self.codes, num_bits)
        return dataclasses.replace(self, hasher=self.hasher.prefix(num_bits), codes=shorter)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["frames", "masks"], meta_fields=["num_bins"]
)
@dataclasses.dataclass(frozen=True)
class SpectralDictionary:
    """Training frames themselves, searched by cosine similarity: the paper's KNN baseline.

    Attributes:
        frames: (N, D) float32 unit vectors.
        masks: (N, Wf) uint32, packed.
        num_bins: F.

    Source: [ICASSP20] section 2.1, Algorithm 1.
    """

    frames: Array
    masks: Array
    num_bins: int

    def encode(self, frames: Array) -> Array:
        """The feature vectors themselves."""
        return frames

    def nearest(self, queries: Array, k: int) -> Array:
        """The K nearest by cosine similarity, ties to the lowest index: (Q, K) int32."""
        return search.cosine_top_k(queries, self.frames, k).indices


def build_dictionary(hasher: Hasher, frames: Array, binary_masks: Array) -> Dictionary:
    """Hash training frames and pack their masks.

    Args:
        hasher: L hash functions.
        frames: (N, D) float32 feature vectors.
        binary_masks: (N, F) bool, the frames' ideal binary masks.

    Returns:
        The dictionary.

    Raises:
        ValueError: the frames do not fit the hasher or the masks, or the masks are packed.

    Source: [ICASSP20] section 2.2.
    """
    if frames.shape[-1] != hasher.projections.shape[-1]:
        raise ValueError(
            f"frames have {frames.shape[-1]} features, the hasher's projections "
            f"{hasher.projections.shape[-1]}"
        )
    if len(frames) != len(binary_masks):
        raise ValueError(f"{len(frames)} frames, but binary_masks has {len(binary_masks)} rows")
    if binary_masks.dtype == np.uint32:
        raise ValueError("binary_masks is uint32, packed: give bool, or call Dictionary itself")
    packed = masks.pack_masks(binary_masks)
    return Dictionary(hasher, codes.encode(hasher, frames), packed, binary_masks.shape[-1])


def estimate_mask(dictionary: FrameDictionary, queries: Array, k: int) -> Array:
    """The mean of the masks of each query's K nearest dictionary frames.

    Args:
        dictionary: a ``Dictionary`` or a ``SpectralDictionary``.
        queries: codes (Q, W) uint32, or feature vectors (Q, D) float32.
        k: K, the neighbours.

    Returns:
        (Q, F) float32 in [0, 1].

    Raises:
        ValueError: k is not between 1 and the number of dictionary frames.

    Source: [ICASSP20] Algorithm 1.
    """
    neighbors = dictionary.nearest(queries, k)
    return masks.average_masks(dictionary.masks, neighbors, dictionary.num_bins)


@functools.partial(jax.jit, static_argnames=("stft", "features", "k", "evidence"))
def separation_masks(
    mixtures: Array,
    dictionary: FrameDictionary,
    stft: StftConfig,
    features: FeatureConfig,
    k: int,
    evidence: EvidenceConfig = MASK_ALONE,
) -> Array:
    """The masks that ``separate`` applies, (U, T, F) float32 in [0, 1]; same arguments."""
    mask = _masks(spectra.heard(mixtures, features, stft), dictionary, stft, features, k, evidence)
    return mask[:, features.lead_in_frames :]


@functools.partial(jax.jit, static_argnames=("stft", "features", "k", "evidence"))
def separate(
    mixtures: Array,
    dictionary: FrameDictionary,
    stft: StftConfig,
    features: FeatureConfig,
    k: int,
    evidence: EvidenceConfig = MASK_ALONE,
) -> Array:
    """Denoise a padded batch of utterances in one call.

    Args:
        mixtures: (U, n) float32 at the sample rate of ``stft``; zeros after an utterance's end.
        dictionary: a ``Dictionary`` or a ``SpectralDictionary``.
        stft: the transform.
        features: the features that the dictionary was made with.
        k: K, the neighbours.
        evidence: how their masks are joined with the noise that the utterances show
            (``noise_tracking.join``); default: not at all, as published.

    Returns:
        (U, n) float32, the speech, aligned to the sample.

    Source: [ICASSP20] Algorithm 1.
    """
    spectrum = spectra.heard(mixtures, features, stft)
    mask = _masks(spectrum, dictionary, stft, features, k, evidence)
    masked = masks.apply_mask(mask, spectrum)
    return spectra.unheard(masked, mixtures.shape[-1], features, stft)


def _masks(
    spectrum: Array,
    dictionary: FrameDictionary,
    stft: StftConfig,
    features: FeatureConfig,
    k: int,
    evidence: EvidenceConfig,
) -> Array:
    """Masks of mixture spectra, each (U, T, F)."""
    frames = spectra.features(spectrum, features, stft)
    queries = dictionary.encode(frames.reshape(-1, frames.shape[-1]))
    mask = estimate_mask(dictionary, queries, k).reshape(spectrum.shape)
    return noise_tracking.join(mask, spectrum, evidence, stft)[0]
