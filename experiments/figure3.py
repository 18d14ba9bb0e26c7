r"""Figure 3 of the paper: SDR over the length of codes, for LSH and BLSH and two dictionary sizes.

    python -m experiments.figure3 --speech DIR --noise DIR --open_speech DIR --open_noise DIR \
        --output figure3.json [--cache DIR]

Takes a quarter of an hour on two CPU cores with --max_mixtures=60, besides the training. Draws ten
random dictionaries of 10 % and of 1 % of all training frames, searches them with codes of every
length, and writes mean and standard deviation of SDR over the ten, with a picture beside the
record. One model serves every length: its first L bits are the model of L bits. LSH draws new
projections with every dictionary, unless --nofresh_projections keeps one draw for all.
"""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import evaluation, training
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixtures
from blsh_jax.evaluation import random_hasher, searching
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.separation import Dictionary
from experiments import pictures
from experiments import protocol as protocols
from experiments.cache import Cache, fingerprint
from experiments.protocol import Protocol
from experiments.workbench import Workbench

LENGTHS = (5, 10, 25, 50, 75, 100, 125, 150, 200, 250, 300)
FRACTIONS = (0.1, 0.01)
_COLUMNS = ["set", "method", "dictionary_fraction", "num_bits", "sdr", "sdr_std"]


@dataclasses.dataclass(frozen=True)
class Figure3Config:
    """What figure 3 compares.

    Attributes:
        lengths: code lengths, none longer than the model.
        fractions: dictionary sizes, as parts of all training frames.
        num_subsets: random dictionaries of each size.
        fresh_projections: LSH draws projections anew with every dictionary.
    """

    lengths: tuple[int, ...] = LENGTHS
    fractions: tuple[float, ...] = FRACTIONS
    num_subsets: int = 10
    fresh_projections: bool = True


def figure3(
    protocol: Protocol, config: TrainConfig, chosen: Figure3Config, cache: Cache
) -> list[dict[str, Any]]:
    """The points of the figure.

    Args:
        protocol: the mixtures.
        config: how BLSH is fitted, on the dictionary of ``dictionary_fraction``.
        chosen: what is compared.
        cache: where intermediate results are kept.

    Returns:
        One row per test set, method, dictionary size and length: mean and standard deviation of
        SDR over the subsets, and the subsets' own.

    Raises:
        ValueError: a length that the model does not have.

    Source: [ICASSP20] figure 3.
    """
    too_long = [length for length in chosen.lengths if not 1 <= length <= config.fit.num_bits]
    if too_long:
        raise ValueError(f"length {too_long[0]}: the model has {config.fit.num_bits} bits")
    bench = Workbench(protocol, config, cache)
    hashers = _hashers(bench, chosen)
    encoded, packed = _hash_all(bench, hashers)
    depends = bench.settings(fit=bench.fit_settings(config.fit))
    depends |= {"lengths": chosen.lengths, "separation": configs.to_dict(config.separation)}
    rows = []
    for name, mixtures in protocol.tests.items():
        depends["mixtures"] = fingerprint(mixtures)
        for method, fraction in itertools.product(("lsh", "blsh"), chosen.fractions):
            runs = []
            for subset in range(chosen.num_subsets):
                key = (method, subset if method == "lsh" and chosen.fresh_projections else 0)
                place = {"key": key, "fraction": fraction, "subset": subset}
                kept = _subset(len(packed), fraction, config.seed, subset)
                parts = jnp.asarray(encoded[key][kept]), jnp.asarray(packed[kept])
                dictionary = Dictionary(hashers[key], *parts, config.separation.stft.num_bins)
                curve = functools.partial(_curve, method, dictionary, mixtures, chosen, config)
                runs.append(cache.record("curve", depends | place, curve))
                print(f"{name} {method} {fraction} {subset}: {runs[-1][-1]:.2f}", flush=True)
            rows += _rows(name, method, fraction, chosen.lengths, np.array(runs))
    return rows


def _hashers(bench: Workbench, chosen: Figure3Config) -> dict[tuple[str, int], Hasher]:
    """The hash functions by method and draw."""
    model, longest = bench.model(bench.config.fit), max(chosen.lengths)
    draws = chosen.num_subsets if chosen.fresh_projections else 1
    frames = jnp.asarray(bench.sample.frames)
    found = {("blsh", 0): model.hasher.prefix(longest)}
    for draw in range(draws):
        found["lsh", draw] = random_hasher(bench.config.seed, longest, frames, draw)
    return found


def _hash_all(
    bench: Workbench, hashers: dict[tuple[str, int], Hasher]
) -> tuple[dict[tuple[str, int], np.ndarray], np.ndarray]:
    """Codes of all training frames under every hasher, and the frames' masks; cached."""
    fit, longest = bench.fit_settings(bench.config.fit), max(h.num_bits for h in hashers.values())
    made: dict[Any, np.ndarray] = {}

    def make(name: Any) -> dict[str, np.ndarray]:
        # The first result that is not cached takes the others along: one pass over the mixtures.
        if name not in made:
            codes_, made["masks"] = training.hash_frames(
                bench.protocol.train, list(hashers.values()), bench.config, progress=True
            )
            made.update(zip(hashers, codes_, strict=True))
        return {"rows": made[name]}

    encoded = {}
    for key in hashers:
        settings = bench.settings(hasher=key, num_bits=longest, fit=fit if key[0] == "blsh" else 0)
        encoded[key] = bench.cache.arrays("codes", settings, functools.partial(make, key))["rows"]
    packed = bench.cache.arrays("masks", bench.settings(), functools.partial(make, "masks"))
    return encoded, packed["rows"]


def _subset(size: int, fraction: float, seed: int, number: int) -> np.ndarray:
    """Indices of a random part; those of one number nest, the smaller is part of the larger."""
    order = np.random.default_rng([seed, number]).permutation(size)
    return np.sort(order[: round(fraction * size)])


def _curve(
    method: str,
    dictionary: Dictionary,
    mixtures: Mixtures,
    chosen: Figure3Config,
    config: TrainConfig,
) -> list[float]:
    """SDR at every length."""
    systems = [
        searching(method, length, dictionary, config.separation) for length in chosen.lengths
    ]
    return [row["sdr"] for row in evaluation.evaluate(systems, mixtures, timed=False)]


def _rows(name, method, fraction, lengths, scores: np.ndarray) -> list[dict[str, Any]]:
    """Rows of one curve; ``scores`` is (subsets, lengths)."""
    return [
        {
            "set": name,
            "method": method,
            "dictionary_fraction": fraction,
            "num_bits": length,
            "sdr": float(column.mean()),
            "sdr_std": float(column.std()),
            "sdr_subsets": [round(float(value), 4) for value in column],
        }
        for length, column in zip(lengths, scores.T, strict=True)
    ]


def _define_flags() -> None:
    protocols.define_flags()
    launch.define_output("Record to write (.json); the picture goes beside it (.png).")
    launch.define_train_config()
    default = Figure3Config()
    launch.define_lengths("lengths", default.lengths)
    flags.DEFINE_list(
        "fractions",
        [str(part) for part in default.fractions],
        "Dictionary sizes to draw, as parts of all training frames.",
    )
    flags.DEFINE_integer("num_subsets", default.num_subsets, "Random dictionaries of each size.")
    flags.DEFINE_bool(
        "fresh_projections", True, "Draw projections of LSH anew with every dictionary."
    )
    flags.FLAGS.set_default("fit.num_bits", max(default.lengths))
    flags.FLAGS.set_default("max_mixtures", 100)


def main() -> None:
    """Flags, library, record, picture."""
    values, config = flags.FLAGS, launch.train_config()
    chosen = Figure3Config(
        tuple(launch.lengths("lengths", config.fit.num_bits)),
        tuple(float(part) for part in values.fractions),
        values.num_subsets,
        values.fresh_projections,
    )
    protocol = protocols.from_flags(config)
    rows = figure3(protocol, config, chosen, Cache(values.cache))
    record = protocols.write(rows, _COLUMNS, config, protocol, figure3=configs.to_dict(chosen))
    pictures.save(pictures.figure3(record), record, Path(values.output).with_suffix(".png"))


if __name__ == "__main__":
    launch.run(_define_flags, main)
