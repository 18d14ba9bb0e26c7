r"""The web page's audio claim: LSH at 125 bits against BLSH at 25 on the same mixtures.

    python -m experiments.audio_examples --speech DIR --noise DIR --open_speech DIR \
        --open_noise DIR --output examples.json --folder examples [--cache DIR]

Takes a few minutes besides the training. Writes wav files of some mixtures into the folder (clean,
noisy, LSH-125, BLSH-25), their scores, and the means over all mixtures of each set. The page
states 8.95 dB for LSH-125 and 8.33 dB for BLSH-25.
"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from blsh_jax import evaluation
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixture, audio
from blsh_jax.evaluation import System, records, searching
from experiments import protocol as protocols
from experiments import published
from experiments.cache import Cache
from experiments.protocol import Protocol
from experiments.workbench import Workbench

_COLUMNS = ["set", "mixture", "method", "num_bits", "sdr", "sir", "sar", "si_sdr"]


def audio_examples(
    protocol: Protocol,
    config: TrainConfig,
    lengths: dict[str, int],
    count: int,
    folder: Path,
    cache: Cache,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Wav files and scores.

    Args:
        protocol: the mixtures.
        config: how BLSH is fitted.
        lengths: bits of ``lsh`` and of ``blsh``.
        count: mixtures of each set to write.
        folder: where the wav files go.
        cache: where intermediate results are kept.

    Returns:
        Rows of the means over each set, and rows of the written mixtures.
    """
    bench = Workbench(protocol, config, cache)
    systems, means, examples = [], [], []
    for method, length in lengths.items():
        dictionary, settings = bench.hashed(method, length)
        systems.append(searching(method, length, dictionary, config.separation))
        means += bench.scores(systems[-1], settings)
    for name, mixtures in protocol.tests.items():
        order = np.random.default_rng(config.seed).permutation(len(mixtures))[:count]
        for number, index in enumerate(order):
            place = folder / f"{name}{number + 1}"
            rows = _write(mixtures[int(index)], systems, place, config.separation.stft.sample_rate)
            examples += [{"set": name} | row for row in rows]
    return means, examples


def _write(mixture: Mixture, systems: list[System], place: Path, rate: int) -> list[dict]:
    """Wav files of one mixture beside each other, and its scores."""
    speech, noise = jnp.asarray(mixture.speech)[None], jnp.asarray(mixture.noise)[None]
    signals = {"clean": mixture.speech, "noisy": mixture.mixture}
    for system in systems:
        estimate = np.asarray(system.separate(speech, noise).speech[0])
        signals[f"{system.method}{system.num_bits}"] = estimate
    for title, signal in signals.items():
        audio.write(place / f"{title}.wav", signal, rate)
    rows = evaluation.evaluate(systems, [mixture], timed=False)
    return [{"mixture": mixture.key, "folder": place.name} | row for row in rows]


def _define_flags() -> None:
    protocols.define_flags()
    launch.define_output("Record to write (.json).")
    launch.define_train_config()
    flags.DEFINE_string("folder", None, "Folder of the wav files.", required=True)
    flags.DEFINE_integer("num_examples", 4, "Mixtures of each set to write.", lower_bound=0)
    flags.DEFINE_integer("lsh_bits", published.AUDIO_BITS["lsh"], "Bits of LSH.", lower_bound=1)
    flags.DEFINE_integer("blsh_bits", published.AUDIO_BITS["blsh"], "Bits of BLSH.", lower_bound=1)


def main() -> None:
    """Flags, library, record."""
    values, config = flags.FLAGS, launch.train_config()
    if values.blsh_bits > config.fit.num_bits:
        raise ValueError(
            f"--blsh_bits={values.blsh_bits}: --num_bits={config.fit.num_bits} are fit"
        )
    lengths = {"lsh": values.lsh_bits, "blsh": values.blsh_bits}
    protocol, folder = protocols.from_flags(config), Path(values.folder)
    means, examples = audio_examples(
        protocol, config, lengths, values.num_examples, folder, Cache(values.cache)
    )
    more = {"examples": examples, "published": published.AUDIO_EXAMPLES}
    protocols.write(means, _COLUMNS, config, protocol, more, lengths=lengths)
    print(records.table(examples, _COLUMNS))


if __name__ == "__main__":
    launch.run(_define_flags, main)
