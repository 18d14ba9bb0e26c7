r"""Fine-tuning on a noise: what `blsh adapt` gains in it, and what it loses in others.

    python -m experiments.adaptation --model=model.npz --speech DIR --noise DIR --open_speech DIR \
        --output adaptation.json

The model must not have heard the noises. It is adapted to each of them, on its first three fifths
and --speech, and scored on --open_speech, in the rest of that noise and in the rest of the next
noises. Needs packages of others, pip install -e '.[tools]'. Takes two or three minutes a noise on
two CPU cores.

Results are means over all test mixtures, and what adaptation changes with standard errors over
them; the same by noise stands beside them, under by_noise.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, models
from blsh_jax.commands import launch
from blsh_jax.config import AdaptationConfig
from blsh_jax.corpora import Loaded
from blsh_jax.corpora.mixing import is_silent, wrapped_cut
from blsh_jax.evaluation import Measure
from blsh_jax.models import Model
from blsh_jax.training import adapt
from experiments import denoisers
from experiments.unseen import TEST_SEED

_COLUMNS = ["where", "snr_db", "method", "sdr", "si_sdr", "stoi", "estoi", "pesq"]
_KEPT = ("method", "sdr", "si_sdr", "stoi", "estoi", "pesq")
_LEARNED = 0.6  # first part of a noise that models are adapted to
_LENGTH = 64_000  # samples of a test mixture


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
    """A row per noise, place (``own`` noise or ``others``), test mixture, SNR and method.

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
    tests = [_tests(open_speech, noise, index, mixtures_per_noise) for index in range(len(noise))]
    rows = []
    for index, signal in enumerate(noise.signals):
        name = noise.recordings[index].key
        print(name, flush=True)
        adapted = adapt(model, [signal[: _split(signal)]], speech.signals, config, progress=True)
        systems = evaluation.make_systems(model, ("noisy", "blsh"), [model.hasher.num_bits])
        systems += [
            dataclasses.replace(system, method="blsh_adapted")
            for system in evaluation.make_systems(adapted, ("blsh",), [model.hasher.num_bits])
        ]
        next_ones = [tests[(index + step) % len(noise)] for step in range(1, len(noise))]
        others = list(itertools.chain(*zip(*next_ones, strict=True)))[:mixtures_per_noise]
        for where, mixed in (("own", tests[index]), ("others", others)):
            for (spoken, cut), snr in itertools.product(mixed, snrs):
                mixture = corpora.mix(spoken, cut, snr, 0)
                scored = evaluation.evaluate(systems, [mixture], measures=measures, timed=False)
                place = {"noise": name, "where": where, "snr_db": snr}
                rows += [place | {key: row[key] for key in _KEPT if key in row} for row in scored]
    return rows


def _split(signal: np.ndarray) -> int:
    return round(_LEARNED * len(signal))


def _tests(speech: Loaded, noise: Loaded, index: int, count: int) -> list[tuple[np.ndarray, ...]]:
    """Speech and the rest of a noise, both cut at random to one length."""
    rng = np.random.default_rng([TEST_SEED, index])
    spoken, rest = np.concatenate(speech.signals), noise.signals[index]
    rest, tests = rest[_split(rest) :], list[tuple[np.ndarray, ...]]()
    while len(tests) < count:
        start = int(rng.integers(len(spoken) - _LENGTH))
        cut = wrapped_cut(rest, int(rng.integers(len(rest))), _LENGTH)
        if not is_silent(cut):
            tests.append((spoken[start : start + _LENGTH], cut))
    return tests


def means(rows: Sequence[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """A row for each method and each combination of some entries: means and gains."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((*(row[key] for key in keys), row["method"]), []).append(row)
    summaries = []
    for (*place, method), group in found.items():
        measured = [name for name in _KEPT if name != "method" and name in group[0]]
        summary = dict(zip(keys, place, strict=True)) | {"method": method, "mixtures": len(group)}
        summary |= {name: float(np.mean([row[name] for row in group])) for name in measured}
        if method == "blsh_adapted":
            for name in measured:
                pairs = zip(group, found[*place, "blsh"], strict=True)
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
    settings: dict[str, Any] = {
        "adaptation": configs.to_dict(config),
        "model": configs.to_dict(model.config),
    }
    settings |= {"snrs": snrs, "mixtures_per_noise": values.mixtures_per_noise}
    rows = adaptation(
        *(model, speech, noise, open_speech, snrs),
        *(values.mixtures_per_noise, denoisers.measures(), config),
    )
    by_noise = means(rows, "noise", "where", "snr_db")
    launch.write(means(rows, "where", "snr_db"), _COLUMNS, settings, by_noise=by_noise)


if __name__ == "__main__":
    launch.run(_define_flags, main)
