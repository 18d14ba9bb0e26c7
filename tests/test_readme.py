import re
from pathlib import Path

import pytest

from experiments import readme

ROOT = Path(__file__).parents[1]


def python_blocks(page):
    """The Python snippets of a page, each behind as many empty lines as put errors in its line."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


def test_pages_and_pictures_are_in_step_with_their_records():
    assert [page.name for page in readme.stale()] == []
    assert readme.stale_pictures() == []


def test_the_readme_is_one_screen_and_has_its_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 60
    first_screen = "\n".join(lines[:30])
    for command in ("blsh demo", "-m pytest", "blsh denoise"):
        assert command in first_screen


def test_rows_are_named_for_the_features_of_their_record():
    spectral, robust = {"kind": "magnitude"}, {"kind": "log_mel", "levels": 32}
    paper = {"config": {"train": {"features": spectral}}}
    general = {"config": {"model": {"separation": {"features": robust}}}}
    named = [readme.row_names(made)["knn"] for made in (paper, general)]
    assert named == ["KNN on raw spectra", "KNN on the same features"]


def test_every_table_is_on_a_page_and_an_unknown_one_is_named():
    text = "".join(page.read_text() for page in readme.PAGES)
    assert set(re.findall("table ([\\w-]+) -->", text)) == set(readme.TABLES)
    with pytest.raises(ValueError, match="'nothing'"):
        readme.render("<!-- table nothing -->\nold\n<!-- end -->")


def test_links_of_pages_beside_the_documentation_lead_somewhere():
    for page in ROOT.glob("*.md"):  # those of docs/ are checked by mkdocs build --strict
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            file = page.parent / target if target else page
            assert file.exists(), (page.name, target)
            if anchor:
                heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
                assert anchor in slugs, (page.name, target, anchor)


@pytest.mark.slow
def test_the_snippets_for_other_jax_code_run():
    page = ROOT / "docs" / "from_jax.md"
    names = {}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), names)
    assert names["found"].indices.shape == (800, 10)
    assert names["many"].shape == names["noisy"].shape
