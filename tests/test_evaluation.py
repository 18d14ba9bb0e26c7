import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import corpora, evaluation
from blsh_jax.models.model import ModelError
from blsh_jax.paper import masks, spectra

ALL = ("noisy", "lsh", "blsh", "knn", "ibm", "irm")


@pytest.fixture(scope="module")
def held_back(synthetic):
    """Held-back mixtures, two per noise."""
    return corpora.make_mixtures(*synthetic, 0.0, 0, "closed", 0.3, max_mixtures=20)


@pytest.fixture(scope="module")
def rows(trained, held_back):
    """Scores of all systems by (method, bits)."""
    systems = evaluation.make_systems(trained[0], ALL, (25, 50))
    return {(r["method"], r["num_bits"]): r for r in evaluation.evaluate(systems, held_back)}


def test_every_system_has_its_row(rows, held_back):
    assert list(rows) == [
        ("noisy", None), ("lsh", 25), ("lsh", 50), ("blsh", 25), ("blsh", 50),
        ("knn", None), ("ibm", None), ("irm", None),
    ]  # fmt: skip
    for row in rows.values():
        assert row["utterances"] == len(held_back)
        assert all(np.isfinite(row[name]) for name in ("sdr", "sir", "si_sdr", "sdr_std"))
        # The mixture is made of speech and noise and nothing else: no artifacts.
        assert (row["sar"] is None) == (row["method"] == "noisy")


def test_methods_differ_as_they_should(rows):
    sdr = {system: row["sdr"] for system, row in rows.items()}
    assert abs(sdr["noisy", None]) < 1.0
    assert sdr["noisy", None] < sdr["lsh", 25] < sdr["blsh", 25] < sdr["ibm", None]
    for method in ("lsh", "blsh"):
        assert sdr[method, 50] > sdr[method, 25]
    assert sdr["ibm", None] > sdr["knn", None] + 1.0


def test_masks_are_those_behind_the_estimates(trained, held_back):
    stft = trained[0].separation.stft
    batch = next(corpora.batches(held_back, 4))
    speech, noise = jnp.asarray(batch.speech), jnp.asarray(batch.noise)
    mixture = spectra.stft(speech + noise, stft)
    for system in evaluation.make_systems(trained[0], ALL, (25,)):
        estimate, mask = system.separate(speech, noise)
        if system.method == "noisy":
            assert mask is None
            continue
        assert mask.shape == mixture.shape
        assert 0 <= float(mask.min()) < float(mask.max()) <= 1
        masked = spectra.istft(masks.apply_mask(mask, mixture), speech.shape[-1], stft)
        np.testing.assert_allclose(masked, estimate, atol=1e-5)


def test_scorers_agree_and_means_are_weighted_by_length(trained, held_back):
    systems = evaluation.make_systems(trained[0], ("noisy", "ibm"), ())
    short = held_back[1]._replace(
        **{k: getattr(held_back[1], k)[:4000] for k in ("speech", "noise")}
    )
    pair = [held_back[0], short]
    alone = [evaluation.evaluate(systems, [mixture]) for mixture in pair]
    ours = evaluation.evaluate(systems, pair, timed=False)
    theirs = evaluation.evaluate(systems, pair, "mir_eval", timed=False)
    lengths = [len(mixture.speech) for mixture in pair]
    for i, (row, other) in enumerate(zip(ours, theirs, strict=True)):
        for name in ("sdr", "sir", "si_sdr") + (("sar",) if row["method"] == "ibm" else ()):
            values = [rows[i][name] for rows in alone]
            assert row[name] == pytest.approx(np.average(values, weights=lengths), abs=1e-3)
            assert row[f"{name}_plain"] == pytest.approx(np.mean(values), abs=1e-3)
            assert row[name] == pytest.approx(other[name], abs=1e-3)


def test_bad_requests_are_named(trained, held_back):
    with pytest.raises(ValueError, match="wiener"):
        evaluation.make_systems(trained[0], ("wiener",), ())
    with pytest.raises(ValueError, match="1 to 50"):
        evaluation.make_systems(trained[0], ("blsh",), (51,))
    with pytest.raises(ModelError, match="blsh train"):
        evaluation.make_systems(trained[0].without_frames(), ("lsh",), (25,))
    with pytest.raises(ValueError, match="scorer"):
        evaluation.evaluate([], held_back, scorer="pesq")
    silent = evaluation.System("mute", None, lambda speech, noise: evaluation.Estimate(0 * speech))
    with pytest.raises(ValueError, match=f"mute, of .*{re.escape(held_back[0].key)}.*silent"):
        evaluation.evaluate([silent], held_back)


def test_scores_stay_where_they_were(rows):
    """Golden SDRs; bits may turn with the rounding of a platform, the rest may not."""
    golden = json.loads((Path(__file__).parent / "golden_synthetic.json").read_text())
    sdr = {f"{method} {bits or ''}".strip(): row["sdr"] for (method, bits), row in rows.items()}
    assert sdr.keys() == golden.keys()
    for system, expected in golden.items():
        tolerance = 0.3 if "lsh" in system else 0.02
        assert abs(sdr[system] - expected) < tolerance, system
