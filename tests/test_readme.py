from pathlib import Path

import pytest

from experiments import readme

ROOT = Path(__file__).parents[1]


def test_pages_are_in_step_with_their_records():
    assert [page.name for page in readme.stale()] == []


def test_the_readme_has_both_commands():
    text = (ROOT / "README.md").read_text()
    first_screen = "\n".join(text.splitlines()[:40])
    assert "blsh demo" in first_screen
    assert "-m pytest" in first_screen


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match="'nothing'"):
        readme.render("<!-- table nothing -->\nold\n<!-- end -->")
