"""Run the notebooks, and write the address of the project into their first cells.

    python -m experiments.notebooks --output FOLDER [--names walkthrough,...]

FOLDER gets every notebook with its outputs, and how many seconds each took is printed. Notebooks in
the repository have no outputs. If pyproject.toml names a ``Repository`` (https://github.com/...)
among its URLs, the notebooks here get a badge that opens them in Colab, and install from there.
Needs packages of others, pip install -e '.[notebooks,train,report]'.
"""

import os
import time
import tomllib
from pathlib import Path
from typing import Any

from absl import flags

from blsh_jax import files
from blsh_jax._extras import extra
from blsh_jax.commands import launch

with extra("notebooks"):
    import nbformat
    from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = ("bring_your_own_data", "colab_tpu", "walkthrough")
_PACKAGE = "blsh_jax[train,report]"
_BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{project}/blob/main/notebooks/{name}.ipynb)\n\n"
)
_INSTALL = '''import importlib.util
import os

# Or a wheel, or an archive: "{package} @ https://.../main.zip"
REQUIREMENT = os.environ.get("BLSH_REQUIREMENT", "{requirement}")
if importlib.util.find_spec("blsh_jax") is None:
    %pip install --quiet "{{REQUIREMENT}}"'''


def repository() -> str | None:
    """The address of the project, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project.get("urls", {}).get("Repository")


def with_address(book: Any, name: str, address: str | None) -> Any:
    """A notebook that is opened in Colab from an address and installs from there.

    Args:
        book: of nbformat; it is changed.
        name: of its file, without the suffix.
        address: https://github.com/OWNER/PROJECT, or None for no badge, and the installation of the
            released package.
    """
    first = book.cells[0].source
    title = first[first.index("# ") :]
    project = (address or "").removeprefix("https://github.com/")
    book.cells[0].source = (_BADGE.format(project=project, name=name) if address else "") + title
    archive = f" @ {address}/archive/refs/heads/main.zip" if address else ""
    install = next(cell for cell in book.cells if cell.cell_type == "code")
    install.source = _INSTALL.format(package=_PACKAGE, requirement=_PACKAGE + archive)
    return book


def addressed(name: str) -> str:
    """The text of a notebook with the address of the project in its first cells."""
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    return nbformat.writes(with_address(book, name, repository())) + "\n"


def run(name: str) -> Any:
    """A notebook with its outputs; it runs in its own folder, with the package of this checkout."""
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(
        book, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    return book


def _define_flags() -> None:
    flags.DEFINE_string("output", None, "Folder that gets the notebooks with outputs.")
    launch.define_choices("names", NAMES, "Which to run.")


def main() -> None:
    """Flags, addresses, runs."""
    for name in NAMES:
        files.write(FOLDER / f"{name}.ipynb", addressed(name).encode())
    if flags.FLAGS.output is None:
        return
    for name in flags.FLAGS.names:
        start = time.perf_counter()
        book = run(name)
        files.write(
            Path(flags.FLAGS.output) / f"{name}.ipynb", (nbformat.writes(book) + "\n").encode()
        )
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    launch.run(_define_flags, main)
