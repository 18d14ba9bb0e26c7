"""Features for noise that was not in training: levels above the noise floor, and voicing.

A unit spectrum says where a frame has its energy, but not how far that stands above the noise, nor
whether it is a voice. Both stand beside the spectrum here, at the same norm.

Letters: T frames, F bins, D features, M bands, R later frames that a frame's vector needs, J
earlier frames that its noise floors need.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.config import FeatureConfig, StftConfig
from blsh_jax.paper import spectra
from blsh_jax.paper.spectra import FeatureFunction, SpectralFeatures
from blsh_jax.robust.voicing import band_voicing, layout

# Levels above the noise floor are cut here: what stands higher is no noise, however loud.
LEVEL_RANGE_DB = 40.0


class Past(NamedTuple):
    """What the next frames need of those before; all zeros before the first.

    Attributes:
        spectra: state of the spectral part.
        bands: (..., J + R, M) float32, newest mel magnitudes, whose least are the noise floors.
        voicing: (..., R, M') float32, voicing of the newest frames.
    """

    spectra: Array
    bands: Array
    voicing: Array


@dataclasses.dataclass(frozen=True)
class RobustFeatures:
    """Spectra with levels and voicing beside them, together of unit norm.

    Attributes:
        config: which of them.
        stft: the transform.
    """

    config: FeatureConfig
    stft: StftConfig

    def __post_init__(self):
        if self.config.voicing:
            layout(self.stft)  # refuses windows that are too short

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's vector needs."""
        return self._spectral.look_ahead

    @property
    def size(self) -> int:
        """D, the length of a vector."""
        return self._spectral.size + self.config.levels + self.config.voicing

    def init(self, shape: tuple[int, ...]) -> Past:
        """Silence; ``shape`` is that of the axes before time."""
        past = num_past_frames(self.config, self.stft) + self.look_ahead
        return Past(
            self._spectral.init(shape),
            jnp.zeros((*shape, past, self.config.levels), jnp.float32),
            jnp.zeros((*shape, self.look_ahead, self.config.voicing), jnp.float32),
        )

    def __call__(self, state: Past, spectrum: Array) -> tuple[Past, Array]:
        """(..., T, F) complex64 to the next state and (..., T, D) unit vectors."""
        past, spectral = self._spectral(state.spectra, spectrum)
        magnitude, count = jnp.abs(spectrum), spectrum.shape[-2]
        parts, bands, voicing = [spectral], state.bands, state.voicing
        if self.config.levels:
            mel = spectra.mel_magnitudes(magnitude, self.config.levels, self.stft)
            bands = jnp.concatenate([bands, mel], axis=-2)
            current = bands[..., : bands.shape[-2] - self.look_ahead, :]
            parts.append(spectra.unit_norm(levels_above_floor(current, self.config, self.stft)))
            bands = bands[..., count:, :]
        if self.config.voicing:
            filters = spectra.mel_filters(self.config.voicing, self.stft)
            voicing = jnp.concatenate(
                [voicing, band_voicing(magnitude, filters, self.stft)], axis=-2
            )
            # Of norm 1 where every band is voiced, and near 0 where none is.
            parts.append(voicing[..., :count, :] / math.sqrt(self.config.voicing))
            voicing = voicing[..., count:, :]
        frames = spectra.unit_norm(jnp.concatenate(parts, axis=-1))
        return Past(past, bands, voicing), frames

    @property
    def _spectral(self) -> SpectralFeatures:
        return SpectralFeatures(self.config, self.stft)


def feature_function(config: FeatureConfig, stft: StftConfig) -> FeatureFunction:
    """The features of a configuration: the paper's, or with what was added.

    Args:
        config: which of them.
        stft: the transform.
    """
    added = config.levels or config.voicing
    return RobustFeatures(config, stft) if added else SpectralFeatures(config, stft)


def num_past_frames(config: FeatureConfig, stft: StftConfig) -> int:
    """J, frames before a frame that its levels depend on; 0 without levels."""
    return config.floor_frames - 1 + spectra.lead_frames(stft) if config.levels else 0


def levels_above_floor(bands: Array, config: FeatureConfig, stft: StftConfig) -> Array:
    """How far each band stands above the noise, which is what speech pauses leave of it.

    The floor of a band is its least magnitude in the last ``floor_frames`` frames. A frame whose
    window reaches into digital silence says nothing about noise and does not count, so a signal
    begins without a floor, and without levels.

    Args:
        bands: (..., J + T, M) float32 mel magnitudes, the first J = ``num_past_frames`` of them
            only for the floors of the others.
        config: number of bands and of frames.
        stft: the transform that made them.

    Returns:
        (..., T, M) float32 in dB, 0 to ``LEVEL_RANGE_DB``.

    Source: minimum statistics, R. Martin, IEEE Trans. Speech and Audio Processing 9 (5), 2001.
    """
    lead, reach = spectra.lead_frames(stft), config.floor_frames
    silent = jnp.max(bands, axis=-1, keepdims=True) == 0
    count = bands.shape[-2] - lead
    near_silence = functools.reduce(
        jnp.logical_or, [silent[..., i : i + count, :] for i in range(lead + 1)]
    )
    counted = bands[..., lead:, :]
    never = jnp.full((), jnp.inf, bands.dtype)
    window = (1,) * (bands.ndim - 2) + (reach, 1)
    strides = (1,) * bands.ndim
    floor = jax.lax.reduce_window(
        jnp.where(near_silence, never, counted), never, jax.lax.min, window, strides, "VALID"
    )
    current = counted[..., reach - 1 :, :]
    known = (floor > 0) & (floor < never)
    ratio = jnp.where(known, current, 1.0) / jnp.where(known, floor, 1.0)
    return jnp.clip(20 * jnp.log10(jnp.maximum(ratio, 1.0)), 0.0, LEVEL_RANGE_DB)
