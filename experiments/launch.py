"""What launches share: flags, made from the configuration dataclasses, recordings, records."""

import dataclasses
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from blsh_jax import corpora
from blsh_jax.config import RECIPES, TrainConfig
from blsh_jax.evaluation import records

# Flags count as those of the program that asks for them, so that its --help names them.
flags.disclaim_key_flags()

# A field's flag has the field's name, except where that says too little by itself.
_FLAG_NAMES = {"kind": "features"}


def run(define_flags: Callable[[], None], main: Callable[[], None]) -> None:
    """Run a launch; what is wrong with its input is one line and exit status 1, no traceback."""
    define_flags()

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected argument {argv[1]!r}")
        try:
            _prepare_output()
            main()
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")

    app.run(guarded)


def define_corpora(required: bool = True) -> None:
    """``--speech``, ``--noise``: where the recordings are."""
    instead = "" if required else " Without both, the synthetic corpus is used."
    flags.DEFINE_string(
        "speech",
        None,
        "Folder of speech: any folder of audio files (searched recursively), or the root of TIMIT "
        "or LibriSpeech, recognised by its layout." + instead,
        required=required,
    )
    flags.DEFINE_string(
        "noise",
        None,
        "Folder of noise: any folder of audio files, or the root of the Duan or DEMAND noises.",
        required=required,
    )


def corpus(name: str) -> corpora.Corpus:
    """The recordings in the folder of ``--NAME``; those of noises if it ends in ``noise``."""
    listed = corpora.list_noise if name.endswith("noise") else corpora.list_speech
    return listed(getattr(flags.FLAGS, name))


def load(found: corpora.Corpus, rate: int) -> corpora.Loaded:
    """Recordings at a rate in Hz; what cannot be used is reported."""
    loaded = corpora.load(found, rate)
    corpora.report(loaded)
    return loaded


def recordings(config: TrainConfig, *names: str) -> tuple[corpora.Loaded, ...]:
    """The recordings in the folders of some flags, at the rate of a configuration."""
    rate = config.separation.stft.sample_rate
    return tuple(load(corpus(name), rate) for name in names)


def define_output(help_text: str, suffix: str = ".json") -> None:
    """``--output``: the file that the launch writes."""
    flags.DEFINE_string("output", None, help_text, required=True)
    flags.register_validator(
        "output",
        lambda path: path is None or path.endswith(suffix),
        f"give the name of a file that ends in {suffix}",
    )


def write(
    rows: list[dict[str, Any]], columns: Sequence[str], config: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Write the record of a launch to ``--output``, print its table, and return it.

    Args:
        rows: its results.
        columns: of the table.
        config: every setting that they depend on.
        **more: further entries of the record.
    """
    made = records.record(rows, config, **more)
    records.write_json(flags.FLAGS.output, made)
    print(records.table(rows, columns))
    return made


def define_cache() -> None:
    """``--cache``: the folder of ``experiments.cache.Cache``."""
    flags.DEFINE_string(
        "cache",
        None,
        "Folder where intermediate results are kept by configuration: a second call with it "
        "recomputes only what changed, a run that was stopped goes on.",
    )


def define_lengths(name: str, default: Sequence[int]) -> None:
    """``--NAME``: code lengths, for ``lengths``."""
    flags.DEFINE_list(name, [str(length) for length in default], "Code lengths to score.")


def lengths(name: str, available: int) -> list[int]:
    """Code lengths from the flag; of its default those that are available.

    Args:
        name: of the flag.
        available: bits of the model.

    Raises:
        ValueError: a length is no number, or longer than the model.
    """
    texts: list[str] = getattr(flags.FLAGS, name)
    try:
        given = [int(text) for text in texts]
    except ValueError:
        raise ValueError(f"--{name}={','.join(texts)}: give numbers") from None
    if flags.FLAGS[name].using_default_value:
        return [length for length in given if length <= available] or [available]
    wrong = [length for length in given if not 1 <= length <= available]
    if wrong:
        raise ValueError(f"--{name}: {wrong[0]} bits wanted, the model has {available}")
    return given


def define_train_config() -> None:
    """``--recipe``, and a flag for every field of ``TrainConfig`` and the configurations in it."""
    flags.DEFINE_enum(
        "recipe",
        "paper",
        list(RECIPES),
        "Where the settings start from, before other flags change them: paper, the paper's "
        "method (add --mode=published --target=cosine for the authors' own training); general, for "
        "noise that the dictionary has not heard: augmented mixtures, levels above the noise "
        "floor, voicing and pre-roll, bits boosted on the likeness of speech and of noise and then "
        "fine-tuned, high-pass, more neighbours, speech presence.",
    )
    _define_fields(TrainConfig, RECIPES["general"])


def train_config() -> TrainConfig:
    """The configuration that the flags say."""
    return _from_flags(RECIPES[flags.FLAGS.recipe])


def _prepare_output() -> None:
    """Make the folder of ``--output`` now: hours later would be late to learn that it cannot be."""
    output = flags.FLAGS["output"].value if "output" in flags.FLAGS else None
    if output is None:
        return
    folder = Path(output).parent
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--output={output}: the folder cannot be written")


def _define_fields(config: type, general: Any) -> None:
    """A flag for each field; its help says where the general recipe has another value."""
    descriptions = _descriptions(config)
    for field in dataclasses.fields(config):
        value = getattr(general, field.name)
        if dataclasses.is_dataclass(field.default):
            _define_fields(type(field.default), value)
        else:
            name = _FLAG_NAMES.get(field.name, field.name)
            other = f" --recipe=general has {value}." if value != field.default else ""
            _define(name, field.type, field.default, descriptions[field.name] + other)


def _from_flags(recipe: Any) -> Any:
    """The recipe, or a configuration inside it, with the fields whose flags were given."""
    values = {}
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value):
            values[field.name] = _from_flags(value)
        else:
            flag = flags.FLAGS[_FLAG_NAMES.get(field.name, field.name)]
            values[field.name] = value if flag.using_default_value else flag.value
    return type(recipe)(**values)


def _define(name: str, kind: Any, default: Any, description: str) -> None:
    if typing.get_origin(kind) is typing.Literal:
        flags.DEFINE_enum(name, default, list(typing.get_args(kind)), description)
    elif kind is bool:
        flags.DEFINE_bool(name, default, description)
    elif kind is int:
        flags.DEFINE_integer(name, default, description)
    elif kind is float:
        flags.DEFINE_float(name, default, description)
    else:
        raise TypeError(f"no flag for a field {name} of type {kind}")


def _descriptions(config: type) -> dict[str, str]:
    """What the ``Attributes`` section of the docstring says of each field."""
    section = (config.__doc__ or "").partition("Attributes:")[2]
    entries = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w+:|\Z)", section, re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
