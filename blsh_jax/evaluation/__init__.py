"""Systems side by side on the same mixtures: scores, networks, records, pages."""

from blsh_jax.evaluation.systems import (
    BATCH_SIZE,
    METHODS,
    NAMES,
    NEED_FRAMES,
    SCORERS,
    UNPROCESSED,
    Estimate,
    Measure,
    System,
    evaluate,
    make_systems,
    masking,
    random_dictionary,
    random_hasher,
    searching,
)

__all__ = [
    "BATCH_SIZE",
    "METHODS",
    "NAMES",
    "NEED_FRAMES",
    "SCORERS",
    "UNPROCESSED",
    "Estimate",
    "Measure",
    "System",
    "evaluate",
    "make_systems",
    "masking",
    "random_dictionary",
    "random_hasher",
    "searching",
]
