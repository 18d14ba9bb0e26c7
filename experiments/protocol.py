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
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Mixtures
from blsh_jax.evaluation import records
from blsh_jax.robust.augmentation import AugmentedMixtures, training_mixtures
from experiments import flags as launch
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
    if values.protocol == "paper":
        if values.open_speech is not None:
            raise ValueError("--open_speech: --protocol=paper takes the open set from --speech")
        return paper(
            values.speech,
            values.noise,
            values.open_noise,
            config,
            values.max_mixtures,
            values.num_train,
            values.num_test,
        )
    if (values.open_speech is None) != (values.open_noise is None):
        raise ValueError("give both --open_speech and --open_noise, or neither")
    return parts(
        values.speech,
        values.noise,
        values.open_speech,
        values.open_noise,
        config,
        values.max_mixtures,
    )


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
    loaded = {name: _load(corpus, config) for name, corpus in sources.items()}
    pair = loaded["speech"], loaded["noise"]
    train = training_mixtures(*pair, config)
    tests = {"closed": _mix(*pair, config, "closed", max_mixtures)}
    if open_speech is not None and open_noise is not None:
        sources["open_speech"] = corpora.list_speech(open_speech)
        sources["open_noise"] = corpora.list_noise(open_noise)
        pair = _load(sources["open_speech"], config), _load(sources["open_noise"], config)
        tests["open"] = _mix(*pair, config, "whole", max_mixtures)
    return Protocol(train, tests, _describe(sources))


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
    sources = dict(zip(("train", "closed", "open_speech"), split, strict=True))
    sources["noise"] = corpora.list_noise(noise)
    known = _load(sources["noise"], config)
    train = training_mixtures(_load(sources["train"], config), known, config, "whole")
    closed = _load(sources["closed"], config)
    tests = {"closed": _mix(closed, known, config, "whole", max_mixtures)}
    if open_noise is not None:
        sources["open_noise"] = corpora.list_noise(open_noise)
        pair = _load(sources["open_speech"], config), _load(sources["open_noise"], config)
        tests["open"] = _mix(*pair, config, "whole", max_mixtures)
    return Protocol(train, tests, _describe(sources))


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
    """Write and return the record of a launch that takes the flags of this module; print its table.

    Args:
        rows: its results.
        columns: of the table.
        config: how models are trained.
        protocol: the mixtures.
        more: further entries of the record.
        **settings: what else decided the results.
    """
    settings |= {"protocol": flags.FLAGS.protocol} | describe(protocol)
    made = records.record(rows, configs.to_dict(config) | settings, **more)
    records.write_json(flags.FLAGS.output, made)
    print(records.table(rows, columns))
    return made


def _load(corpus: corpora.Corpus, config: TrainConfig) -> corpora.Loaded:
    loaded = corpora.load(corpus, config.separation.stft.sample_rate)
    corpora.report(loaded)
    return loaded


def _mix(speech, noise, config: TrainConfig, part, count: int) -> Mixtures:
    mixtures = corpora.make_mixtures(
        speech, noise, config.snr_db, _TEST_SEED, part, config.held_back, count
    )
    corpora.report(mixtures)
    return mixtures


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
