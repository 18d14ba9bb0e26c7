r"""Every noise unseen once: unknown speakers in unknown noise, beside the tools that people pick.

    python -m experiments.rotation --recipe=general --speech DIR --noise DIR --open_speech DIR \
        --output rotation.json

Deals the noises into groups. For each group a model is trained on --speech in all other noises, and
scored on --open_speech in the group's noises, at several signal-to-noise ratios: as it is, without
looking ahead (as live and in C), and with speech presence in place of its ferns. --methods with
ferns among them adds ferns that are learned without a search. Needs packages of
others, pip install -e '.[tools]' (--tools= and --nolistening do without them). Takes an hour and a
half on two CPU cores. With --methods=noisy nothing is trained: other tools on the same mixtures.
DTLN, GTCRN and DNSMOS join where flags say the folders of their ONNX files; in checkouts of
breizhn/DTLN, Xiaobin-Rong/gtcrn and microsoft/DNS-Challenge these are

    --dtln=DTLN/pretrained_model --gtcrn=gtcrn/stream/onnx_models \
        --dnsmos=DNS-Challenge/DNSMOS/DNSMOS

Results are means over all noises: SDR and SI-SDR in dB, STOI, ESTOI, PESQ, DNSMOS (speech,
background, overall), and their differences to speech presence with standard errors over noises; the
rows of single noises stand beside them, under by_noise.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, training
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Loaded, Mixtures
from blsh_jax.evaluation import Measure, System
from blsh_jax.robust.augmentation import AugmentedMixtures, training_mixtures
from blsh_jax.robust.mask_stage import PowerMask, with_ferns
from blsh_jax.training.mask_stage import learn_stages
from experiments import denoisers
from experiments.cache import Cache, fingerprint
from experiments.denoisers import Chosen
from experiments.unseen import TEST_SEED, deal

_MEASURES = ("sdr", "si_sdr", *denoisers.MEASURES)
_COLUMNS = ["snr_db", "method", "num_bits", *_MEASURES]
LIVE, PRESENCE, FERNS = "blsh_live", "blsh_presence", "ferns"


class NoNeighbors(NamedTuple):
    """The mask function of no search: one half everywhere, which speaks neither way."""

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""
        return 0

    def init(self, shape: tuple[int, ...]) -> tuple[()]:
        """Nothing."""
        del shape
        return ()

    def __call__(self, state: tuple[()], newest: Array, current: Array) -> tuple[tuple[()], Array]:
        """As ``MaskFunction``."""
        del newest
        return state, jnp.full(current.shape, 0.5, jnp.float32)


def rotation(
    speech: Loaded,
    noise: Loaded,
    open_speech: Loaded,
    config: TrainConfig,
    snrs: Sequence[float],
    methods: Sequence[str],
    num_bits: Sequence[int],
    others: Chosen,
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
        methods: some of ``evaluation.METHODS`` beside the unprocessed mixture, and ``ferns``,
            without a search; without any, no model is trained.
        num_bits: code lengths; live and with speech presence the last of them.
        others: tools, and other scores than those of BSS_Eval.
        num_groups: groups that noises are dealt into.
        first_groups: how many of them are left out in turn, a model each; 0 for all.
        mixtures_per_noise: test mixtures of each noise at each SNR.
        cache: keeps the rows of each group, those of models and those of others apart.
    """
    rows: list[dict[str, Any]] = []
    unprocessed_and_tools = lambda: [evaluation.UNPROCESSED, *others.systems]
    for known, left_out in deal(noise, num_groups)[: first_groups or num_groups]:
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
            "tests": [fingerprint(test) for test in tests.values()],
            "measures": others.settings["measures"],
        }
        found = cache.record(
            "tools",
            settings | {"others": others.settings},
            functools.partial(_scored, unprocessed_and_tools, tests, others.measures),
        )
        if methods:
            mixtures = training_mixtures(speech, known, config, "whole")
            settings |= {"config": configs.to_dict(config), "train": fingerprint(mixtures)}
            settings |= {"systems": [list(methods), list(num_bits)]}
            systems = functools.partial(_systems, mixtures, config, methods, num_bits)
            score = functools.partial(_scored, systems, tests, others.measures)
            found += cache.record("rotation", settings, score)
        rows += sorted(found, key=lambda row: list(tests).index((row["noise"], row["snr_db"])))
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


def _systems(
    mixtures: Mixtures | AugmentedMixtures,
    config: TrainConfig,
    methods: Sequence[str],
    num_bits: Sequence[int],
) -> list[System]:
    """A model of mixtures, used in several ways."""
    model, _ = training.train(mixtures, config, {}, progress=True)
    formula = dataclasses.replace(config.separation, strength=1.0)
    presence = dataclasses.replace(
        model, ferns=(), config=dataclasses.replace(config, separation=formula)
    )
    searching = [method for method in methods if method != FERNS]
    systems = evaluation.make_systems(model, searching, num_bits)
    if FERNS in methods:
        assert isinstance(mixtures, AugmentedMixtures)  # or training had refused to learn ferns
        stages = learn_stages(mixtures, [NoNeighbors()], config, progress=True)
        alone = with_ferns(NoNeighbors(), stages, config.separation)
        function = PowerMask(alone, config.separation.strength)
        systems.append(evaluation.masking(FERNS, None, function, config.separation))
    if model.ferns:
        for method, used in ((LIVE, model.without_look_ahead()), (PRESENCE, presence)):
            systems += [
                dataclasses.replace(system, method=method)
                for system in evaluation.make_systems(used, ("blsh",), num_bits[-1:])
            ]
    return systems


def _scored(
    make: Callable[[], Sequence[System]],
    tests: Mapping[tuple[str, float], Mixtures],
    measures: Mapping[str, Measure],
) -> list[dict[str, Any]]:
    """A row per system and test, which is named by its noise and SNR."""
    systems, rows = make(), []
    for (name, snr), test in tests.items():
        print(f"{name}, unseen, {snr:g} dB", flush=True)
        scored = evaluation.evaluate(systems, test, measures=measures)
        rows += [{"noise": name, "snr_db": snr} | row for row in scored]
    return rows


def _define_flags() -> None:
    launch.define_corpora()
    flags.DEFINE_string("open_speech", None, "Folder of other speech, as --speech.", required=True)
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    flags.DEFINE_list("snrs", ["0", "5", "10", "15"], "Signal-to-noise ratios of the tests, in dB.")
    methods = ("noisy", "knn", "blsh", "lsh", FERNS)
    launch.define_choices("methods", methods, "Systems to score; noisy always.", ["noisy", "blsh"])
    launch.define_lengths("lengths", [150])
    denoisers.define_flags()
    flags.DEFINE_integer("num_groups", 4, "Groups of noises that are unseen together.", 2)
    flags.DEFINE_integer("first_groups", 0, "Score in the noises of so many groups; 0: in all.", 0)
    flags.DEFINE_integer("mixtures_per_noise", 2, "Test mixtures of each noise at each SNR.", 1)
    launch.define_cache()


def main() -> None:
    """Flags, library, record."""
    values, config = flags.FLAGS, launch.train_config()
    if FERNS in values.methods and not config.ferns.num_ferns:
        raise ValueError(f"--methods={FERNS} needs ferns to learn: give num_ferns")
    settings: dict[str, Any] = {
        "snrs": [float(snr) for snr in values.snrs],
        "methods": [method for method in values.methods if method != "noisy"],
        "num_bits": launch.lengths("lengths", config.fit.num_bits),
        "num_groups": values.num_groups,
        "first_groups": values.first_groups,
        "mixtures_per_noise": values.mixtures_per_noise,
    }
    others, cache = denoisers.from_flags(), Cache(values.cache)
    speech, noise, open_speech = launch.recordings(config, "speech", "noise", "open_speech")
    rows = rotation(speech, noise, open_speech, config, others=others, cache=cache, **settings)
    settings |= configs.to_dict(config) | others.settings
    launch.write(means(rows), _COLUMNS, settings, by_noise=rows)


if __name__ == "__main__":
    launch.run(_define_flags, main)
