"""The paper's experiments, tiny, on the synthetic corpus."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import config, corpora
from blsh_jax.corpora import audio
from blsh_jax.denoising import pipeline
from blsh_jax.evaluation import metrics
from blsh_jax.paper import codes, similarity, spectra
from blsh_jax.paper.separation import Dictionary
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.mask_stage import mask_function
from experiments import (
    audio_examples,
    figure2,
    figure3,
    pictures,
    protocol,
    table1,
    variations,
    workbench,
)
from experiments.cache import Cache, digest, fingerprint

CONFIG = config.TrainConfig(
    fit=config.FitConfig(num_bits=20, block_size=300, fast_steps=40, fast_candidates=8),
    dictionary_fraction=0.5,
    max_fit_frames=900,
    held_back=0.3,
)
FC = config.NetworkConfig(
    "fc", 1, 32, learning_rate=0.01, segment_frames=30, batch_segments=8, max_epochs=10
)
NETWORKS = {"fc": FC, "blstm": dataclasses.replace(FC, kind="blstm", num_units=12)}
# The cosine variant takes the same way as the one by cross-entropy.
TESTED = tuple(method for method in table1.SYSTEMS if method != "blsh_cosine")
FIGURE3 = figure3.Figure3Config(lengths=(5, 20), fractions=(0.4, 0.05), num_subsets=2)


@pytest.fixture(scope="module")
def mixtures(synthetic):
    """Twelve training mixtures, six of either test set."""
    train = corpora.make_mixtures(*synthetic, 0.0, 0, "train", 0.3, max_mixtures=12)
    closed = corpora.make_mixtures(*synthetic, 0.0, 1, "closed", 0.3, max_mixtures=6)
    opened = corpora.make_mixtures(*synthetic, 0.0, 2, "closed", 0.3, max_mixtures=6)
    return protocol.Protocol(train, {"closed": closed, "open": opened}, {"speech": "synthetic"})


@pytest.fixture(scope="module")
def only_closed(mixtures):
    """The same without the open set."""
    return dataclasses.replace(mixtures, tests={"closed": mixtures.tests["closed"]})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache of all tests here."""
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def table(mixtures, cache):
    """Rows of table 1 by (set, method)."""
    rows = table1.table1(mixtures, CONFIG, NETWORKS, 16, cache, TESTED)
    return {(row["set"], row["method"]): row for row in rows}


def test_table1_has_every_system_on_both_sets(table):
    assert list(table) == [(s, m) for m in TESTED for s in ("closed", "open")]
    for (_, method), row in table.items():
        hashed = method.startswith(("lsh", "blsh")) and method != "blstm"
        assert row["num_bits"] == (16 if hashed else None)
        assert np.isfinite(row["sdr"])
        assert row["seconds_per_minute"] > 0 or method in ("noisy", "irm", "ibm")


def test_table1_orders_what_must_be_ordered(table):
    sdr = {method: row["sdr"] for (name, method), row in table.items() if name == "closed"}
    assert sdr["noisy"] < sdr["lsh"] < sdr["ibm"]
    assert sdr["noisy"] + 1 < min(sdr["blsh"], sdr["knn_mel"], sdr["fc"], sdr["blstm"])
    assert sdr["knn"] < sdr["ibm"]


def test_costs_by_hand(table, mixtures, cache):
    frames = len(workbench.Workbench(mixtures, CONFIG, cache).sample.frames)
    costs = lambda method: [
        table["closed", method][name]
        for name in ("float_operations", "word_operations", "model_bytes")
    ]
    assert costs("blsh") == [2 * 513 * 16, 3 * frames, 4 * (16 * 514 + frames * (1 + 17))]
    assert costs("lsh") == costs("blsh") == costs("lsh_origin")
    assert costs("knn") == [2 * frames * 513, 0, 4 * frames * (513 + 17)]
    assert costs("knn_mel")[0] == 2 * 513 * 128 + 2 * frames * 128
    assert costs("fc") == [2 * (513 * 32 + 32 * 513), 0, 4 * (2 * 513 * 32 + 32 + 513)]
    assert costs("irm") == [0, 0, 0]


def test_a_second_call_recomputes_only_what_changed(table, mixtures, cache):
    again = Cache(cache.folder)
    rows = table1.table1(mixtures, CONFIG, NETWORKS, 16, again, TESTED)
    assert again.made == []
    assert rows == list(table.values())
    wider = NETWORKS | {"fc": dataclasses.replace(NETWORKS["fc"], num_units=16)}
    table1.table1(mixtures, CONFIG, wider, 16, again, TESTED)
    assert again.made == ["fc", "scores", "scores"]
    shorter = Cache(cache.folder)
    table1.table1(mixtures, CONFIG, NETWORKS, 12, shorter, ("blsh", "knn"))
    assert shorter.made == ["scores", "scores"]


def test_mel_frames_are_the_features_of_the_mixtures(mixtures, cache):
    model = workbench.Workbench(mixtures, CONFIG, cache).model(CONFIG.fit)
    frames = workbench.mel_dictionary(model).frames[:50]
    magnitudes = jnp.asarray(model.frames[:50], jnp.float32) * 7.5
    mel = feature_function(workbench.MEL, CONFIG.separation.stft)
    expected = spectra.features(mel, magnitudes.astype(jnp.complex64))
    np.testing.assert_allclose(frames, expected, atol=1e-5)


@pytest.fixture(scope="module")
def points(only_closed, cache):
    """Rows of figure 3 on the closed set."""
    return figure3.figure3(only_closed, CONFIG, FIGURE3, cache)


def test_figure3_has_every_point(points):
    found = [(r["method"], r["dictionary_fraction"], r["num_bits"]) for r in points]
    assert found == [(m, f, n) for m in ("lsh", "blsh") for f in (0.4, 0.05) for n in (5, 20)]
    for row in points:
        assert len(row["sdr_subsets"]) == 2
        assert row["sdr"] == pytest.approx(np.mean(row["sdr_subsets"]), abs=1e-4)
        assert row["sdr_std"] == pytest.approx(np.std(row["sdr_subsets"]), abs=1e-3)
    assert points[5]["sdr"] > points[4]["sdr"]


def test_a_point_of_figure3_is_what_separation_gives(points, mixtures, cache):
    bench = workbench.Workbench(mixtures, CONFIG, cache)
    hasher = bench.model(CONFIG.fit).hasher
    encoded, packed = figure3._hash_all(bench, {("blsh", 0): hasher})
    encoded = encoded["blsh", 0]
    subset = figure3._subset(len(encoded), 0.4, CONFIG.seed, 1)
    smaller = figure3._subset(len(encoded), 0.05, CONFIG.seed, 1)
    assert len(subset) == round(0.4 * len(encoded)) and set(smaller) < set(subset)
    dictionary = Dictionary(hasher, encoded[subset], packed[subset], 513).prefix(5)
    batch = next(corpora.batches(mixtures.tests["closed"], 6))
    function = mask_function(dictionary, CONFIG.separation)
    estimate = pipeline.separate(batch.mixture, function, CONFIG.separation.stft).speech
    references, estimates = (np.stack([s, batch.noise], 1) for s in (batch.speech, estimate))
    scores = metrics.bss_eval(references, estimates, batch.lengths).sdr[:, 0]
    expected = np.average(scores, weights=batch.lengths)
    row = next(r for r in points if (r["method"], r["num_bits"]) == ("blsh", 5))
    assert row["sdr_subsets"][1] == pytest.approx(expected, abs=2e-3)


def test_figure3_without_fresh_projections_differs_in_lsh_only(points, only_closed, cache):
    kept = dataclasses.replace(FIGURE3, fresh_projections=False)
    rows = figure3.figure3(only_closed, CONFIG, kept, cache)
    assert rows[4:] == points[4:]
    assert rows[0]["sdr_subsets"][0] == points[0]["sdr_subsets"][0]
    assert rows[0]["sdr_subsets"][1:] != points[0]["sdr_subsets"][1:]


def test_what_is_not_there_is_named(mixtures, cache):
    with pytest.raises(ValueError, match="21"):
        figure3.figure3(mixtures, CONFIG, figure3.Figure3Config(lengths=(21,)), cache)
    with pytest.raises(ValueError, match="wiener"):
        table1.table1(mixtures, CONFIG, NETWORKS, 16, cache, ("wiener",))


@pytest.fixture(scope="module")
def second(mixtures, cache):
    """Rows and matrices of figure 2."""
    chosen = figure2.Figure2Config(30, (5, 20, 99), (1, 3), 200, 4, 400)
    return figure2.figure2(mixtures, CONFIG, chosen, cache)


def test_figure2_error_falls_with_the_length(second):
    rows, _ = second
    for name in ("error", "unexplained"):
        blsh = [row[name] for row in rows if row["method"] == "blsh"]
        assert blsh[-1] < 0.9 * blsh[0]
    recall = [row["recall"] for row in rows if row["method"] == "blsh"]
    assert 0 <= recall[0] < recall[-1] <= 1


def test_figure2_errors_by_hand():
    rng = np.random.default_rng(3)
    frames = jnp.asarray(rng.standard_normal((12, 6)), jnp.float32)
    betas = jnp.asarray([0.5, 0.3, 0.1])
    hasher = codes.Hasher(
        jnp.asarray(rng.standard_normal((3, 6)), jnp.float32), jnp.zeros(3), betas
    )
    target = np.exp(similarity.self_similarity(frames, "cosine") - 1)
    bits = np.asarray(frames) @ np.asarray(hasher.projections).T >= 0
    equal = bits[:, None] == bits[None]
    weighted = (equal * np.asarray(betas)).sum(-1) / 0.9
    found = figure2._errors(hasher, frames, jnp.asarray(target))
    assert found["error"] == pytest.approx(((weighted - target) ** 2).mean(), rel=1e-4)
    plain = ((equal.mean(-1) - target) ** 2).mean()
    assert found["error_equal_weights"] == pytest.approx(plain, rel=1e-4)
    line = np.polyfit(weighted.ravel(), target.ravel(), 1)
    left = (np.polyval(line, weighted) - target).var() / target.var()
    assert found["unexplained"] == pytest.approx(left, rel=1e-3)


def test_figure2_matrices(second, mixtures, cache):
    _, matrices = second
    assert list(matrices) == ["target", "codes_5", "codes_20", "weights_1", "weights_3"]
    bench = workbench.Workbench(mixtures, CONFIG, cache)
    hasher = bench.model(CONFIG.fit).hasher
    frames = figure2._in_order(jnp.asarray(bench.sample.frames[:30]))
    target = np.float64(similarity.self_similarity(frames, "rbf", 0.3))
    np.testing.assert_allclose(matrices["target"], target, atol=1e-3)
    # Pair weights, iterated bit by bit from uniform ones (eq. 4).
    h = np.float64(codes.sign(codes.project(frames, hasher.projections, hasher.biases)))
    weights = np.ones_like(target)
    for bit in range(3):
        error = ((1 + np.outer(h[:, bit], h[:, bit])) / 2 - target) ** 2
        weights *= np.exp(float(hasher.betas[bit]) * error)
    np.testing.assert_allclose(matrices["weights_3"], weights / weights.max(), atol=2e-3)


def test_audio_examples(mixtures, cache, tmp_path):
    lengths = {"lsh": 16, "blsh": 5}
    means, examples = audio_examples.audio_examples(mixtures, CONFIG, lengths, 1, tmp_path, cache)
    assert [(row["set"], row["method"], row["num_bits"]) for row in means] == [
        (name, *system) for system in lengths.items() for name in ("closed", "open")
    ]
    assert len(examples) == 2 * 2
    names = {"clean.wav", "noisy.wav", "lsh16.wav", "blsh5.wav"}
    for place in ("closed1", "open1"):
        assert {path.name for path in (tmp_path / place).iterdir()} == names
    clean, _ = audio.read(tmp_path / "closed1" / "clean.wav")
    estimate, _ = audio.read(tmp_path / "closed1" / "blsh5.wav")
    row = next(r for r in examples if r["folder"] == "closed1" and r["method"] == "blsh")
    assert metrics.si_sdr(clean, estimate) == pytest.approx(row["si_sdr"], abs=0.05)


@pytest.mark.slow
def test_variations_change_one_thing(mixtures, cache, monkeypatch):
    suspect = ("sigma2", 0.9)
    monkeypatch.setattr(variations, "FITS", {suspect: variations.FITS[suspect]})
    rows = variations.variations(mixtures, CONFIG, (16,), cache)
    none, closed = ("none", "as configured"), "closed"
    found = {(r["suspect"], r["value"], r["set"], r["method"]): r["sdr"] for r in rows}
    assert len(found) == len(rows) == 2 * 4 + 2
    assert found[*none, closed, "blsh"] != found[*suspect, closed, "blsh"]
    assert found[*none, closed, "blsh"] > found["hyperplanes of LSH", "random", closed, "lsh"]
    known = ("noise of the open set", "training noises", "open speech, training noise")
    assert (*known, "lsh") in found


def test_pictures_name_their_record(points, second, tmp_path):
    record = {"results": points}
    pictures.save(pictures.figure3(record), record, tmp_path / "figure3.png")
    assert pictures.is_of(tmp_path / "figure3.png", json.loads(json.dumps(record)))
    assert not pictures.is_of(tmp_path / "figure3.png", {"results": points[1:]})
    assert not pictures.is_of(tmp_path / "none.png", record)
    record = {"results": second[0]}
    pictures.save(pictures.figure2(record, second[1]), record, tmp_path / "figure2.png")
    assert pictures.is_of(tmp_path / "figure2.png", record)


def test_a_digest_follows_content_not_order(mixtures):
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    first = fingerprint(mixtures.train)
    signals = [signal.copy() for signal in mixtures.train.speech.signals]
    signals[0][5] += 0.5
    speech = dataclasses.replace(mixtures.train.speech, signals=signals)
    changed = fingerprint(dataclasses.replace(mixtures.train, speech=speech))
    assert first == fingerprint(mixtures.train)
    assert changed["content"] != first["content"]
