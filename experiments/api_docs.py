"""Write docs/api.md again from the docstrings.

    python -m experiments.api_docs [--check]

The names that each package offers, and the public functions and classes of each module with their
signatures. --check writes nothing and fails if the page is not in step with the docstrings.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags

from blsh_jax.files import replacing

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
_PACKAGE = ROOT / "blsh_jax"
_HEAD = """# Reference

Written from the docstrings by `python -m experiments.api_docs`. Names under `blsh_jax` are the
public interface (`import blsh_jax as blsh`); packages and modules follow in alphabetical order.
"""
_SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Source:", "Yields:")


def render() -> str:
    """The whole page."""
    parts = [_HEAD]
    for path in sorted(_PACKAGE.rglob("*.py"), key=_name):
        if path.name == "__init__.py":
            parts += _package(path)
        elif not path.name.startswith("_"):
            parts += _module(path)
    return "\n".join(parts)


def _name(path: Path) -> str:
    """How a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _package(path: Path) -> Iterator[str]:
    """A package's docstring, and the names that it offers with where they are described."""
    tree = ast.parse(path.read_text())
    yield f"## {_name(path)}\n"
    yield _prose(ast.get_docstring(tree) or "")
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and "._" not in node.module:
            names = ", ".join(f"`{alias.asname or alias.name}`" for alias in node.names)
            yield f"- {names}: [{node.module}](#{_anchor(node.module)})"
    yield ""


def _module(path: Path) -> Iterator[str]:
    """A module's docstring and its public classes and functions, in the order of the source."""
    tree = ast.parse(path.read_text())
    name = _name(path)
    yield f"## {name}\n"
    yield _prose(ast.get_docstring(tree) or "")
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield f"### {name.rpartition('.')[2]}.{node.name}\n"
            yield f"```python\n{_signature(node)}\n```\n"
            yield _prose(ast.get_docstring(node) or "")
            if isinstance(node, ast.ClassDef):
                yield from _methods(node)


def _methods(node: ast.ClassDef) -> Iterator[str]:
    methods = [
        f"- `{_signature(method, bound=True)}`: {_first_line(method)}"
        for method in node.body
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
    ]
    if methods:
        yield "\n".join(methods) + "\n"


def _first_line(node: ast.FunctionDef) -> str:
    first = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return first.replace("\n", " ").replace("``", "`")


def _signature(node: ast.ClassDef | ast.FunctionDef, bound: bool = False) -> str:
    """The head of a definition, one argument to a line where it is long."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    arguments = ast.unparse(node.args)
    if bound:
        arguments = arguments.removeprefix("self").removeprefix(", ")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({arguments}){result}"
    if bound or len(line) <= 88:
        return line
    return f"{node.name}(\n    {_split(node.args)}\n){result}"


def _split(arguments: ast.arguments) -> str:
    """Arguments one to a line."""
    return ",\n    ".join(part.strip() for part in _cut(ast.unparse(arguments))) + ","


def _cut(text: str) -> Iterator[str]:
    """Split at the commas that no bracket encloses."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _prose(docstring: str) -> str:
    """A docstring as Markdown: its sections as lists, its examples as code."""
    lines: list[str] = []
    in_section = False
    for line in inspect.cleandoc(docstring).replace("``", "`").splitlines():
        head, _, rest = line.partition(" ")
        if line in _SECTIONS or head == "Source:":
            in_section = line in _SECTIONS
            lines.append(f"**{head.rstrip(':')}**{': ' if rest else ''}{rest}\n".rstrip(" "))
        elif in_section and line.startswith("    "):
            lines.append(_entry(line[4:]))
        else:
            in_section = in_section and not line
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def _entry(line: str) -> str:
    """A line of a section: an argument starts an item, what is indented goes on with it."""
    name, colon, rest = line.partition(": ")
    if line.startswith(" "):
        return f"  {line.strip()}"
    if colon and name.replace("_", "").replace("*", "").isalnum():
        return f"- `{name}`: {rest}"
    return line


def _anchor(name: str) -> str:
    return name.replace(".", "")


def main(argv: list[str]) -> None:
    """Write the page, or check it."""
    del argv
    page = render()
    if flags.FLAGS.check:
        if not PAGE.is_file() or PAGE.read_text() != page:
            sys.exit("docs/api.md is not in step: run python -m experiments.api_docs")
        return
    with replacing(PAGE) as temporary:
        temporary.write_text(page)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def run() -> None:
    """Entry point."""
    flags.DEFINE_bool("check", False, "Fail if the page is not in step with the docstrings.")
    app.run(main)


if __name__ == "__main__":
    run()
