"""Search: the K nearest dictionary entries of every query, exact, ties to the lowest index.

- ``hamming_top_k``: by Hamming distance of packed codes; ``prepare`` lays them out once.
- ``weighted_hamming_top_k``: by the sum of the weights of the bits that agree.
- ``cosine_top_k``: by inner product of unit vectors.
- ``sharded_hamming_top_k``: the first one over a mesh of devices.

Letters: N dictionary entries, Q queries, K neighbours, D features, L bits, W = ceil(L / 32) words.
"""

from blsh_jax.search.blocks import Neighbors, SimilarNeighbors
from blsh_jax.search.hamming import Prepared, hamming_top_k, prepare
from blsh_jax.search.inner import cosine_top_k, quantize_weights, weighted_hamming_top_k
from blsh_jax.search.sharded import sharded_hamming_top_k

__all__ = [
    "Neighbors",
    "Prepared",
    "SimilarNeighbors",
    "cosine_top_k",
    "hamming_top_k",
    "prepare",
    "quantize_weights",
    "sharded_hamming_top_k",
    "weighted_hamming_top_k",
]
