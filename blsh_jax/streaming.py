"""Denoising hop by hop, with the state carried: what comes out equals the whole signal at once.

Letters: C channels, H hops of a block, n = H * hop samples, F bins, K neighbours, P = window / hop
frames that a sample lies in, R = context // 2 later frames that a frame's features need, J earlier
frames that its noise floors need, M bands of levels.

``step`` and ``advance`` begin in silence. A model whose features ask for a lead-in
(``spectra.with_lead_in``) is to hear the start of the signal backwards first: ``Stream`` does that.

A frame ends with the newest sample. A sample is complete when P - 1 more frames are in, and their
features R frames after that: the output lags the input by (P - 1 + R) * hop samples.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import masks, noise_tracking, separation, spectra
from blsh_jax.buffers import SampleQueue
from blsh_jax.config import EvidenceConfig, FeatureConfig, StftConfig, TrainConfig
from blsh_jax.model import Model
from blsh_jax.noise_tracking import NoiseTrack
from blsh_jax.separation import Dictionary

# The highest quarter of the bins (6 to 8 kHz at 16 kHz) speaks for all that lies above them.
_HIGH_BINS = 4


class State(NamedTuple):
    """What the next step needs of the past; all zeros before the first.

    Attributes:
        samples: (C, window - hop) float32, newest samples.
        bands: (C, J, M) float32, mel magnitudes of the frames before ``spectra``, whose least are
            the noise floors; J = 0 for features without levels.
        spectra: (C, 2 R, F) complex64, newest spectra of the input.
        track: (C, F) float32 each, after the newest frame whose mask is known.
        masked: (C, P - 1, F) complex64, newest spectra of the output.
        gains: (C, P - 1) float32, their mean gains of the highest bins.
    """

    samples: Array
    bands: Array
    spectra: Array
    track: NoiseTrack
    masked: Array
    gains: Array


class Output(NamedTuple):
    """What a step gives.

    Attributes:
        speech: (C, n) float32.
        high_gain: (C, n) float32 in [0, 1], the mask's mean over the highest bins, to be applied to
            what lies above half the model's rate.
    """

    speech: Array
    high_gain: Array


def latency(config: TrainConfig) -> int:
    """Samples by which the output of ``step`` lags its input.

    A live signal waits up to one hop more, for the hop to fill.
    """
    hop, reach = config.stft.hop_length, config.features.context // 2
    return config.stft.window_length - hop + reach * hop


def init(config: TrainConfig, channels: int = 1) -> State:
    """The state before the first sample.

    Args:
        config: of the model.
        channels: C.
    """
    hop, window, bins = config.stft.hop_length, config.stft.window_length, config.stft.num_bins
    reach, past = config.features.context // 2, window // hop - 1
    levels = spectra.num_past_frames(config.features, config.stft), config.features.levels
    return State(
        jnp.zeros((channels, window - hop), jnp.float32),
        jnp.zeros((channels, *levels), jnp.float32),
        jnp.zeros((channels, 2 * reach, bins), jnp.complex64),
        noise_tracking.nothing_heard((channels, bins)),
        jnp.zeros((channels, past, bins), jnp.complex64),
        jnp.zeros((channels, past), jnp.float32),
    )


def step(model: Model, state: State, hop: Array) -> tuple[State, Array]:
    """One hop in, one hop out, ``latency`` samples later. Pure: scans, jits and vmaps.

    Args:
        model: what to denoise with.
        state: from ``init`` or the step before.
        hop: (C, hop) float32 at the model's rate; (C, H * hop) gives the same as H steps, faster.

    Returns:
        The next state, and the speech, of the shape of ``hop``.

    Raises:
        ValueError: ``hop`` is no whole number of hops, or of other channels than the state.

    Source: [ICASSP20] Algorithm 1, frame by frame.
    """
    state, output = advance(model, state, hop)
    return state, output.speech


def advance(
    model: Model, state: State, samples: Array, floor: float | Array = 0.0
) -> tuple[State, Output]:
    """``step``, with the mask kept above ``floor`` and the gain for higher bands beside it.

    Args:
        model: what to denoise with.
        state: from ``init`` or the step before.
        samples: (C, H * hop) float32 at the model's rate.
        floor: the smallest gain of a bin, in [0, 1].

    Returns:
        The next state, and the output.

    Raises:
        ValueError: ``samples`` is no whole number of hops, or of other channels than the state.
    """
    config = model.config
    channels, hop = state.samples.shape[0], config.stft.hop_length
    if samples.ndim != 2 or samples.shape[0] != channels or samples.shape[1] % hop:
        raise ValueError(
            f"hop has shape {samples.shape}: give ({channels}, a multiple of {hop}) samples"
        )
    return _advance(
        model.dictionary,
        state,
        samples,
        jnp.asarray(floor, jnp.float32),
        stft=config.stft,
        features=config.features,
        k=config.num_neighbors,
        evidence=config.evidence,
    )


@functools.partial(jax.jit, static_argnames=("stft", "features", "k", "evidence"))
def _advance(
    dictionary: Dictionary,
    state: State,
    samples: Array,
    floor: Array,
    *,
    stft: StftConfig,
    features: FeatureConfig,
    k: int,
    evidence: EvidenceConfig,
) -> tuple[State, Output]:
    """``advance`` on arrays."""
    hops, past = samples.shape[-1] // stft.hop_length, state.masked.shape[1]
    heard = jnp.concatenate([state.samples, samples], axis=-1)
    fresh = spectra.stft(heard, stft)[:, past : past + hops]
    spectrum = jnp.concatenate([state.spectra, fresh], axis=1)
    # Frames whose context is complete: all but R at the start, which are done, and R at the end.
    reach = features.context // 2
    ready = slice(reach, reach + hops)
    frames = spectra.features(spectrum, features, stft, state.bands)[:, ready]
    queries = dictionary.encode(frames.reshape(-1, frames.shape[-1]))
    mask = separation.estimate_mask(dictionary, queries, k).reshape(*frames.shape[:2], -1)
    mask, track = noise_tracking.join(mask, spectrum[:, ready], evidence, stft, state.track)
    mask = jnp.maximum(mask, jnp.broadcast_to(floor, mask.shape))
    masked = jnp.concatenate([state.masked, masks.apply_mask(mask, spectrum[:, ready])], axis=1)
    gains = jnp.concatenate([state.gains, _high_gains(mask)], axis=1)
    speech = spectra.istft(masked, samples.shape[-1], stft)
    following = State(
        heard[:, samples.shape[-1] :],
        _following_bands(state, spectrum[:, :hops], features, stft),
        spectrum[:, hops:],
        track,
        masked[:, hops:],
        gains[:, hops:],
    )
    return following, Output(speech, _interpolate(gains, stft))


def _following_bands(
    state: State, passed: Array, features: FeatureConfig, stft: StftConfig
) -> Array:
    """The newest bands, once the spectra (C, H, F) that passed have joined them."""
    if features.levels == 0:
        return state.bands
    passed = spectra.level_bands(passed, features, stft)
    return jnp.concatenate([state.bands, passed], axis=1)[:, passed.shape[1] :]


def _high_gains(mask: Array) -> Array:
    """(C, H, F) masks to (C, H): the mean over the highest bins."""
    bins = mask.shape[-1]
    return jnp.mean(mask[..., bins - bins // _HIGH_BINS :], axis=-1)


def _interpolate(gains: Array, stft: StftConfig) -> Array:
    """Gains of H + P - 1 frames to H hops of samples, weighted as the inverse transform weighs."""
    per_window = stft.window_length // stft.hop_length
    hann = spectra.hann(stft.window_length).reshape(per_window, stft.hop_length)
    weights = jnp.asarray(np.square(hann) / np.square(hann).sum(0), gains.dtype)
    hops = gains.shape[1] - per_window + 1
    framed = jnp.stack([gains[:, i : i + hops] for i in reversed(range(per_window))], axis=-1)
    samples = jnp.matmul(framed, weights, precision=jax.lax.Precision.HIGHEST)
    return samples.reshape(gains.shape[0], -1)


def check_finite(samples: np.ndarray) -> None:
    """Raise ValueError if samples are NaN or infinite, which would spoil all that follow."""
    if not np.isfinite(samples).all():
        raise ValueError("samples holds NaN or infinity: replace them before denoising")


class Stream:
    """Denoises one signal at the model's rate that comes in pieces of any length.

    With a lead-in, nothing comes out until the first ``lead_in_samples`` are in; then all is given
    that is done, and ``latency`` holds as without.

    All that ``feed`` and ``flush`` return, side by side, is the denoised signal, of the same length
    and aligned to the sample.

    Args:
        model: what to denoise with.
        channels: C for (C, n) pieces; None for (n,) pieces.
        floor: the smallest gain of a bin, in [0, 1].
        hops: H, hops that are worked on at a time: 1 for the least delay, hundreds for files.
        lead_in: hold the first samples back until there are enough to hear them backwards before
            (``spectra.with_lead_in``), if the model's features ask for that; without it the noise
            is learned on the way, as a live signal needs.
    """

    def __init__(
        self,
        model: Model,
        channels: int | None = None,
        floor: float = 0.0,
        hops: int = 1,
        lead_in: bool = True,
    ):
        self._model, self._channels, self._floor = model, channels, floor
        features, stft = model.config.features, model.config.stft
        self._features = features if lead_in else dataclasses.replace(features, lead_in_frames=0)
        self._lead_in = spectra.lead_in_samples(self._features, stft)
        self._rows = 1 if channels is None else channels
        self._block = hops * model.config.stft.hop_length
        self._restart()

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples; return those that are done.

        Args:
            samples: (n,) or (C, n) floats, n of any size.

        Returns:
            (m,) or (C, m) float32.

        Raises:
            ValueError: ``samples`` has other axes or channels than the stream, or holds NaN or
                infinity.
        """
        lead = () if self._channels is None else (self._channels,)
        if samples.ndim == 0 or samples.shape[:-1] != lead:
            wanted = "(n,)" if self._channels is None else f"({self._channels}, n)"
            raise ValueError(f"samples has shape {samples.shape}: give {wanted}")
        check_finite(samples)
        return self.feed_rows(samples.reshape(self._rows, -1))[0].reshape(*lead, -1)

    def flush(self) -> np.ndarray:
        """The rest of the signal, after its last sample; then the stream takes a new signal."""
        speech = self.flush_rows()[0]
        return speech[0] if self._channels is None else speech

    def feed_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``feed`` of (C, n): the speech, and the gain for higher bands beside it, (C, m) each."""
        self._owed += rows.shape[-1]
        self._waiting.put(rows)
        if not self._begun and len(self._waiting) <= self._lead_in:
            return self._run(0)
        self._begin()
        return self._run(len(self._waiting) // self._block)

    def flush_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """``flush`` to (C, m): the speech, and the gain for higher bands beside it."""
        self._begin()
        blocks = -(-(self._owed + self._skip) // self._block) if self._owed else 0
        self._waiting.put(np.zeros((self._rows, blocks * self._block - len(self._waiting))))
        rest = self._run(blocks)
        self._restart()
        return rest

    def _restart(self) -> None:
        self._state = init(self._model.config, self._rows)
        self._waiting = SampleQueue(self._rows)
        self._skip = latency(self._model.config) + self._lead_in
        self._owed, self._begun = 0, False

    def _begin(self) -> None:
        """Put the lead-in before the first samples, once there are any."""
        if self._begun or not self._owed:
            return
        start, rest = self._waiting.take(self._lead_in + 1), len(self._waiting)
        heard = spectra.with_lead_in(start, self._features, self._model.config.stft)
        self._waiting.put(np.asarray(heard))
        self._waiting.put(self._waiting.take(rest))
        self._begun = True

    def _run(self, blocks: int) -> tuple[np.ndarray, np.ndarray]:
        """Work on whole blocks; cut off what is before the signal's start and after its end."""
        pieces = [np.zeros((2, self._rows, 0), np.float32)]
        for _ in range(blocks):
            samples = jnp.asarray(self._waiting.take(self._block))
            self._state, output = advance(self._model, self._state, samples, self._floor)
            pieces.append(np.stack([np.asarray(output.speech), np.asarray(output.high_gain)]))
        speech, gain = np.concatenate(pieces, axis=-1)[..., self._skip :][..., : self._owed]
        self._skip = max(0, self._skip - blocks * self._block)
        self._owed -= speech.shape[-1]
        return speech, gain
