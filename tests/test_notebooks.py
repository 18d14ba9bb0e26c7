"""The notebooks: run at a tiny size, free of outputs, free of algorithms."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from experiments import notebooks

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NAMES = list(notebooks.NAMES)


def cells_of(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def cells(path):
    return cells_of(nbformat.read(path, as_version=4))


def test_all_notebooks_are_here_with_the_address_of_the_project():
    assert [path.stem for path in NOTEBOOKS] == NAMES
    for path in NOTEBOOKS:
        assert path.read_text() == notebooks.addressed(path.stem)


def test_an_address_makes_a_badge_and_the_source_of_the_installation():
    book = nbformat.read(NOTEBOOKS[0], as_version=4)
    notebooks.with_address(book, "x", "https://github.com/them/blsh_jax")
    first, install = book.cells[0].source, cells_of(book)[0].source
    assert first.startswith("[![Open in Colab](")
    assert "/github/them/blsh_jax/blob/main/notebooks/x.ipynb)\n\n# " in first
    assert '"blsh_jax[train,report] @ https://github.com/them/blsh_jax/archive/' in install
    again = notebooks.with_address(book, "x", None)
    assert again == nbformat.read(NOTEBOOKS[0], as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_cells_have_no_outputs_call_the_library_and_define_nothing(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    for cell in cells(path):
        assert cell.outputs == [] and cell.execution_count is None
        python = TransformerManager().transform_cell(cell.source)  # magics and commands as calls
        for node in ast.walk(ast.parse(python)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebooks_run(path, tmp_path, monkeypatch):
    monkeypatch.setenv("BLSH_NOTEBOOK_SIZE", "tiny")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    for name in ("BLSH_SPEECH", "BLSH_NOISE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=600, kernel_name="python3").execute()
    run = cells_of(book)
    assert all(cell.execution_count for cell in run)
    pictures = [o for cell in run for o in cell.outputs if "image/png" in o.get("data", {})]
    assert pictures
