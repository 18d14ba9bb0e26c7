r"""One choice at a time: what helps in noise that the dictionary has not heard.

    python -m experiments.unseen --recipe=general --speech DIR --noise DIR --output unseen.json

For validation, on training material alone. Deals the noises into groups and leaves one out after
the other; the models are trained on most of the speakers in the other noises and scored on the rest
of the speakers in the noises left out. First the way from the paper's method to the recipe, a
step a row; then the recipe with one thing changed. Takes an hour on two CPU cores.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from blsh_jax import corpora, evaluation, training
from blsh_jax.config import MASK_ALONE, TrainConfig
from blsh_jax.evaluation import System
from blsh_jax.model import Model
from experiments import validation
from experiments.workbench import random_dictionary, searching

_COLUMNS = ["step", "method", "num_bits", "sdr"]
_Changes = dict[str, Any]

# From the paper's method to the recipe: what each step takes over from the recipe.
STEPS: dict[str, tuple[str, ...]] = {
    "the paper's way": (),
    "varied mixtures": ("variety", "dictionary_fraction", "max_dictionary_frames"),
    "more neighbours": ("num_neighbors",),
    "log-mel spectra, levels, voicing and lead-in": ("features",),
    "bits from residuals": ("learner",),
    "hyperplanes refined together": ("refine", "max_fit_frames"),
    "rumble is noise": ("lowest_speech_hz",),
    "the utterance's own evidence": ("evidence",),
}
# The recipe with one thing changed; a dictionary changes fields of a configuration inside.
CHANGES: dict[str, _Changes] = {
    "20 neighbours": {"num_neighbors": 20},
    "recorded noise alone": {"variety": {"made_noise": 0.0}},
    "one noise a mixture": {"variety": {"second_noise": 0.0}},
    "noises neither coloured nor played at other speeds": {
        "variety": {"equalizer_db": 0.0, "max_speed": 1.0}
    },
    "every mixture varied": {"variety": {"unvaried": 0.0}},
    "varied mixtures up to 15 dB": {"variety": {"max_snr_db": 15.0}},
    "boosted bits refined": {"learner": "boosting"},
    "three frames side by side": {"features": {"context": 3}},
    "spectra in bins": {"features": {"kind": "magnitude"}},
    "mel spectra, not their logarithms": {"features": {"kind": "mel"}},
    "no voicing": {"features": {"voicing": 0}},
    "no lead-in": {"features": {"lead_in_frames": 0}},
}


def ladder(recipe: TrainConfig) -> dict[str, TrainConfig]:
    """The paper's method, changed step by step into the recipe."""
    fitted = min(TrainConfig().max_fit_frames, recipe.max_fit_frames)
    config = dataclasses.replace(
        TrainConfig(), fit=recipe.fit, max_fit_frames=fitted, seed=recipe.seed
    )
    found = {}
    for step, names in STEPS.items():
        taken = {name: getattr(recipe, name) for name in names}
        config = found[step] = dataclasses.replace(config, **taken)
    return found


def changed(recipe: TrainConfig) -> dict[str, TrainConfig]:
    """The recipe with one thing changed, by what it is."""
    return {name: _changed(recipe, changes) for name, changes in CHANGES.items()}


def unseen(
    group: validation.Group, variants: dict[str, TrainConfig], num_bits: Sequence[int]
) -> validation.Rows:
    """A row per variant and system, of one group of noises left out.

    Args:
        group: of ``validation.left_out_in_turn``.
        variants: configurations by name.
        num_bits: code lengths.
    """
    rows = []
    learned: tuple[TrainConfig, Model] | None = None
    for step, config in variants.items():
        print(step, flush=True)
        # Variants that follow on one another with one model have it trained once.
        learns = dataclasses.replace(config, num_neighbors=1, evidence=MASK_ALONE)
        if learned is None or learned[0] != learns:
            mixtures = corpora.training_mixtures(group.speech, group.noise, config)
            learned = learns, training.train(mixtures, config, {})[0]
        systems = _systems(learned[1], config, num_bits)
        rows += [
            {"step": step, **{name: row[name] for name in ("method", "num_bits", "sdr", "si_sdr")}}
            for row in evaluation.evaluate(systems, group.tests)
        ]
    return rows


def _systems(model: Model, config: TrainConfig, num_bits: Sequence[int]) -> list[System]:
    """KNN, LSH and BLSH on the same frames."""
    drawn = random_dictionary(model, max(num_bits), config.seed)
    by_codes = {"lsh": drawn, "blsh": model.dictionary}
    found = [searching("knn", None, model.spectral_dictionary(), config, config.features)]
    return found + [
        searching(method, length, dictionary.prefix(length), config, config.features)
        for method, dictionary in by_codes.items()
        for length in num_bits
    ]


def _changed(config: Any, changes: _Changes) -> Any:
    values = {
        name: _changed(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **values)


def _all_variants(
    group: validation.Group, config: TrainConfig, num_bits: Sequence[int]
) -> validation.Rows:
    return unseen(group, ladder(config) | changed(config), num_bits)


if __name__ == "__main__":
    validation.run("unseen", _all_variants, _COLUMNS)
