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
from blsh_jax.config import SeparationConfig, TrainConfig
from blsh_jax.corpora import Batch
from blsh_jax.paper import spectra
from blsh_jax.paper.separation import Dictionary, MaskFunction, NeighborMask
from blsh_jax.robust import ferns
from blsh_jax.robust.augmentation import AugmentedMixtures
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.ferns import Ferns, Samples
from blsh_jax.robust.high_pass import high_pass
from blsh_jax.robust.mask_stage import (
    FernMask,
    fern_stage,
    phase_sensitive_mask,
    with_ferns,
    zeros_of,
)
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
    before: Sequence[Ferns] = (),
) -> tuple[Ferns, ...]:
    """Learn ferns for a dictionary, on mixtures that it was not made of.

    Each stage has mixtures of its own, so that the second learns from such masks as the first gives
    for mixtures that it has not learned on.

    Args:
        mixtures: those that the dictionary was made of; others are drawn like them, at higher SNRs
            too, some of speech or noise alone.
        sources: (N,) int32, index of the mixture that each frame of the dictionary is of; -1 for
            frames of other mixtures, whose noises are in no fold.
        dictionary: N frames.
        config: the whole run.
        progress: show progress bars.
        before: ferns of each stage that are there already: those that are learned follow on them.

    Returns:
        The ferns of each stage, those before first.

    Raises:
        ValueError: without one fold of noises, there are fewer frames than ``num_neighbors``.
    """
    folds, used = config.augmentation.noise_folds, config.separation
    fold_of = np.where(sources < 0, -1, sources % folds)
    away = [np.flatnonzero(fold_of != fold) for fold in range(folds)]
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
    return learn_stages(mixtures, known, config, progress, before)


def learn_stages(
    mixtures: AugmentedMixtures,
    known: Sequence[MaskFunction],
    config: TrainConfig,
    progress: bool = False,
    before: Sequence[Ferns] = (),
) -> tuple[Ferns, ...]:
    """Learn ferns behind mask functions.

    Args:
        mixtures: as of ``learn_ferns``.
        known: the mask function of the neighbours for each fold of the mixtures.
        config: the whole run.
        progress: show progress bars.
        before: as of ``learn_ferns``.

    Returns:
        The ferns of each stage, those before first.
    """
    stages: tuple[Ferns, ...] = ()
    for stage, num_ferns in enumerate(config.ferns.stages):
        drawn = _others(mixtures, config, stage)
        functions = [
            fern_stage(
                with_ferns(neighbors, stages, config.separation), None, stage, config.separation
            )
            for neighbors in known
        ]
        samples = _samples(drawn, functions, config, stage, progress)
        key = jax.random.fold_in(jax.random.key(config.seed), _STREAM + stage)
        settings = dataclasses.replace(config.ferns, num_ferns=num_ferns)
        boost = jax.jit(ferns.boost, static_argnames="config")
        old = before[stage : stage + 1]
        learned, _ = boost(samples, settings, key, before=old[0] if old else None)
        stages += (jax.tree.map(lambda *parts: jnp.concatenate(parts), *old, learned),)
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
            for batch in corpora.batches(mixtures[fold :: len(functions)], _BATCH_SIZE):
                parts += _drawn(batch, function, config, rng)
                bar.update(np.count_nonzero(batch.lengths))
    order = rng.permutation(sum(len(targets) for _, targets, _ in parts))
    values, targets, weights = (
        np.concatenate(same, axis=-1)[..., order] for same in zip(*parts, strict=True)
    )
    return Samples(*map(jnp.asarray, (values, targets, weights / weights.mean())))


def _drawn(
    batch: Batch, function: FernMask, config: TrainConfig, rng: np.random.Generator
) -> list[tuple[np.ndarray, ...]]:
    """Some bins of each mixture: the arrays of ``Samples``."""
    newest, targets, energy = _analysed(
        batch.speech, batch.noise, function.look_ahead, config.high_pass_hz, config.separation
    )
    start = jax.eval_shape(lambda: function.init((len(batch.speech),)))
    _, values = function.features(zeros_of(start), newest)
    energies = np.asarray(energy).reshape(len(energy), -1)[: np.count_nonzero(batch.lengths)]
    by_magnitude = round(_BY_MAGNITUDE * config.ferns.fern_bins)
    drawn = np.zeros((len(batch.lengths), config.ferns.fern_bins), np.int32)
    weights = np.zeros(drawn.shape, np.float32)
    for row, energies_of_bins in enumerate(energies):
        size, mean = energies_of_bins.size, energies_of_bins.mean()
        shares = np.sqrt(energies_of_bins) / np.sqrt(energies_of_bins).sum()
        drawn[row, :by_magnitude] = rng.choice(size, by_magnitude, p=shares)
        drawn[row, by_magnitude:] = rng.integers(size, size=drawn.shape[1] - by_magnitude)
        important = np.minimum(energies_of_bins[drawn[row]], _MOST_ENERGY * mean) / mean
        often = _BY_MAGNITUDE * shares[drawn[row]] * size + 1 - _BY_MAGNITUDE
        weights[row] = important / often
    before = values.shape[-2] - targets.shape[-2]
    known, wanted = map(np.asarray, _at(values, targets, drawn, before))
    return [(known[:, row], wanted[row], weights[row]) for row in range(len(energies))]


@functools.partial(jax.jit, static_argnames="before")
def _at(values: Array, targets: Array, places: Array, before: int) -> tuple[Array, Array]:
    """(D, U, B) of values (D, U, before + T, F), (U, B) of targets, at places (U, B) in T * F."""
    frames, bins = jnp.divmod(places, targets.shape[-1])
    rows = jnp.arange(len(places))[:, None]
    return values[:, rows, before + frames, bins], targets[rows, frames, bins]


@functools.partial(jax.jit, static_argnames=("look_ahead", "high_pass_hz", "used"))
def _analysed(
    speech: Array, noise: Array, look_ahead: int, high_pass_hz: float, used: SeparationConfig
) -> tuple[Array, Array, Array]:
    """The mixture's spectra with pre-roll and silence; without, targets and energies (U, T, F)."""
    pre_roll = used.features.pre_roll_frames
    spoken, rest = (
        spectra.stft(with_pre_roll(part, pre_roll, used.stft), used.stft)
        for part in (speech, noise)
    )
    mixture = spoken + rest
    target = phase_sensitive_mask(spoken, mixture)
    target = high_pass(target, high_pass_hz, used.stft)
    energy = jnp.square(jnp.abs(mixture))
    newest = jnp.pad(mixture, ((0, 0), (0, look_ahead), (0, 0)))
    return newest, target[:, pre_roll:], energy[:, pre_roll:]
