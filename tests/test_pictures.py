"""What the pictures of docs/hashing.md show, by hand and by what must hold."""

import re
from pathlib import Path

import numpy as np
import pytest

from blsh_jax.evaluation import plots
from blsh_jax.search.packing import pack_bits
from blsh_jax.training import FrameSample
from experiments import explained, pictures

PAGE = Path(__file__).parents[1] / "docs" / "hashing.md"
BINS = explained.CONFIG.separation.stft.num_bins


@pytest.fixture
def searched(monkeypatch):
    """A dictionary of 300 frames at random in place of the synthetic corpus, and a frame."""
    rng = np.random.default_rng(0)
    frames = rng.exponential(size=(301, BINS)).astype(np.float32) ** 2
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    masks = rng.random((301, BINS)) < 0.4
    packed = np.asarray(pack_bits(masks[1:]))
    none = np.zeros(0)
    sample = FrameSample(frames[1:], packed, none, none, 300)
    monkeypatch.setattr(explained, "_searched", lambda: (sample, frames[0], masks[0]))
    return frames, masks


def test_the_rows_that_are_marked_are_the_nearest_of_all(searched):
    frames, masks = searched
    found = explained.look_up()
    wanted = np.sort(frames[1:] @ frames[0])[::-1][: len(found.nearest)]
    np.testing.assert_allclose(found.cosines[found.nearest], wanted, rtol=1e-5)
    row = np.flatnonzero((frames[1:] == found.frames[7]).all(axis=1))[0]
    np.testing.assert_array_equal(found.masks[7], masks[1 + row])


def test_short_codes_are_the_beginning_of_long_ones(searched):
    found = explained.random_codes((8, 40))
    best = np.argmax(found.cosines)
    assert found.agreeing[8][best] == np.sum(found.query == found.near)
    rest = found.agreeing[40] - found.agreeing[8]
    assert rest.min() >= 0 and rest.max() <= 32
    # Random bits agree more the nearer frames are.
    assert np.corrcoef(found.cosines, explained.random_codes((8, 1000)).agreeing[1000])[0, 1] > 0.5


def test_random_lines_part_points_as_often_as_their_angle_says():
    degrees = np.array([0.0, 45.0, 90.0, 180.0])
    np.testing.assert_allclose(explained.parted(degrees, 4000), degrees / 180, atol=0.03)


def test_adaboost_leaves_each_line_an_error_of_one_half_and_learns_the_rings():
    points, labels = explained.rings()
    ensemble = explained.adaboost(points, labels, 200)
    # Under the weights after it, a line is as good as a guess: what eq. 6 is for.
    for count in (1, 2, 30):
        weights = np.exp(-labels * ensemble.first(count).votes(points))
        last = ensemble.directions[count - 1], ensemble.thresholds[count - 1]
        code = np.where(points @ last[0] >= last[1], 1, -1)
        assert weights[code != labels].sum() / weights.sum() == pytest.approx(0.5, abs=1e-5)
    wrong = lambda count: np.mean(labels * ensemble.first(count).votes(points) <= 0)
    assert wrong(200) == 0 < wrong(20) < wrong(1)


def test_pair_weights_are_those_of_equation_4_step_by_step():
    rng = np.random.default_rng(0)
    target = rng.random((6, 6)).astype(np.float32)
    learned = explained.Learned(target, rng.random((6, 3)) < 0.5, np.float32([0.9, 0.5, 0.2]))
    weights = np.full((6, 6), 1 / 36)
    for bit, beta in enumerate(learned.betas):
        code = np.where(learned.bits[:, bit], 1, -1)
        weights = weights * np.exp(beta * ((1 + np.outer(code, code)) / 2 - target) ** 2)
        weights /= weights.sum()
        np.testing.assert_allclose(learned.weights(bit + 1), weights, rtol=1e-4)
    same = learned.bits[:, None] == learned.bits[None]
    np.testing.assert_allclose(learned.so_far(3), same @ learned.betas / 1.6, rtol=1e-5)


def test_pictures_have_titles_and_labels(searched):
    rng = np.random.default_rng(0)
    learned = explained.Learned(np.eye(9), rng.random((9, 100)) < 0.5, np.ones(100, np.float32))
    drawn = [pictures.look_up(), pictures.hash_codes(), pictures.random_hyperplanes()]
    drawn += [pictures.adaboost(), pictures.learned_bits(learned), pictures.pair_weights(learned)]
    for figure in drawn:
        shown = [axis for axis in figure.axes if axis.get_visible() and axis.get_title()]
        assert len(shown) >= 2 and any(axis.get_xlabel() for axis in shown)
    assert plots.png(drawn[1]).startswith(b"\x89PNG")
    titles = [axis.get_title() for axis in drawn[-1].axes]
    assert [titles.count(f"codes after {count}") for count in ("1 bit", "5 bits")] == [1, 1]


def test_the_page_shows_what_the_command_makes_and_files_are_small():
    shown = re.findall(r"\]\(figures/(\w+)\.png\)", PAGE.read_text())
    assert shown == list(pictures.explanations())
    for name in shown:
        assert 0 < (pictures.FOLDER / f"{name}.png").stat().st_size < 250_000
