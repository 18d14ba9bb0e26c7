"""Which room may import which: downhill only, and every room without those above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "blsh_jax"
# From the ground up: a room may import those before it that are named here.
ALLOWED = {
    "config": set(),
    "files": set(),
    "search": {"files"},
    "kept": {"files", "search"},
    "corpora": {"config", "files"},
    "paper": {"config", "search"},
    "robust": {"config", "search", "kept", "corpora", "paper"},
    "models": {"config", "files", "search", "paper", "robust"},
    "training": {"config", "files", "search", "corpora", "paper", "robust", "models"},
    "denoising": {"config", "files", "kept", "corpora", "paper", "robust", "models"},
    "export": {"config", "files", "search", "paper", "robust", "models", "denoising"},
    "evaluation": {
        *("config", "files", "search", "corpora", "paper", "robust", "models"),
        *("training", "denoising"),
    },
    "commands": {
        *("config", "files", "search", "corpora", "paper", "robust", "models"),
        *("training", "denoising", "export", "evaluation"),
    },
}


def rooms_imported(path):
    """Rooms of the package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "blsh_jax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("blsh_jax."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("blsh_jax."))


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_downhill(room):
    files = (
        (PACKAGE / room).rglob("*.py") if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    )
    for path in files:
        wrong = set(rooms_imported(path)) - ALLOWED[room] - {room, "_version", "_extras"}
        assert not wrong, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(wrong))}"


def test_every_room_is_named_and_none_is_above_itself():
    found = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert found <= set(ALLOWED)
    pages = {path.stem for path in (PACKAGE.parent / "docs" / "api").glob("*.md")}
    assert pages == set(ALLOWED) - {"commands", "files", "kept"} | {"README"}
    order = list(ALLOWED)
    assert all(order.index(below) < order.index(room) for room in order for below in ALLOWED[room])


def test_the_paper_needs_no_clock_no_file_and_no_mesh():
    for path in (PACKAGE / "paper").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                for name in names:
                    assert not name.startswith(("time", "os", "pathlib", "jax.sharding", "absl"))
