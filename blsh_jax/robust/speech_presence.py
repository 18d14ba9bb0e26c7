"""Speech presence: how likely a bin is speech, of the neighbours' mask and the utterance itself.

    mask, track = join(mask, mixture, config, stft, track)

The neighbours were recorded in other noise. Where they find little speech, the mixture shows its
own: per bin, the running mean of the magnitudes, weighted by the absence of speech. Against that
noise spectrum N the last frame's estimate and the frame at hand give the a-priori SNR xi of Ephraim
and Malah. And what the neighbours would have kept of the bin so far, over what they would have
taken away, is its past SNR rho: where there was much speech and little noise, speech is likely
again. Three sources say how likely a bin is speech: the mask p, by the odds p / (1 - p), and the
SNRs xi and rho. Their logarithms add up:

    joined mask = sigmoid(d + a log(p / (1 - p)) + b log(xi) + c log(rho))

With a = 1 alone that is the neighbours' mask, with b = 1 alone the Wiener gain xi / (1 + xi). The
weights a, b and c change with frequency: low down, where the harmonics of a voice stand apart, a
bin knows more of itself than neighbours whose voices have other pitches; high up harmonics merge,
and neighbours and the past know more. The constant d is what speaks for speech before anything is
known. What the SNRs say is limited at both ends. A frame needs nothing of later ones, and a gain of
the whole signal changes nothing.

Letters: T frames, F bins.
Source: Y. Ephraim, D. Malah, "Speech enhancement using a minimum mean-square error short-time
spectral amplitude estimator", IEEE Trans. ASSP 32 (6), 1984, eq. 51 (decision-directed SNR);
noise from frames weighted by the absence of speech: I. Cohen, B. Berdugo, IEEE Signal Processing
Letters 9 (1), 2002.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.config import SeparationConfig, SpeechPresenceConfig, StftConfig
from blsh_jax.paper import spectra
from blsh_jax.paper.separation import MaskFunction

# Chosen with the recipe: docs/unseen_noise.md says on what.
_MEMORY = 0.99  # of noise, and of the past: 1.6 seconds
_SPEECH_MEMORY = 0.91
# Magnitudes that stand out of the noise weigh less: half where the SNR is 1 / _OUTLIERS.
_OUTLIERS = 0.25
_LEAST_SNR = 10 ** (-20 / 10)
# What stands out further is no more likely to be speech: a noise that comes in bursts does, too.
_MOST_SNR = 10 ** (17 / 10)
_CERTAINTY = 0.99  # neighbours that all agree may still be wrong
# Where weights are the low and the high ones.
_LOW_HZ, _HIGH_HZ = 125.0, 4000.0
OPERATIONS_PER_BIN = 53  # a logarithm, a root or an exponential counts as one


class NoiseTrack(NamedTuple):
    """What the next frame needs of the past; all zeros before the first.

    Attributes:
        noise_magnitude: (..., F) float32, weighted sum of the magnitudes of the noise.
        noise_weight: (..., F) float32, sum of the weights.
        speech_energy: (..., F) float32, energy of the last frame's speech estimate.
        past_speech: (..., F) float32, sum of the energies that the neighbours would have kept.
        past_rest: (..., F) float32, sum of the energies that they would have taken away.
    """

    noise_magnitude: Array
    noise_weight: Array
    speech_energy: Array
    past_speech: Array
    past_rest: Array


class Weights(NamedTuple):
    """What counts for how much in each bin: d, a, b and c of the formula.

    Attributes:
        prior: (F,) float32, log-odds of speech before anything is known.
        mask: (F,) float32, of the log-odds of the neighbours' mask.
        snr: (F,) float32, of the log of xi.
        past_snr: (F,) float32, of the log of rho.
    """

    prior: Array | np.ndarray
    mask: Array | np.ndarray
    snr: Array | np.ndarray
    past_snr: Array | np.ndarray


def bin_weights(config: SpeechPresenceConfig, stft: StftConfig, shape: tuple[int, ...]) -> Weights:
    """The weights of each bin, by the octave between the low and the high ones.

    Below ``config.lowest_hz`` they are those of the neighbours alone.

    Args:
        config: the low and the high weights.
        stft: the transform.
        shape: (..., F) of each.
    """
    hertz = spectra.bin_hertz(stft)
    octaves = np.log2(np.clip(hertz, _LOW_HZ, _HIGH_HZ) / _LOW_HZ)
    high = octaves / np.log2(_HIGH_HZ / _LOW_HZ)
    pairs = (
        (config.prior_log_odds, config.prior_log_odds),
        (config.mask_weight_low, config.mask_weight_high),
        (config.snr_weight_low, config.snr_weight_high),
        (config.past_snr_weight_low, config.past_snr_weight_high),
    )
    alone = np.array([0, 1, 0, 0])[:, None]
    joined = np.array([low * (1 - high) + top * high for low, top in pairs])
    found = np.where(hertz < config.lowest_hz, alone, joined).astype(np.float32)
    return Weights(*(np.broadcast_to(weights, shape) for weights in found))


def nothing_heard(shape: tuple[int, ...]) -> NoiseTrack:
    """The track before the first frame.

    Args:
        shape: (..., F).
    """
    return NoiseTrack(*(jnp.zeros(shape, jnp.float32) for _ in NoiseTrack._fields))


def join(
    mask: Array,
    mixture: Array,
    config: SpeechPresenceConfig,
    stft: StftConfig,
    track: NoiseTrack,
) -> tuple[Array, NoiseTrack]:
    """The neighbours' mask, joined with what the utterance itself shows, frame after frame.

    Args:
        mask: (..., T, F) float32 in [0, 1].
        mixture: (..., T, F) complex64.
        config: weights of the three sources.
        stft: the transform that gave the mixture.
        track: after the frame before the first; to begin with, ``nothing_heard``.

    Returns:
        (..., T, F) float32 in [0, 1], and the track after the last frame.
    """
    weights = bin_weights(config, stft, track.noise_weight.shape)

    def step(track: NoiseTrack, frame: tuple[Array, Array]) -> tuple[NoiseTrack, Array]:
        track, told = follow_frame(track, *frame, weights)
        return track, told.mask

    frames = jnp.moveaxis(mask, -2, 0), jnp.moveaxis(jnp.square(jnp.abs(mixture)), -2, 0)
    last, joined = jax.lax.scan(step, track, frames)
    return jnp.moveaxis(joined, 0, -2), last


def log_odds(mask: Array) -> Array:
    """Log-odds of a mask, limited, as neighbours that all agree may still be wrong.

    Args:
        mask: (...) float32 in [0, 1].

    Returns:
        (...) float32.
    """
    presence = jnp.clip(mask, 1 - _CERTAINTY, _CERTAINTY)
    return jnp.log(presence / (1 - presence))


class Told(NamedTuple):
    """What a frame's track tells.

    Attributes:
        mask: (..., F) float32 in [0, 1], joined.
        noise: (..., F) float32, energy; 0 where no noise was heard.
        past_snr: (..., F) float32, log of rho, limited.
    """

    mask: Array
    noise: Array
    past_snr: Array


def follow_frame(
    track: NoiseTrack, mask: Array, energy: Array, weights: Weights
) -> tuple[NoiseTrack, Told]:
    """One frame.

    Args:
        track: after the frame before.
        mask: (..., F) float32 in [0, 1], of the neighbours.
        energy: (..., F) float32, of the mixture.
        weights: of the three sources.

    Returns:
        The track after the frame, and what it tells.
    """
    presence = jnp.clip(mask, 1 - _CERTAINTY, _CERTAINTY)
    absence = 1 - presence
    noise = _noise_energy(track.noise_magnitude, track.noise_weight)
    # Digital silence says nothing of noise, and what is far above the noise is hardly noise.
    heard = absence / (1 + _OUTLIERS * _snr(energy, noise))
    weight = jnp.where(energy > 0, heard, 0.0)
    magnitude = _MEMORY * track.noise_magnitude + weight * jnp.sqrt(energy)
    total = _MEMORY * track.noise_weight + weight
    noise = _noise_energy(magnitude, total)
    now = jnp.maximum(_snr(energy, noise) - 1, 0.0)
    snr = _SPEECH_MEMORY * _snr(track.speech_energy, noise) + (1 - _SPEECH_MEMORY) * now
    # Before anything was heard neither is more likely.
    past = jnp.where(track.past_rest > 0, _snr(track.past_speech, track.past_rest), 1.0)
    past_snr = _limited_log(past)
    joined = jax.nn.sigmoid(
        weights.prior
        + weights.mask * log_odds(mask)
        + weights.snr * _limited_log(snr)
        + weights.past_snr * past_snr
    )
    following = NoiseTrack(
        magnitude,
        total,
        jnp.square(joined) * energy,
        _MEMORY * track.past_speech + jnp.square(presence) * energy,
        _MEMORY * track.past_rest + jnp.square(absence) * energy,
    )
    return following, Told(joined, noise, past_snr)


class PresenceState(NamedTuple):
    """State of a ``PresenceMask``: that of the inner mask function, and the track."""

    inner: Any
    track: NoiseTrack


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["inner"], meta_fields=["config", "stft"]
)
@dataclasses.dataclass(frozen=True)
class PresenceMask:
    """A mask function whose masks are joined with what the utterance itself shows.

    Attributes:
        inner: the mask function; of the neighbours, or of a network.
        config: weights of the three sources.
        stft: the transform.
    """

    inner: MaskFunction
    config: SpeechPresenceConfig
    stft: StftConfig

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""
        return self.inner.look_ahead

    def init(self, shape: tuple[int, ...]) -> PresenceState:
        """The state before the first frame."""
        return PresenceState(self.inner.init(shape), nothing_heard((*shape, self.stft.num_bins)))

    def __call__(
        self, state: PresenceState, newest: Array, current: Array
    ) -> tuple[PresenceState, Array]:
        """As ``MaskFunction``."""
        inner, mask = self.inner(state.inner, newest, current)
        joined, track = join(mask, current, self.config, self.stft, state.track)
        return PresenceState(inner, track), joined


def with_presence(inner: MaskFunction, config: SeparationConfig) -> MaskFunction:
    """``inner``, with speech presence joined if the configuration gives the SNRs any weight."""
    if not config.speech_presence.tracks_noise:
        return inner
    return PresenceMask(inner, config.speech_presence, config.stft)


def constants() -> dict[str, float]:
    """Every number in the formula but the weights, by name, for other languages."""
    return {
        "memory": _MEMORY,
        "speech_memory": _SPEECH_MEMORY,
        "outliers": _OUTLIERS,
        "least_snr": _LEAST_SNR,
        "most_snr": _MOST_SNR,
        "certainty": _CERTAINTY,
    }


def _noise_energy(magnitude: Array, weight: Array) -> Array:
    """Squared mean magnitude; 0 where no noise was heard."""
    return jnp.square(magnitude / jnp.where(weight > 0, weight, 1.0))


def _snr(energy: Array, noise: Array) -> Array:
    """Energy over noise; 0 where no noise was heard."""
    return energy / jnp.where(noise > 0, noise, jnp.inf)


def _limited_log(snr: Array) -> Array:
    return jnp.log(jnp.clip(snr, _LEAST_SNR, _MOST_SNR))
