r"""Standard test folders: models, and what other denoisers wrote, on pairs of clean and noisy.

    python -m experiments.pairs --clean clean_testset_wav --noisy noisy_testset_wav \
        --model default --model small --outputs RNNoise=DIR --output pairs.json

Other denoisers may run here, too: --tools=rnnoise, and --dtln and --gtcrn with the folders of their
ONNX files.

Files of the folders, sub-folders included, pair by their names without suffix, as those of
VoiceBank+DEMAND, or by the number that their names end in, `..._fileid_N`, as those of the DNS
challenge. All are resampled to 16 kHz. The estimates in a folder of --outputs must be aligned to
the sample: take the delay of a denoiser out first.

Prints SDR and SI-SDR in dB, STOI, ESTOI, PESQ (wide band), and DNSMOS with --dnsmos=DIR: means over
the files, not weighted, as they are published. Every row is of the same files: one that has no
partner in a folder, differs in length, or cannot be read or scored is left out of all rows, and
named. The record names all of these, and has the scores of every file under by_file. Needs the
extra 'tools'; --nolistening, which leaves out STOI and PESQ, does without. The test set of
VoiceBank+DEMAND takes some minutes on two CPU cores, and published rows stand below those of it.
"""

import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

import blsh_jax as blsh
from blsh_jax import config as configs
from blsh_jax import corpora, models
from blsh_jax.commands import launch
from blsh_jax.corpora import audio
from blsh_jax.evaluation import Measure, System
from blsh_jax.models import Model
from experiments import denoisers
from experiments.denoisers import SAMPLE_RATE

_COLUMNS = ["method", "sdr", "si_sdr", *denoisers.MEASURES, "files"]
_FILE_ID = re.compile(r"(?:.*_)?(fileid_\d+)")
_CEILING_DB = 100.0  # a perfect estimate has an infinite SDR, which no mean survives
Rows = list[dict[str, Any]]
Denoise = Callable[[np.ndarray], np.ndarray]

_VOICEBANK = re.compile(r"p(232|257)_\d{3}")
_VOICEBANK_FILES = 824
_SOURCE = (
    "X. Rong et al., GTCRN: a speech enhancement model requiring ultralow computational resources, "
    "ICASSP 2024, table 1"
)
PUBLISHED: Rows = [
    {"method": "noisy, published", "si_sdr": 8.45, "stoi": 0.921, "pesq": 1.97},
    {"method": "RNNoise, published", "pesq": 2.29},
    {"method": "DeepFilterNet, published", "si_sdr": 16.63, "stoi": 0.942, "pesq": 2.81},
    {"method": "GTCRN, published", "si_sdr": 18.83, "stoi": 0.940, "pesq": 2.87},
]
"""Rows of ``_SOURCE`` on the test set of VoiceBank+DEMAND."""


class Pairs(NamedTuple):
    """Files of several folders that belong together.

    Attributes:
        files: by their key, the file of each folder, by the folder's name.
        skipped: (key, reason) of the others.
    """

    files: dict[str, dict[str, Path]]
    skipped: list[tuple[str, str]]


class Scored(NamedTuple):
    """Scores of files.

    Attributes:
        rows: a row per file and method, the same files for every method.
        rates: how many files of which folder had which sample rate, in Hz.
        skipped: (key, reason) of the others.
    """

    rows: Rows
    rates: Counter[tuple[str, int]]
    skipped: list[tuple[str, str]]


def pair(folders: Mapping[str, Path]) -> Pairs:
    """Files that agree in their place and name, without suffix, or in their place and file id.

    Args:
        folders: by name; searched at any depth.

    Raises:
        ValueError: a folder is missing, or no file is in all of them.
    """
    listed = {name: _by_key(folder) for name, folder in folders.items()}
    pairs = Pairs({}, [])
    for key in sorted(set().union(*listed.values())):
        found = {name: paths.get(key, []) for name, paths in listed.items()}
        missing = [name for name, paths in found.items() if not paths]
        several = [name for name, paths in found.items() if len(paths) > 1]
        if missing:
            pairs.skipped.append((key, f"no such file in {', '.join(missing)}"))
        elif several:
            pairs.skipped.append((key, f"several such files in {', '.join(several)}"))
        else:
            pairs.files[key] = {name: paths[0] for name, paths in found.items()}
    if not pairs.files:
        first = f"; the first: {': '.join(pairs.skipped[0])}" if pairs.skipped else ""
        raise ValueError(
            f"{', '.join(map(str, folders.values()))}: no audio file is in all of these, by its "
            f"name or by fileid_N at the end of it{first}"
        )
    return pairs


def score(
    pairs: Pairs, denoising: Mapping[str, Denoise], measures: Mapping[str, Measure]
) -> Scored:
    """Score the noisy files, what other denoisers made of them, and what models make of them.

    SDR is BSS_Eval's of one source. Interference and artifacts together are all that is not clean
    speech, so it needs no noise alone, and is the same as with it.

    Args:
        pairs: of ``pair``: the folders ``clean`` and ``noisy``, and estimates in the others.
        denoising: models and tools by name: (n,) float32 at 16 kHz to as much speech.
        measures: other scores, as in ``evaluation.evaluate``.

    Raises:
        ValueError: no file can be scored.
    """
    scored = Scored([], Counter(), list(pairs.skipped))
    for key, files in tqdm(pairs.files.items(), "scoring", unit="file", disable=None):
        try:
            read = {name: audio.read(path) for name, path in files.items()}
            estimates = _aligned(read)
            clean, noisy = estimates.pop("clean"), estimates["noisy"]
            estimates |= {name: denoise(noisy) for name, denoise in denoising.items()}
            rows = [
                {"file": key, "method": name} | _scores(name, clean, estimate, measures)
                for name, estimate in estimates.items()
            ]
        except ValueError as error:
            scored.skipped.append((key, str(error)))
        else:
            scored.rows.extend(rows)
            scored.rates.update((name, rate) for name, (_, rate) in read.items())
    if not scored.rows:
        first = ": ".join(scored.skipped[len(pairs.skipped)])
        raise ValueError(f"none of {len(pairs.files)} pairs can be scored; the first: {first}")
    return scored


def means(rows: Rows) -> Rows:
    """A row per method: the mean of each score over the files, and how many those are."""
    methods: dict[str, Rows] = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    return [
        {"method": method}
        | {name: float(np.mean([row[name] for row in same])) for name in list(same[0])[2:]}
        | {"files": len(same)}
        for method, same in methods.items()
    ]


def published(keys: Collection[str]) -> Rows:
    """Published rows of the test set that has files of these keys; none if there are none."""
    whole = len(keys) == _VOICEBANK_FILES and all(map(_VOICEBANK.fullmatch, keys))
    return [row | {"source": _SOURCE} for row in PUBLISHED] if whole else []


def _with_model(model: Model) -> Denoise:
    return lambda noisy: blsh.denoise(noisy, SAMPLE_RATE, model)


def _with_system(system: System) -> Denoise:
    def denoise(noisy: np.ndarray) -> np.ndarray:
        mixture = jnp.asarray(noisy[None])
        return np.asarray(system.separate(mixture, jnp.zeros_like(mixture)).speech[0])

    return denoise


def _by_key(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in audio.find_audio(folder):
        place = path.relative_to(folder).with_suffix("")
        if numbered := _FILE_ID.fullmatch(place.name):
            place = place.with_name(numbered[1])
        found.setdefault(place.as_posix(), []).append(path)
    return found


def _aligned(read: Mapping[str, tuple[np.ndarray, int]]) -> dict[str, np.ndarray]:
    """Signals, as read with their rates, at one rate and as long as the noisy one.

    Rates divide with a remainder, which one program rounds up and another down. So a file that had
    another rate than the noisy one may differ by a sample.
    """
    signals = {name: audio.resample(x, rate, SAMPLE_RATE) for name, (x, rate) in read.items()}
    length, noisy_rate = len(signals["noisy"]), read["noisy"][1]
    for name, signal in signals.items():
        if abs(len(signal) - length) > (read[name][1] != noisy_rate):
            raise ValueError(
                f"{name} has {len(signal)} samples at {SAMPLE_RATE} Hz, noisy has {length}"
            )
    return {name: np.pad(signal, (0, 1))[:length] for name, signal in signals.items()}


def _scores(
    name: str, clean: np.ndarray, estimate: np.ndarray, measures: Mapping[str, Measure]
) -> dict[str, float]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # STOI where there is too little speech
            sdr = blsh.bss_eval(clean[None], estimate[None]).sdr[0]
            decibels = {"sdr": sdr, "si_sdr": blsh.si_sdr(clean, estimate)}
            others = {key: float(measure(clean, estimate)) for key, measure in measures.items()}
    except (ValueError, RuntimeError, RuntimeWarning) as error:  # PESQ has RuntimeErrors
        raise ValueError(f"{name}: {error}") from error
    return {key: min(float(value), _CEILING_DB) for key, value in decibels.items()} | others


def _define_flags() -> None:
    flags.DEFINE_string("clean", None, "Folder of clean speech.", required=True)
    flags.DEFINE_string("noisy", None, "Folder of the same speech in noise.", required=True)
    flags.DEFINE_multi_string(
        "model", None, "Model file of blsh train, or a pretrained model by name"
    )
    flags.DEFINE_multi_string(
        "outputs", None, "NAME=DIR, a folder of what another denoiser made of the noisy files"
    )
    launch.define_output("Record to write (.json).")
    denoisers.define_flags(())


def _folders(outputs: Sequence[str], taken: Collection[str]) -> dict[str, Path]:
    folders = {"clean": Path(flags.FLAGS.clean), "noisy": Path(flags.FLAGS.noisy)}
    for given in outputs:
        name, _, folder = given.partition("=")
        if not name or not folder:
            raise ValueError(f"--outputs={given}: give NAME=DIR")
        if name in (*folders, *taken):
            raise ValueError(f"--outputs={given}: another row is named {name}")
        folders[name] = Path(folder)
    return folders


def main() -> None:
    """Flags, library, record."""
    values = flags.FLAGS
    loaded = {name: models.load_named(name) for name in values.model or ()}
    others = denoisers.from_flags()
    denoising = {name: _with_model(model) for name, model in loaded.items()}
    denoising |= {system.method: _with_system(system) for system in others.systems}
    pairs = pair(_folders(values.outputs or (), denoising))
    scored = score(pairs, denoising, others.measures)
    corpora.report(scored)
    resampled = [
        f"{count} of {name} from {rate} Hz"
        for (name, rate), count in sorted(scored.rates.items())
        if rate != SAMPLE_RATE
    ]
    if resampled:
        print(f"resampled to {SAMPLE_RATE} Hz: {', '.join(resampled)}", file=sys.stderr)
    settings = {
        "sample_rate": SAMPLE_RATE,
        "resampled": resampled,
        "left_out": scored.skipped,
        "models": {name: configs.to_dict(model.config) for name, model in loaded.items()},
        "provenance": {name: model.provenance for name, model in loaded.items()},
    } | others.settings
    rows = means(scored.rows) + published({row["file"] for row in scored.rows})
    launch.write(rows, _COLUMNS, settings, by_file=scored.rows)


if __name__ == "__main__":
    launch.run(_define_flags, main)
