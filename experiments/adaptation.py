r"""Fine-tuning on a noise: what `blsh adapt` gains in it, and what it loses in others.

    python -m experiments.adaptation --model=model.npz --speech DIR --noise DIR --open_speech DIR \
        --output adaptation.json

The model must not have heard the noises. It is adapted to each of them, on its first three fifths
and --speech, and scored on --open_speech in the rest of the noise and in that of the noises that
come next. Needs packages of others, pip install -e '.[tools]'. Takes two or three minutes a noise
on two CPU cores.

Results are means over all noises, and what adaptation changes with standard errors over noises;
the rows of single noises stand beside them, under by_noise.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, models
from blsh_jax.commands import launch
from blsh_jax.config import AdaptationConfig
from blsh_jax.corpora import Loaded
from blsh_jax.evaluation import Measure
from blsh_jax.models import Model
from blsh_jax.training import adapt
from experiments import denoisers
from experiments.unseen import TEST_SEED

_COLUMNS = ["where", "snr_db", "method", "sdr", "si_sdr", "stoi", "estoi", "pesq"]
_MEASURES = ("sdr", "si_sdr", "stoi", "estoi", "pesq")
_LEARNED = 0.6  # first part of a noise that models are adapted to
_OTHERS = 3  # noises in which a loss is looked for


def adaptation(
    model: Model,
    speech: Loaded,
    noise: Loaded,
    open_speech: Loaded,
    snrs: Sequence[float],
    mixtures_per_noise: int,
    measures: Mapping[str, Measure],
    config: AdaptationConfig,
) -> list[dict[str, Any]]:
    """A row per noise, place (``own`` noise or ``others``), SNR and method.

    Args:
        model: has not heard the noises.
        speech: for the adaptation.
        noise: N noises.
        open_speech: other speakers.
        snrs: signal-to-noise ratios of the test mixtures, in dB.
        mixtures_per_noise: test mixtures of each noise at each SNR.
        measures: other scores than those of BSS_Eval.
        config: of the adaptation.
    """
    splits = [round(_LEARNED * len(signal)) for signal in noise.signals]
    rest = [signal[split:] for signal, split in zip(noise.signals, splits, strict=True)]
    held_back = dataclasses.replace(noise, signals=rest)
    rows = []
    for index, (signal, split) in enumerate(zip(noise.signals, splits, strict=True)):
        name = noise.recordings[index].key
        print(name, flush=True)
        adapted = adapt(model, [signal[:split]], speech.signals, config, progress=True)
        systems = evaluation.make_systems(model, ("noisy", "blsh"), [model.hasher.num_bits])
        systems += [
            dataclasses.replace(system, method="blsh_adapted")
            for system in evaluation.make_systems(adapted, ("blsh",), [adapted.hasher.num_bits])
        ]
        others = [(index + step) % len(noise) for step in range(1, min(_OTHERS + 1, len(noise)))]
        for where, places in (("own", [index]), ("others", others)):
            for snr in snrs:
                test = corpora.make_mixtures(
                    open_speech,
                    held_back.some(places),
                    snr,
                    TEST_SEED,
                    max_mixtures=mixtures_per_noise * len(places),
                )
                scored = evaluation.evaluate(systems, test, measures=measures, timed=False)
                rows += [{"noise": name, "where": where, "snr_db": snr} | row for row in scored]
    return rows


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per place, SNR and method: means over the noises, and what adaptation changes."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["where"], row["snr_db"], row["method"]), []).append(row)
    summaries = []
    for (where, snr, method), group in found.items():
        measured = [name for name in _MEASURES if name in group[0]]
        summary = {"where": where, "snr_db": snr, "method": method, "noises": len(group)}
        summary |= {name: float(np.mean([row[name] for row in group])) for name in measured}
        if method == "blsh_adapted":
            pairs = list(zip(group, found[where, snr, "blsh"], strict=True))
            for name in measured:
                gains = [ours[name] - before[name] for ours, before in pairs]
                error = float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
                summary |= {f"{name}_gain": float(np.mean(gains)), f"{name}_gain_error": error}
        summaries.append(summary)
    return summaries


def _define_flags() -> None:
    launch.define_corpora()
    flags.DEFINE_string("open_speech", None, "Folder of other speech, as --speech.", required=True)
    flags.DEFINE_string("model", None, "Model that has not heard --noise.", required=True)
    launch.define_output("Record to write (.json).")
    flags.DEFINE_list("snrs", ["0", "10"], "Signal-to-noise ratios of the tests, in dB.")
    flags.DEFINE_integer("mixtures_per_noise", 6, "Test mixtures of each noise at each SNR.", 1)


def main() -> None:
    """Flags, library, record."""
    values, config = flags.FLAGS, AdaptationConfig()
    model, snrs = models.load_named(values.model), [float(snr) for snr in values.snrs]
    speech, noise, open_speech = launch.recordings(model.config, "speech", "noise", "open_speech")
    settings = {"adaptation": configs.to_dict(config), "model": configs.to_dict(model.config)}
    settings |= {"snrs": snrs, "mixtures_per_noise": values.mixtures_per_noise}
    rows = adaptation(
        *(model, speech, noise, open_speech, snrs),
        *(values.mixtures_per_noise, denoisers.measures(), config),
    )
    launch.write(means(rows), _COLUMNS, settings, by_noise=rows)


if __name__ == "__main__":
    launch.run(_define_flags, main)
