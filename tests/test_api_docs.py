import ast
from pathlib import Path

import blsh_jax
from experiments import api_docs


def test_the_page_is_in_step_with_the_docstrings():
    assert api_docs.PAGE.read_text() == api_docs.render(), "run python -m experiments.api_docs"


def test_every_public_name_is_described():
    page = api_docs.render()
    for name in blsh_jax.__all__:
        if not name.startswith("_"):
            assert f"`{name}`" in page
            assert f".{name}\n" in page


def test_links_lead_to_headings():
    page = api_docs.render()
    headings = {line[3:].replace(".", "") for line in page.splitlines() if line.startswith("## ")}
    links = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert links and links <= headings


def test_long_signatures_are_cut_between_arguments(tmp_path: Path):
    source = "def f(first: dict[str, tuple[int, int]] = (1, 2), *, second: int | None = None," + (
        " third_of_a_long_line: float = 1.0) -> list[tuple[int, int]]: ...\n"
    )
    node = ast.parse(source).body[0]
    assert api_docs._signature(node).splitlines() == [
        "f(",
        "    first: dict[str, tuple[int, int]]=(1, 2),",
        "    *,",
        "    second: int | None=None,",
        "    third_of_a_long_line: float=1.0,",
        ") -> list[tuple[int, int]]",
    ]


def test_sections_become_lists():
    text = api_docs._prose(
        "Summary with ``code``.\n\nArgs:\n    a: first,\n        goes on.\n    *b: second.\n\n"
        "Returns:\n    A value.\n\nSource: [X] eq. 1."
    )
    assert text == (
        "Summary with `code`.\n\n**Args**\n\n- `a`: first,\n  goes on.\n- `*b`: second.\n\n"
        "**Returns**\n\nA value.\n\n**Source**: [X] eq. 1.\n"
    )
