"""What launches share: flags, made from the configuration dataclasses, recordings, records."""

import dataclasses
import inspect
import re
import sys
import tempfile
import textwrap
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from blsh_jax import corpora
from blsh_jax._extras import MissingExtraError, extra
from blsh_jax.config import RECIPES, TrainConfig, underscored
from blsh_jax.evaluation import records

with extra("train"):
    from absl import flags

# Flags count as those of the module that asks for them.
flags.disclaim_key_flags()

# A setting's short name is its field's, except where that says too little by itself.
_SHORT_NAMES = {"kind": "features"}
_SHORT = "short names of settings"
_HELP = {"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"}


def run(define_flags: Callable[[], None], main: Callable[[], None]) -> None:
    """Run a launch; what is wrong with its input is one line and exit status 1, no traceback."""
    try:
        start(define_flags, main, sys.argv[1:])
    except (ValueError, OSError, MissingExtraError) as error:
        sys.exit(f"error: {error}")


def start(
    define_flags: Callable[[], None], main: Callable[[], None], arguments: Sequence[str]
) -> None:
    """Run a launch, or print its help, which begins with the docstring of its module.

    Args:
        define_flags: defines the flags of the launch.
        main: the launch.
        arguments: of the command line, without the program's name.

    Raises:
        ValueError: the arguments are wrong, or what they name.
        OSError: a file or folder cannot be used.
    """
    define_flags()
    if _HELP & set(arguments):
        print(sys.modules[main.__module__].__doc__, _help(), sep="")
        return
    try:
        _, *others = flags.FLAGS(["", *map(underscored, arguments)])
    except flags.Error as error:
        raise ValueError(f"{'; '.join(str(error).splitlines())} (see --help)") from None
    if others:
        raise ValueError(f"unexpected argument {others[0]!r} (see --help)")
    _prepare_outputs()
    main()


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


def define_output(help_text: str, suffix: str = ".json", name: str = "output") -> None:
    """``--output``: the file that the launch writes; or another, that it can do without."""
    flags.DEFINE_string(name, None, help_text, required=name == "output")
    flags.register_validator(
        name,
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


def define_choices(
    name: str, choices: Sequence[str], help_text: str, default: Sequence[str] | None = None
) -> None:
    """``--NAME``: some of several words, by default all."""
    flags.DEFINE_list(name, list(choices if default is None else default), help_text)
    flags.register_validator(
        name,
        lambda given: set(given) <= set(choices),
        f"choose from {', '.join(choices)}, with commas between them",
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
    """``--recipe``, and a flag for every field of ``TrainConfig`` and the configurations in it.

    A flag is called as in Python, ``--fit.num_bits`` as ``config.fit.num_bits``; the part after
    the last dot is enough.
    """
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
    _define_fields(TrainConfig, RECIPES["general"], "")


def train_config() -> TrainConfig:
    """The configuration that the flags say."""
    config = _from_flags(RECIPES[flags.FLAGS.recipe], "")
    config.check_ferns(augmented=bool(config.augmentation.num_mixtures))
    return config


def _prepare_outputs() -> None:
    """Make the folders of what will be written, as hours later would be late to learn of them."""
    for name in ("output", "report"):
        path = flags.FLAGS[name].value if name in flags.FLAGS else None
        if path is None:
            continue
        folder = Path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ValueError(f"--{name}={path}: the folder cannot be written ({error})") from None


def _define_fields(config: type, general: Any, prefix: str) -> None:
    """A flag for each field; its help says where the general recipe has another value."""
    descriptions = _descriptions(config)
    group = f"{config.__name__}: {(config.__doc__ or '').splitlines()[0]}"
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(general, field.name)
        if dataclasses.is_dataclass(field.default):
            _define_fields(type(field.default), value, f"{name}.")
            continue
        other = f" --recipe=general has {value}." if value != field.default else ""
        _define(name, field.type, field.default, descriptions[field.name] + other, group)
        if prefix:
            short = _SHORT_NAMES.get(field.name, field.name)
            flags.DEFINE_alias(short, name, module_name=_SHORT)


def _from_flags(recipe: Any, prefix: str) -> Any:
    """The recipe, or a configuration inside it, with the fields whose flags were given."""
    values = {}
    for field in dataclasses.fields(recipe):
        name, value = prefix + field.name, getattr(recipe, field.name)
        if dataclasses.is_dataclass(value):
            values[field.name] = _from_flags(value, f"{name}.")
        else:
            flag = flags.FLAGS[name]
            is_given = flag.present or flag.default != field.default
            values[field.name] = flag.value if is_given else value
    return type(recipe)(**values)


def _define(name: str, kind: Any, default: Any, description: str, group: str) -> None:
    if typing.get_origin(kind) is typing.Literal:
        choices = list(typing.get_args(kind))
        flags.DEFINE_enum(name, default, choices, description, module_name=group)
    elif kind is bool:
        flags.DEFINE_bool(name, default, description, module_name=group)
    elif kind is int:
        flags.DEFINE_integer(name, default, description, module_name=group)
    elif kind is float:
        flags.DEFINE_float(name, default, description, module_name=group)
    else:
        raise TypeError(f"no flag for a field {name} of type {kind}")


def _help() -> str:
    """What the flags are, the launch's own first, then those of each configuration."""
    groups = [name for name in flags.FLAGS.flags_by_module_dict() if not name.startswith("absl.")]
    settings = [name for name in groups if ": " in name]
    own = [name for name in groups if name not in (*settings, _SHORT)]
    lines = ["\nFlags, as --flag=VALUE:"]
    for group in own + settings:
        if group in settings:
            lines.append("\n" + textwrap.fill(group, 100))
        for flag in flags.FLAGS.get_flags_for_module(group):
            lines.append(_flag_help(flag))
    if settings:
        lines.append("\nThe part of a setting's name after the last dot is enough.")
    return "\n".join(lines)


def _flag_help(flag: flags.Flag) -> str:
    head, said = f"  --{flag.name}", " ".join(flag.help.replace("``", "").split())
    if isinstance(flag, flags.EnumFlag):
        choices, _, said = said.partition(">: ")
        head += "=" + choices.removeprefix("<")
    if flag.default_as_str is not None:
        head += f" (default: {flag.default_as_str.strip(chr(39))})"
    wrapped = textwrap.fill(said, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"{head}\n{wrapped}"


def _descriptions(config: type) -> dict[str, str]:
    """What the ``Attributes`` section of the docstring says of each field."""
    section = inspect.cleandoc(config.__doc__ or "").partition("Attributes:")[2]
    entries = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w+:|\Z)", section, re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
