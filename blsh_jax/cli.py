"""Boosted Locality Sensitive Hashing: denoise speech, or see how it works.

    blsh denoise INPUT OUTPUT [--model model.npz]     a file, or every audio file of a folder
    blsh demo [--output blsh_demo]                    no data needed: train, denoise, score, plot

A folder is searched recursively and its tree is kept; files keep their rate, channels, length and
sample format, and stay aligned to the sample. Files that are already there are kept, unless
--overwrite is given. Files that cannot be denoised are named at the end, and the exit status is 1.
"""

import sys
from pathlib import Path

from absl import app, flags
from tqdm import tqdm

from blsh_jax import audio
from blsh_jax import model as models
from blsh_jax._version import __version__
from blsh_jax.denoising import denoise_file

_MODEL = flags.DEFINE_string("model", None, "Model file; the shipped model if not given.")
_OUTPUT = flags.DEFINE_string("output", "blsh_demo", "Folder that `blsh demo` writes to.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Write over files that are already there.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything random in `blsh demo`.")
_VERSION = flags.DEFINE_bool("version", False, "Print the version.")


def _denoise(source: Path, target: Path) -> int:
    """Denoise a file or a folder; the exit status."""
    if not source.exists():
        raise app.UsageError(f"{source}: no such file or folder")
    model = models.load(_MODEL.value) if _MODEL.value else models.load_shipped()
    pairs = _pairs(source, target)
    done, kept, failed = 0, 0, []
    for read, written in tqdm(pairs, desc="denoising", unit="file", disable=len(pairs) < 2):
        if written.exists() and not _OVERWRITE.value:
            kept += 1
            continue
        try:
            denoise_file(read, written, model)
            done += 1
        except (ValueError, OSError) as error:
            failed.append(str(error) if str(read) in str(error) else f"{read}: {error}")
    counts = [f"{done} denoised", f"{kept} already there" * bool(kept), f"{len(failed)} failed"]
    print(", ".join(filter(None, counts)))
    for message in failed:
        print(f"  {message}", file=sys.stderr)
    return 1 if failed else 0


def _pairs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """What to read and what to write."""
    if source.is_dir():
        found = audio.find_audio(source)
        if not found:
            raise app.UsageError(f"{source}: no audio files in this folder")
        return [(path, target / path.relative_to(source)) for path in found]
    return [(source, target / source.name if target.is_dir() else target)]


def _main(argv: list[str]) -> int:
    if _VERSION.value:
        print(f"blsh {__version__}")
        return 0
    match argv[1:]:
        case ["denoise", source, target]:
            return _denoise(Path(source), Path(target))
        case ["demo"]:
            # Imported here: denoising needs neither training nor matplotlib.
            from blsh_jax import demo

            demo.run(Path(_OUTPUT.value), _SEED.value)
            return 0
        case ["denoise", *rest]:
            raise app.UsageError(f"denoise takes INPUT and OUTPUT, not {len(rest)} arguments")
        case rest:
            raise app.UsageError(f"unknown command {' '.join(rest)!r}" if rest else "no command")


def main() -> None:
    """Entry point of the ``blsh`` command."""
    try:
        app.run(_main)
    except (models.ModelError, FileNotFoundError) as error:
        sys.exit(f"blsh: {error}")


if __name__ == "__main__":
    main()
