"""The trials of the claims: what they share with the library, and their differences by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.config import FeatureConfig, FitConfig, StftConfig
from blsh_jax.paper import boosting, codes, separation, similarity, spectra
from blsh_jax.paper.codes import Hasher
from experiments import authors

FIT = FitConfig(num_bits=3, block_size=40, target="cosine", mode="published", max_epochs=20)
STFT = StftConfig()


@pytest.fixture(scope="module")
def blocks():
    """Two blocks of frames of 12 features, and their similarities."""
    frames = spectra.unit_norm(jax.random.uniform(jax.random.key(0), (2, 40, 12)) ** 3)
    return frames, jax.lax.map(lambda rows: similarity.self_similarity(rows, "cosine"), frames)


def boost(blocks, spelling):
    hasher, infos = authors._boost(*blocks, jax.random.key(1), FIT, spelling)
    return hasher, np.asarray(infos.epsilon)


def test_the_papers_spelling_is_boosting(blocks):
    ours = authors._boost(*blocks, jax.random.key(1), FIT, "paper")
    theirs = boosting.boost(*blocks, FIT, jax.random.key(1))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_spellings_weigh_pairs_as_they_say(blocks):
    (journal, errors), (paper, firsts) = boost(blocks, "journal"), boost(blocks, "paper")
    np.testing.assert_allclose(journal.betas, np.log((1 - errors) / errors), rtol=1e-4)
    # The first bit is learned before any pair was weighed.
    np.testing.assert_array_equal(journal.projections[0], paper.projections[0])
    assert errors[0] == firsts[0]
    assert np.abs(journal.projections[2] - paper.projections[2]).max() > 0


def test_views_of_five_frames():
    signal = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    spectrum = spectra.stft(jnp.asarray(signal), STFT)
    made = lambda context: spectra.features(
        spectra.SpectralFeatures(FeatureConfig(context=context), STFT), spectrum
    )
    rows = np.asarray(made(5))
    shown = lambda view: np.asarray(authors._space(view, rows, STFT).frames)
    np.testing.assert_allclose(shown("frame"), made(1), atol=1e-5)
    np.testing.assert_allclose(shown("3 frames"), made(3), atol=1e-5)
    window = np.repeat([0.25, 0.75, 1, 0.75, 0.25], STFT.num_bins)
    expected = rows * window / np.linalg.norm(rows * window, axis=1, keepdims=True)
    np.testing.assert_allclose(shown("5 frames windowed"), expected, atol=1e-5)
    scaled = authors._space("unit variance", rows, STFT)
    np.testing.assert_allclose(scaled.frames.std(0), 1, atol=1e-2)
    np.testing.assert_allclose(scaled.view(jnp.asarray(rows)), scaled.frames, atol=1e-4)
    np.testing.assert_allclose(scaled.target, made(1), atol=1e-5)


@pytest.mark.parametrize("length", [5, 32, 40])
def test_masks_of_fewer_bits_are_those_of_a_shorter_dictionary(length):
    keys = jax.random.split(jax.random.key(2), 5)
    hasher = Hasher(jax.random.normal(keys[0], (40, 7)), jnp.zeros(40), jnp.arange(40.0))
    frames, queries = (jax.random.normal(keys[i], (count, 7)) for i, count in ((1, 90), (2, 6)))
    packed = jax.random.bits(keys[3], (90, 2), jnp.uint32)
    dictionary = separation.Dictionary(hasher, codes.encode(hasher, frames), packed, 60)
    shorter = dictionary.prefix(length)
    given = hasher, queries, frames, packed, jnp.int32(length)
    found = authors._hashed(*given, False, 3, 60)
    expected = separation.estimate_mask(shorter, shorter.encode(queries), 3)
    np.testing.assert_array_equal(found, expected)
    # Weighted, the last of the used bits count most.
    weighted = np.asarray(authors._hashed(*given, True, 1, 60))
    bits = np.asarray(codes.project(frames, *hasher[:2]) >= 0)[:, :length]
    asked = np.asarray(codes.project(queries, *hasher[:2]) >= 0)[:, :length]
    nearest = ((asked[:, None] == bits) * np.arange(length)).sum(-1).argmax(1)
    expected = separation.masks.average_masks(packed, jnp.asarray(nearest)[:, None], 60)
    np.testing.assert_array_equal(weighted, expected)


def run_of(seed, above):
    """Two mixtures; BLSH is ``above`` LSH by so much, plus the seed, and 1 dB below KNN."""
    lsh = {25: [1.0, 2.0], 125: [4.0, 4.0]}
    rows = [("lsh", bits, part, np.array(sdr)) for bits, sdr in lsh.items() for part in (1.0, 0.1)]
    rows += [("blsh", 25, part, np.array(lsh[25]) + above + seed) for part in (1.0, 0.1)]
    rows += [("knn", None, part, rows[-1][3] + [0.5, 1.5]) for part in (1.0, 0.1)]
    return {
        "rows": [
            {"set": "open", "part": part, "method": method, "num_bits": bits, "sdr": sdr.tolist()}
            for method, bits, part, sdr in rows
        ]
    }


def test_differences_by_hand():
    runs, base = [run_of(0, [1, 3]), run_of(2, [1, 3])], [run_of(0, [0, 0])]
    rows = authors.differences("t", runs, base)
    found = {(row["part"], row["claim"]): row for row in rows}
    assert set(found) == {(1.0, 0), (1.0, 1), (1.0, 4), (1.0, 5)} | {
        (0.1, claim) for claim in (0, 1, 2, 4, 5)
    }
    first = found[1.0, 1]
    # Over seeds 2 and 4, over mixtures 2 and 4.
    assert (first["gain"], first["se_seeds"], first["se_mixtures"]) == pytest.approx((3, 1, 1))
    assert found[1.0, 0]["gain"] == pytest.approx(2)
    assert found[1.0, 0]["se_seeds"] is None
    assert found[0.1, 2]["gain"] == pytest.approx(3)
    assert found[1.0, 5]["gain"] == pytest.approx(3 + 1.5 - 4)
    assert found[1.0, 4]["gain"] < 0
    mean = authors.means("t", runs)[0]
    assert (mean["method"], mean["sdr"], mean["se_seeds"]) == ("lsh", 1.5, 0)


def test_trials_change_one_thing_of_a_base_that_comes_before():
    names = list(authors.TRIALS)
    for place, name in enumerate(names):
        assert names.index(name.partition(":")[0]) <= place
        assert "," not in name  # which parts the names of --only
        dataclasses.replace(FIT, **authors.TRIALS[name].fit)
