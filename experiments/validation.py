"""Noises left out in turn, on training material alone: what choices are made on.

Noises are dealt into groups; each group in turn is what a model has not heard. Most of the speakers
are trained on, the others are scored.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, records
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Loaded, Mixtures
from experiments import flags as launch

_TEST_SEED = 1
_Rows = list[dict[str, Any]]


def left_out_in_turn(
    speech: Loaded, noise: Loaded, num_groups: int, num_mixtures: int
) -> Iterator[tuple[Loaded, Loaded, Mixtures]]:
    """For each group of noises: speech and noise to train on, and mixtures of all others.

    Args:
        speech: utterances; every fifth is left out of training.
        noise: noises.
        num_groups: groups that noises are dealt into.
        num_mixtures: test mixtures of a group.
    """
    every = np.arange(len(speech))
    heard, others = speech.some(every[every % 5 != 4]), speech.some(every[every % 5 == 4])
    groups = np.arange(len(noise)) % num_groups
    for group in range(num_groups):
        known, left_out = (
            noise.some(np.flatnonzero(chosen)) for chosen in (groups != group, groups == group)
        )
        tests = corpora.make_mixtures(
            others, left_out, 0.0, _TEST_SEED, "closed", 0.2, num_mixtures
        )
        yield heard, known, tests


def define_flags() -> None:
    """Flags of every program that scores on noises left out."""
    launch.define_corpora()
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    flags.DEFINE_list("lengths", ["25", "150"], "Code lengths to score.")
    flags.DEFINE_integer("num_groups", 3, "Groups of noises that are left out together.", 2)
    flags.DEFINE_integer("test_mixtures", 60, "Test mixtures of a group.", 1)
    flags.adopt_module_key_flags(launch)  # so that --help names them


def run(score: Callable[..., _Rows], columns: list[str]) -> None:
    """Score on the corpora that the flags name, write the record, print the table.

    Args:
        score: (speech, noise, config, num_bits, num_groups, num_mixtures) to rows.
        columns: of the rows, to print.
    """
    values, config = flags.FLAGS, launch.train_config()
    speech, noise = _load(values, config)
    settings: dict[str, Any] = {
        "num_bits": [int(length) for length in values.lengths],
        "num_groups": values.num_groups,
        "num_mixtures": values.test_mixtures,
    }
    rows = score(speech, noise, config, **settings)
    records.write_json(values.output, records.record(rows, configs.to_dict(config) | settings))
    print(records.table(rows, columns))


def _load(values: Any, config: TrainConfig) -> tuple[Loaded, Loaded]:
    rate = config.stft.sample_rate
    speech = corpora.load(corpora.list_speech(values.speech), rate)
    noise = corpora.load(corpora.list_noise(values.noise), rate)
    for loaded in (speech, noise):
        corpora.report(loaded)
    return speech, noise
