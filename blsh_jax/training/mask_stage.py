"""Learning masks: bins of training mixtures drawn for boosted ferns, and the ferns learned on them.

A mask stage has to know how far neighbours can be trusted in noise that they do not know. So the
mixtures of a fold of noises are searched among dictionary frames of the other folds alone.

Letters: U utterances of n samples, T frames, F bins, S bins drawn, D features of a bin.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import corpora
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixture
from blsh_jax.paper import spectra
from blsh_jax.paper.separation import Dictionary, NeighborMask
from blsh_jax.robust import ferns
from blsh_jax.robust.augmentation import AugmentedMixtures
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.ferns import Ferns, Samples
from blsh_jax.robust.high_pass import high_pass
from blsh_jax.robust.mask_stage import FernMask, fern_stage, phase_sensitive_mask, with_ferns
from blsh_jax.robust.pre_roll import with_pre_roll

_BATCH_SIZE = 8
_STREAM = 1 << 21  # of seeds and keys, beside those of other stages
# Bins are drawn by magnitude, where a wrong mask is heard, and some everywhere.
_BY_MAGNITUDE = 0.6
_MOST_ENERGY = 30.0  # times the mean of a mixture, so that a few bins are not everything


def learn_ferns(
    mixtures: AugmentedMixtures,
    sources: np.ndarray,
    dictionary: Dictionary,
    config: TrainConfig,
    progress: bool = False,
) -> tuple[Ferns, ...]:
    """Learn ferns for a dictionary, on mixtures that it was not made of.

    Each stage has mixtures of its own, so that the second learns from such masks as the first gives
    for mixtures that it has not learned on.

    Args:
        mixtures: those that the dictionary was made of; others are drawn like them, at higher SNRs
            too, some of speech or noise alone.
        sources: (N,) int32, index of the mixture that each frame of the dictionary is of.
        dictionary: N frames.
        config: the whole run.
        progress: show progress bars.

    Returns:
        The ferns of each stage.

    Raises:
        ValueError: without one fold of noises, there are fewer frames than ``num_neighbors``.
    """
    folds, used = config.augmentation.noise_folds, config.separation
    away = [np.flatnonzero(sources % folds != fold) for fold in range(folds)]
    count = min(map(len, away))  # one shape, one compilation
    if count < used.num_neighbors:
        raise ValueError(
            f"without a fold of noises {count} dictionary frames are left, fewer than "
            f"num_neighbors {used.num_neighbors}: give more mixtures, or a greater "
            "dictionary_fraction"
        )
    features = feature_function(used.features, used.stft)
    known = [
        NeighborMask(
            dataclasses.replace(
                dictionary,
                codes=dictionary.codes[rows[:count]],
                tiles=None,
                masks=dictionary.masks[rows[:count]],
            ),
            features,
            used.num_neighbors,
        )
        for rows in away
    ]
    stages: tuple[Ferns, ...] = ()
    for stage, num_ferns in enumerate(config.ferns.stages):
        drawn = _others(mixtures, config, stage)
        functions = [
            fern_stage(with_ferns(neighbors, stages, used), None, stage, used)
            for neighbors in known
        ]
        samples = _samples(drawn, functions, config, stage, progress)
        key = jax.random.fold_in(jax.random.key(config.seed), _STREAM + stage)
        settings = dataclasses.replace(config.ferns, num_ferns=num_ferns)
        stages += (jax.jit(ferns.boost, static_argnames="config")(samples, settings, key)[0],)
    return stages


def _others(mixtures: AugmentedMixtures, config: TrainConfig, stage: int) -> AugmentedMixtures:
    """Mixtures for a stage."""
    learning = config.ferns
    augmentation = dataclasses.replace(
        mixtures.config,
        num_mixtures=learning.fern_mixtures,
        max_snr_db=max(mixtures.config.max_snr_db, learning.fern_max_snr_db),
        alone=learning.fern_alone,
    )
    seed = mixtures.seed + _STREAM + stage
    return dataclasses.replace(mixtures, seed=seed, config=augmentation)


def _samples(
    mixtures: AugmentedMixtures,
    functions: Sequence[FernMask],
    config: TrainConfig,
    stage: int,
    progress: bool,
) -> Samples:
    """Some bins of each mixture; those of a fold with the features that its function gives."""
    rng = np.random.default_rng([config.seed, _STREAM + stage])
    parts: list[tuple[np.ndarray, ...]] = []
    unit = f"bins {stage + 1}/{len(config.ferns.stages)}"
    with tqdm(total=len(mixtures), desc=unit, unit="mix", disable=not progress) as bar:
        for fold, function in enumerate(functions):
            indices = range(fold, len(mixtures), len(functions))
            for start in range(0, len(indices), _BATCH_SIZE):
                some = [mixtures[i] for i in indices[start : start + _BATCH_SIZE]]
                parts += _drawn(some, function, config, rng)
                bar.update(len(some))
    order = rng.permutation(sum(len(targets) for _, targets, _ in parts))
    values, targets, weights = (
        np.concatenate(same, axis=-1)[..., order] for same in zip(*parts, strict=True)
    )
    return Samples(*map(jnp.asarray, (values, targets, weights / weights.mean())))


def _drawn(
    mixtures: Sequence[Mixture], function: FernMask, config: TrainConfig, rng: np.random.Generator
) -> list[tuple[np.ndarray, ...]]:
    """Some bins of each mixture: the arrays of ``Samples``."""
    parts: list[tuple[np.ndarray, ...]] = []
    (batch,) = corpora.batches(mixtures, _BATCH_SIZE)
    values, targets, energy = map(
        np.asarray, _analysed(batch.speech, batch.noise, function, config)
    )
    for row in range(len(mixtures)):
        energies = energy[row].ravel()
        shares = np.sqrt(energies) / np.sqrt(energies).sum()
        by_magnitude = round(_BY_MAGNITUDE * config.ferns.fern_bins)
        drawn = np.concatenate(
            [
                rng.choice(energies.size, by_magnitude, p=shares),
                rng.integers(energies.size, size=config.ferns.fern_bins - by_magnitude),
            ]
        )
        mean = energies.mean()
        important = np.minimum(energies[drawn], _MOST_ENERGY * mean) / mean
        often = _BY_MAGNITUDE * shares[drawn] * energies.size + 1 - _BY_MAGNITUDE
        parts.append(
            (
                values[:, row].reshape(len(values), -1)[:, drawn],
                targets[row].ravel()[drawn],
                (important / often).astype(np.float32),
            )
        )
    return parts


@functools.partial(jax.jit, static_argnames="config")
def _analysed(
    speech: Array, noise: Array, function: FernMask, config: TrainConfig
) -> tuple[Array, Array, Array]:
    """Features (D or 2 D, U, T, F) uint8, targets and energies (U, T, F), without the pre-roll."""
    used = config.separation
    pre_roll = used.features.pre_roll_frames
    spoken, rest = (
        spectra.stft(with_pre_roll(part, pre_roll, used.stft), used.stft)
        for part in (speech, noise)
    )
    mixture = spoken + rest
    ahead = function.look_ahead
    newest = jnp.pad(mixture, ((0, 0), (0, ahead), (0, 0)))
    _, values = function.features(function.init((len(speech),)), newest)
    target = phase_sensitive_mask(spoken, mixture)
    target = high_pass(target, config.high_pass_hz, used.stft)
    energy = jnp.square(jnp.abs(mixture))
    return values[:, :, pre_roll + ahead :], target[:, pre_roll:], energy[:, pre_roll:]
