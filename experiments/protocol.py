"""Which recordings train, which make the closed set, which the open set.

``parts``: the first part of every utterance trains, its held-back last part makes the closed set,
and other corpora of speech and noise make the open set. Serves any corpora.

``paper`` ([ICASSP20] section 4.1): 160 speakers, half of them women, train; the first two
utterances of each make the closed set, with the training noises; 110 other speakers make the open
set, with other noises. Needs a corpus that knows its speakers and their sex, such as TIMIT, with
which the training mixtures come to about 10 hours (160 speakers x 8 utterances x 10 noises).
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixtures
from blsh_jax.corpora.mixing import Part
from blsh_jax.robust.augmentation import AugmentedMixtures, training_mixtures
from experiments.cache import fingerprint

flags.disclaim_key_flags()  # they are the program's

# Test mixtures cut their noises elsewhere than training mixtures do.
_TEST_SEED = 1


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Mixtures of an experiment.

    Attributes:
        train: training mixtures.
        tests: name of a test set (``closed``, ``open``) to its mixtures.
        sources: what the recordings are, for records.
    """

    train: Mixtures | AugmentedMixtures
    tests: dict[str, Mixtures]
    sources: dict[str, Any]


def define_flags() -> None:
    """The corpora, the split, and how much of it is scored."""
    launch.define_corpora()
    flags.DEFINE_string("open_speech", None, "Folder of speech of the open set, as --speech.")
    flags.DEFINE_string("open_noise", None, "Folder of noise of the open set, as --noise.")
    flags.DEFINE_enum(
        "protocol",
        "parts",
        ["parts", "paper"],
        "parts: the closed set is the held-back part of each utterance, the open set is made of "
        "--open_speech and --open_noise. paper: both sets come from --speech, split by speakers as "
        "in the paper; --open_noise makes the open set.",
    )
    flags.DEFINE_integer("num_train", 160, "Training speakers of --protocol=paper.", lower_bound=2)
    flags.DEFINE_integer("num_test", 110, "Open-set speakers of --protocol=paper.", lower_bound=0)
    flags.DEFINE_integer(
        "max_mixtures",
        400,
        "Score a random choice of this many mixtures of each set, noises in turn.",
        lower_bound=1,
    )
    launch.define_cache()


def from_flags(config: TrainConfig) -> Protocol:
    """The protocol that the flags say."""
    values = flags.FLAGS
    opened = values.open_speech, values.open_noise
    if values.protocol == "paper":
        if values.open_speech is not None:
            raise ValueError("--open_speech: --protocol=paper takes the open set from --speech")
        given = values.speech, values.noise, values.open_noise, config, values.max_mixtures
        return paper(*given, values.num_train, values.num_test)
    if (opened[0] is None) != (opened[1] is None):
        raise ValueError("give both --open_speech and --open_noise, or neither")
    return parts(values.speech, values.noise, *opened, config, values.max_mixtures)


def parts(
    speech: str,
    noise: str,
    open_speech: str | None,
    open_noise: str | None,
    config: TrainConfig,
    max_mixtures: int,
) -> Protocol:
    """The protocol that splits every utterance.

    Args:
        speech: folder of training speech.
        noise: folder of training noise.
        open_speech: folder of the open set's speech; None leaves the set out.
        open_noise: folder of its noise.
        config: rate, signal-to-noise ratio, held-back part, seed.
        max_mixtures: mixtures of a test set.
    """
    sources = {"speech": corpora.list_speech(speech), "noise": corpora.list_noise(noise)}
    if open_speech is not None and open_noise is not None:
        sources["open_speech"] = corpora.list_speech(open_speech)
        sources["open_noise"] = corpora.list_noise(open_noise)
    return _made(sources, ("speech", "train"), ("speech", "closed"), config, max_mixtures)


def paper(
    speech: str,
    noise: str,
    open_noise: str | None,
    config: TrainConfig,
    max_mixtures: int,
    num_train: int = 160,
    num_test: int = 110,
) -> Protocol:
    """The protocol of the paper, which splits by speakers.

    Args:
        speech: folder of a corpus with speakers and their sex.
        noise: folder of training noise.
        open_noise: folder of the open set's noise; None leaves the set out.
        config: rate, signal-to-noise ratio, seed.
        max_mixtures: mixtures of a test set.
        num_train: training speakers.
        num_test: speakers of the open set.

    Source: [ICASSP20] section 4.1.
    """
    split = corpora.paper_split(corpora.list_speech(speech), config.seed, num_train, num_test)
    sources = {"train": split[0], "closed": split[1], "noise": corpora.list_noise(noise)}
    if open_noise is not None:
        sources |= {"open_speech": split[2], "open_noise": corpora.list_noise(open_noise)}
    return _made(sources, ("train", "whole"), ("closed", "whole"), config, max_mixtures)


def describe(protocol: Protocol) -> dict[str, Any]:
    """What a record says of the mixtures."""
    sets = {"train": protocol.train} | protocol.tests
    return {
        "sources": protocol.sources,
        "sets": {
            name: {"mixtures": len(mixtures)} | fingerprint(mixtures)
            for name, mixtures in sets.items()
        },
    }


def write(
    rows: list[dict[str, Any]],
    columns: list[str],
    config: TrainConfig,
    protocol: Protocol,
    more: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> dict[str, Any]:
    """``launch.write`` for a launch that takes the flags of this module.

    Args:
        rows: its results.
        columns: of the table.
        config: how models are trained.
        protocol: the mixtures.
        more: further entries of the record.
        **settings: what else decided the results.
    """
    settings |= {"protocol": flags.FLAGS.protocol} | describe(protocol)
    return launch.write(rows, columns, configs.to_dict(config) | settings, **more)


def _made(
    sources: dict[str, corpora.Corpus],
    train: tuple[str, Part],
    closed: tuple[str, Part],
    config: TrainConfig,
    max_mixtures: int,
) -> Protocol:
    """The protocol of some sources; without ``open_noise`` it has no open set.

    Args:
        sources: by name.
        train: whose speech trains, and which part of it.
        closed: the same of the closed set.
        config: rate, signal-to-noise ratio, held-back part, seed.
        max_mixtures: mixtures of a test set.
    """
    rate = config.separation.stft.sample_rate
    loaded = {name: launch.load(corpus, rate) for name, corpus in sources.items()}
    of_sets: dict[str, tuple[str, str, Part]] = {"closed": (closed[0], "noise", closed[1])}
    if "open_noise" in sources:
        of_sets["open"] = ("open_speech", "open_noise", "whole")
    tests = {}
    for name, (speech, noise, part) in of_sets.items():
        pair = loaded[speech], loaded[noise]
        tests[name] = corpora.make_mixtures(
            *pair, config.snr_db, _TEST_SEED, part, config.held_back, max_mixtures
        )
        corpora.report(tests[name])
    mixtures = training_mixtures(loaded[train[0]], loaded["noise"], config, train[1])
    return Protocol(mixtures, tests, _describe(sources))


def _describe(sources: dict[str, corpora.Corpus]) -> dict[str, Any]:
    return {
        name: {
            "layout": corpus.layout,
            "licence": corpus.licence,
            "recordings": len(corpus),
            "speakers": len({r.speaker for r in corpus.recordings if r.speaker is not None}),
        }
        for name, corpus in sources.items()
    }
