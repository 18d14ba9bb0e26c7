"""What a system costs for one frame, by formula: operations, bytes and energy.

The transform, which all systems share, is left out, and so is what grows with neither the
dictionary nor a matrix: keeping the nearest frames, biases, rectifiers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from blsh_jax.evaluation import NAMES
from blsh_jax.search.packing import num_words
from experiments import published

# Energy in pJ in 45 nm at 0.9 V: M. Horowitz, "Computing's energy problem (and what we can do about
# it)", ISSCC 2014, figure 1.1.9. Of its range for DRAM, 1,300 to 2,600 pJ, the lower end.
MULTIPLY, ADD = 3.7, 0.9  # 32-bit floating point
WORD = 0.1  # a 32-bit integer addition; exclusive or and count are taken to cost the same
SRAM, DRAM = 100.0, 1300.0  # a read of 64 bits from a 1 MB cache, and from DRAM

_LENGTHS = (25, 50, 150)


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


class Compared(NamedTuple):
    """A system: what it costs, and what it brings.

    Attributes:
        name: what people call it.
        num_bits: L, or None where there are no codes.
        costs: by formula.
        sdr: in dB, by test set.
        gain: on the closed set, over the mixture, in dB.
    """

    name: str
    num_bits: int | None
    costs: Costs
    sdr: dict[str, float]
    gain: float


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

    def add(name: str, bits: int | None, costs: Costs, sdr: dict[str, float]) -> None:
        found.append(Compared(name, bits, costs, sdr, sdr["closed"] - noisy))

    frames = seen["dictionary_frames"]
    for method, bits in (("knn", None), *((m, b) for m in ("lsh", "blsh") for b in _LENGTHS)):
        costs = hashing(bits, bins, frames, bins, k) if bits else spectral(bins, frames, bins, k)
        sdr = {name: scored[method, bits, name] for name in ("closed", "open")}
        add(NAMES[method], bits, costs, sdr)
    frames = round(0.01 * seen["training_frames_seen"])
    for row in records["figure3"]["results"]:
        chosen = row["method"], row["dictionary_fraction"], row["set"]
        if chosen == ("blsh", 0.01, "closed") and row["num_bits"] in _LENGTHS:
            costs = hashing(row["num_bits"], bins, frames, bins, k)
            add("BLSH, 1 % of the frames", row["num_bits"], costs, {"closed": row["sdr"]})
    table = records["table1"]
    for method, size in table["config"]["networks"].items():
        layers, units = size["num_layers"], size["num_units"]
        sdr = {row["set"]: row["sdr"] for row in table["results"] if row["method"] == method}
        costs = network(method, layers, units, bins, bins)
        add(f"{NAMES[method]}, {layers} × {units}", None, costs, sdr)
    return found


def theirs() -> list[Compared]:
    """The paper's systems at the paper's sizes; its mixtures are at 0 dB, which is their SDR."""
    bins, k, frames = published.NUM_BINS, published.NUM_NEIGHBORS, published.DICTIONARY_FRAMES
    bits, found = published.TABLE1_BITS, []
    for method, scores in published.TABLE1.items():
        name, length = NAMES[method], None
        if method == "irm":
            continue
        if method == "knn":
            costs = spectral(bins, frames, bins, k)
        elif method in published.NETWORKS:
            layers, units = published.NETWORKS[method]
            costs = network(method, layers, units, bins, bins)
            name += f", {layers} × {units}"
        else:
            costs, length = hashing(bits, bins, frames, bins, k), bits
        sdr = {place: of_set.sdr for place, of_set in scores.items()}
        found.append(Compared(name, length, costs, sdr, sdr["closed"]))
    return found
