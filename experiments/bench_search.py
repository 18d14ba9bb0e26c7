"""Time the exact Hamming search against FAISS, naive top_k and torch, and compare the distances.

The weighted and the cosine search are timed against the unweighted one.

    python -m experiments.bench_search --output bench.json [--model model.npz]

Takes about five minutes on two cores. Expect 2.5 to 12 times FAISS's IndexBinaryFlat on two cores
with AVX-512 and 6 times or more naive `lax.top_k`. Runs of ours and of a reference take turns;
`core_ratio` compares seconds of processor time instead of seconds on the clock, which other work on
the machine disturbs less. FAISS and torch are optional (`pip install blsh_jax[bench]`); what is
missing is left out. With --model, the codes of the model's dictionary are searched as well: some of
them in all others, without weights and with the model's betas.
"""

import functools
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from blsh_jax import models, search
from blsh_jax.config import FeatureConfig, StftConfig
from blsh_jax.denoising import pipeline
from blsh_jax.evaluation import records
from blsh_jax.paper import codes, masks, separation
from blsh_jax.robust.features import feature_function
from blsh_jax.search import packing
from experiments import flags as launch

_COLUMNS = ["name", "size", "ours", "reference", "ratio", "unit", "agrees"]
_FEW_QUERIES = 64  # for references that hold a whole row of distances per query


def _define_flags() -> None:
    flags.DEFINE_string("output", None, "Record to write (.json).", required=True)
    flags.DEFINE_list("sizes", ["22500", "225000", "2250000"], "N, dictionary codes.")
    flags.DEFINE_list("num_bits", ["25", "150", "160", "300"], "L, bits of a code.")
    flags.DEFINE_integer("pairs", 230_000_000, "Q times N of every run.", lower_bound=1)
    flags.DEFINE_integer("k", 10, "K, neighbours.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Repetitions; the record holds medians.", lower_bound=1)
    flags.DEFINE_integer("threads", 2, "Threads of FAISS and torch.", lower_bound=1)
    flags.DEFINE_integer("utterances", 60, "Utterances to denoise; 0 for none.", lower_bound=0)
    flags.DEFINE_bool("end_to_end", False, "Also 225k queries in 225k codes, with their masks.")
    flags.DEFINE_string("model", None, "Model whose dictionary's codes are searched as well.")
    flags.DEFINE_integer("seed", 0, "Seed of the random codes.")


def main(argv: list[str]) -> None:
    """Flags, benchmarks, record."""
    del argv
    values = flags.FLAGS
    rng = np.random.default_rng(values.seed)
    rows = []
    for size in map(int, values.sizes):
        for num_bits in map(int, values.num_bits):
            rows += bench(*_random_codes(rng, size, num_bits, values.pairs), num_bits, "random")
    if values.model is not None:
        dictionary = models.load(values.model).dictionary
        drawn = np.asarray(dictionary.codes)
        num_queries = max(1, min(values.pairs // len(drawn), len(drawn) // 10))
        num_bits = dictionary.hasher.num_bits
        real = drawn[:num_queries], drawn[num_queries:]
        rows += bench(*real, num_bits, "real")
        rows.append(bench_weighted(*real, dictionary.hasher.betas, "real"))
    kin = _random_codes(rng, 225_000, 160, 230_000_000)
    rows.append(bench_weighted(*kin, jnp.linspace(1.0, 0.1, 160), "random"))
    rows.append(_bench_cosine(rng, *kin))
    if values.utterances:
        rows.append(_bench_utterances(rng, values.utterances, values.repeats))
    if values.end_to_end:
        rows.append(_bench_end_to_end(rng, values.k, values.repeats))
    names = ("sizes", "num_bits", "pairs", "k", "repeats", "threads", "utterances", "seed")
    config = {name: values[name].value for name in names} | {
        "model": values.model and Path(values.model).name,
        "cpu": _cpu_field("model name"),
    }
    environment = records.environment() | {"load_average": os.getloadavg()}
    record = {"results": rows, "config": config, "environment": environment}
    records.write_json(values.output, record)
    print(records.table(rows, _COLUMNS))


def bench(queries: np.ndarray, entries: np.ndarray, num_bits: int, kind: str) -> list[dict]:
    """Rows of a record: one dictionary against every reference at hand.

    Args:
        queries: (Q, W) uint32.
        entries: (N, W) uint32.
        num_bits: L.
        kind: where the codes come from, for the record.
    """
    k, repeats = flags.FLAGS.k, flags.FLAGS.repeats
    size = f"N={len(entries)} L={num_bits} Q={len(queries)} {kind}"
    on_device = jax.device_put(entries)
    planned = search.hamming_top_k.lower(queries, on_device, k).compile().memory_analysis()
    memory = planned and planned.temp_size_in_bytes / 2**20
    # Ours always gets all queries: a few alone would mostly pay for laying out the dictionary.
    ours = functools.partial(search.hamming_top_k, jax.device_put(queries), on_device, k)
    rows = []
    for name, (asked, reference) in _references(queries, entries, num_bits, k).items():
        mine, theirs = _take_turns(ours, reference, repeats)
        agrees = np.array_equal(mine.result.distances[:asked], theirs.result)
        pairs = len(queries) * len(entries), asked * len(entries)
        row = _rates(f"hamming_top_k : {name}", size, mine, theirs, pairs) | {"agrees": agrees}
        rows.append(row | {"peak_memory_mb": memory} | _share(row["ours"], num_bits))
        print(f"{name:25} {size:40} {row['ratio']:.2f}", flush=True)
    return rows


def _references(queries, entries, num_bits: int, k: int) -> dict[str, tuple[int, Callable]]:
    """By name: how many of the queries are asked, and a search that returns sorted distances."""
    found = {}
    if importlib.util.find_spec("faiss"):
        found["faiss IndexBinaryFlat"] = len(queries), _faiss(queries, entries, k)
    if len(entries) * num_bits * 4 < 2**31:
        few, vectors = _bipolar(queries[:_FEW_QUERIES], num_bits), _bipolar(entries, num_bits)
        found["lax.top_k on floats"] = len(few), functools.partial(_naive, few, vectors, k)
        if importlib.util.find_spec("torch"):
            found["torch matmul + topk"] = len(few), _torch(np.asarray(few), np.asarray(vectors), k)
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


def _torch(queries: np.ndarray, entries: np.ndarray, k: int) -> Callable:
    import torch

    torch.set_num_threads(flags.FLAGS.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, columns = (torch.from_numpy(np.array(x)).to(device) for x in (queries, entries))

    def nearest():
        closest = torch.topk(rows @ columns.T, k, dim=1).values
        return ((rows.shape[1] - closest) / 2).to(torch.int32).cpu().numpy()

    return nearest


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
    mine, theirs = _take_turns(weighted, plain, repeats)
    few, vectors = (_bipolar(x, len(weights)) for x in (queries[:_FEW_QUERIES], entries))
    expected = _naive_weighted(few, vectors, search.quantize_weights(weights), k)
    pairs = len(queries) * len(entries)
    size = f"N={len(entries)} L={len(weights)} Q={len(queries)} {kind}"
    row = _rates("weighted_hamming_top_k : hamming_top_k", size, mine, theirs, (pairs, pairs))
    return row | {"agrees": np.array_equal(mine.result.similarities[: len(few)], expected)}


@functools.partial(jax.jit, static_argnames="k")
def _naive_weighted(
    queries: jax.Array, entries: jax.Array, weights: jax.Array, k: int
) -> jax.Array:
    products = jnp.matmul(queries * weights[None], entries.T, precision=jax.lax.Precision.HIGHEST)
    return (jax.lax.top_k(products, k)[0] + jnp.sum(weights)) / 2


def _bench_cosine(rng: np.random.Generator, queries: np.ndarray, entries: np.ndarray) -> dict:
    """The raw-spectrum search beside the unweighted search."""
    k, repeats = flags.FLAGS.k, flags.FLAGS.repeats
    frames = jax.device_put(rng.standard_normal((60_000, 513), np.float32))
    plain = functools.partial(search.hamming_top_k, *map(jax.device_put, (queries, entries)), k)
    cosine = functools.partial(search.cosine_top_k, frames[:512], frames, k)
    return _rates(
        "cosine_top_k : hamming_top_k",
        "N=60000 D=513 Q=512 random",
        *_take_turns(cosine, plain, repeats),
        (512 * len(frames), len(queries) * len(entries)),
    )


def _bench_utterances(rng: np.random.Generator, count: int, repeats: int) -> dict:
    """Denoising a batch of utterances in one call, and the part of the search in it."""
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
    whole, alone = _take_turns(
        functools.partial(pipeline.separate, mixtures, near, stft),
        functools.partial(search.hamming_top_k, queries, entries, 10, 150),
        repeats,
    )
    audio = count * samples / stft.sample_rate
    return {
        "name": "separate : its search alone",
        "size": f"{count} utterances of {samples / stft.sample_rate:.0f} s, N={size} L=150",
        "ours": audio / whole.seconds,
        "reference": audio / alone.seconds,
        "ratio": alone.seconds / whole.seconds,
        "unit": "times real time",
        "agrees": None,
        "search_share_of_core_seconds": alone.core_seconds / whole.core_seconds,
    }


def _bench_end_to_end(rng: np.random.Generator, k: int, repeats: int) -> dict:
    """All pairs of 225k codes, and the averaged masks of all neighbours."""
    size = 225_000
    queries, entries = rng.integers(0, 1 << 32, (2, size, 5), np.uint32)
    packed = jax.device_put(rng.integers(0, 1 << 32, (size, 17), np.uint32))
    nearest = functools.partial(search.hamming_top_k, *map(jax.device_put, (queries, entries)), k)

    @jax.jit
    def averaged(queries, entries, packed):
        indices = search.hamming_top_k(queries, entries, k).indices
        return masks.average_masks(packed, indices, 513)

    arguments = *map(jax.device_put, (queries, entries)), packed
    whole, alone = _take_turns(functools.partial(averaged, *arguments), nearest, repeats)
    return {
        "name": "search and masks : search",
        "size": f"{size} x {size} L=160",
        "ours": whole.seconds,
        "reference": alone.seconds,
        "ratio": alone.seconds / whole.seconds,
        "unit": "seconds",
        "agrees": None,
        "pairs_per_second": size * size / alone.seconds,
    }


class Timing(NamedTuple):
    """Medians over repeated calls, and the result of one."""

    seconds: float
    core_seconds: float
    result: Any


def _take_turns(ours: Callable, theirs: Callable, repeats: int) -> tuple[Timing, Timing]:
    """Time two calls that take turns; their first runs compile and are not counted."""
    calls = ours, theirs
    results = [jax.block_until_ready(call()) for call in calls]
    taken: list[list[tuple[float, float]]] = [[], []]
    for _ in range(repeats):
        for call, times in zip(calls, taken, strict=True):
            start, core_start = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            times.append((time.perf_counter() - start, time.process_time() - core_start))
    wall, core = (
        [statistics.median(time[kind] for time in times) for times in taken] for kind in (0, 1)
    )
    return Timing(wall[0], core[0], results[0]), Timing(wall[1], core[1], results[1])


def _rates(name: str, size: str, ours: Timing, theirs: Timing, pairs: tuple[int, int]) -> dict:
    """A row in pairs per second; ``pairs`` are those of one call of each."""
    rates = [1e-9 * count / x.seconds for count, x in zip(pairs, (ours, theirs), strict=True)]
    cores = [1e-9 * count / x.core_seconds for count, x in zip(pairs, (ours, theirs), strict=True)]
    return {
        "name": name,
        "size": size,
        "ours": rates[0],
        "reference": rates[1],
        "ratio": rates[0] / rates[1],
        "unit": "1e9 pairs/s",
        "agrees": None,
        "ours_per_core": cores[0],
        "reference_per_core": cores[1],
        "core_ratio": cores[0] / cores[1],
    }


def _share(rate: float, num_bits: int) -> dict:
    """The part of the platform's limit that a rate in 1e9 pairs/s reaches, where that is known.

    The limit of a CPU: in every cycle every core popcounts 16 words, two 256-bit vectors, the width
    that XLA prefers on x86.
    """
    clocks = _cpu_field("cpu MHz")
    if not clocks or jax.default_backend() != "cpu":
        return {}
    limit = sum(map(float, clocks)) * 1e-3 * 16 / packing.num_words(num_bits)
    return {"limit": limit, "share_of_limit": rate / limit}


def _random_codes(rng, size: int, num_bits: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, W) queries and (N, W) entries with about ``pairs`` = Q N."""
    num_queries = max(256, pairs // size)
    drawn = rng.integers(0, 1 << 32, (num_queries + size, packing.num_words(num_bits)), np.uint32)
    drawn = np.asarray(packing.prefix_codes(jnp.asarray(drawn), num_bits))
    return drawn[:num_queries], drawn[num_queries:]


def _cpu_field(name: str) -> list[str]:
    """A field of every core in the system's description of its processor, if there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]


if __name__ == "__main__":
    launch.run(_define_flags, main)
