"""Time our BSS_Eval against mir_eval's on the same utterances, and compare their scores.

    python -m experiments.bench_metrics --output bench.json [--speech DIR --noise DIR]

Takes about half a minute per repetition on two cores, nearly all of it in mir_eval. Expect a ratio
of about 20 on an idle machine (far more on a busy one, where mir_eval's threads wait for each
other), and scores that differ by less than 1e-6 dB. Without --speech and --noise, the utterances
are synthetic; an estimate is the mixture through its ideal binary mask.
"""

import functools
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from blsh_jax import corpora
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.evaluation import metrics
from blsh_jax.paper import masks, spectra
from experiments import timing

# The two scores agree if they differ by less, in dB; published scores have one or two decimals.
_TOLERANCE_DB = 1e-3


def bench(
    speech: np.ndarray, noise: np.ndarray, lengths: np.ndarray, config: TrainConfig, repeats: int
) -> list[dict[str, Any]]:
    """Rows of a record: the whole batch in one call, and one call for every utterance.

    Args:
        speech: (U, n) float32, zero after each utterance's end.
        noise: (U, n) float32, likewise.
        lengths: (U,) valid samples.
        config: its transform makes the masks.
        repeats: repetitions; times are medians.
    """
    stft = config.separation.stft
    clean, rest = (spectra.stft(jnp.asarray(x), stft) for x in (speech, noise))
    masked = masks.apply_mask(masks.ideal_binary_mask(clean, rest), clean + rest)
    denoised = np.asarray(spectra.istft(masked, speech.shape[-1], stft))
    reference = np.stack([speech, noise], axis=1)
    estimate = np.stack([denoised, speech + noise - denoised], axis=1)
    pairs = [(r[:, :n], e[:, :n]) for r, e, n in zip(reference, estimate, lengths, strict=True)]
    batch, single, expected = timing.take_turns(
        repeats,
        lambda: np.stack(metrics.bss_eval(reference, estimate, lengths), axis=1),
        lambda: np.array([metrics.bss_eval(*pair) for pair in pairs]),
        lambda: np.array([_mir_eval(*pair) for pair in pairs]),
    )
    size = f"{len(lengths)} utterances, {lengths.sum() / stft.sample_rate:.0f} s"
    per_utterance = 1e3 / len(lengths)
    row = functools.partial(timing.row, size=size, unit="ms per utterance")
    rows = []
    for name, ours in (("one batch", batch), ("utterance by utterance", single)):
        difference = float(np.max(np.abs(ours.result - expected.result)))
        rows.append(
            row(
                f"bss_eval, {name}",
                ours=ours.seconds * per_utterance,
                reference=expected.seconds * per_utterance,
                agrees=difference < _TOLERANCE_DB,
                max_difference_db=difference,
            )
        )
    return rows


def _mir_eval(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, ...]:
    from mir_eval.separation import bss_eval_sources

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return bss_eval_sources(reference, estimate, compute_permutation=False)[:3]


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    launch.define_corpora(required=False)
    flags.DEFINE_integer("num_utterances", 60, "Utterances in the batch.", lower_bound=1)
    flags.DEFINE_float("seconds", 3.0, "Longest utterance: longer recordings are cut.")
    flags.DEFINE_integer("repeats", 3, "Repetitions; the record holds medians.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the signals and of the choice of mixtures.")


def main() -> None:
    """Flags, library, record."""
    values = flags.FLAGS
    config = TrainConfig(seed=values.seed)
    stft = config.separation.stft
    samples = int(values.seconds * stft.sample_rate)
    if samples < stft.window_length:
        raise ValueError(f"--seconds={values.seconds}: give {stft.window_length} samples")
    speech, noise, _ = timing.recordings(config)
    count = values.num_utterances
    mixtures = corpora.make_mixtures(speech, noise, 0.0, values.seed, max_mixtures=count)
    batch = next(corpora.batches(mixtures, len(mixtures)))
    lengths = np.minimum(batch.lengths, samples)
    signals = batch.speech[:, :samples], batch.noise[:, :samples]
    names = ("num_utterances", "seconds", "repeats", "seed")
    settings = {name: values[name].value for name in names}
    # A folder without what is above it, which is nobody's business.
    folders = {name: values[name].value for name in ("speech", "noise")}
    settings |= {name: path and Path(path).name for name, path in folders.items()}
    launch.write(bench(*signals, lengths, config, values.repeats), timing.COLUMNS, settings)


if __name__ == "__main__":
    launch.run(_define_flags, main)
