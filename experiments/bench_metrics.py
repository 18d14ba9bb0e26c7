"""Time our BSS_Eval against mir_eval's on the same utterances, and compare their scores.

    python -m experiments.bench_metrics --output bench.json [--speech DIR --noise DIR]

Takes about half a minute per repetition on two cores, nearly all of it in mir_eval. Expect a ratio
of about 20 on an idle machine (far more on a busy one, where mir_eval's threads wait for each
other), and scores that differ by less than 1e-6 dB. Without --speech and --noise, the utterances
are modulated noise; an estimate is the mixture through its ideal binary mask.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from blsh_jax import config as configs
from blsh_jax import corpora
from blsh_jax.evaluation import metrics, records
from blsh_jax.paper import masks, spectra
from experiments import flags as launch

_FOLDERS = ("speech", "noise")
_STFT = configs.StftConfig()
_COLUMNS = ["name", "size", "ours", "reference", "ratio", "unit", "agrees"]

# The two scores agree if they differ by less, in dB; published scores have one or two decimals.
_TOLERANCE_DB = 1e-3


def _define_flags() -> None:
    flags.DEFINE_string("output", None, "Record to write (.json).", required=True)
    flags.DEFINE_string("speech", None, "Folder of speech; without it signals are made up.")
    flags.DEFINE_string("noise", None, "Folder of noise, needed with --speech.")
    flags.DEFINE_integer("num_utterances", 60, "Utterances in the batch.", lower_bound=1)
    flags.DEFINE_float("seconds", 3.0, "Longest utterance: longer recordings are cut.")
    flags.DEFINE_integer("repeats", 3, "Repetitions; the record holds medians.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the signals, or of the choice of mixtures.")


def main(argv: list[str]) -> None:
    """Flags, library, record."""
    del argv
    values = flags.FLAGS
    if (values.speech is None) != (values.noise is None):
        raise app.UsageError("give both --speech and --noise, or neither")
    samples = int(values.seconds * _STFT.sample_rate)
    if samples < _STFT.window_length:
        raise app.UsageError(f"--seconds={values.seconds}: give {_STFT.window_length} samples")
    sources = (
        _synthetic(values.num_utterances, samples, values.seed)
        if values.speech is None
        else _recorded(values.speech, values.noise, values.num_utterances, samples, values.seed)
    )
    rows = bench(*sources, values.repeats)
    names = ("num_utterances", "seconds", "repeats", "seed")
    folders = {name: _folder_name(values[name].value) for name in _FOLDERS}
    record = records.record(rows, {name: values[name].value for name in names} | folders)
    records.write_json(values.output, record)
    print(records.table(rows, _COLUMNS))


def _folder_name(path: str | None) -> str | None:
    """A folder without what is above it, which is nobody's business."""
    return None if path is None else Path(path).name


def bench(speech: np.ndarray, noise: np.ndarray, lengths: np.ndarray, repeats: int) -> list[dict]:
    """Rows of a record: the whole batch in one call, and one call for every utterance.

    Args:
        speech: (U, n) float32, zero after each utterance's end.
        noise: (U, n) float32, likewise.
        lengths: (U,) valid samples.
        repeats: repetitions; times are medians.
    """
    reference = np.stack([speech, noise], axis=1)
    denoised = np.array(_denoised(jnp.asarray(speech), jnp.asarray(noise)))
    estimate = np.stack([denoised, speech + noise - denoised], axis=1)
    pairs = [(r[:, :n], e[:, :n]) for r, e, n in zip(reference, estimate, lengths, strict=True)]
    seconds, expected = _time(lambda: [_mir_eval(*pair) for pair in pairs], repeats, warm=False)
    calls = {
        "bss_eval, one batch": lambda: metrics.bss_eval(reference, estimate, lengths),
        "bss_eval, utterance by utterance": lambda: [metrics.bss_eval(*pair) for pair in pairs],
    }
    size = f"{len(lengths)} utterances, {int(lengths.sum()) / _STFT.sample_rate:.0f} s"
    return [
        _row(name, size, *_time(call, repeats), seconds, np.array(expected))
        for name, call in calls.items()
    ]


def _row(name, size, ours, scores, reference, expected) -> dict:
    """One row; ``scores`` is one BssEval or a list of them, ``expected`` (U, 3, S)."""
    found = np.stack(scores, axis=1) if isinstance(scores, metrics.BssEval) else np.array(scores)
    difference = float(np.max(np.abs(found - expected)))
    return {
        "name": name,
        "size": size,
        "ours": 1e3 * ours / len(expected),
        "reference": 1e3 * reference / len(expected),
        "ratio": reference / ours,
        "unit": "ms per utterance",
        "agrees": difference < _TOLERANCE_DB,
        "max_difference_db": difference,
    }


def _time(call: Callable, repeats: int, warm: bool = True) -> tuple[float, object]:
    """Median seconds of a call, and its result; the first run compiles and is not counted."""
    if warm:
        call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def _mir_eval(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, ...]:
    from mir_eval.separation import bss_eval_sources

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return bss_eval_sources(reference, estimate, compute_permutation=False)[:3]


@jax.jit
def _denoised(speech: jax.Array, noise: jax.Array) -> jax.Array:
    """The mixture (U, n) through its ideal binary mask."""
    clean, rest = spectra.stft(speech, _STFT), spectra.stft(noise, _STFT)
    masked = masks.apply_mask(masks.ideal_binary_mask(clean, rest), clean + rest)
    return spectra.istft(masked, speech.shape[-1], _STFT)


def _synthetic(count: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coloured noise with syllables and pauses in white noise at 0 dB: two (U, n), lengths (U,)."""
    random = np.random.default_rng(seed)
    lengths = random.integers(samples * 2 // 3, samples, count, endpoint=True)
    valid = np.arange(samples) < lengths[:, None]
    shape = np.hanning(12)
    white = random.standard_normal((count, samples))
    coloured = np.stack([np.convolve(row, shape, "same") for row in white])
    syllables = np.sin(np.pi * 3 * np.arange(samples) / _STFT.sample_rate) ** 2 + 1e-3
    speech = np.where(valid, coloured * syllables, 0)
    noise = np.where(valid, random.standard_normal((count, samples)), 0)
    noise *= np.linalg.norm(speech, axis=1, keepdims=True) / np.linalg.norm(
        noise, axis=1, keepdims=True
    )
    return speech.astype(np.float32), noise.astype(np.float32), lengths


def _recorded(
    speech: str, noise: str, count: int, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixtures of recordings at 0 dB, cut after ``samples``: two (U, n), lengths (U,)."""
    utterances = corpora.load(corpora.list_speech(speech), _STFT.sample_rate)
    noises = corpora.load(corpora.list_noise(noise), _STFT.sample_rate)
    mixtures = corpora.make_mixtures(utterances, noises, 0.0, seed, max_mixtures=count)
    batch = next(corpora.batches(mixtures, len(mixtures)))
    lengths = np.minimum(batch.lengths, samples)
    return batch.speech[:, :samples], batch.noise[:, :samples], lengths


if __name__ == "__main__":
    launch.run(_define_flags, main)
