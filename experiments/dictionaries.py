r"""Dictionaries of many more frames than the model keeps, as they are and merged.

    python -m experiments.dictionaries --recipe=general --speech DIR --noise DIR \
        --output dictionaries.json

For validation, on training material alone, with noises left out in groups as in
``experiments.unseen``. The hash functions are the recipe's; the dictionaries hold frames of other
random mixtures of the same recordings, half a million at most. Takes a quarter of an hour on two
CPU cores.

Letters: N frames, M entries, W words of a code, Wf words of a packed mask.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import codes, corpora, evaluation, search, training
from blsh_jax.config import TrainConfig
from blsh_jax.separation import Dictionary
from experiments import validation
from experiments.workbench import searching

_COLUMNS = ["dictionary", "entries", "num_bits", "sdr", "si_sdr"]
_SIZES = (2**13, 2**15, 2**17, 2**19)
_MERGED_SIZES = (2**13, 2**15)
_POOL_MIXTURES = 2900  # of three seconds: somewhat more than the largest size


def dictionaries(
    group: validation.Group, config: TrainConfig, num_bits: Sequence[int]
) -> validation.Rows:
    """A row per dictionary and length, of one group of noises left out.

    Args:
        group: of ``validation.left_out_in_turn``.
        config: the recipe.
        num_bits: code lengths.
    """
    everything = _pool(group, config)
    compared = {
        (name, entries): make(everything, entries)
        for name, make, sizes in (
            ("frames at random", _first, _SIZES),
            ("all frames, merged", merged, _MERGED_SIZES),
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
    rows = evaluation.evaluate(list(systems.values()), group.tests, progress=True)
    return [
        {"dictionary": name, "entries": entries, "num_bits": length}
        | {score: row[score] for score in ("sdr", "si_sdr")}
        for (name, entries, length), row in zip(systems, rows, strict=True)
    ]


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


def _pool(group: validation.Group, config: TrainConfig) -> Dictionary:
    """Frames of many other mixtures than the hash functions were learned on, in random order."""
    mixtures = corpora.training_mixtures(group.speech, group.noise, config)
    hasher = training.train(mixtures, config, {}, progress=True)[0].dictionary.hasher
    variety = dataclasses.replace(config.variety, num_mixtures=_POOL_MIXTURES)
    others = dataclasses.replace(config, variety=variety, seed=config.seed + 1)
    pool = corpora.training_mixtures(group.speech, group.noise, others)
    (encoded,), packed = training.hash_frames(pool, [hasher], config, progress=True)
    if len(encoded) < max(_SIZES):
        raise ValueError(
            f"{_POOL_MIXTURES} mixtures have {len(encoded)} frames, {max(_SIZES)} are needed: "
            "give a greater mixture_seconds"
        )
    order = np.random.default_rng(config.seed).permutation(len(encoded))[: max(_SIZES)]
    return Dictionary(
        hasher, jnp.asarray(encoded[order]), jnp.asarray(packed[order]), config.stft.num_bins
    )


def _first(dictionary: Dictionary, entries: int) -> Dictionary:
    return dataclasses.replace(
        dictionary, codes=dictionary.codes[:entries], masks=dictionary.masks[:entries]
    )


if __name__ == "__main__":
    validation.run("dictionaries", dictionaries, _COLUMNS)
