"""Noises left out in turn, on training material alone: what choices are made on.

Noises are dealt into groups; each group in turn is what a model has not heard. Most of the speakers
are trained on, the others are scored. Figures are means over the groups.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, records
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Loaded, Mixtures
from blsh_jax.evaluation import System
from experiments import flags as launch
from experiments.cache import Cache, fingerprint

flags.disclaim_key_flags()  # they are the program's

_TEST_SEED = 1
Rows = list[dict[str, Any]]
Score = Callable[["Group", TrainConfig, list[int]], Rows]


class Group(NamedTuple):
    """Noises that are left out together.

    Attributes:
        speech: utterances to train on.
        noise: noises to train on: all that are not left out.
        tests: mixtures of the other speakers in the noises left out.
    """

    speech: Loaded
    noise: Loaded
    tests: Mixtures


def left_out_in_turn(
    speech: Loaded, noise: Loaded, num_groups: int, num_mixtures: int
) -> list[Group]:
    """Deal noises into groups, each of which is what a model has not heard.

    Args:
        speech: utterances; every fifth is left out of training.
        noise: noises.
        num_groups: groups that noises are dealt into.
        num_mixtures: test mixtures of a group.
    """
    every = np.arange(len(speech))
    heard, others = speech.some(every[every % 5 != 4]), speech.some(every[every % 5 == 4])
    group_of = np.arange(len(noise)) % num_groups
    groups = []
    for group in range(num_groups):
        known, left_out = (
            noise.some(np.flatnonzero(chosen)) for chosen in (group_of != group, group_of == group)
        )
        tests = corpora.make_mixtures(
            others, left_out, 0.0, _TEST_SEED, "closed", 0.2, num_mixtures
        )
        groups.append(Group(heard, known, tests))
    return groups


def scored(
    systems: Mapping[tuple[Any, ...], System], names: Sequence[str], tests: Mixtures
) -> Rows:
    """A row per system: what names its key, and its scores.

    Args:
        systems: by keys of as many values as there are names.
        names: of the columns of a key.
        tests: what to score on.
    """
    rows = evaluation.evaluate(list(systems.values()), tests, progress=True)
    return [
        dict(zip(names, key, strict=True)) | {score: row[score] for score in ("sdr", "si_sdr")}
        for key, row in zip(systems, rows, strict=True)
    ]


def means(groups: Sequence[Rows]) -> Rows:
    """Rows whose scores, all floats, are means over the groups; the rest is the same in all."""
    return [
        {
            name: float(np.mean([row[name] for row in same])) if isinstance(value, float) else value
            for name, value in same[0].items()
        }
        for same in zip(*groups, strict=True)
    ]


def run(name: str, score: Score, columns: list[str]) -> None:
    """Run a program: score on the corpora that the flags name, write the record, print the table.

    Args:
        name: of the program.
        score: a group of noises left out, the configuration and code lengths to rows.
        columns: of the rows, to print.
    """
    launch.run(_define_flags, lambda argv: _record(name, score, columns))


def _define_flags() -> None:
    launch.define_corpora()
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    launch.define_lengths("lengths", [25, 150])
    flags.DEFINE_integer("num_groups", 3, "Groups of noises that are left out together.", 2)
    flags.DEFINE_integer("test_mixtures", 60, "Test mixtures of a group.", 1)
    launch.define_cache()


def _record(name: str, score: Score, columns: list[str]) -> None:
    values, config = flags.FLAGS, launch.train_config()
    num_bits = launch.lengths("lengths", config.fit.num_bits)
    rate = config.stft.sample_rate
    speech = corpora.load(corpora.list_speech(values.speech), rate)
    noise = corpora.load(corpora.list_noise(values.noise), rate)
    for loaded in (speech, noise):
        corpora.report(loaded)
    settings = configs.to_dict(config) | {
        "num_bits": num_bits,
        "num_groups": values.num_groups,
        "num_mixtures": values.test_mixtures,
    }
    cache, scored = Cache(values.cache), []
    groups = left_out_in_turn(speech, noise, values.num_groups, values.test_mixtures)
    for number, group in enumerate(groups, 1):
        print(f"noises left out: group {number} of {len(groups)}", flush=True)
        heard = corpora.make_mixtures(group.speech, group.noise, 0.0, config.seed)
        used = {"train": fingerprint(heard), "tests": fingerprint(group.tests)}
        of_group = functools.partial(score, group, config, num_bits)
        scored.append(cache.record(name, settings | used, of_group))
    rows = means(scored)
    records.write_json(values.output, records.record(rows, settings))
    print(records.table(rows, columns))
