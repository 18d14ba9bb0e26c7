import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_model

from blsh_jax import corpora, models
from blsh_jax.denoising import pipeline
from blsh_jax.evaluation.metrics import bss_eval


@pytest.fixture(scope="module")
def small_model():
    """A model over random frames, most settings not the defaults."""
    made = random_model("mel", 3, 12, 0.5, 6, voicing=8, num_frames=50)
    changed = dataclasses.replace(made.config, snr_db=5.0, high_pass_hz=50.0)
    return dataclasses.replace(made, config=changed, provenance={"licence": "none"})


def assert_same(one, other):
    """The same model, to the last bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def noise():
    return 0.1 * jax.random.normal(jax.random.key(0), (1, 4000))


def denoised(used, noisy):
    config = used.separation
    return pipeline.separate(
        noisy, used.mask_function, config.stft, config.features.pre_roll_frames
    ).speech


@pytest.mark.parametrize("with_frames", [True, False])
def test_a_saved_model_comes_back_whole(small_model, tmp_path, with_frames):
    saved = small_model if with_frames else small_model.without_frames()
    models.save(saved, tmp_path / "new" / "m.npz")
    loaded = models.load(tmp_path / "new" / "m.npz")
    assert (loaded.config, loaded.provenance) == (saved.config, saved.provenance)
    assert_same(loaded, saved)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["m.npz"]
    if with_frames:
        assert loaded.spectral_dictionary().frames.shape == saved.frames.shape
    else:
        with pytest.raises(models.ModelError, match="blsh train"):
            loaded.spectral_dictionary()


def test_other_and_truncated_files_are_refused(small_model, tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("not a model")
    np.savez(tmp_path / "pickle.npz", header=np.array([{"a": 1}], dtype=object))
    models.save(small_model, tmp_path / "whole.npz")
    for kept in (0, 10, 1000, 5000):
        part = (tmp_path / "whole.npz").read_bytes()[:kept]
        (tmp_path / f"{kept}.npz").write_bytes(part)
    for name in ("other", "text", "pickle", "0", "10", "1000", "5000"):
        with pytest.raises(models.ModelError, match=rf"{name}\.npz"):
            models.load(tmp_path / f"{name}.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(models.ModelError, match=r"one\.npy is not a whole model file"):
        models.load(tmp_path / "one.npy")
    with pytest.raises(models.ModelError, match="cannot be read"):
        models.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        models.load(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match=r"choose one of default, small"):
        models.load_pretrained("huge")


def _rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **(arrays | changes))


def test_other_formats_and_wrong_shapes_say_what_to_do(small_model, tmp_path):
    path = tmp_path / "m.npz"
    models.save(small_model, path)
    header = json.loads(str(np.load(path)["header"]))
    _rewrite(path, header=np.array(json.dumps(header | {"version": 99})))
    with pytest.raises(models.ModelError, match="upgrade"):
        models.load(path)
    _rewrite(path, header=np.array(json.dumps(header | {"version": 1})))
    with pytest.raises(models.ModelError, match=r"version is 1,.*train it anew"):
        models.load(path)
    _rewrite(path, header=np.array(json.dumps(header)), betas=np.ones(3, np.float32))
    with pytest.raises(models.ModelError, match="betas has shape"):
        models.load(path)


def test_a_failed_save_keeps_the_old_file(small_model, tmp_path):
    path = tmp_path / "m.npz"
    models.save(small_model, path)
    before = path.read_bytes()
    broken = dataclasses.replace(small_model, provenance={"bad": object()})
    with pytest.raises(TypeError):
        models.save(broken, path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_is_a_pytree(small_model):
    assert_same(jax.tree.map(lambda array: array, small_model), small_model)
    noisy, jitted = noise(), jax.jit(denoised)
    expected = denoised(small_model, noisy)
    for _ in range(2):
        used = jax.tree.map(jnp.copy, small_model)
        np.testing.assert_allclose(jitted(used, noisy), expected, atol=1e-6)
    assert jitted._cache_size() == 1


# The configuration of format 6, whose names were others, in the settings of ``small_model``.
FORMAT_6 = {
    "stft": {"sample_rate": 16000, "window_length": 1024, "hop_length": 256},
    "features": {
        "kind": "mel", "num_mels": 40, "context": 3, "levels": 12, "floor_frames": 9,
        "voicing": 8, "lead_in_frames": 6,
    },
    "learner": "residual",
    "fit": {"num_bits": 150, "block_size": 1000, "target": "rbf", "sigma2": 0.3, "ridge": 10.0},
    "refine": {
        "refine_steps": 0, "refine_queries": 512, "refine_answers": 4096,
        "refine_learning_rate": 0.003,
    },
    "variety": {"num_mixtures": 0, "made_noise": 0.0, "unvaried": 0.5},
    "snr_db": 5.0,
    "lowest_speech_hz": 50.0,
    "num_neighbors": 10,
    "evidence": {
        "mask_weight_low": 0.8, "mask_weight_high": 1.5, "snr_weight_low": 0.5,
        "snr_weight_high": 0.125, "past_snr_weight_low": 0.25, "past_snr_weight_high": 0.5,
        "prior_log_odds": -0.3, "lowest_hz": 0.0,
    },
}  # fmt: skip


def test_files_of_format_6_are_the_same_models(small_model, tmp_path):
    path = tmp_path / "m.npz"
    models.save(small_model, path)
    header = json.loads(str(np.load(path)["header"]))
    assert header["version"] == 9
    _rewrite(path, header=np.array(json.dumps(header | {"version": 6, "config": FORMAT_6})))
    loaded = models.load(path)
    assert loaded.config == small_model.config
    assert_same(loaded, small_model)
    np.testing.assert_array_equal(denoised(loaded, noise()), denoised(small_model, noise()))
    unknown = {"version": 6, "config": FORMAT_6 | {"colour": 1}}
    _rewrite(path, header=np.array(json.dumps(header | unknown)))
    with pytest.raises(models.ModelError, match="no setting colour"):
        models.load(path)


def test_files_of_format_7_are_the_same_models(small_model, tmp_path):
    path = tmp_path / "m.npz"
    models.save(small_model, path)
    header = json.loads(str(np.load(path)["header"]))
    del header["config"]["ferns"], header["config"]["augmentation"]["noise_folds"]
    _rewrite(path, header=np.array(json.dumps(header | {"version": 7})))
    loaded = models.load(path)
    assert loaded.config == small_model.config and loaded.ferns == ()
    assert_same(loaded, small_model)


@pytest.mark.parametrize(("name", "megabytes"), [("default", 8), ("small", 1)])
def test_pretrained_models_are_small_name_their_licences_and_improve_a_mixture(
    name, megabytes, synthetic
):
    path = Path(models.__file__).parent / f"{name}.npz"
    assert path.stat().st_size < megabytes * 1e6 and name in models.pretrained_names()
    used = models.load_pretrained(name)
    assert all(used.provenance[corpus]["licence"] for corpus in ("speech", "noise"))
    pair = corpora.make_mixtures(*synthetic, 0.0, 0)[9]  # the sea
    assert pair.noise_key == "ocean"
    estimate = denoised(used, pair.mixture[None])[0]
    sources = np.stack([pair.speech, pair.noise])
    scores = [
        float(bss_eval(sources, np.stack([speech, pair.mixture - speech])).sdr[0])
        for speech in (pair.mixture * 0.5, np.asarray(estimate))
    ]
    assert scores[1] > scores[0] + 1
