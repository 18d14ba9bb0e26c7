r"""Every noise unseen once: unknown speakers in unknown noise, beside the tools that people pick.

    python -m experiments.rotation --recipe=general --speech DIR --noise DIR --open_speech DIR \
        --output rotation.json

Deals the noises into groups. For each group a model is trained on --speech in all other noises, and
scored on --open_speech in the group's noises, at several signal-to-noise ratios: as it is, without
looking ahead (as live and in C), and with speech presence in place of its ferns. Needs packages of
others, pip install -e '.[tools]' (--tools= and --nolistening do without them). Takes an hour and a
half on two CPU cores.

Results are means over all noises: SDR and SI-SDR in dB, STOI, ESTOI, PESQ, and their differences to
speech presence with standard errors over noises; the rows of single noises stand beside them, under
by_noise.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, training
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Loaded, Mixtures
from blsh_jax.evaluation import Measure, System
from blsh_jax.robust.augmentation import AugmentedMixtures, training_mixtures
from experiments import denoisers
from experiments.cache import Cache, fingerprint
from experiments.unseen import TEST_SEED, deal

_COLUMNS = ["snr_db", "method", "num_bits", "sdr", "si_sdr", "stoi", "estoi", "pesq"]
_MEASURES = ("sdr", "si_sdr", "stoi", "estoi", "pesq")
LIVE, PRESENCE = "blsh_live", "blsh_presence"


def rotation(
    speech: Loaded,
    noise: Loaded,
    open_speech: Loaded,
    config: TrainConfig,
    snrs: Sequence[float],
    methods: Sequence[str],
    num_bits: Sequence[int],
    tools: Sequence[str],
    measures: Mapping[str, Measure],
    num_groups: int,
    first_groups: int,
    mixtures_per_noise: int,
    cache: Cache,
) -> list[dict[str, Any]]:
    """A row per noise, SNR and system.

    Args:
        speech: training speech.
        noise: all noises.
        open_speech: other speakers.
        config: how models are trained.
        snrs: signal-to-noise ratios of the test mixtures, in dB.
        methods: some of ``evaluation.METHODS``, ``noisy`` among them.
        num_bits: code lengths; live and with speech presence the last of them.
        tools: some of ``denoisers.TOOLS``.
        measures: other scores than those of BSS_Eval.
        num_groups: groups that noises are dealt into.
        first_groups: how many of them are left out in turn, a model each; 0 for all.
        mixtures_per_noise: test mixtures of each noise at each SNR.
        cache: keeps the rows of each group.
    """
    rows = []
    others = [denoisers.system(name) for name in tools]
    for known, left_out in deal(noise, num_groups)[: first_groups or num_groups]:
        mixtures = training_mixtures(speech, known, config, "whole")
        tests = {
            (recording.key, snr): corpora.make_mixtures(
                open_speech,
                left_out.some([index]),
                snr,
                TEST_SEED,
                max_mixtures=mixtures_per_noise,
            )
            for index, recording in enumerate(left_out.recordings)
            for snr in snrs
        }
        settings = {
            "config": configs.to_dict(config),
            "train": fingerprint(mixtures),
            "tests": [fingerprint(test) for test in tests.values()],
            "systems": [list(methods), list(num_bits), list(tools), list(measures)],
        }
        score = functools.partial(
            _scored, mixtures, tests, config, methods, num_bits, others, measures
        )
        rows += cache.record("rotation", settings, score)
    return rows


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per SNR and system: means over the noises, and how many lie below the mixture."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["snr_db"], row["method"], row["num_bits"]), []).append(row)
    summaries = []
    for (snr, method, length), group in found.items():
        pairs = zip(group, found[snr, "noisy", None], strict=True)
        summary = {"snr_db": snr, "method": method, "num_bits": length}
        measured = [name for name in _MEASURES if name in group[0]]
        summary |= {name: float(np.mean([row[name] for row in group])) for name in measured}
        present = found.get((snr, PRESENCE, length))
        if present is not None and method in ("blsh", LIVE):
            summary |= _above(group, present, measured)
        summary |= {
            "noises": len(group),
            "mixtures": sum(row["utterances"] for row in group),
            "below_mixture": [ours["noise"] for ours, noisy in pairs if ours["sdr"] < noisy["sdr"]],
        }
        summaries.append(summary)
    return summaries


def _above(
    rows: Sequence[dict[str, Any]], present: Sequence[dict[str, Any]], measured: Sequence[str]
) -> dict[str, Any]:
    """Differences to the rows with speech presence: means, standard errors, the lowest in SDR."""
    pairs = list(zip(rows, present, strict=True))
    apart = {
        name: np.array([ours[name] - theirs[name] for ours, theirs in pairs]) for name in measured
    }
    lowest = int(np.argmin(apart["sdr"]))
    error = lambda values: float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return {
        "above_presence": {name: float(np.mean(values)) for name, values in apart.items()},
        "standard_error": {name: error(values) for name, values in apart.items()},
        "lowest": {"noise": rows[lowest]["noise"], "sdr": float(apart["sdr"][lowest])},
    }


def _scored(
    mixtures: Mixtures | AugmentedMixtures,
    tests: Mapping[tuple[str, float], Mixtures],
    config: TrainConfig,
    methods: Sequence[str],
    num_bits: Sequence[int],
    others: Sequence[System],
    measures: Mapping[str, Measure],
) -> list[dict[str, Any]]:
    """Train on mixtures; a row per system and test, which is named by its noise and SNR."""
    model, _ = training.train(mixtures, config, {}, progress=True)
    formula = dataclasses.replace(config.separation, strength=1.0)
    presence = dataclasses.replace(
        model, ferns=(), config=dataclasses.replace(config, separation=formula)
    )
    systems = evaluation.make_systems(model, methods, num_bits)
    if model.ferns:
        for method, used in ((LIVE, model.without_look_ahead()), (PRESENCE, presence)):
            systems += [
                dataclasses.replace(system, method=method)
                for system in evaluation.make_systems(used, ("blsh",), num_bits[-1:])
            ]
    rows = []
    for (name, snr), test in tests.items():
        print(f"{name}, unseen, {snr:g} dB", flush=True)
        scored = evaluation.evaluate([*systems, *others], test, measures=measures)
        rows += [{"noise": name, "snr_db": snr} | row for row in scored]
    return rows


def _define_flags() -> None:
    launch.define_corpora()
    flags.DEFINE_string("open_speech", None, "Folder of other speech, as --speech.", required=True)
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    flags.DEFINE_list("snrs", ["0", "5", "10", "15"], "Signal-to-noise ratios of the tests, in dB.")
    methods = ("noisy", "knn", "blsh", "lsh")
    launch.define_choices("methods", methods, "Systems to score; noisy always.", ["noisy", "blsh"])
    launch.define_lengths("lengths", [150])
    launch.define_choices("tools", list(denoisers.TOOLS), "Other tools to score.")
    flags.DEFINE_bool("listening", True, "Score STOI and PESQ too.")
    flags.DEFINE_integer("num_groups", 4, "Groups of noises that are unseen together.", 2)
    flags.DEFINE_integer("first_groups", 0, "Score in the noises of so many groups; 0: in all.", 0)
    flags.DEFINE_integer("mixtures_per_noise", 2, "Test mixtures of each noise at each SNR.", 1)
    launch.define_cache()


def main() -> None:
    """Flags, library, record."""
    values, config = flags.FLAGS, launch.train_config()
    settings: dict[str, Any] = {
        "snrs": [float(snr) for snr in values.snrs],
        "methods": list(dict.fromkeys(["noisy", *values.methods])),
        "num_bits": launch.lengths("lengths", config.fit.num_bits),
        "tools": values.tools,
        "num_groups": values.num_groups,
        "first_groups": values.first_groups,
        "mixtures_per_noise": values.mixtures_per_noise,
    }
    speech, noise, open_speech = launch.recordings(config, "speech", "noise", "open_speech")
    measures = denoisers.measures() if values.listening else {}
    cache = Cache(values.cache)
    rows = rotation(speech, noise, open_speech, config, measures=measures, cache=cache, **settings)
    launch.write(means(rows), _COLUMNS, configs.to_dict(config) | settings, by_noise=rows)


if __name__ == "__main__":
    launch.run(_define_flags, main)
