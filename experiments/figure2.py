r"""Figure 2 of the paper: self-similarity of codes of growing length beside their target.

    python -m experiments.figure2 --speech DIR --noise DIR --output figure2.json [--cache DIR]

Takes a minute besides the training. Writes the record, the matrices beside it (.npz) and the
picture (.png): the target, the codes' self-similarity at several lengths, the pair weights that
the next bits are fitted under, and the error of the approximation over the length, for BLSH and
for random projections: as it is, and the share of the variance of the target that the best straight
line leaves unexplained. A search needs the order of similarities, which no line changes. The
error is measured on frames of the closed set, and beside it the recall of their nearest frames.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array

from blsh_jax import config as configs
from blsh_jax import files, search, training
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.evaluation import random_hasher
from blsh_jax.paper import boosting, codes, similarity
from blsh_jax.paper.codes import Hasher
from experiments import pictures
from experiments import protocol as protocols
from experiments.cache import Cache
from experiments.protocol import Protocol
from experiments.workbench import Workbench

ERROR_LENGTHS = (1, 2, 3, 5, 10, 25, 50, 75, 100, 150, 200, 300)
_COLUMNS = ["method", "num_bits", "error", "error_equal_weights", "unexplained", "recall"]


@dataclasses.dataclass(frozen=True)
class Figure2Config:
    """What figure 2 shows.

    Attributes:
        num_shown: frames of the matrices that are drawn.
        lengths: code lengths whose self-similarity is drawn.
        weights_after: numbers of bits after which the pair weights are drawn.
        num_frames: frames of the closed set that the error is measured on.
        num_mixtures: mixtures of the closed set that they come from.
        num_entries: dictionary frames among which their nearest are sought.
    """

    num_shown: int = 120
    lengths: tuple[int, ...] = (5, 25, 100, 300)
    weights_after: tuple[int, ...] = (1, 2, 3, 10)
    num_frames: int = 2000
    num_mixtures: int = 30
    num_entries: int = 40_000


def figure2(
    protocol: Protocol, config: TrainConfig, chosen: Figure2Config, cache: Cache
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows and the matrices of the figure.

    Args:
        protocol: the mixtures.
        config: how BLSH is fitted.
        chosen: what is shown; lengths that the model does not have are left out.
        cache: where intermediate results are kept.

    Returns:
        Rows of the error over the length, and the matrices by name: ``target``, ``codes_L`` and
        ``weights_l`` (divided by their maximum), each (B, B) float16.

    Source: [ICASSP20] figure 2, eq. 3 and eq. 4.
    """
    bench = Workbench(protocol, config, cache)
    model, frames = bench.model(config.fit), jnp.asarray(bench.sample.frames)
    rivals = {"blsh": model.hasher, "lsh": random_hasher(config.seed, config.fit.num_bits, frames)}
    measured = _closed_frames(protocol, config, chosen)
    lengths = [length for length in ERROR_LENGTHS if length <= config.fit.num_bits]
    target = similarity.self_similarity(measured, config.fit.target, config.fit.sigma2)
    # Frames at the end were not fitted on, unless all were.
    entries, k = frames[-chosen.num_entries :], config.separation.num_neighbors
    nearest = np.asarray(search.cosine_top_k(measured, entries, k).indices)
    rows = [
        {"method": name, "num_bits": length}
        | _errors(hasher.prefix(length), measured, target)
        | {"recall": _recall(hasher, length, measured, entries, nearest)}
        for name, hasher in rivals.items()
        for length in lengths
    ]
    return rows, _matrices(model.hasher, _in_order(frames[: chosen.num_shown]), config, chosen)


def _closed_frames(protocol: Protocol, config: TrainConfig, chosen: Figure2Config) -> Array:
    every = dataclasses.replace(config, dictionary_fraction=1.0)
    drawn = training.sample_frames(protocol.tests["closed"][: chosen.num_mixtures], every)
    return jnp.asarray(drawn.frames[: chosen.num_frames])


def _recall(
    hasher: Hasher, length: int, queries: Array, entries: Array, nearest: np.ndarray
) -> float:
    """The part of the nearest frames by cosine (Q, K) that are among the nearest by code."""
    query_codes, entry_codes = (codes.encode(hasher, frames) for frames in (queries, entries))
    found = search.hamming_top_k(query_codes, entry_codes, nearest.shape[1], num_bits=length)
    pairs = zip(np.asarray(found.indices), nearest, strict=True)
    return float(np.mean([np.isin(ours, theirs).mean() for ours, theirs in pairs]))


def _errors(hasher: Hasher, frames: Array, target: Array) -> dict[str, float]:
    """Mean squared errors of the codes' self-similarity, and the share that a line leaves."""
    bits = codes.project(frames, hasher.projections, hasher.biases) >= 0
    weighted, plain = (
        codes.self_similarity(bits, b) for b in (hasher.betas, jnp.ones_like(hasher.betas))
    )
    found, wanted = (np.asarray(ssm, np.float64).ravel() for ssm in (weighted, target))
    return {
        "error": float(jnp.mean(jnp.square(weighted - target))),
        "error_equal_weights": float(jnp.mean(jnp.square(plain - target))),
        "unexplained": float(1.0 - np.corrcoef(found, wanted)[0, 1] ** 2),
    }


def _in_order(frames: Array) -> Array:
    """Frames sorted by likeness to the first, so that the matrices show structure."""
    return frames[np.argsort(-np.asarray(frames @ frames[0]), kind="stable")]


def _matrices(
    hasher: Hasher, frames: Array, config: TrainConfig, chosen: Figure2Config
) -> dict[str, np.ndarray]:
    target = similarity.self_similarity(frames, config.fit.target, config.fit.sigma2)
    bits = codes.project(frames, hasher.projections, hasher.biases) >= 0
    found = {"target": target}
    for length in _possible(chosen.lengths, hasher):
        found[f"codes_{length}"] = codes.self_similarity(bits[:, :length], hasher.betas[:length])
    for length in _possible(chosen.weights_after, hasher):
        betas = hasher.betas[:length]
        total = jnp.sum(betas)
        agreement = (2.0 * codes.self_similarity(bits[:, :length], betas) - 1.0) * total
        weights = boosting.pair_weights(target, agreement, total)
        found[f"weights_{length}"] = weights / jnp.max(weights)
    return {name: np.asarray(matrix, np.float16) for name, matrix in found.items()}


def _possible(lengths: Sequence[int], hasher: Hasher) -> list[int]:
    return [length for length in lengths if length <= hasher.num_bits]


def _define_flags() -> None:
    protocols.define_flags()
    launch.define_output("Record to write (.json); matrices (.npz) and picture (.png) beside it.")
    launch.define_train_config()
    flags.FLAGS.set_default("fit.num_bits", max(Figure2Config.lengths))


def main() -> None:
    """Flags, library, record, matrices, picture."""
    values, config, chosen = flags.FLAGS, launch.train_config(), Figure2Config()
    protocol = protocols.from_flags(config)
    rows, matrices = figure2(protocol, config, chosen, Cache(values.cache))
    path = Path(values.output)
    files.write_arrays(path.with_suffix(".npz"), matrices, compress=True)
    record = protocols.write(rows, _COLUMNS, config, protocol, figure2=configs.to_dict(chosen))
    pictures.save(pictures.figure2(record, matrices), record, path.with_suffix(".png"))


if __name__ == "__main__":
    launch.run(_define_flags, main)
