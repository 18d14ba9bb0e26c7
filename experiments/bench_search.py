"""Time the exact Hamming search against FAISS and a naive top_k, and compare the distances.

    python -m experiments.bench_search --output bench.json [--model model.npz]

Takes about eight minutes on two cores. Every dictionary is prepared once, as a model's is, and
searched by JAX alone and, where a C++ compiler is at hand, by the native kernel, each made for this
machine's instructions and for those of older ones.
Runs of ours and of a reference take turns; `core_ratio` compares seconds of processor time instead
of seconds on the clock, which other work on the machine disturbs less. FAISS is optional (`pip
install blsh_jax[bench]`), and left out where it is missing. The weighted search is timed against
the unweighted one, and the search beside the denoising of whole utterances. With --model, the codes
of the model's dictionary are searched as well: some of them in all others, without weights and with
the model's betas.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from blsh_jax import models, search
from blsh_jax.commands import launch
from blsh_jax.config import FeatureConfig, StftConfig
from blsh_jax.denoising import pipeline
from blsh_jax.paper import codes, separation
from blsh_jax.robust.features import feature_function
from blsh_jax.search import native, packing
from experiments import timing
from experiments.timing import Timing

_FEW_QUERIES = 64  # for references that hold a whole row of distances per query
_MACHINE = "machine"
# Instruction sets by the names that XLA and C++ compilers have for them.
_MARCH = {_MACHINE: "native", "AVX2": "x86-64-v3"}
_SHIPPED = (15_000, 64), (122_000, 150)  # N and L of the pretrained models


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    flags.DEFINE_list("sizes", ["8000", "22500", "225000", "2250000"], "N, dictionary codes.")
    flags.DEFINE_list("num_bits", ["25", "160", "300"], "L, bits of a code.")
    flags.DEFINE_list("queries", ["1", "64"], "Q, besides that of --pairs.")
    flags.DEFINE_integer("pairs", 230_000_000, "Q times N of the longest runs.", lower_bound=1)
    flags.DEFINE_list(
        "instructions",
        list(_MARCH),
        f"Instruction sets: {_MACHINE}, which is all that it has, or the newest that XLA may use. "
        "Those after the first get the rows beside FAISS only, each in a process of its own.",
    )
    flags.DEFINE_integer("k", 10, "K, neighbours.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Repetitions; the record holds medians.", lower_bound=1)
    flags.DEFINE_integer("threads", 2, "Threads of FAISS.", lower_bound=1)
    flags.DEFINE_integer("utterances", 60, "Utterances to denoise; 0 for none.", lower_bound=0)
    flags.DEFINE_string("model", None, "Model whose dictionary's codes are searched as well.")
    flags.DEFINE_integer("seed", 0, "Seed of the random codes.")


def main() -> None:
    """Flags, benchmarks, record."""
    values = flags.FLAGS
    rng = np.random.default_rng(values.seed)
    first, *others = values.instructions
    if first != _MACHINE:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa={first}"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BLSH_NATIVE"] = folder
        try:
            native.build(_MARCH[first])
        except (KeyError, RuntimeError) as error:
            print(f"no native kernel: {error}")
        _bench_all(rng, first, others)


def _bench_all(rng: np.random.Generator, first: str, others: list[str]) -> None:
    values, rows = flags.FLAGS, list[dict]()
    sizes = [(int(size), int(bits)) for size in values.sizes for bits in values.num_bits]
    for size, num_bits in (*_SHIPPED, *sizes):
        queries, entries = _random_codes(rng, size, num_bits, values.pairs)
        for count in sorted({*map(int, values.queries), len(queries)}):
            rows += bench(queries[:count], entries, num_bits, f"random {first}")
    if first == _MACHINE:
        rows += _bench_more(rng)
    for other in others:
        rows += _rows_of_another_process(other)
    names = (
        "sizes",
        "num_bits",
        "queries",
        "instructions",
        "pairs",
        "k",
        "repeats",
        "threads",
        "utterances",
        "seed",
    )
    config = {name: values[name].value for name in names}
    config |= {"model": values.model and Path(values.model).name, "cpu": timing.processors()}
    config["instruction_sets"] = timing.instruction_sets()
    config["kernel"] = native.instructions()
    launch.write(rows, timing.COLUMNS, config, load_average=os.getloadavg())


def _bench_more(rng: np.random.Generator) -> list[dict]:
    """Rows of a record: a model's codes, the weighted search, whole utterances."""
    values, rows = flags.FLAGS, []
    if values.model is not None:
        dictionary = models.load(values.model).dictionary
        drawn = np.asarray(dictionary.codes)
        num_queries = max(1, min(values.pairs // len(drawn), len(drawn) // 10))
        real = drawn[:num_queries], drawn[num_queries:]
        rows += bench(*real, dictionary.hasher.num_bits, f"real {_MACHINE}")
        with native.off():
            rows.append(bench_weighted(*real, dictionary.hasher.betas, "real"))
    queries, entries = _random_codes(rng, 225_000, 160, values.pairs)
    with native.off():
        rows.append(bench_weighted(queries, entries, jnp.linspace(1.0, 0.1, 160), "random"))
        if values.utterances:
            rows.append(_bench_utterances(rng, "JAX"))
    if values.utterances and native.target():
        rows.append(_bench_utterances(rng, "native kernel"))
    return rows


def _rows_of_another_process(instructions: str) -> list[dict]:
    """What this launch measures with other instructions, which a process sets once."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "rows.json"
        changed = f"--instructions={instructions}", f"--output={record}"
        command = [sys.executable, "-m", "experiments.bench_search", *sys.argv[1:], *changed]
        subprocess.run(command, check=True)
        return json.loads(record.read_text())["results"]


def bench(queries: np.ndarray, entries: np.ndarray, num_bits: int, kind: str) -> list[dict]:
    """Rows of a record: one dictionary against every reference at hand.

    Args:
        queries: (Q, W) uint32.
        entries: (N, W) uint32.
        num_bits: L.
        kind: where the codes come from, for the record.
    """
    references = _references(queries, entries, num_bits, flags.FLAGS.k)
    size = f"N={len(entries)} L={num_bits} Q={len(queries)} {kind}"
    with native.off():
        rows = _bench_path("JAX", queries, entries, num_bits, size, references)
    if native.target():
        references.pop("lax.top_k on floats", None)
        rows += _bench_path("native kernel", queries, entries, num_bits, size, references)
    return rows


def _bench_path(path: str, queries, entries, num_bits: int, size: str, references) -> list[dict]:
    """The rows of ``bench`` of one path."""
    k, repeats = flags.FLAGS.k, flags.FLAGS.repeats
    prepared = jax.device_put(search.prepare(entries))
    planned = search.hamming_top_k.lower(queries, prepared, k, num_bits).compile().memory_analysis()
    memory = planned and planned.temp_size_in_bytes / 2**20
    placed = jax.device_put(queries)
    ours = functools.partial(search.hamming_top_k, placed, prepared, k, num_bits)
    rows = []
    for name, (asked, reference) in references.items():
        mine, theirs = timing.take_turns(repeats, ours, reference)
        agrees = np.array_equal(mine.result.distances[:asked], theirs.result)
        pairs = len(queries) * len(entries), asked * len(entries)
        name = f"hamming_top_k, {path} : {name}"
        rows.append(_rates(name, size, mine, theirs, pairs, agrees) | {"peak_memory_mb": memory})
        print(f"{name:50} {size:40} {rows[-1]['ratio']:.2f}", flush=True)
    return rows


def _references(queries, entries, num_bits: int, k: int) -> dict[str, tuple[int, Callable]]:
    """By name: how many of the queries are asked, and a search that returns sorted distances."""
    found = {}
    if importlib.util.find_spec("faiss"):
        found["faiss IndexBinaryFlat"] = len(queries), _faiss(queries, entries, k)
    many = len(queries) > _FEW_QUERIES and flags.FLAGS.instructions[0] == _MACHINE
    if many and len(entries) * num_bits * 4 < 2**31:
        few, vectors = _bipolar(queries[:_FEW_QUERIES], num_bits), _bipolar(entries, num_bits)
        found["lax.top_k on floats"] = len(few), functools.partial(_naive, few, vectors, k)
    return found


def _faiss(queries: np.ndarray, entries: np.ndarray, k: int) -> Callable:
    import faiss

    faiss.omp_set_num_threads(flags.FLAGS.threads)
    index = faiss.IndexBinaryFlat(entries.shape[1] * packing.WORD_BITS)
    index.add(entries.view(np.uint8))
    return lambda: index.search(queries.view(np.uint8), k)[0]


def _bipolar(words: np.ndarray, num_bits: int) -> jax.Array:
    """(N, L) float32 of -1 and +1."""
    bits = packing.unpack_bits(jnp.asarray(words), num_bits)
    return jnp.where(bits, jnp.float32(1), jnp.float32(-1))


@functools.partial(jax.jit, static_argnames="k")
def _naive(queries: jax.Array, entries: jax.Array, k: int) -> jax.Array:
    closest = jax.lax.top_k(queries @ entries.T, k)[0]
    return ((queries.shape[1] - closest) / 2).astype(jnp.int32)


def bench_weighted(queries: np.ndarray, entries: np.ndarray, weights: jax.Array, kind: str) -> dict:
    """A row of a record: the weighted search against the unweighted one.

    Args:
        queries: (Q, W) uint32.
        entries: (N, W) uint32.
        weights: (L,) float32.
        kind: where the codes come from, for the record.
    """
    k, repeats = flags.FLAGS.k, flags.FLAGS.repeats
    placed = jax.device_put(queries), jax.device_put(entries)
    plain = functools.partial(search.hamming_top_k, *placed, k)
    weighted = functools.partial(search.weighted_hamming_top_k, *placed, weights, k)
    mine, theirs = timing.take_turns(repeats, weighted, plain)
    few, vectors = (_bipolar(x, len(weights)) for x in (queries[:_FEW_QUERIES], entries))
    expected = _naive_weighted(few, vectors, search.quantize_weights(weights), k)
    pairs = len(queries) * len(entries)
    size = f"N={len(entries)} L={len(weights)} Q={len(queries)} {kind}"
    agrees = np.array_equal(mine.result.similarities[: len(few)], expected)
    name = "weighted_hamming_top_k : hamming_top_k"
    return _rates(name, size, mine, theirs, (pairs, pairs), agrees)


@functools.partial(jax.jit, static_argnames="k")
def _naive_weighted(
    queries: jax.Array, entries: jax.Array, weights: jax.Array, k: int
) -> jax.Array:
    products = jnp.matmul(queries * weights[None], entries.T, precision=jax.lax.Precision.HIGHEST)
    return (jax.lax.top_k(products, k)[0] + jnp.sum(weights)) / 2


def _bench_utterances(rng: np.random.Generator, path: str) -> dict:
    """Denoising a batch of utterances in one call, and the part of the search in it."""
    count, repeats = flags.FLAGS.utterances, flags.FLAGS.repeats
    stft, features, samples, size = StftConfig(), FeatureConfig(), 48_000, 225_000
    frames = jnp.asarray(rng.random((1000, stft.num_bins), np.float32))
    hasher = codes.random_hasher(jax.random.key(0), 150, frames)
    entries = jnp.asarray(rng.integers(0, 1 << 32, (size, 5), np.uint32))
    packed = jnp.asarray(rng.integers(0, 1 << 32, (size, 17), np.uint32))
    dictionary = separation.Dictionary(hasher, entries, packed, stft.num_bins)
    near = separation.NeighborMask(dictionary, feature_function(features, stft), 10)
    mixtures = jnp.asarray(rng.standard_normal((count, samples), np.float32))
    num_frames = count * (samples // stft.hop_length)
    queries = entries[:num_frames] ^ jnp.uint32(1)
    whole, alone = timing.take_turns(
        repeats,
        functools.partial(pipeline.separate, mixtures, near, stft),
        functools.partial(search.hamming_top_k, queries, entries, 10, 150),
    )
    audio = count * samples / stft.sample_rate
    return timing.row(
        f"separate, {path} : its search alone",
        f"{count} utterances of {samples / stft.sample_rate:.0f} s, N={size} L=150",
        audio / whole.seconds,
        audio / alone.seconds,
        "times real time",
        search_share_of_core_seconds=alone.core_seconds / whole.core_seconds,
    )


def _rates(
    name: str, size: str, ours: Timing, theirs: Timing, pairs: tuple[int, int], agrees: bool
) -> dict[str, Any]:
    """A row in pairs per second; ``pairs`` are those of one call of each."""
    billions = [1e-9 * count for count in pairs]
    rates = [billions[0] / ours.seconds, billions[1] / theirs.seconds]
    cores = [billions[0] / ours.core_seconds, billions[1] / theirs.core_seconds]
    return timing.row(
        name,
        size,
        rates[0],
        rates[1],
        "1e9 pairs/s",
        agrees,
        ours_per_core=cores[0],
        reference_per_core=cores[1],
        core_ratio=cores[0] / cores[1],
    )


def _random_codes(rng, size: int, num_bits: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, W) queries and (N, W) entries with about ``pairs`` = Q N."""
    num_queries = max(256, pairs // size)
    drawn = rng.integers(0, 1 << 32, (num_queries + size, packing.num_words(num_bits)), np.uint32)
    drawn = np.asarray(packing.prefix_codes(jnp.asarray(drawn), num_bits))
    return drawn[:num_queries], drawn[num_queries:]


if __name__ == "__main__":
    launch.run(_define_flags, main)
