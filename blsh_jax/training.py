"""Training: from mixtures to a model. Frames of the mixtures, projections, dictionary."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import boosting, codes, corpora, masks, refinement, residual, spectra
from blsh_jax.codes import Hasher
from blsh_jax.config import FeatureConfig, StftConfig, TrainConfig
from blsh_jax.corpora import Mixture
from blsh_jax.model import Model
from blsh_jax.residual import ResidualInfo
from blsh_jax.separation import Dictionary

_BATCH_SIZE = 32
_NUM_BANDS = 64  # in which masks are compared while hyperplanes are refined
_REFINE_STREAM = 1 << 20  # of keys; boosting has one for each bit


class FrameSample(NamedTuple):
    """Frames drawn from training mixtures.

    Attributes:
        frames: (N, D) float32 unit vectors.
        masks: (N, Wf) uint32, their packed ideal binary masks.
        shares: (N, 2, C) float16 of ``masks.band_shares``, in mel bands.
        mixtures: (N,) int32, index of the mixture that a frame is of.
        num_seen: frames of signal that they were drawn from.
    """

    frames: np.ndarray
    masks: np.ndarray
    shares: np.ndarray
    mixtures: np.ndarray
    num_seen: int


class RefinedInfo(NamedTuple):
    """How training went, hyperplanes refined.

    Attributes:
        learned: how the bits came out before.
        loss: (S,) loss of each step of the refinement.
    """

    learned: boosting.FitInfo | ResidualInfo
    loss: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists and numbers, ready for JSON."""
        return {"learned": self.learned.to_dict(), "loss": self.loss.tolist()}


TrainInfo = boosting.FitInfo | ResidualInfo | RefinedInfo


def train(
    mixtures: Sequence[Mixture],
    config: TrainConfig,
    provenance: dict[str, Any],
    progress: bool = False,
    **options: Any,
) -> tuple[Model, TrainInfo]:
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
        ValueError: as ``learn``.

    Source: [ICASSP20] Algorithm 2 and section 4.
    """
    return learn(sample_frames(mixtures, config, progress), config, provenance, progress, **options)


def learn(
    sample: FrameSample,
    config: TrainConfig,
    provenance: dict[str, Any],
    progress: bool = False,
    **options: Any,
) -> tuple[Model, TrainInfo]:
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
        ValueError: the dictionary has fewer frames than ``config.num_neighbors``; or as
            ``boosting.fit``, ``residual.fit`` or ``refinement.refine``.

    Source: [ICASSP20] Algorithm 2.
    """
    kept = slice(0, config.max_dictionary_frames or None)
    if len(sample.frames[kept]) < config.num_neighbors:
        raise ValueError(
            f"the dictionary has {len(sample.frames[kept])} frames, fewer than num_neighbors "
            f"{config.num_neighbors}: give more mixtures, or a greater dictionary_fraction"
        )
    frames, shares, sources = (
        part[: config.max_fit_frames] for part in (sample.frames, sample.shares, sample.mixtures)
    )
    hasher, learned = _learn_bits(frames, config, progress, **options)
    info: TrainInfo = learned
    if config.refine.refine_steps:
        key = jax.random.fold_in(jax.random.key(config.seed), _REFINE_STREAM)
        hasher, loss = refinement.refine(
            hasher, frames, shares, sources, config.refine, key, progress
        )
        info = RefinedInfo(learned, loss)
    encoded = codes.encode(hasher, jnp.asarray(sample.frames[kept]))
    packed = jnp.asarray(sample.masks[kept])
    dictionary = Dictionary(hasher, encoded, packed, config.stft.num_bins)
    provenance = provenance | {
        "training_frames_seen": sample.num_seen,
        "dictionary_frames": dictionary.num_frames,
        "fit_frames": len(frames),
    }
    return Model(config, dictionary, provenance, sample.frames[kept].astype(np.float16)), info


def _learn_bits(
    frames: np.ndarray, config: TrainConfig, progress: bool, **options: Any
) -> tuple[Hasher, boosting.FitInfo | ResidualInfo]:
    """Bits one after the other, by the learner that the configuration names."""
    if config.learner == "residual":
        return residual.fit(jnp.asarray(frames), config.fit.num_bits, **options)
    key = jax.random.key(config.seed)
    return boosting.fit(frames, config.fit, key, progress=progress, **options)


def sample_frames(
    mixtures: Sequence[Mixture],
    config: TrainConfig,
    progress: bool = False,
    extract: spectra.Extract = spectra.features,
) -> FrameSample:
    """A random ``dictionary_fraction`` of the mixtures' frames, in random order.

    Digitally silent frames have no direction and are never drawn.

    Args:
        mixtures: training mixtures.
        config: transform, features, fraction and seed.
        progress: show a progress bar.
        extract: what makes feature vectors of spectra.

    Returns:
        Frames, their packed masks, and what refinement needs of them.

    Raises:
        ValueError: nothing was drawn.

    Source: [ICASSP20] section 4.2, "10 %" and "1 %" of the frames.
    """
    rng = np.random.default_rng(config.seed)
    parts: list[tuple[np.ndarray, ...]] = []
    num_seen = 0
    bar = tqdm(total=len(mixtures), desc="mixtures", unit="mix", disable=not progress)
    for batch in corpora.batches(mixtures, _BATCH_SIZE):
        *arrays, valid = _analyse(
            batch.speech, batch.noise, batch.lengths, *_analysis(config), extract
        )
        candidates = np.flatnonzero(valid)
        chosen = candidates[rng.random(len(candidates)) < config.dictionary_fraction]
        mixture = batch.indices[chosen // (len(valid) // len(batch.indices))]
        parts.append((*(np.asarray(array)[chosen] for array in arrays), mixture))
        num_seen += len(candidates)
        bar.update(np.count_nonzero(batch.lengths))
    bar.close()
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
    bar = tqdm(total=len(mixtures), desc="hashing", unit="mix", disable=not progress)
    for batch in corpora.batches(mixtures, _BATCH_SIZE):
        frames, batch_masks, _, valid = _analyse(
            batch.speech, batch.noise, batch.lengths, *_analysis(config), spectra.features
        )
        rows = np.flatnonzero(valid)
        packed.append(np.asarray(batch_masks)[rows])
        for parts, hasher in zip(encoded, hashers, strict=True):
            parts.append(np.asarray(_encode(hasher, frames))[rows])
        bar.update(np.count_nonzero(batch.lengths))
    bar.close()
    return [np.concatenate(parts) for parts in encoded], np.concatenate(packed)


_encode = jax.jit(codes.encode)


def _analysis(config: TrainConfig) -> tuple[StftConfig, FeatureConfig, float]:
    """What of a configuration decides what frames are, and their masks."""
    return config.stft, config.features, config.lowest_speech_hz


@functools.partial(jax.jit, static_argnames=("stft", "features", "lowest_speech_hz", "extract"))
def _analyse(
    speech, noise, lengths, stft, features, lowest_speech_hz, extract
) -> tuple[Array, Array, Array, Array]:
    """Feature vectors (U T, D), packed masks (U T, Wf), shares (U T, 2, C), rows of signal (U T,).

    The shares are in half precision, as they are kept.
    """
    speech_spectrum, noise_spectrum, frames = spectra.parts_and_features(
        speech, noise, features, stft, extract
    )
    mixture = speech_spectrum + noise_spectrum
    binary = masks.ideal_binary_mask(speech_spectrum, noise_spectrum)
    binary = masks.without_rumble(binary, lowest_speech_hz, stft)
    filters = jnp.asarray(spectra.mel_filters(_NUM_BANDS, stft), frames.dtype)
    shares = masks.band_shares(binary, mixture, filters).astype(jnp.float16)
    within = spectra.frame_mask(lengths, speech.shape[-1], stft)
    valid = within & (jnp.max(jnp.abs(frames), axis=-1) > 0)
    flat = lambda array, ndim: array.reshape(-1, *array.shape[-ndim:])
    return flat(frames, 1), flat(masks.pack_masks(binary), 1), flat(shares, 2), valid.reshape(-1)
