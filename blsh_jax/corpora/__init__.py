"""Speech and noise corpora, their mixtures, and a built-in synthetic corpus."""

from blsh_jax.corpora.batching import Batch, batches, mixture_lengths
from blsh_jax.corpora.listing import list_noise, list_paths, list_speech
from blsh_jax.corpora.mixing import Mixture, Mixtures, make_mixtures, mix
from blsh_jax.corpora.recordings import Corpus, Loaded, Recording, load, report
from blsh_jax.corpora.splits import paper_split
from blsh_jax.corpora.synthetic import NOISE_NAMES, synthetic_noise, synthetic_speech

__all__ = [
    "NOISE_NAMES",
    "Batch",
    "Corpus",
    "Loaded",
    "Mixture",
    "Mixtures",
    "Recording",
    "batches",
    "list_noise",
    "list_paths",
    "list_speech",
    "load",
    "make_mixtures",
    "mix",
    "mixture_lengths",
    "paper_split",
    "report",
    "synthetic_noise",
    "synthetic_speech",
]
