r"""One choice at a time: what helps in noise that the dictionary has not heard.

    python -m experiments.unseen --recipe=general --speech DIR --noise DIR --output unseen.json

For validation, on training material alone. Deals the noises into groups and leaves one out after
the other; the models are trained on most of the speakers in the other noises and scored on the rest
of the speakers in the noises left out; figures are means over the groups. First the way from the
paper's method to the recipe, a step a row; then the recipe with one thing changed. Takes an hour on
two CPU cores.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, training
from blsh_jax.commands import launch
from blsh_jax.config import MASK_ALONE, TrainConfig
from blsh_jax.corpora import Loaded, Mixtures
from blsh_jax.models import Model
from blsh_jax.robust.augmentation import training_mixtures
from experiments.cache import Cache, fingerprint

TEST_SEED = 1
_COLUMNS = ["step", "method", "num_bits", "sdr"]
Rows = list[dict[str, Any]]

# From the paper's method to the recipe: what each step takes over from the recipe.
STEPS: dict[str, tuple[str, ...]] = {
    "the paper's way": (),
    "augmented mixtures": ("augmentation", "dictionary_fraction", "max_dictionary_frames"),
    "more neighbours": ("separation.num_neighbors",),
    "log-mel spectra, levels, voicing and pre-roll": ("separation.features",),
    "bits on the likeness of speech and noise": ("target_vectors",),
    "fine-tuning": ("fine_tuning", "max_fit_frames"),
    "high-pass": ("high_pass_hz",),
    "speech presence": ("separation.speech_presence",),
    "boosted ferns": ("ferns", "separation.strength"),
}
# The recipe with one thing changed; a dictionary changes fields of a configuration inside.
CHANGES: dict[str, dict[str, Any]] = {
    "20 neighbours": {"separation": {"num_neighbors": 20}},
    "no synthetic noise": {"augmentation": {"synthetic_noise": 0.0}},
    "one noise a mixture": {"augmentation": {"second_noise": 0.0}},
    "noises neither coloured nor played at other speeds": {
        "augmentation": {"equalizer_db": 0.0, "max_speed": 1.0}
    },
    "every mixture augmented": {"augmentation": {"unaugmented": 0.0}},
    "augmented mixtures up to 15 dB": {"augmentation": {"max_snr_db": 15.0}},
    "likeness of frames": {"target_vectors": "frames"},
    "not fine-tuned": {"fine_tuning": {"fine_tuning_steps": 0}},
    "three frames side by side": {"separation": {"features": {"context": 3}}},
    "spectra in bins": {"separation": {"features": {"kind": "magnitude"}}},
    "mel spectra, not their logarithms": {"separation": {"features": {"kind": "mel"}}},
    "no voicing": {"separation": {"features": {"voicing": 0}}},
    "no pre-roll": {"separation": {"features": {"pre_roll_frames": 0}}},
    "speech presence, no ferns": {"ferns": {"num_ferns": 0, "num_second_ferns": 0}},
    "one stage of ferns": {"ferns": {"num_second_ferns": 0}},
    "masks as they are learned": {"separation": {"strength": 1.0}},
}


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


def deal(noise: Loaded, num_groups: int) -> list[tuple[Loaded, Loaded]]:
    """Deal noises into groups; of each the noises that are known, and those that are left out."""
    group_of = np.arange(len(noise)) % num_groups
    some = lambda chosen: noise.some(np.flatnonzero(chosen))
    return [(some(group_of != group), some(group_of == group)) for group in range(num_groups)]


def left_out_in_turn(
    speech: Loaded, noise: Loaded, num_groups: int, num_mixtures: int
) -> list[Group]:
    """Groups of noises, each of which is what a model has not heard.

    Args:
        speech: utterances; every fifth is left out of training.
        noise: noises.
        num_groups: groups that noises are dealt into.
        num_mixtures: test mixtures of a group.
    """
    every = np.arange(len(speech))
    heard, others = speech.some(every[every % 5 != 4]), speech.some(every[every % 5 == 4])
    mix = lambda left_out: corpora.make_mixtures(
        others, left_out, 0.0, TEST_SEED, "closed", 0.2, num_mixtures
    )
    return [Group(heard, known, mix(left_out)) for known, left_out in deal(noise, num_groups)]


def ladder(recipe: TrainConfig) -> dict[str, TrainConfig]:
    """The paper's method, changed step by step into the recipe."""
    fitted = min(TrainConfig().max_fit_frames, recipe.max_fit_frames)
    config = dataclasses.replace(
        TrainConfig(), fit=recipe.fit, max_fit_frames=fitted, seed=recipe.seed
    )
    found = {}
    for step, paths in STEPS.items():
        for path in paths:
            config = _changed(config, _taken(recipe, path))
        found[step] = config
    return found


def changed(recipe: TrainConfig) -> dict[str, TrainConfig]:
    """The recipe with one thing changed, by what it is."""
    return {name: _changed(recipe, changes) for name, changes in CHANGES.items()}


def unseen(group: Group, variants: dict[str, TrainConfig], num_bits: Sequence[int]) -> Rows:
    """A row per variant and system, of one group of noises left out.

    Args:
        group: of ``left_out_in_turn``.
        variants: configurations by name.
        num_bits: code lengths.
    """
    rows = []
    learned: tuple[TrainConfig, Model] | None = None
    for step, config in variants.items():
        print(step, flush=True)
        # Variants that follow on one another with one model have it trained once.
        uses: dict[str, Any] = {"strength": 1.0}
        if not config.ferns.num_ferns:  # which learn from the neighbours and speech presence
            uses |= {"num_neighbors": 1, "speech_presence": MASK_ALONE}
        learns = _changed(config, {"separation": uses})
        if learned is None or learned[0] != learns:
            mixtures = training_mixtures(group.speech, group.noise, config)
            learned = learns, training.train(mixtures, config, {})[0]
        model = dataclasses.replace(learned[1], config=config)
        systems = evaluation.make_systems(model, ("knn", "lsh", "blsh"), num_bits, config.seed)
        rows += [
            {"step": step} | {name: row[name] for name in ("method", "num_bits", "sdr", "si_sdr")}
            for row in evaluation.evaluate(systems, group.tests, timed=False)
        ]
    return rows


def means(groups: Sequence[Rows]) -> Rows:
    """Rows whose scores, all floats, are means over the groups; the rest is the same in all."""
    return [
        {
            name: float(np.mean([row[name] for row in same])) if isinstance(value, float) else value
            for name, value in same[0].items()
        }
        for same in zip(*groups, strict=True)
    ]


def _taken(recipe: Any, path: str) -> dict[str, Any]:
    """The change that gives a configuration the recipe's value of ``a.b``."""
    name, _, rest = path.partition(".")
    value = getattr(recipe, name)
    return {name: _taken(value, rest) if rest else value}


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    values = {
        name: _changed(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **values)


def _define_flags() -> None:
    launch.define_corpora()
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    launch.define_lengths("lengths", [25, 150])
    flags.DEFINE_multi_enum("variant", None, [*STEPS, *CHANGES], "Which to score; all by default.")
    flags.DEFINE_integer("num_groups", 3, "Groups of noises that are left out together.", 2)
    flags.DEFINE_integer("test_mixtures", 60, "Test mixtures of a group.", 1)
    launch.define_cache()


def main() -> None:
    """Flags, library, record."""
    values, config = flags.FLAGS, launch.train_config()
    num_bits = launch.lengths("lengths", config.fit.num_bits)
    variants = ladder(config) | changed(config)
    chosen = values.variant or list(variants)
    speech, noise = launch.recordings(config, "speech", "noise")
    settings = configs.to_dict(config) | {"num_bits": num_bits, "num_groups": values.num_groups}
    settings |= {"num_mixtures": values.test_mixtures, "variants": chosen}
    cache, scored = Cache(values.cache), list[Rows]()
    for group in left_out_in_turn(speech, noise, values.num_groups, values.test_mixtures):
        print(f"noises left out: group {len(scored) + 1} of {values.num_groups}", flush=True)
        known = corpora.make_mixtures(group.speech, group.noise, 0.0, config.seed)
        used = {"train": fingerprint(known), "tests": fingerprint(group.tests)}
        make = functools.partial(unseen, group, {name: variants[name] for name in chosen}, num_bits)
        scored.append(cache.record("unseen", settings | used, make))
    launch.write(means(scored), _COLUMNS, settings)


if __name__ == "__main__":
    launch.run(_define_flags, main)
