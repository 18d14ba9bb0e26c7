"""Mask stages: what becomes of the neighbours' masks before they are applied.

Speech presence joins them with the noise that the utterance shows by a formula. Boosted ferns take
the neighbours' mask, the joined one and more of each bin as features, and learn what the formula
leaves to choose.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.config import SeparationConfig, SpeechPresenceConfig, StftConfig
from blsh_jax.paper.separation import FrameDictionary, MaskFunction, NeighborMask
from blsh_jax.robust import ferns
from blsh_jax.robust.bin_features import BinPast, bin_features, nothing_heard
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.ferns import Ferns
from blsh_jax.robust.speech_presence import with_presence


class FernState(NamedTuple):
    """State of a ``FernMask``: that of the inner mask function, and of the bins' features."""

    inner: Any
    past: BinPast


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inner", "ferns"],
    meta_fields=["presence", "stft"],
)
@dataclasses.dataclass(frozen=True)
class FernMask:
    """A mask function that asks boosted ferns about each bin.

    Attributes:
        inner: the mask function of the neighbours, which is one of the features.
        ferns: M ferns.
        presence: weights of speech presence, which is another.
        stft: the transform.
    """

    inner: MaskFunction
    ferns: Ferns
    presence: SpeechPresenceConfig
    stft: StftConfig

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""
        return self.inner.look_ahead

    def init(self, shape: tuple[int, ...]) -> FernState:
        """The state before the first frame."""
        return FernState(self.inner.init(shape), nothing_heard((*shape, self.stft.num_bins)))

    def __call__(self, state: FernState, newest: Array, current: Array) -> tuple[FernState, Array]:
        """As ``MaskFunction``."""
        inner, mask = self.inner(state.inner, newest, current)
        past, values = bin_features(state.past, mask, current, self.presence, self.stft)
        return FernState(inner, past), jax.nn.sigmoid(ferns.score(self.ferns, values))


def phase_sensitive_mask(speech: Array, mixture: Array) -> Array:
    """What ferns learn: the gain that brings each bin of a mixture nearest to the speech.

    Args:
        speech: (..., F) complex64 spectra of the clean speech.
        mixture: (..., F) complex64.

    Returns:
        (..., F) float32, |S| / |X| cos(angle between S and X), within [0, 1].

    Source: H. Erdogan et al., "Phase-sensitive and recognition-boosted speech separation using deep
    recurrent neural networks", ICASSP 2015, eq. 12.
    """
    energy = jnp.square(jnp.abs(mixture))
    along = jnp.real(speech * jnp.conj(mixture))
    return jnp.clip(along / jnp.where(energy > 0, energy, jnp.inf), 0, 1)


def mask_function(
    dictionary: FrameDictionary, config: SeparationConfig, learned: Ferns | None = None
) -> MaskFunction:
    """The masks that a dictionary gives, used as a configuration says.

    Args:
        dictionary: a ``Dictionary`` or a ``SpectralDictionary``.
        config: transform, features, neighbours and speech presence.
        learned: ferns of the dictionary; without them speech presence is the mask stage.
    """
    features = feature_function(config.features, config.stft)
    neighbors = NeighborMask(dictionary, features, config.num_neighbors)
    if learned is None:
        return with_presence(neighbors, config)
    return FernMask(neighbors, learned, config.speech_presence, config.stft)
