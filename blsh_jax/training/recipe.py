"""From mixtures to a model: draw a dictionary, boost and fine-tune bits, hash the frames."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixture
from blsh_jax.models.model import Model
from blsh_jax.paper import codes
from blsh_jax.paper.separation import Dictionary
from blsh_jax.robust.augmentation import AugmentedMixtures
from blsh_jax.robust.band_shares import speech_and_noise
from blsh_jax.robust.ferns import Ferns
from blsh_jax.robust.fine_tuning import fine_tune
from blsh_jax.training.dictionary import FrameSample, sample_frames
from blsh_jax.training.driver import FitInfo, fit, weigh
from blsh_jax.training.mask_stage import learn_ferns

_WEIGHED_BLOCKS = 20  # of frames on which betas are measured again after fine-tuning
_FINE_TUNING_STREAM = 1 << 20  # of keys; boosting has one for each bit


def train(
    mixtures: Sequence[Mixture],
    config: TrainConfig,
    provenance: dict[str, Any],
    progress: bool = False,
    **options: Any,
) -> tuple[Model, FitInfo]:
    """Draw a dictionary from mixtures, learn projections on its frames, hash it.

    Args:
        mixtures: training mixtures; read once, in batches.
        config: the whole run.
        provenance: what the model file should say of the data.
        progress: show progress bars.
        **options: of ``fit``: ``plan``, ``mesh``, ``checkpoint``, ``log``.

    Returns:
        As ``learn``, which says what is refused.

    Source: [ICASSP20] Algorithm 2 and section 4.
    """
    sample = sample_frames(mixtures, config, progress)
    return learn(sample, config, provenance, progress, mixtures, **options)


def learn(
    sample: FrameSample,
    config: TrainConfig,
    provenance: dict[str, Any],
    progress: bool = False,
    mixtures: Sequence[Mixture] = (),
    **options: Any,
) -> tuple[Model, FitInfo]:
    """Learn projections on frames that are already drawn, and hash them.

    Args:
        sample: the dictionary's frames, of ``sample_frames``.
        config: the whole run.
        provenance: what the model file should say of the data.
        progress: show a progress bar.
        mixtures: those that the frames were drawn from, which ferns need.
        **options: of ``fit``.

    Returns:
        The model, with its frames, and the course of the training.

    Raises:
        ValueError: the dictionary has fewer frames than ``num_neighbors``; or as ``fit`` or
            ``fine_tune``.
    """
    kept = slice(0, config.max_dictionary_frames or None)
    if len(sample.frames[kept]) < config.separation.num_neighbors:
        raise ValueError(
            f"the dictionary has {len(sample.frames[kept])} frames, fewer than num_neighbors "
            f"{config.separation.num_neighbors}: give more mixtures, or a greater "
            "dictionary_fraction"
        )
    config.check_ferns(isinstance(mixtures, AugmentedMixtures))
    frames = sample.frames[: config.max_fit_frames]
    target = None
    if config.target_vectors == "speech_and_noise":
        target = speech_and_noise(sample.shares[: config.max_fit_frames])
    hasher, info = fit(
        frames, config.fit, jax.random.key(config.seed), target, progress=progress, **options
    )
    if config.fine_tuning.fine_tuning_steps:
        streams = jax.random.fold_in(jax.random.key(config.seed), _FINE_TUNING_STREAM)
        tuning_key, weighing_key = jax.random.split(streams)
        fine_tuned = config.fine_tuning.fine_tuning_frames
        hasher, loss = fine_tune(
            hasher,
            sample.frames[:fine_tuned],
            sample.shares[:fine_tuned],
            sample.mixtures[:fine_tuned],
            config.fine_tuning,
            tuning_key,
            progress,
        )
        info = dataclasses.replace(info, fine_tuning_loss=loss)
        weighed = _WEIGHED_BLOCKS * config.fit.block_size
        hasher = weigh(
            hasher,
            frames[:weighed],
            config.fit,
            weighing_key,
            None if target is None else target[:weighed],
        )
    encoded = codes.encode(hasher, jnp.asarray(sample.frames[kept]))
    packed = jnp.asarray(sample.masks[kept])
    dictionary = Dictionary(hasher, encoded, packed, config.separation.stft.num_bins)
    ferns: tuple[Ferns, ...] = ()
    if isinstance(mixtures, AugmentedMixtures) and config.ferns.num_ferns:
        ferns = learn_ferns(mixtures, sample.mixtures[kept], dictionary, config, progress)
    provenance = provenance | {
        "training_frames_seen": sample.num_seen,
        "dictionary_frames": dictionary.num_frames,
        "fit_frames": len(frames),
    }
    frames = sample.frames[kept].astype(np.float16)
    return Model(config, dictionary.prepare(), provenance, frames, ferns), info
