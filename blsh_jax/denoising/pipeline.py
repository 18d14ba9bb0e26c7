"""The pipeline: from samples to speech, by any mask function.

    state = init(mask_function, channels, stft)
    state, output = apply(mask_function, state, samples, stft)    some hops in, as many out, later
    speech = separate(mixtures, mask_function, stft).speech       whole utterances: one block

Streams, batches of utterances, networks and oracles all go through ``apply``, so what comes out of
a stream equals what comes out of the whole signal at once.

Letters: C channels (or utterances), H hops of a block, n = H * hop samples, T frames, F bins,
P = window / hop frames that a sample lies in, R later frames that a mask needs.

A frame ends with the newest sample. A sample is complete when P - 1 more frames are in, and their
masks R frames after that: the output lags the input by (P - 1 + R) * hop samples.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import kept
from blsh_jax.config import StftConfig
from blsh_jax.corpora.audio import LOUDEST, QUIETEST
from blsh_jax.paper import masks, spectra
from blsh_jax.paper.separation import MaskFunction
from blsh_jax.robust import mask_stage
from blsh_jax.robust.pre_roll import with_pre_roll

# The highest quarter of the bins (6 to 8 kHz at 16 kHz) speaks for all that lies above them.
_HIGH_BINS = 4


class State(NamedTuple):
    """What the next block needs of the past; all zeros before the first.

    Attributes:
        samples: (C, window - hop) float32, newest samples.
        spectra: (C, R, F) complex64, newest spectra of the input, whose masks are not known yet.
        mask: state of the mask function.
        masked: (C, P - 1, F) complex64, newest spectra of the output.
        gains: (C, P - 1) float32, their mean gains of the highest bins.
    """

    samples: Array
    spectra: Array
    mask: Any
    masked: Array
    gains: Array


class Output(NamedTuple):
    """What a block gives.

    Attributes:
        speech: (C, n) float32.
        high_gain: (C, n) float32 in [0, 1], the mask's mean over the highest bins, to be applied to
            what lies above half the sample rate.
        mask: (C, T, F) float32 in [0, 1].
    """

    speech: Array
    high_gain: Array
    mask: Array


def latency(look_ahead: int, stft: StftConfig) -> int:
    """Samples by which the output of ``apply`` lags its input.

    A live signal waits up to one hop more, for the hop to fill.

    Args:
        look_ahead: R of the mask function.
        stft: the transform.
    """
    return stft.window_length + (look_ahead - 1) * stft.hop_length


def init(mask_function: MaskFunction, channels: int, stft: StftConfig) -> State:
    """The state before the first sample.

    Args:
        mask_function: what will make the masks.
        channels: C.
        stft: the transform.
    """
    lead, bins = spectra.lead_frames(stft), stft.num_bins
    return State(
        jnp.zeros((channels, lead * stft.hop_length), jnp.float32),
        jnp.zeros((channels, mask_function.look_ahead, bins), jnp.complex64),
        mask_function.init((channels,)),
        jnp.zeros((channels, lead, bins), jnp.complex64),
        jnp.zeros((channels, lead), jnp.float32),
    )


def apply(
    mask_function: MaskFunction,
    state: State,
    samples: Array,
    stft: StftConfig,
    floor: float | Array = 0.0,
) -> tuple[State, Output]:
    """Denoise a block of hops. Pure: scans, jits and vmaps.

    Inside ``jit`` it is a part of one program. Outside, its parts are programs by themselves, which
    begin as soon as what they need is there: two threads that take turns keep two cores busy.

    Args:
        mask_function: what makes the masks.
        state: from ``init`` or the block before.
        samples: (C, H * hop) float32; H hops at once give the same as one after another, faster.
            Compiled code cannot refuse a sample: one that is NaN, infinite or beyond
            ``audio.LOUDEST`` counts as digital silence, as does one below ``audio.QUIETEST``.
        stft: the transform; static.
        floor: the smallest gain of a bin, in [0, 1].

    Returns:
        The next state, and the output, which lags the input by ``latency``.

    Raises:
        ValueError: ``samples`` is no whole number of hops, or of other channels than the state.

    Source: [ICASSP20] Algorithm 1, frame by frame.
    """
    channels, hop = state.samples.shape[0], stft.hop_length
    if samples.ndim != 2 or samples.shape[0] != channels or samples.shape[1] % hop:
        raise ValueError(
            f"samples has shape {samples.shape}: give ({channels}, a multiple of {hop}) samples"
        )
    heard, waiting, newest, current = _hear(state.samples, state.spectra, samples, stft)
    mask_state, mask = mask_stage.call(mask_function, state.mask, newest, current)
    masked, gains, output = _speak(state.masked, state.gains, mask, current, floor, stft)
    return State(heard, waiting, mask_state, masked, gains), output


@functools.partial(kept.jit, static_argnames=("stft",))
def _hear(
    past: Array, spectra_before: Array, samples: Array, stft: StftConfig
) -> tuple[Array, Array, Array, Array]:
    """What the next block needs of samples and spectra; the newest spectra, and those in turn."""
    hops, lead = samples.shape[1] // stft.hop_length, spectra.lead_frames(stft)
    magnitude = jnp.abs(samples)
    usable = (magnitude >= QUIETEST) & (magnitude <= LOUDEST)
    heard = jnp.where(usable, samples, jnp.zeros((), samples.dtype))
    heard = jnp.concatenate([past, heard], axis=-1)
    newest = spectra.stft(heard, stft)[:, lead : lead + hops]
    waiting, current = mask_stage.delayed(spectra_before, newest)
    return heard[:, samples.shape[1] :], waiting, newest, current


@functools.partial(kept.jit, static_argnames=("stft",))
def _speak(
    masked_before: Array,
    gains_before: Array,
    mask: Array,
    current: Array,
    floor: float | Array,
    stft: StftConfig,
) -> tuple[Array, Array, Output]:
    """What the next block needs of the masked spectra and gains, and the output."""
    hops = current.shape[1]
    mask = jnp.maximum(mask, jnp.broadcast_to(jnp.asarray(floor, mask.dtype), mask.shape))
    masked = jnp.concatenate([masked_before, masks.apply_mask(mask, current)], axis=1)
    gains = jnp.concatenate([gains_before, _high_gains(mask)], axis=1)
    speech = spectra.istft(masked, hops * stft.hop_length, stft)
    output = Output(speech, spectra.to_samples(gains, stft), mask)
    return masked[:, hops:], gains[:, hops:], output


def separate(
    mixtures: Array,
    mask_function: MaskFunction,
    stft: StftConfig,
    pre_roll_frames: int = 0,
    floor: float | Array = 0.0,
) -> Output:
    """Denoise whole utterances, a padded batch in one call.

    Args:
        mixtures: (U, n) float32 at the sample rate of ``stft``; zeros after an utterance's end.
        mask_function: what makes the masks.
        stft: the transform; static.
        pre_roll_frames: frames of ``robust.pre_roll``; static; 0 as published.
        floor: the smallest gain of a bin, in [0, 1].

    Returns:
        Speech and gains (U, n), aligned to the sample, and the masks (U, T, F).

    Source: [ICASSP20] Algorithm 1.
    """
    look_ahead, num_samples = mask_function.look_ahead, mixtures.shape[-1]
    heard = _padded(mixtures, look_ahead, pre_roll_frames, stft)
    start = jax.eval_shape(lambda: init(mask_function, len(mixtures), stft))
    _, output = apply(mask_function, mask_stage.zeros_of(start), heard, stft, floor)
    return _aligned(output, num_samples, look_ahead, pre_roll_frames, stft)


@functools.partial(jax.jit, static_argnames=("look_ahead", "pre_roll_frames", "stft"))
def _padded(mixtures: Array, look_ahead: int, pre_roll_frames: int, stft: StftConfig) -> Array:
    """The pre-roll before, and zeros after that fill the last hop and complete the last sample."""
    zeros = latency(look_ahead, stft) + -mixtures.shape[-1] % stft.hop_length
    return with_pre_roll(jnp.pad(mixtures, ((0, 0), (0, zeros))), pre_roll_frames, stft)


@functools.partial(
    jax.jit, static_argnames=("num_samples", "look_ahead", "pre_roll_frames", "stft")
)
def _aligned(
    output: Output, num_samples: int, look_ahead: int, pre_roll_frames: int, stft: StftConfig
) -> Output:
    """What belongs to the mixtures, of what came out."""
    lag = latency(look_ahead, stft) + pre_roll_frames * stft.hop_length
    speech, gain = (signal[:, lag : lag + num_samples] for signal in output[:2])
    return Output(speech, gain, output.mask[:, look_ahead + pre_roll_frames :])


def _high_gains(mask: Array) -> Array:
    """(C, H, F) masks to (C, H): the mean over the highest bins."""
    bins = mask.shape[-1]
    return jnp.mean(mask[..., bins - bins // _HIGH_BINS :], axis=-1)
