"""What a system costs for one frame: operations, bytes and energy by formula, and measured time.

    python -m experiments.complexity --output complexity.json

Needs no recordings, as the contents of codes, frames and weights cost no time; takes a minute. The
formulas leave out the transform, which all systems share, and what grows with neither the
dictionary nor a matrix: keeping the nearest frames, biases, rectifiers. Times are those of a core,
features in, masks out, so they leave out the transform alone: of one frame by itself, as live, and
of a frame among 100.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from jax import Array

from blsh_jax.commands import launch
from blsh_jax.config import NetworkConfig
from blsh_jax.evaluation import NAMES, networks
from blsh_jax.evaluation.networks import Network
from blsh_jax.paper import spectra
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.separation import (
    Dictionary,
    FrameDictionary,
    SpectralDictionary,
    estimate_mask,
)
from blsh_jax.search.packing import num_words, prefix_codes
from experiments import published, timing

# Energy in pJ in 45 nm at 0.9 V: M. Horowitz, "Computing's energy problem (and what we can do about
# it)", ISSCC 2014, figure 1.1.9. Of its range for DRAM, 1,300 to 2,600 pJ, the lower end.
MULTIPLY, ADD = 3.7, 0.9  # 32-bit floating point
WORD = 0.1  # a 32-bit integer addition; exclusive or and count are taken to cost the same
SRAM, DRAM = 100.0, 1300.0  # a read of 64 bits from a 1 MB cache, and from DRAM

_LENGTHS = (25, 50, 150)
_BLOCK = 100  # frames at a time, of the segments that networks are trained on
_COLUMNS = ["whose", "system", "num_bits", "alone_us", "block_us"]
RECORDS = ("closed", "open", "figure3", "table1")  # that ``ours`` needs


Masks = Callable[[Array], Array]
"""Features (T, D) to masks (T, F)."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a system costs, beyond the transform that all share.

    Attributes:
        float_operations: floating-point operations per frame, a multiply-add counted as two.
        word_operations: operations on 32-bit words per frame: exclusive or, count, add.
        model_bytes: what must be stored, in 32-bit numbers and words.
        read_bytes: what of it one frame reads, nothing being kept from the frame before.
    """

    float_operations: int
    word_operations: int
    model_bytes: int
    read_bytes: int

    @property
    def arithmetic(self) -> float:
        """Energy of the operations of a frame, in µJ."""
        return 1e-6 * (self.float_operations * (MULTIPLY + ADD) / 2 + self.word_operations * WORD)

    def energy(self, read: float) -> float:
        """Energy of a frame in µJ, if a read of 64 bits costs ``read`` pJ."""
        return self.arithmetic + 1e-6 * read * self.read_bytes / 8


def hashing(num_bits: int, num_features: int, num_frames: int, num_bins: int, k: int) -> Costs:
    """Costs of a search among codes.

    Args:
        num_bits: L.
        num_features: D.
        num_frames: N, of the dictionary.
        num_bins: F.
        k: K, neighbours, whose masks are read.
    """
    hasher, words, mask = num_bits * (num_features + 1), num_words(num_bits), num_words(num_bins)
    return Costs(
        2 * num_features * num_bits,
        3 * num_frames * words,
        4 * (hasher + num_frames * (words + mask)),
        4 * (hasher + num_frames * words + k * mask),
    )


def spectral(
    num_features: int, num_frames: int, num_bins: int, k: int, num_filtered: int = 0
) -> Costs:
    """Costs of a search among frames; letters as in ``hashing``.

    Args:
        num_features: D.
        num_frames: N.
        num_bins: F.
        k: K.
        num_filtered: bins that each feature is a weighted sum of.
    """
    mask = num_words(num_bins)
    return Costs(
        2 * (num_frames + num_filtered) * num_features,
        0,
        4 * num_frames * (num_features + mask),
        4 * (num_frames * num_features + k * mask),
    )


def network(kind: str, num_layers: int, num_units: int, num_features: int, num_bins: int) -> Costs:
    """Costs of a network, as of ``evaluation.networks``.

    Args:
        kind: ``fc`` or ``blstm``.
        num_layers: hidden layers.
        num_units: H, of a layer, in each direction.
        num_features: D.
        num_bins: F.
    """
    matrices, biases, size = 0, 0, num_features
    for _ in range(num_layers):
        if kind == "fc":
            matrices, biases, size = matrices + size * num_units, biases + num_units, num_units
        else:  # two directions, each with three gates and a new value
            matrices += 2 * 4 * num_units * (size + num_units)
            biases, size = biases + 2 * 4 * num_units, 2 * num_units
    matrices, biases = matrices + size * num_bins, biases + num_bins
    return Costs(2 * matrices, 0, 4 * (matrices + biases), 4 * (matrices + biases))


def coded(num_bits: int, num_features: int, num_frames: int, num_bins: int, k: int) -> Masks:
    """A search among codes, random ones; letters as in ``hashing``."""
    keys = jax.random.split(jax.random.key(0), 3)
    hasher = Hasher(jax.random.normal(keys[0], (num_bits, num_features)), *jnp.ones((2, num_bits)))
    words = jax.random.bits(keys[1], (num_frames, num_words(num_bits)), jnp.uint32)
    packed = jax.random.bits(keys[2], (num_frames, num_words(num_bins)), jnp.uint32)
    dictionary = Dictionary(hasher, prefix_codes(words, num_bits), packed, num_bins)
    return functools.partial(_searched, dictionary, k=k)


def compared(num_features: int, num_frames: int, num_bins: int, k: int) -> Masks:
    """A search among frames, random ones; letters as in ``spectral``."""
    keys = jax.random.split(jax.random.key(0))
    packed = jax.random.bits(keys[1], (num_frames, num_words(num_bins)), jnp.uint32)
    frames = _unit_frames(keys[0], num_frames, num_features)
    return functools.partial(_searched, SpectralDictionary(frames, packed, num_bins), k=k)


def predicted(
    kind: str, num_layers: int, num_units: int, num_features: int, num_bins: int
) -> Masks:
    """A network that learned nothing; letters as in ``network``."""
    config = NetworkConfig(kind, num_layers, num_units)  # type: ignore[arg-type]
    made = networks.init(num_features, num_bins, config, jax.random.key(0))
    return functools.partial(_predicted, made)


@functools.partial(jax.jit, static_argnames="k")
def _searched(dictionary: FrameDictionary, frames: Array, k: int) -> Array:
    return estimate_mask(dictionary, dictionary.encode(frames), k)


@jax.jit
def _predicted(network: Network, frames: Array) -> Array:
    return jax.nn.sigmoid(network.predictor.apply(network.parameters, frames[None])[0])


def _unit_frames(key: Array, count: int, size: int) -> Array:
    return spectra.unit_norm(jax.random.uniform(key, (count, size)))


class Compared(NamedTuple):
    """A system: what it costs, and what it brings.

    Attributes:
        name: what people call it.
        num_bits: L, or None where there are no codes.
        costs: by formula.
        sdr: in dB, by test set.
        gain: on the closed set, over the mixture, in dB.
        made: what makes the system itself, to be timed, and of which sizes.
    """

    name: str
    num_bits: int | None
    costs: Costs
    sdr: dict[str, float]
    gain: float
    made: tuple[Callable[..., Masks], tuple[Any, ...]]


def measured(systems: list[Compared], repeats: int, num_features: int) -> list[dict[str, Any]]:
    """Core microseconds of a frame, alone and among others: medians.

    Args:
        systems: what is timed; a network that looks ahead is not alone with a frame.
        repeats: of each.
        num_features: D.
    """

    @functools.cache
    def taken(made: Callable[..., Masks], sizes: tuple[Any, ...], count: int) -> float:
        frames = _unit_frames(jax.random.key(1), count, num_features)
        (timed,) = timing.take_turns(repeats, functools.partial(made(*sizes), frames))
        return 1e6 * timed.core_seconds / count

    return [
        {
            "system": system.name,
            "num_bits": system.num_bits,
            "alone_us": None if "blstm" in system.made[1] else taken(*system.made, 1),
            "block_us": taken(*system.made, _BLOCK),
        }
        for system in systems
    ]


def ours(records: Mapping[str, dict[str, Any]]) -> list[Compared]:
    """Systems of our records.

    Args:
        records: ``closed`` and ``open``, searches of 10 % of the frames, ``figure3``, those of 1 %,
            and ``table1``, the networks, by name.
    """
    config = records["closed"]["config"]
    model, seen = config["model"], config["provenance"]
    bins, k = model["stft"]["window_length"] // 2 + 1, model["num_neighbors"]
    scored = {
        (row["method"], row["num_bits"], name): row["sdr"]
        for name in ("closed", "open")
        for row in records[name]["results"]
    }
    noisy, found = scored["noisy", None, "closed"], []

    def add(name: str, bits: int | None, sdr: dict[str, float], kind: _Kind, *sizes: Any) -> None:
        found.append(_compared(name, bits, sdr, sdr["closed"] - noisy, kind, *sizes))

    frames = seen["dictionary_frames"]
    for method, bits in (("knn", None), *((m, b) for m in ("lsh", "blsh") for b in _LENGTHS)):
        sdr = {name: scored[method, bits, name] for name in ("closed", "open")}
        if bits:
            add(NAMES[method], bits, sdr, _CODES, bits, bins, frames, bins, k)
        else:
            add(NAMES[method], bits, sdr, _SPECTRA, bins, frames, bins, k)
    frames = round(0.01 * seen["training_frames_seen"])
    few: dict[int, dict[str, float]] = {}
    for row in records["figure3"]["results"]:
        chosen = row["method"], row["dictionary_fraction"]
        if chosen == ("blsh", 0.01) and row["num_bits"] in _LENGTHS:
            few.setdefault(row["num_bits"], {})[row["set"]] = row["sdr"]
    for bits, sdr in few.items():
        add("BLSH, 1 % of the frames", bits, sdr, _CODES, bits, bins, frames, bins, k)
    table = records["table1"]
    for method, size in table["config"]["networks"].items():
        layers, units = size["num_layers"], size["num_units"]
        sdr = {row["set"]: row["sdr"] for row in table["results"] if row["method"] == method}
        name = f"{NAMES[method]}, {layers} × {units}"
        add(name, None, sdr, _NETWORK, method, layers, units, bins, bins)
    return found


def theirs() -> list[Compared]:
    """The paper's systems at the paper's sizes; its mixtures are at 0 dB, which is their SDR."""
    bins, k, frames = published.NUM_BINS, published.NUM_NEIGHBORS, published.DICTIONARY_FRAMES
    bits, found = published.TABLE1_BITS, []
    for method, scores in published.TABLE1.items():
        name, length = NAMES[method], None
        if method == "irm":
            continue
        sizes: tuple[Any, ...]
        if method == "knn":
            kind, sizes = _SPECTRA, (bins, frames, bins, k)
        elif method in published.NETWORKS:
            layers, units = published.NETWORKS[method]
            kind, sizes = _NETWORK, (method, layers, units, bins, bins)
            name += f", {layers} × {units}"
        else:
            kind, sizes, length = _CODES, (bits, bins, frames, bins, k), bits
        sdr = {place: of_set.sdr for place, of_set in scores.items()}
        found.append(_compared(name, length, sdr, sdr["closed"], kind, *sizes))
    return found


_Kind = tuple[Callable[..., Costs], Callable[..., Masks]]
_CODES: _Kind = (hashing, coded)
_SPECTRA: _Kind = (spectral, compared)
_NETWORK: _Kind = (network, predicted)


def _compared(
    name: str, bits: int | None, sdr: dict[str, float], gain: float, kind: _Kind, *sizes: Any
) -> Compared:
    return Compared(name, bits, kind[0](*sizes), sdr, gain, (kind[1], sizes))


def systems() -> dict[str, list[Compared]]:
    """Systems by whose they are, ours from the records of this checkout."""
    folder = Path(__file__).parent / "results"
    records = {name: json.loads((folder / f"{name}.json").read_text()) for name in RECORDS}
    return {"here": ours(records), "paper": theirs()}


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    flags.DEFINE_integer("repeats", 9, "Repetitions; the record holds medians.", lower_bound=1)


def main() -> None:
    """Flags, library, record."""
    repeats, rows = flags.FLAGS.repeats, []
    for whose, some in systems().items():
        found = measured(some, repeats, published.NUM_BINS)
        rows += [{"whose": whose} | row for row in found]
    launch.write(rows, _COLUMNS, {"repeats": repeats, "block": _BLOCK})


if __name__ == "__main__":
    launch.run(_define_flags, main)
