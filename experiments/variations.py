r"""One suspect at a time: why a claim of the paper comes out as it does here.

    python -m experiments.variations --speech DIR --noise DIR --open_speech DIR --open_noise DIR \
        --output variations.json [--cache DIR]

Takes an hour on two CPU cores, half of it for the published mode of training. Scores BLSH and LSH
with everything as configured, then with one thing changed: the width of the target, the target
itself, the pair metric, the candidates that a bit is chosen from, the mode of training, where
hyperplanes of LSH pass, and, for the open set, the noise alone (the open speech in the training
noises). --only=slope,mode tries some of them.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from absl import flags

from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixtures, make_mixtures
from blsh_jax.evaluation import searching
from experiments import protocol as protocols
from experiments.cache import Cache
from experiments.protocol import Protocol
from experiments.workbench import Workbench

# Suspect and value to what is changed in the fit.
FITS: dict[tuple[str, Any], dict[str, Any]] = {
    ("sigma2", 0.9): {"sigma2": 0.9},
    ("target", "cosine"): {"target": "cosine"},
    ("metric", "cross_entropy"): {"metric": "cross_entropy"},
    ("candidates of a bit", 1): {"fast_candidates": 1},
    ("ridge", 0.01): {"ridge": 0.01},
    ("slope", "parabola"): {"slope": "parabola"},
    ("mode", "published"): {"mode": "published"},
    ("mode", "published, slope of the line"): {"mode": "published", "slope": "line"},
}
_LSH, _NOISE = "hyperplanes of LSH", "noise of the open set"
SUSPECTS = (*dict.fromkeys(suspect for suspect, _ in FITS), _LSH, _NOISE)
_COLUMNS = ["suspect", "value", "set", "method", "num_bits", "sdr"]


def variations(
    protocol: Protocol,
    config: TrainConfig,
    lengths: Sequence[int],
    cache: Cache,
    suspects: Collection[str] = SUSPECTS,
) -> list[dict[str, Any]]:
    """Rows of scores, one thing changed in each.

    Args:
        protocol: the mixtures.
        config: what nothing is changed in at first; as many bits as the baseline needs.
        lengths: code lengths.
        cache: where intermediate results are kept.
        suspects: some of ``SUSPECTS``.

    Raises:
        ValueError: an unknown suspect.
    """
    unknown = sorted(set(suspects) - set(SUSPECTS))
    if unknown:
        raise ValueError(f"unknown suspect {unknown[0]!r}: choose from {', '.join(SUSPECTS)}")
    bench = Workbench(protocol, config, cache)
    rows = _scores(bench, "none", "as configured", lengths)
    for (suspect, value), changes in FITS.items():
        if suspect not in suspects:
            continue
        fit = dataclasses.replace(config.fit, num_bits=max(lengths), **changes)
        changed = dataclasses.replace(config, fit=fit)
        rows += _scores(Workbench(protocol, changed, cache), suspect, value, lengths)
    if _LSH in suspects:
        rows += _scores(bench, _LSH, "random", lengths, "lsh")
        rows += _scores(bench, _LSH, "random through the origin", lengths, "lsh_origin")
    if _NOISE in suspects and "open" in protocol.tests:
        known = Workbench(_known_noise(protocol), config, cache)
        for method in ("blsh", "lsh"):
            rows += _scores(known, _NOISE, "training noises", lengths, method)
    return rows


def _scores(
    bench: Workbench, suspect: str, value: Any, lengths: Sequence[int], method: str = "blsh"
) -> list[dict[str, Any]]:
    """Rows of one method at several lengths on all test sets."""
    dictionary, settings = bench.hashed(method, max(lengths))
    return [
        {"suspect": suspect, "value": value} | row
        for length in lengths
        for row in bench.scores(
            searching(method, length, dictionary, bench.config.separation), settings
        )
    ]


def _known_noise(protocol: Protocol) -> Protocol:
    """The open speech in the training noises, and nothing else."""
    opened, noise = protocol.tests["open"], protocol.train.noise
    mixtures: Mixtures = make_mixtures(
        opened.speech, noise, opened.snr_db, opened.seed, max_mixtures=len(opened)
    )
    return dataclasses.replace(protocol, tests={"open speech, training noise": mixtures})


def _define_flags() -> None:
    protocols.define_flags()
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    launch.define_lengths("lengths", [25, 50, 150])
    flags.DEFINE_list("only", list(SUSPECTS), "What is changed, a thing at a time.")


def main() -> None:
    """Flags, library, record."""
    values, config = flags.FLAGS, launch.train_config()
    lengths = launch.lengths("lengths", config.fit.num_bits)
    protocol = protocols.from_flags(config)
    rows = variations(protocol, config, lengths, Cache(values.cache), values.only)
    protocols.write(rows, _COLUMNS, config, protocol, lengths=lengths)


if __name__ == "__main__":
    launch.run(_define_flags, main)
