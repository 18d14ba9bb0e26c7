r"""Dictionaries of other frames than the model keeps, and of many more, as they are and merged.

    python -m experiments.dictionaries --recipe=general --speech DIR --noise DIR \
        --output dictionaries.json

For validation, on training material alone, with noises left out in groups as in
``experiments.unseen``. The hash functions are the recipe's; the dictionaries hold frames that they
were learned on, other frames of the same mixtures, or frames of other random mixtures of the same
recordings, two million at most. Takes half an hour on two CPU cores.

Letters: N frames, M entries, W words of a code, Wf words of a packed mask.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import codes, corpora, search, training
from blsh_jax.config import TrainConfig
from blsh_jax.separation import Dictionary
from experiments import validation
from experiments.workbench import searching

_COLUMNS = ["dictionary", "entries", "num_bits", "sdr", "si_sdr"]
_SIZES = (2**13, 2**15, 2**17, 2**19, 2**21)
_MERGED_SIZES = (2**13, 2**15)
_POOL_MIXTURES = 11600  # of three seconds: somewhat more than the largest size


def dictionaries(
    group: validation.Group, config: TrainConfig, num_bits: Sequence[int]
) -> validation.Rows:
    """A row per dictionary and length, of one group of noises left out.

    Args:
        group: of ``validation.left_out_in_turn``.
        config: the recipe.
        num_bits: code lengths.
    """
    learned, not_learned, others = _pools(group, config)
    compared = {
        (name, entries): make(pool, entries)
        for name, pool, make, sizes in (
            ("frames that were learned on", learned, _first, _SIZES[:1]),
            ("other frames of the same mixtures", not_learned, _first, _SIZES[:1]),
            ("frames of other mixtures", others, _first, _SIZES),
            ("all of these, merged", others, merged, _MERGED_SIZES),
        )
        for entries in sizes
    }
    systems = {
        (name, entries, length): searching(
            "blsh", length, dictionary.prefix(length), config, config.features
        )
        for (name, entries), dictionary in compared.items()
        for length in num_bits
    }
    return validation.scored(systems, ("dictionary", "entries", "num_bits"), group.tests)


def merged(dictionary: Dictionary, entries: int) -> Dictionary:
    """All frames in few entries: each joins the nearest of the first ones, which vote on the mask.

    Args:
        dictionary: N frames.
        entries: M, of which the codes stay as they are.

    Returns:
        A dictionary of M entries; a bin of a mask is speech where it is in more than half of the
        frames that have joined.
    """
    places = search.hamming_top_k(dictionary.codes, dictionary.codes[:entries], 1).indices[:, 0]
    counts = jnp.bincount(places, length=entries)

    def majority(word: Array) -> Array:
        votes = codes.unpack_bits(word[:, None], 32).astype(jnp.int32)
        won = 2 * jax.ops.segment_sum(votes, places, entries) > counts[:, None]
        return codes.pack_bits(won)[:, 0]

    packed = jax.lax.map(majority, dictionary.masks.T).T
    return dataclasses.replace(dictionary, codes=dictionary.codes[:entries], masks=packed)


def _pools(
    group: validation.Group, config: TrainConfig
) -> tuple[Dictionary, Dictionary, Dictionary]:
    """Frames that hash functions were learned on, others of those mixtures, and of other ones.

    Each in random order.
    """
    mixtures = corpora.training_mixtures(group.speech, group.noise, config)
    sample = training.sample_frames(mixtures, config, progress=True)
    drawn, count = len(sample.frames), config.max_fit_frames
    if drawn - count < min(_SIZES):
        raise ValueError(
            f"{drawn} frames were drawn and {count} are learned on, {min(_SIZES)} more are needed: "
            "give a greater dictionary_fraction"
        )
    hasher = training.learn(sample, config, {}, progress=True)[0].hasher
    whole = Dictionary(
        hasher,
        codes.encode(hasher, jnp.asarray(sample.frames)),
        jnp.asarray(sample.masks),
        config.stft.num_bins,
    )
    learned, not_learned = _part(whole, slice(count)), _part(whole, slice(count, None))
    variety = dataclasses.replace(config.variety, num_mixtures=_POOL_MIXTURES)
    differently = dataclasses.replace(config, variety=variety, seed=config.seed + 1)
    pool = corpora.training_mixtures(group.speech, group.noise, differently)
    (encoded,), packed = training.hash_frames(pool, [hasher], config, progress=True)
    if len(encoded) < max(_SIZES):
        raise ValueError(
            f"{_POOL_MIXTURES} mixtures have {len(encoded)} frames, {max(_SIZES)} are needed: "
            "give a greater mixture_seconds"
        )
    order = np.random.default_rng(config.seed).permutation(len(encoded))[: max(_SIZES)]
    others = Dictionary(
        hasher, jnp.asarray(encoded[order]), jnp.asarray(packed[order]), config.stft.num_bins
    )
    return learned, not_learned, others


def _first(dictionary: Dictionary, entries: int) -> Dictionary:
    return _part(dictionary, slice(entries))


def _part(dictionary: Dictionary, frames: slice) -> Dictionary:
    return dataclasses.replace(
        dictionary, codes=dictionary.codes[frames], masks=dictionary.masks[frames]
    )


if __name__ == "__main__":
    validation.run("dictionaries", dictionaries, _COLUMNS)
