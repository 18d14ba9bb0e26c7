"""Training: from mixtures to a model. Frames of the mixtures, projections, dictionary."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import boosting, codes, corpora, masks, residual, spectra
from blsh_jax.codes import Hasher
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixture
from blsh_jax.model import Model
from blsh_jax.residual import ResidualInfo
from blsh_jax.separation import Dictionary

_BATCH_SIZE = 32


class FrameSample(NamedTuple):
    """Frames drawn from training mixtures.

    Attributes:
        frames: (N, D) float32 unit vectors.
        masks: (N, Wf) uint32, their packed ideal binary masks.
        num_seen: frames of signal that they were drawn from.
    """

    frames: np.ndarray
    masks: np.ndarray
    num_seen: int


def train(
    mixtures: Sequence[Mixture],
    config: TrainConfig,
    provenance: dict[str, Any],
    progress: bool = False,
    **options: Any,
) -> tuple[Model, boosting.FitInfo | ResidualInfo]:
    """Draw a dictionary from mixtures, learn projections on its frames, hash it.

    Args:
        mixtures: training mixtures; read once, in batches.
        config: the whole run.
        provenance: what the model file should say of the data.
        progress: show progress bars.
        **options: of ``boosting.fit``: ``plan``, ``mesh``, ``checkpoint``, ``log``.

    Returns:
        The model, with its frames, and the course of the training.

    Raises:
        ValueError: the mixtures give fewer frames than one block holds.

    Source: [ICASSP20] Algorithm 2 and section 4.
    """
    return learn(sample_frames(mixtures, config, progress), config, provenance, progress, **options)


def learn(
    sample: FrameSample,
    config: TrainConfig,
    provenance: dict[str, Any],
    progress: bool = False,
    **options: Any,
) -> tuple[Model, boosting.FitInfo | ResidualInfo]:
    """Learn projections on frames that are already drawn, and hash them.

    Args:
        sample: the dictionary's frames, of ``sample_frames``.
        config: the whole run.
        provenance: what the model file should say of the data.
        progress: show a progress bar.
        **options: of ``boosting.fit``; none for the residual learner.

    Returns:
        As ``train``.

    Raises:
        ValueError: as ``boosting.fit`` or ``residual.fit``.

    Source: [ICASSP20] Algorithm 2.
    """
    fit_frames = sample.frames[: config.max_fit_frames]
    info: boosting.FitInfo | ResidualInfo
    if config.learner == "residual":
        hasher, info = residual.fit(jnp.asarray(fit_frames), config.fit.num_bits, **options)
    else:
        key = jax.random.key(config.seed)
        hasher, info = boosting.fit(fit_frames, config.fit, key, progress=progress, **options)
    encoded = codes.encode(hasher, jnp.asarray(sample.frames))
    dictionary = Dictionary(hasher, encoded, jnp.asarray(sample.masks), config.stft.num_bins)
    provenance = provenance | {
        "training_frames_seen": sample.num_seen,
        "dictionary_frames": len(sample.frames),
        "fit_frames": len(fit_frames),
    }
    return Model(config, dictionary, provenance, sample.frames.astype(np.float16)), info


def sample_frames(
    mixtures: Sequence[Mixture], config: TrainConfig, progress: bool = False
) -> FrameSample:
    """A random ``dictionary_fraction`` of the mixtures' frames, in random order.

    Digitally silent frames have no direction and are never drawn.

    Args:
        mixtures: training mixtures.
        config: transform, features, fraction and seed.
        progress: show a progress bar.

    Returns:
        Frames and packed masks.

    Raises:
        ValueError: nothing was drawn.

    Source: [ICASSP20] section 4.2, "10 %" and "1 %" of the frames.
    """
    rng = np.random.default_rng(config.seed)
    frames, packed, num_seen = [], [], 0
    bar = tqdm(total=len(mixtures), desc="mixtures", unit="mix", disable=not progress)
    for batch in corpora.batches(mixtures, _BATCH_SIZE):
        batch_frames, batch_masks, valid = _frames_and_masks(
            batch.speech, batch.noise, batch.lengths, config.stft, config.features
        )
        candidates = np.flatnonzero(valid)
        chosen = candidates[rng.random(len(candidates)) < config.dictionary_fraction]
        frames.append(np.asarray(batch_frames)[chosen])
        packed.append(np.asarray(batch_masks)[chosen])
        num_seen += len(candidates)
        bar.update(np.count_nonzero(batch.lengths))
    bar.close()
    order = rng.permutation(sum(len(part) for part in frames))
    if not len(order):
        raise ValueError(
            f"no frames drawn from {len(mixtures)} mixtures: give more speech and noise, or a "
            f"larger dictionary_fraction than {config.dictionary_fraction}"
        )
    return FrameSample(np.concatenate(frames)[order], np.concatenate(packed)[order], num_seen)


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
    bar = tqdm(total=len(mixtures), desc="hashing", unit="mix", disable=not progress)
    for batch in corpora.batches(mixtures, _BATCH_SIZE):
        frames, batch_masks, valid = _frames_and_masks(
            batch.speech, batch.noise, batch.lengths, config.stft, config.features
        )
        rows = np.flatnonzero(valid)
        packed.append(np.asarray(batch_masks)[rows])
        for parts, hasher in zip(encoded, hashers, strict=True):
            parts.append(np.asarray(_encode(hasher, frames))[rows])
        bar.update(np.count_nonzero(batch.lengths))
    bar.close()
    return [np.concatenate(parts) for parts in encoded], np.concatenate(packed)


_encode = jax.jit(codes.encode)


@functools.partial(jax.jit, static_argnames=("stft", "features"))
def _frames_and_masks(speech, noise, lengths, stft, features) -> tuple[Array, Array, Array]:
    """Feature vectors (U T, D), packed masks (U T, Wf), and which rows hold signal (U T,)."""
    speech_spectrum, noise_spectrum = spectra.stft(speech, stft), spectra.stft(noise, stft)
    frames = spectra.features(speech_spectrum + noise_spectrum, features, stft)
    packed = masks.pack_masks(masks.ideal_binary_mask(speech_spectrum, noise_spectrum))
    within = spectra.frame_mask(lengths, speech.shape[-1], stft)
    valid = within & (jnp.max(jnp.abs(frames), axis=-1) > 0)
    flat = lambda array: array.reshape(-1, array.shape[-1])
    return flat(frames), flat(packed), valid.reshape(-1)
