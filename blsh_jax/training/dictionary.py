"""Drawing the dictionary: frames of training mixtures, their masks, and what bits are learned on.

Letters: U utterances of n samples, T frames, F bins, D features, N frames drawn, C mel bands.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import corpora
from blsh_jax.config import SeparationConfig, TrainConfig
from blsh_jax.corpora import Mixture
from blsh_jax.paper import codes, masks, spectra
from blsh_jax.paper.codes import Hasher
from blsh_jax.robust.band_shares import band_shares
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.high_pass import high_pass
from blsh_jax.robust.pre_roll import with_pre_roll
from blsh_jax.search.packing import pack_bits

_BATCH_SIZE = 32
_NUM_BANDS = 64  # in which masks are compared while hyperplanes are learned and fine-tuned


class FrameSample(NamedTuple):
    """Frames drawn from training mixtures.

    Attributes:
        frames: (N, D) float32 unit vectors.
        masks: (N, Wf) uint32, their packed ideal binary masks.
        shares: (N, 2, C) float16 of ``band_shares.band_shares``, in mel bands.
        mixtures: (N,) int32, index of the mixture that a frame is of.
        num_seen: frames of signal that they were drawn from.
    """

    frames: np.ndarray
    masks: np.ndarray
    shares: np.ndarray
    mixtures: np.ndarray
    num_seen: int


def sample_frames(
    mixtures: Sequence[Mixture],
    config: TrainConfig,
    progress: bool = False,
) -> FrameSample:
    """A random ``dictionary_fraction`` of the mixtures' frames, in random order.

    Digitally silent frames have no direction and are never drawn.

    Args:
        mixtures: training mixtures.
        config: transform, features, fraction and seed.
        progress: show a progress bar.

    Returns:
        Frames, their packed masks, and what fine-tuning needs of them.

    Raises:
        ValueError: nothing was drawn.

    Source: [ICASSP20] section 4.2, "10 %" and "1 %" of the frames.
    """
    rng = np.random.default_rng(config.seed)
    parts: list[tuple[np.ndarray, ...]] = []
    num_seen = 0
    for arrays, rows, sources in _batches(mixtures, config, "mixtures" if progress else None):
        drawn = rng.random(len(rows)) < config.dictionary_fraction
        parts.append((*(np.asarray(array)[rows[drawn]] for array in arrays), sources[drawn]))
        num_seen += len(rows)
    order = rng.permutation(sum(len(part[0]) for part in parts))
    if not len(order):
        raise ValueError(
            f"no frames drawn from {len(mixtures)} mixtures: give more speech and noise, or a "
            f"larger dictionary_fraction than {config.dictionary_fraction}"
        )
    frames, packed, shares, sources = (
        np.concatenate(same)[order] for same in zip(*parts, strict=True)
    )
    return FrameSample(frames, packed, shares, sources, num_seen)


def hash_frames(
    mixtures: Sequence[Mixture],
    hashers: Sequence[Hasher],
    config: TrainConfig,
    progress: bool = False,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Codes and masks of all frames of mixtures, in a few bytes per frame.

    Random subsets of them are the dictionaries of one experiment.

    Args:
        mixtures: training mixtures.
        hashers: hash functions; each makes codes of its own.
        config: transform and features.
        progress: show a progress bar.

    Returns:
        One (N, W) uint32 array of codes per hasher, and (N, Wf) uint32 packed masks.

    Source: [ICASSP20] section 4.2, figure 3.
    """
    encoded: list[list[np.ndarray]] = [[] for _ in hashers]
    packed = []
    for (frames, batch_masks, _), rows, _ in _batches(
        mixtures, config, "hashing" if progress else None
    ):
        packed.append(np.asarray(batch_masks)[rows])
        for parts, hasher in zip(encoded, hashers, strict=True):
            parts.append(np.asarray(_encode(hasher, frames))[rows])
    return [np.concatenate(parts) for parts in encoded], np.concatenate(packed)


_encode = jax.jit(codes.encode)


class Analysis(NamedTuple):
    """What training sees of mixtures, without the frames of the pre-roll.

    Attributes:
        speech: (U, T, F) complex64 spectra.
        noise: (U, T, F) complex64 spectra.
        frames: (U, T, D) float32 features of their sum.
        mask: (U, T, F) bool, the ideal binary mask, after the high-pass.
    """

    speech: Array
    noise: Array
    frames: Array
    mask: Array


def analyse(speech: Array, noise: Array, config: TrainConfig) -> Analysis:
    """Spectra, features and masks of mixtures.

    Args:
        speech: (U, n) float32.
        noise: (U, n) float32.
        config: transform, features and high-pass; static.
    """
    stft, features = config.separation.stft, config.separation.features
    pre_roll = features.pre_roll_frames
    parts = [spectra.stft(with_pre_roll(part, pre_roll, stft), stft) for part in (speech, noise)]
    frames = spectra.features(feature_function(features, stft), parts[0] + parts[1])
    spoken, rest, frames = (array[:, pre_roll:] for array in (*parts, frames))
    binary = masks.ideal_binary_mask(spoken, rest)
    return Analysis(spoken, rest, frames, high_pass(binary, config.high_pass_hz, stft))


def _batches(
    mixtures: Sequence[Mixture], config: TrainConfig, shown_as: str | None
) -> Iterator[tuple[list[Array], np.ndarray, np.ndarray]]:
    """``_flat_frames`` of batch after batch, their rows of signal, and the mixtures of these.

    ``shown_as`` is what a progress bar says; None shows none.
    """
    used = config.separation
    separation = SeparationConfig(stft=used.stft, features=used.features)
    # What decides the frames alone: all runs compile once.
    deciding = TrainConfig(separation=separation, high_pass_hz=config.high_pass_hz)
    with tqdm(total=len(mixtures), desc=shown_as, unit="mix", disable=shown_as is None) as bar:
        for batch in corpora.batches(mixtures, _BATCH_SIZE):
            *arrays, valid = _flat_frames(batch.speech, batch.noise, batch.lengths, deciding)
            rows = np.flatnonzero(valid)
            yield arrays, rows, batch.indices[rows // (len(valid) // len(batch.indices))]
            bar.update(np.count_nonzero(batch.lengths))


@functools.partial(jax.jit, static_argnames="config")
def _flat_frames(speech, noise, lengths, config) -> tuple[Array, Array, Array, Array]:
    """Feature vectors (U T, D), packed masks (U T, Wf), shares (U T, 2, C), rows of signal (U T,).

    The shares are in half precision, as they are kept.
    """
    stft = config.separation.stft
    spoken, rest, frames, mask = analyse(speech, noise, config)
    filters = jnp.asarray(spectra.mel_filters(_NUM_BANDS, stft), frames.dtype)
    shares = band_shares(mask, spoken + rest, filters).astype(jnp.float16)
    within = spectra.frame_mask(lengths, speech.shape[-1], stft)
    valid = within & (jnp.max(jnp.abs(frames), axis=-1) > 0)
    flat = lambda array, ndim: array.reshape(-1, *array.shape[-ndim:])
    return flat(frames, 1), flat(pack_bits(mask), 1), flat(shares, 2), valid.reshape(-1)
