"""Separation: dictionaries, and masks from nearest neighbours.

A *mask function* makes masks of spectra, block by block; ``NeighborMask`` is the paper's. What it
needs of earlier frames is its state, so a stream and a whole utterance (one block) come out the
same.

Letters: T frames, F bins, D features, R later frames that a mask needs, N dictionary frames,
Q queries, K neighbours, W words of a code, Wf words of a packed mask.
"""

import dataclasses
import functools
from typing import Any, Protocol

import jax
import numpy as np
from jax import Array

from blsh_jax import search
from blsh_jax.paper import codes, masks
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.spectra import FeatureFunction
from blsh_jax.search import packing


class MaskFunction(Protocol):
    """What makes masks of spectra, block by block; a pytree, so that jitted functions take it."""

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""

    def init(self, shape: tuple[int, ...]) -> Any:
        """The state before the first frame, silence; ``shape`` is that of the axes before time."""

    def __call__(self, state: Any, newest: Array, current: Array) -> tuple[Any, Array]:
        """The masks of a block.

        Args:
            state: from ``init`` or the call before.
            newest: (..., T, F) complex64, the newest spectra of the mixture.
            current: (..., T, F) complex64, those of R frames before, whose masks are asked for.

        Returns:
            The next state, and (..., T, F) float32 in [0, 1].
        """


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
    data_fields=["hasher", "codes", "masks", "tiles"],
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
        tiles: the codes as ``search.prepare`` lays them out, made once by ``prepare``; None, and
            every search makes them anew.

    Source: [ICASSP20] section 2.2.
    """

    hasher: Hasher
    codes: Array
    masks: Array
    num_bins: int
    tiles: Array | None = None

    @property
    def num_frames(self) -> int:
        """N, the number of frames."""
        return self.codes.shape[0]

    def encode(self, frames: Array) -> Array:
        """Codes (Q, W) uint32 of feature vectors (Q, D)."""
        return codes.encode(self.hasher, frames)

    def nearest(self, queries: Array, k: int) -> Array:
        """The K nearest by Hamming distance, ties to the lowest index: (Q, K) int32."""
        entries = self.codes if self.tiles is None else search.Prepared(self.codes, self.tiles)
        return search.hamming_top_k(queries, entries, k, num_bits=self.hasher.num_bits).indices

    def prepare(self) -> "Dictionary":
        """The dictionary with its codes laid out for many searches."""
        return dataclasses.replace(self, tiles=search.prepare(self.codes).tiles)

    def prefix(self, num_bits: int) -> "Dictionary":
        """The dictionary of the first ``num_bits`` bits; nothing is repacked."""
        shorter = packing.prefix_codes(self.codes, num_bits)
        hasher = self.hasher.prefix(num_bits)
        made = dataclasses.replace(self, hasher=hasher, codes=shorter, tiles=None)
        return made if self.tiles is None else made.prepare()


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
    packed = packing.pack_bits(binary_masks)
    encoded = codes.encode(hasher, frames)
    return Dictionary(hasher, encoded, packed, binary_masks.shape[-1]).prepare()


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


class FeatureMask:
    """What mask functions of feature vectors share: a state that is the features' own."""

    features: FeatureFunction

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""
        return self.features.look_ahead

    def init(self, shape: tuple[int, ...]) -> Any:
        """The state of the features."""
        return self.features.init(shape)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["dictionary"], meta_fields=["features", "k"]
)
@dataclasses.dataclass(frozen=True)
class NeighborMask(FeatureMask):
    """The paper's mask function: the mean of the masks of each frame's nearest neighbours.

    Attributes:
        dictionary: a ``Dictionary`` or a ``SpectralDictionary``.
        features: what its frames were made with.
        k: K, the neighbours.

    Source: [ICASSP20] Algorithm 1.
    """

    dictionary: FrameDictionary
    features: FeatureFunction
    k: int

    def __call__(self, state: Any, newest: Array, current: Array) -> tuple[Any, Array]:
        """As ``MaskFunction``."""
        state, frames = self.features(state, newest)
        queries = self.dictionary.encode(frames.reshape(-1, frames.shape[-1]))
        return state, estimate_mask(self.dictionary, queries, self.k).reshape(current.shape)
