r"""Table 1 of the paper: every system on the closed and the open set, with its cost.

    python -m experiments.table1 --speech DIR --noise DIR --open_speech DIR --open_noise DIR \
        --output table1.json [--cache DIR]

Takes a few minutes on an H100 with the paper's networks (3 x 1024, 2 x 1024). On two CPU cores
give --fc_units=256 --blstm_units=128 --max_segments=3000 and an hour. Prints and writes SDR, SIR
and SAR in dB, operations per frame, bytes of the model, and seconds per minute of audio, all
systems on the same mixtures, transform and scorer.

The networks are early-stopped on the closed set, as in the paper, which favours them there.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from blsh_jax import config as configs
from blsh_jax import evaluation
from blsh_jax.commands import launch
from blsh_jax.config import NetworkConfig, TrainConfig
from blsh_jax.evaluation import System, masking, networks, searching
from blsh_jax.paper.separation import Dictionary, SpectralDictionary
from experiments import complexity
from experiments import protocol as protocols
from experiments.cache import Cache
from experiments.complexity import Costs
from experiments.protocol import Protocol
from experiments.workbench import MEL, Workbench, mel_dictionary

# What is hashed, and how variants of BLSH are fitted; everything else stays as configured.
HASHED: dict[str, dict[str, Any]] = {
    "lsh": {},
    "lsh_origin": {},
    "blsh": {},
    "blsh_cosine": {"target": "cosine"},
    "blsh_cross_entropy": {"metric": "cross_entropy"},
}
SYSTEMS = ("noisy", "irm", "ibm", "knn", "knn_mel", *HASHED, "fc", "blstm")
_COLUMNS = ["set", "method", "num_bits", "sdr", "sir", "sar"]
_COLUMNS += ["float_operations", "word_operations", "model_bytes", "seconds_per_minute"]


def table1(
    protocol: Protocol,
    config: TrainConfig,
    network_configs: dict[str, NetworkConfig],
    length: int,
    cache: Cache,
    methods: Sequence[str] = SYSTEMS,
) -> list[dict[str, Any]]:
    """The rows of the table.

    Args:
        protocol: the mixtures.
        config: transform, features, dictionary, how BLSH is fitted.
        network_configs: ``fc`` and ``blstm``.
        length: L, bits of the codes.
        cache: where intermediate results are kept.
        methods: some of ``SYSTEMS``.

    Raises:
        ValueError: an unknown system, or more bits than are fitted.

    Source: [ICASSP20] table 1.
    """
    unknown = sorted(set(methods) - set(SYSTEMS))
    if unknown:
        raise ValueError(f"unknown system {', '.join(unknown)}: choose from {', '.join(SYSTEMS)}")
    bench = Workbench(protocol, config, cache)
    rows = []
    for method in methods:
        system, costs, settings = _build(method, bench, network_configs, length)
        rows += [row | dataclasses.asdict(costs) for row in bench.scores(system, settings)]
    return rows


def _build(
    method: str, bench: Workbench, network_configs: dict[str, NetworkConfig], length: int
) -> tuple[System, Costs, Any]:
    """A system, its costs, and the settings beyond the workbench's that it depends on."""
    config, separation = bench.config, bench.config.separation
    k = separation.num_neighbors
    if method in network_configs:
        chosen = network_configs[method]
        network = bench.network(chosen)
        stored = 4 * network.num_parameters
        costs = Costs(network.operations, 0, stored, stored)
        mask = networks.network_mask(network, separation)
        return masking(method, None, mask, separation), costs, configs.to_dict(chosen)
    if method in HASHED:
        fit = config.fit
        if changes := HASHED[method]:  # only as far as the table needs them
            fit = dataclasses.replace(fit, num_bits=length, **changes)
        dictionary, settings = bench.hashed(method, length, fit)
        system = searching(method, length, dictionary, separation)
        return system, _hashing_costs(dictionary, k), settings
    model = bench.model(config.fit)
    if method == "knn":
        spectral = model.spectral_dictionary()
        return searching(method, None, spectral, separation), _spectral_costs(spectral, k), None
    if method == "knn_mel":
        spectral = mel_dictionary(model)
        separation = dataclasses.replace(separation, features=MEL)
        costs = _spectral_costs(spectral, k, separation.stft.num_bins)
        return searching(method, None, spectral, separation), costs, None
    return evaluation.make_systems(model, (method,), (), config.seed)[0], Costs(0, 0, 0, 0), None


def _hashing_costs(dictionary: Dictionary, k: int) -> Costs:
    """Costs of a search among codes."""
    bits, size = dictionary.hasher.projections.shape
    return complexity.hashing(bits, size, dictionary.num_frames, dictionary.num_bins, k)


def _spectral_costs(dictionary: SpectralDictionary, k: int, filtered: int = 0) -> Costs:
    """Costs of a search among frames, the features of a frame made of so many bins."""
    frames, size = dictionary.frames.shape
    return complexity.spectral(size, frames, dictionary.num_bins, k, filtered)


def _network_configs() -> dict[str, NetworkConfig]:
    """The networks that the flags say."""
    values = flags.FLAGS
    common = {"max_segments": values.max_segments, "max_epochs": values.network_epochs}
    return {
        "fc": NetworkConfig("fc", values.fc_layers, values.fc_units, **common),
        "blstm": NetworkConfig("blstm", values.blstm_layers, values.blstm_units, **common),
    }


def _define_flags() -> None:
    protocols.define_flags()
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    flags.DEFINE_integer("fc_layers", 3, "Hidden layers of the fully connected network.")
    flags.DEFINE_integer("fc_units", 1024, "Units of each hidden layer.")
    flags.DEFINE_integer("blstm_layers", 2, "Layers of the bidirectional LSTM.")
    flags.DEFINE_integer("blstm_units", 1024, "Units of each layer, in each direction.")
    default = NetworkConfig()
    flags.DEFINE_integer(
        "max_segments", default.max_segments, "Segments of 100 frames to train networks on at most."
    )
    flags.DEFINE_integer("network_epochs", default.max_epochs, "Passes over the segments at most.")
    flags.DEFINE_list("systems", list(SYSTEMS), "Which systems to compare.")
    flags.DEFINE_integer("length", 150, "Bits of the codes that are compared, num_bits at most.")


def main() -> None:
    """Flags, library, record."""
    values, config, chosen = flags.FLAGS, launch.train_config(), _network_configs()
    if not 1 <= values.length <= config.fit.num_bits:
        raise ValueError(f"--length={values.length}: --num_bits={config.fit.num_bits} are fit")
    protocol = protocols.from_flags(config)
    rows = table1(protocol, config, chosen, values.length, Cache(values.cache), values.systems)
    networks = {name: configs.to_dict(network) for name, network in chosen.items()}
    protocols.write(rows, _COLUMNS, config, protocol, networks=networks, length=values.length)


if __name__ == "__main__":
    launch.run(_define_flags, main)
