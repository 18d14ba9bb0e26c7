"""Time the learning of boosted ferns against CatBoost, and compare the losses they reach.

    python -m experiments.bench_ferns --output bench_ferns.json

CatBoost grows the same kind of trees, one question for a whole level, in C++. Both learn on equal
samples with equal settings and are scored on others. The samples come from a teacher, a sum of
smooth functions of pairs of features. Core seconds tell what a machine that is busy with other work
would have taken. Needs CatBoost, pip install -e '.[bench]'. Takes four minutes on two idle cores.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from blsh_jax._extras import extra
from blsh_jax.commands import launch
from blsh_jax.config import FernConfig
from blsh_jax.robust import ferns
from blsh_jax.robust.ferns import Samples
from experiments import timing

_PAIRS = 12  # of features, that the teacher looks at
_TOLERANCE = 0.01  # part of a loss in which both may differ


def bench(config: FernConfig, num_samples: int, num_features: int, seed: int) -> dict[str, Any]:
    """A row: seconds of both, and their losses on as many samples again as a tenth of them.

    Args:
        config: of the ferns.
        num_samples: S.
        num_features: D.
        seed: of the samples and of both learners.
    """
    known, others = make_samples((num_samples, num_samples // 10), num_features, seed)
    key = jax.random.key(seed)
    learn = jax.jit(ferns.boost, static_argnames="config").lower(known, config, key).compile()
    start, core_start = time.perf_counter(), time.process_time()
    learned, _ = jax.block_until_ready(learn(known, key))
    ours, our_cores = time.perf_counter() - start, time.process_time() - core_start
    scores = np.asarray(jax.jit(ferns.score)(learned, others.values))
    start, core_start = time.perf_counter(), time.process_time()
    raw = _catboost(known, others, config, seed)
    theirs, their_cores = time.perf_counter() - start, time.process_time() - core_start
    losses = [_loss(others, found) for found in (scores, raw)]
    return timing.row(
        "learning ferns, CatBoost",
        f"{num_samples} samples, {num_features} features, {config.num_ferns} ferns of "
        f"{config.fern_bits} bits",
        ours,
        theirs,
        "s",
        losses[0] < (1 + _TOLERANCE) * losses[1],
        core_seconds=our_cores,
        reference_core_seconds=their_cores,
        loss=losses[0],
        reference_loss=losses[1],
        loss_without=_loss(others, np.zeros_like(scores)),
    )


def make_samples(counts: Sequence[int], num_features: int, seed: int) -> list[Samples]:
    """Several sets of samples of one teacher.

    Args:
        counts: how many samples each has.
        num_features: D.
        seed: decides everything.
    """
    rng = np.random.default_rng(seed)
    pairs = rng.integers(num_features, size=(_PAIRS, 2))
    waves = rng.normal(size=(_PAIRS, 3))
    return [_samples(rng, count, num_features, pairs, waves) for count in counts]


def _samples(
    rng: np.random.Generator, count: int, num_features: int, pairs: np.ndarray, waves: np.ndarray
) -> Samples:
    values = rng.integers(0, 256, (num_features, count), np.uint8)
    log_odds = np.zeros(count, np.float32)
    for (one, other), (a, b, c) in zip(pairs, waves, strict=True):
        x, y = (values[place].astype(np.float32) / 128 - 1 for place in (one, other))
        log_odds += np.sin(2 * a * x + 2 * b * y + c).astype(np.float32)
    targets = 1 / (1 + np.exp(-log_odds))
    weights = rng.exponential(size=count).astype(np.float32)
    return Samples(*map(jnp.asarray, (values, targets, weights)))


def _catboost(known: Samples, others: Samples, config: FernConfig, seed: int) -> np.ndarray:
    """Log-odds of the other samples, of which CatBoost makes bytes of its own."""
    with extra("bench"):
        import catboost

    pools = [
        catboost.Pool(values.T, targets, weight=weights)
        for values, targets, weights in (map(np.asarray, part) for part in (known, others))
    ]
    model = catboost.CatBoost(
        {
            "loss_function": "CrossEntropy",
            "iterations": config.num_ferns,
            "depth": config.fern_bits,
            "learning_rate": config.fern_rate,
            "l2_leaf_reg": config.fern_ridge,
            "score_function": "L2",
            "border_count": 254,
            "bootstrap_type": "No",
            "random_strength": 0,
            "boost_from_average": False,
            "leaf_estimation_iterations": 1,
            "random_seed": seed,
            "allow_writing_files": False,
            "verbose": False,
        }
    )
    return model.fit(pools[0]).predict(pools[1], prediction_type="RawFormulaVal")


def _loss(samples: Samples, scores: np.ndarray) -> float:
    losses = np.logaddexp(0, scores) - np.asarray(samples.targets) * scores
    return float(np.average(losses, weights=samples.weights))


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    flags.DEFINE_integer("samples", 2_000_000, "Samples to learn on.", 100)
    flags.DEFINE_integer("features", 60, "Features of a sample.", 2)
    flags.DEFINE_integer("ferns", 250, "Ferns to learn.", 1)
    flags.DEFINE_integer("fern_bits", 8, "Questions of a fern.", 1, 12)
    flags.DEFINE_integer("seed", 0, "Of everything random.")


def main() -> None:
    """Flags, library, record."""
    values = flags.FLAGS
    config = FernConfig(values.ferns, fern_bits=values.fern_bits)
    row = bench(config, values.samples, values.features, values.seed)
    settings = {name: values[name].value for name in ("samples", "features", "ferns", "fern_bits")}
    launch.write([row], timing.COLUMNS, settings | {"seed": values.seed})


if __name__ == "__main__":
    launch.run(_define_flags, main)
