"""Noise that no dictionary has heard: the recipe's way, and the rotation."""

import dataclasses
import json

import launching
import numpy as np
import pytest
from small_models import GENERAL, SMALL_GENERAL

from blsh_jax import corpora, evaluation
from blsh_jax.config import RECIPES, FernConfig, FitConfig, TrainConfig
from blsh_jax.robust.augmentation import training_mixtures
from experiments import rotation, unseen
from experiments.cache import Cache
from experiments.denoisers import Chosen

TINY = dataclasses.replace(
    SMALL_GENERAL,
    fit=FitConfig(num_bits=8, block_size=200, fast_steps=20, fast_candidates=4),
    max_dictionary_frames=200,  # the same everywhere: one shape to compile
)


def test_the_way_leads_from_the_published_method_to_the_recipe():
    way = unseen.ladder(GENERAL)
    assert way["the paper's way"] == TrainConfig() == RECIPES["paper"]
    assert list(way.values())[-1] == GENERAL
    taken = [name for names in unseen.STEPS.values() for name in names]
    assert len(taken) == len(set(taken))


def test_every_change_changes_one_thing():
    for name, config in unseen.changed(GENERAL).items():
        different = [
            (field.name, inner)
            for field in dataclasses.fields(GENERAL)
            for inner in differing(getattr(config, field.name), getattr(GENERAL, field.name))
        ]
        assert len({outer for outer, _ in different}) == 1, name
        assert len(different) == (2 if "no ferns" in name or "neither" in name else 1), name


def differing(ours, theirs):
    """Names of the fields in which two configurations differ; of other values, one if they do."""
    if not dataclasses.is_dataclass(ours):
        return [""] if ours != theirs else []
    names = [field.name for field in dataclasses.fields(ours)]
    return [name for name in names if getattr(ours, name) != getattr(theirs, name)]


def test_what_is_left_out_is_not_trained_on(synthetic):
    speech, noise = synthetic
    groups = unseen.left_out_in_turn(speech, noise, num_groups=3, num_mixtures=6)
    tested = [{r.key for r in group.tests.noise.recordings} for group in groups]
    assert set.union(*tested) == {r.key for r in noise.recordings}
    assert sum(map(len, tested)) == len(noise)
    for group, left_out in zip(groups, tested, strict=True):
        assert left_out.isdisjoint(r.key for r in group.noise.recordings)
        others = {r.key for r in group.tests.speech.recordings}
        assert others.isdisjoint(r.key for r in group.speech.recordings)
        assert len(group.tests) == 6


@pytest.mark.slow
def test_unseen_scores_every_variant_on_noises_left_out(synthetic, monkeypatch):
    group = unseen.left_out_in_turn(*synthetic, num_groups=2, num_mixtures=2)[0]
    trained = []
    train = unseen.training.train
    monkeypatch.setattr(
        unseen.training, "train", lambda *given: trained.append(given[1]) or train(*given)
    )
    fewer = unseen._changed(TINY, {"separation": {"num_neighbors": 7}})
    rows = unseen.unseen(group, {"recipe": TINY, "fewer": fewer}, (5, 8))
    systems = [(row["step"], row["method"], row["num_bits"]) for row in rows]
    of_one = [("knn", None), ("lsh", 5), ("lsh", 8), ("blsh", 5), ("blsh", 8)]
    assert systems == [(step, *system) for step in ("recipe", "fewer") for system in of_one]
    assert all(np.isfinite([row["sdr"], row["si_sdr"]]).all() for row in rows)
    assert trained == [TINY]  # the search changes, not the model
    assert len({row["sdr"] for row in rows}) == len(rows)


def test_scores_are_means_over_groups_and_kept_by_group(tmp_path, monkeypatch, synthetic):
    monkeypatch.setattr(unseen.corpora, "list_speech", lambda folder: synthetic[0])
    monkeypatch.setattr(unseen.corpora, "list_noise", lambda folder: synthetic[1])
    monkeypatch.setattr(unseen.corpora, "load", lambda corpus, rate: corpus)
    scored = []

    def score(group, variants, num_bits):
        assert list(variants) == [*unseen.STEPS, *unseen.CHANGES] and num_bits == [12]
        scored.append({recording.key for recording in group.noise.recordings})
        return [{"step": "a", "num_bits": 12, "sdr": float(len(scored))}]

    monkeypatch.setattr(unseen, "unseen", score)
    arguments = ["unseen", "--recipe=general", "--speech=S", "--noise=N", "--lengths=12"]
    arguments += [f"--output={tmp_path}/o.json", f"--cache={tmp_path}/cache"]
    for _ in range(2):
        assert launching.run(*arguments) is None
        written = json.loads((tmp_path / "o.json").read_text())
        assert written["results"] == [{"step": "a", "num_bits": 12, "sdr": 2.0}]
        assert written["config"]["num_groups"] == 3
        assert len(scored) == 3  # nothing is computed twice


def test_rotation_trains_without_the_noise_it_scores_in(synthetic, monkeypatch, tmp_path):
    speech, noise = synthetic[0].some(range(4)), synthetic[1].some(range(4))
    cache = Cache(tmp_path)
    heard = []
    train = rotation.training.train

    def spy(mixtures, *arguments, **options):
        heard.append({recording.key for recording in mixtures.noise.recordings})
        return train(mixtures, *arguments, **options)

    monkeypatch.setattr(rotation.training, "train", spy)
    level = {"level": lambda speech, estimate: float(np.std(estimate) / np.std(speech))}
    others = Chosen([], level, {"measures": ["level"]})

    def run(*methods):
        arguments = (speech, noise, speech, TINY, [0.0, 10.0], methods, [8], others, 2, 0, 2)
        return rotation.rotation(*arguments, cache)

    unprocessed = run()
    assert heard == [] and {row["method"] for row in unprocessed} == {"noisy"}
    rows = run("knn", "blsh", "lsh")
    assert [row for row in rows if row["method"] == "noisy"] == unprocessed
    assert run("knn", "blsh", "lsh") == rows
    assert cache.made == ["tools"] * 2 + ["rotation"] * 2  # nothing is computed twice
    names = [recording.key for recording in noise.recordings]
    assert sorted({row["noise"] for row in rows}) == sorted(names)
    assert len(rows) == len(names) * 2 * 4
    for group, known in enumerate(heard):
        assert known == set(names) - set(names[group::2])
    summaries = {(s["snr_db"], s["method"]): s for s in rotation.means(rows)}
    noisy, blsh = summaries[0.0, "noisy"], summaries[0.0, "blsh"]
    assert noisy["noises"] == 4 and noisy["mixtures"] == 8 and noisy["below_mixture"] == []
    expected = [r["sdr"] for r in rows if (r["snr_db"], r["method"]) == (0.0, "blsh")]
    assert blsh["sdr"] == pytest.approx(np.mean(expected)) and blsh["sdr"] > noisy["sdr"]
    assert all(0 < row["level"] < 5 for row in rows)


@pytest.mark.slow
def test_ferns_are_learned_without_a_search_too(synthetic, tmp_path):
    few = FernConfig(20, 0, fern_bits=4, fern_rate=0.3, fern_mixtures=8, fern_bins=1000)
    folds = dataclasses.replace(TINY.augmentation, noise_folds=2)
    config = dataclasses.replace(TINY, ferns=few, augmentation=folds)
    mixtures = training_mixtures(*synthetic, config, "whole")
    systems = rotation._systems(mixtures, config, [rotation.FERNS, "blsh"], [8])
    tests = corpora.make_mixtures(*synthetic, 0.0, 1, max_mixtures=2)
    rows = evaluation.evaluate([evaluation.UNPROCESSED, *systems], tests, timed=False)
    found = {row["method"]: row["sdr"] for row in rows}
    assert list(found) == ["noisy", "blsh", "ferns", "blsh_live", "blsh_presence"]
    assert found["ferns"] > found["noisy"] + 2
    given = [
        "rotation",
        "--speech=S",
        "--noise=N",
        "--open_speech=S",
        f"--output={tmp_path}/o.json",
    ]
    assert "needs ferns to learn" in launching.run(*given, "--methods=noisy,ferns")


def test_noises_that_got_worse_are_named():
    row = {"snr_db": 10.0, "num_bits": None, "sdr": 10.0, "utterances": 3}
    rows = [
        row | {"noise": name, "method": method, "sdr": sdr}
        for name, sdr in (("rain", 9.0), ("bell", 12.0))
        for method, sdr in (("noisy", 10.0), ("tool", sdr))
    ]
    worse = {s["method"]: s["below_mixture"] for s in rotation.means(rows)}
    assert worse == {"noisy": [], "tool": ["rain"]}


def test_ferns_stand_beside_speech_presence_noise_by_noise():
    row = {"snr_db": 0.0, "num_bits": 8, "utterances": 3, "stoi": 0.5}
    scores = {"noisy": (0, 0), "blsh": (9, 5), "blsh_presence": (6, 6), "blsh_live": (7, 7)}
    rows = [
        row
        | {"noise": name, "method": method, "sdr": float(sdr[place])}
        | {"num_bits": None if method == "noisy" else 8}
        for place, name in enumerate(("rain", "bell"))
        for method, sdr in scores.items()
    ]
    found = {summary["method"]: summary for summary in rotation.means(rows)}
    assert found["blsh"]["above_presence"] == {"sdr": 1.0, "stoi": 0.0}
    assert found["blsh"]["standard_error"] == {"sdr": 2.0, "stoi": 0.0}
    assert found["blsh"]["lowest"] == {"noise": "bell", "sdr": -1.0}
    assert found["blsh_live"]["above_presence"]["sdr"] == 1.0
    assert "above_presence" not in found["blsh_presence"]
