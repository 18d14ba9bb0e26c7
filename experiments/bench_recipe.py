"""Where the recipe ``general`` spends its time, stage by stage, on small data and on more of it.

    python -m experiments.bench_recipe --output bench_recipe.json [--speech DIR --noise DIR]

At scale 1 there is an eightieth of the pretrained models' data: mixtures, frames to learn on,
dictionary, mixtures for ferns. At scale 4 there is four times that. Bits, steps of fine-tuning and
ferns are a tenth of theirs at every scale. Each scale runs twice, as the first run compiles. The
memory is the most that the process held until then, so scales come in rising order. Without
--speech and --noise the recordings are synthetic.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import jax
from absl import flags

from blsh_jax import training
from blsh_jax.commands import launch
from blsh_jax.config import RECIPES, TrainConfig, to_dict
from blsh_jax.corpora import Loaded
from blsh_jax.robust.augmentation import training_mixtures
from blsh_jax.training import mask_stage, plans, recipe
from experiments import timing

_DATA_PART, _STEPS_PART = 80, 10  # of the pretrained models', at scale 1
# Stages, by the function that does them; the last one counts without those inside it.
_STAGES: dict[str, tuple[ModuleType, str]] = {
    "mixtures and their frames": (recipe, "sample_frames"),
    "boosting": (recipe, "fit"),
    "fine-tuning": (recipe, "fine_tune"),
    "bins for ferns": (mask_stage, "_samples"),
    "ferns": (recipe, "learn_ferns"),
}


def reduced(scale: int) -> TrainConfig:
    """The recipe with a part of its data, times ``scale``, and a part of its steps."""
    config = RECIPES["general"]
    of_data = lambda count: max(1, round(scale * count / _DATA_PART))
    of_steps = lambda count: max(1, count // _STEPS_PART)
    ferns, tuning = config.ferns, config.fine_tuning
    return dataclasses.replace(
        config,
        augmentation=dataclasses.replace(
            config.augmentation, num_mixtures=of_data(config.augmentation.num_mixtures)
        ),
        max_dictionary_frames=of_data(config.max_dictionary_frames),
        max_fit_frames=of_data(config.max_fit_frames),
        fit=dataclasses.replace(config.fit, num_bits=of_steps(config.fit.num_bits)),
        fine_tuning=dataclasses.replace(
            tuning,
            fine_tuning_steps=of_steps(tuning.fine_tuning_steps),
            fine_tuning_frames=of_data(tuning.fine_tuning_frames),
        ),
        ferns=dataclasses.replace(
            ferns,
            num_ferns=of_steps(ferns.num_ferns),
            num_second_ferns=of_steps(ferns.num_second_ferns),
            fern_mixtures=of_data(ferns.fern_mixtures),
            fern_samples=of_data(ferns.fern_samples),
        ),
        held_back=0.0,
    )


def run(config: TrainConfig, speech: Loaded, noise: Loaded) -> dict[str, tuple[float, float]]:
    """Seconds and core seconds of each stage of a whole run, in its order."""
    taken = dict.fromkeys(("synthetic noises", *_STAGES), (0.0, 0.0))

    @contextlib.contextmanager
    def clocked(stage: str) -> Iterator[None]:
        begun, inside = _clock(), taken["bins for ferns"]
        yield
        now = _clock()
        spent = [b - a for a, b in zip(begun, now, strict=True)]
        if stage == "ferns":
            inner = zip(taken["bins for ferns"], inside, strict=True)
            spent = [s - (b - a) for s, (b, a) in zip(spent, inner, strict=True)]
        wall, cores = (a + b for a, b in zip(taken[stage], spent, strict=True))
        taken[stage] = wall, cores

    def timed(stage: str, function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            with clocked(stage):
                return jax.block_until_ready(function(*arguments, **options))

        return call

    with contextlib.ExitStack() as stack:
        for stage, (module, name) in _STAGES.items():
            replaced = timed(stage, getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, replaced))
        with clocked("synthetic noises"):
            mixtures = training_mixtures(speech, noise, config)
        training.train(mixtures, config, {})
    return taken


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def rows_of(scale: int, config: TrainConfig, speech: Loaded, noise: Loaded) -> list[dict[str, Any]]:
    """A row for each stage, and one for the memory."""
    first = run(config, speech, noise)
    again = run(config, speech, noise)
    size = f"{scale} x"
    rows = [
        timing.row(
            stage, size, seconds, None, "s", core_seconds=cores, with_compiling=first[stage][0]
        )
        for stage, (seconds, cores) in again.items()
    ]
    peak = plans.peak_memory(training.training_mesh(1)) / 1e9
    return [*rows, timing.row("most memory", size, peak, None, "GB")]


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    launch.define_corpora(required=False)
    flags.DEFINE_list(
        "scales", ["1", "4"], "Multiples of an eightieth of the data, in rising order."
    )


def main() -> None:
    """Flags, library, record."""
    scales = list(map(int, flags.FLAGS.scales))
    speech, noise, source = timing.recordings(RECIPES["general"])
    rows: list[dict[str, Any]] = []
    for scale in scales:
        rows += rows_of(scale, reduced(scale), speech, noise)
    settings = {"scales": scales, "recordings": source, "recipe": to_dict(reduced(scales[0]))}
    launch.write(rows, timing.COLUMNS, settings, load_average=os.getloadavg()[0])


if __name__ == "__main__":
    launch.run(_define_flags, main)
