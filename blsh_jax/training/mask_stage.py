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
from blsh_jax.robust.bin_features import bin_features, nothing_heard
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.ferns import Ferns, Samples
from blsh_jax.robust.high_pass import high_pass
from blsh_jax.robust.mask_stage import phase_sensitive_mask
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
) -> Ferns:
    """Learn ferns for a dictionary, on mixtures that it was not made of.

    Args:
        mixtures: those that the dictionary was made of; others are drawn like them.
        sources: (N,) int32, index of the mixture that each frame of the dictionary is of.
        dictionary: N frames.
        config: the whole run.
        progress: show a progress bar.

    Returns:
        The ferns.

    Raises:
        ValueError: without one fold of noises, there are fewer frames than ``num_neighbors``.
    """
    folds = config.augmentation.noise_folds
    others = dataclasses.replace(
        mixtures,
        seed=mixtures.seed + _STREAM,
        config=dataclasses.replace(mixtures.config, num_mixtures=config.ferns.fern_mixtures),
    )
    away = [np.flatnonzero(sources % folds != fold) for fold in range(folds)]
    count = min(map(len, away))  # one shape, one compilation
    if count < config.separation.num_neighbors:
        raise ValueError(
            f"without a fold of noises {count} dictionary frames are left, fewer than "
            f"num_neighbors {config.separation.num_neighbors}: give more mixtures, or a greater "
            "dictionary_fraction"
        )
    rng = np.random.default_rng([config.seed, _STREAM])
    parts: list[tuple[np.ndarray, ...]] = []
    with tqdm(total=len(others), desc="bins", unit="mix", disable=not progress) as bar:
        for fold, rows in enumerate(away):
            known = dataclasses.replace(
                dictionary,
                codes=dictionary.codes[rows[:count]],
                masks=dictionary.masks[rows[:count]],
            )
            parts += _drawn(others[fold::folds], known, config, rng, bar)
    order = rng.permutation(sum(len(targets) for _, targets, _ in parts))
    values, targets, weights = (
        np.concatenate(same, axis=-1)[..., order] for same in zip(*parts, strict=True)
    )
    samples = Samples(*map(jnp.asarray, (values, targets, weights / weights.mean())))
    key = jax.random.fold_in(jax.random.key(config.seed), _STREAM)
    return jax.jit(ferns.boost, static_argnames="config")(samples, config.ferns, key)[0]


def _drawn(
    mixtures: Sequence[Mixture],
    dictionary: Dictionary,
    config: TrainConfig,
    rng: np.random.Generator,
    bar: tqdm,
) -> list[tuple[np.ndarray, ...]]:
    """Some bins of each mixture: the arrays of ``Samples``."""
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in corpora.batches(mixtures, _BATCH_SIZE):
        values, targets, energy = map(
            np.asarray, _analysed(batch.speech, batch.noise, dictionary, config)
        )
        for row in np.flatnonzero(batch.lengths):
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
            bar.update()
    return parts


@functools.partial(jax.jit, static_argnames="config")
def _analysed(
    speech: Array, noise: Array, dictionary: Dictionary, config: TrainConfig
) -> tuple[Array, Array, Array]:
    """Features (D, U, T, F) uint8, targets and energies (U, T, F), without the pre-roll."""
    used = config.separation
    pre_roll = used.features.pre_roll_frames
    spoken, rest = (
        spectra.stft(with_pre_roll(part, pre_roll, used.stft), used.stft)
        for part in (speech, noise)
    )
    mixture = spoken + rest
    function = NeighborMask(
        dictionary, feature_function(used.features, used.stft), used.num_neighbors
    )
    channels = (len(speech),)
    _, mask = function(function.init(channels), mixture, mixture)
    past = nothing_heard((*channels, used.stft.num_bins))
    _, values = bin_features(past, mask, mixture, used.speech_presence, used.stft)
    target = phase_sensitive_mask(spoken, mixture)
    target = high_pass(target, config.high_pass_hz, used.stft)
    energy = jnp.square(jnp.abs(mixture))
    return values[:, :, pre_roll:], target[:, pre_roll:], energy[:, pre_roll:]
