import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import codes, config, model, separation


@pytest.fixture(scope="module")
def small_model():
    """A model of 40 bits over 50 random frames."""
    keys = jax.random.split(jax.random.key(0), 3)
    frames = jnp.abs(jax.random.normal(keys[0], (50, 513)))
    hasher = codes.random_hasher(keys[1], 40, frames)
    binary = jax.random.bernoulli(keys[2], 0.5, (50, 513))
    dictionary = separation.build_dictionary(hasher, frames, binary)
    changed = config.TrainConfig(fit=config.FitConfig(num_bits=40), snr_db=5.0)
    return model.Model(changed, dictionary, {"licence": "none"}, np.asarray(frames, np.float16))


@pytest.mark.parametrize("with_frames", [True, False])
def test_a_saved_model_comes_back_whole(small_model, tmp_path, with_frames):
    saved = small_model if with_frames else small_model.without_frames()
    model.save(saved, tmp_path / "new" / "m.npz")
    loaded = model.load(tmp_path / "new" / "m.npz")
    assert loaded.config == saved.config
    assert loaded.provenance == saved.provenance
    assert (loaded.frames is None) == (not with_frames)
    leaves = zip(jax.tree.leaves(loaded.dictionary), jax.tree.leaves(saved.dictionary), strict=True)
    for actual, expected in leaves:
        np.testing.assert_array_equal(actual, expected)
        assert actual.dtype == expected.dtype
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["m.npz"]


@pytest.mark.parametrize("kept", [0, 10, 1000, 5000])
def test_truncated_files_are_named(small_model, tmp_path, kept):
    path = tmp_path / "m.npz"
    model.save(small_model, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(model.ModelError, match=r"m\.npz"):
        model.load(path)


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("not a model")
    np.savez(tmp_path / "pickle.npz", header=np.array([{"a": 1}], dtype=object))
    for name in ("other.npz", "text.npz", "pickle.npz"):
        with pytest.raises(model.ModelError, match=re.escape(name)):
            model.load(tmp_path / name)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(model.ModelError, match=r"one\.npy is not a whole model file"):
        model.load(tmp_path / "one.npy")
    with pytest.raises(model.ModelError, match="cannot be read"):
        model.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        model.load(tmp_path / "missing.npz")


def _rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **(arrays | changes))


def test_other_formats_and_wrong_shapes_say_what_to_do(small_model, tmp_path):
    path = tmp_path / "m.npz"
    model.save(small_model, path)
    header = json.loads(str(np.load(path)["header"]))
    _rewrite(path, header=np.array(json.dumps(header | {"version": 99})))
    with pytest.raises(model.ModelError, match="upgrade"):
        model.load(path)
    _rewrite(path, header=np.array(json.dumps(header | {"version": 1})))
    with pytest.raises(model.ModelError, match=r"model format 1.*train it anew"):
        model.load(path)
    _rewrite(path, header=np.array(json.dumps(header)), betas=np.ones(3, np.float32))
    with pytest.raises(model.ModelError, match="betas has shape"):
        model.load(path)


def test_a_failed_save_keeps_the_old_file(small_model, tmp_path):
    path = tmp_path / "m.npz"
    model.save(small_model, path)
    before = path.read_bytes()
    broken = dataclasses.replace(small_model, provenance={"bad": object()})
    with pytest.raises(TypeError):
        model.save(broken, path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_models_without_frames_cannot_be_compared(small_model):
    with pytest.raises(model.ModelError, match=r"experiments\.train"):
        small_model.without_frames().spectral_dictionary()
    assert small_model.spectral_dictionary().frames.shape == (50, 513)


def test_unknown_shipped_models_are_refused():
    with pytest.raises(ValueError, match=r"choose one of default, small"):
        model.load_shipped("huge")


@pytest.mark.parametrize(("name", "megabytes"), [("default", 8), ("small", 1)])
def test_shipped_models_are_small_enough_and_name_their_licences(name, megabytes):
    path = Path(model.__file__).parent / "models" / f"{name}.npz"
    assert path.stat().st_size < megabytes * 1e6
    provenance = model.load_shipped(name).provenance
    assert provenance["speech"]["layout"] == "librispeech"
    assert "CC BY 4.0" in provenance["speech"]["licence"]
    assert "CC0" in provenance["noise"]["licence"]
