"""Launches say what is wrong with their flags before they work, and have the flags they need."""

import json

import launching
import pytest
from absl import flags

from blsh_jax import models
from blsh_jax.commands import launch
from blsh_jax.corpora import audio

TABLES = ("table1", "figure2", "figure3", "audio_examples", "variations")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--output=o.txt", "--model=small"), "that ends in .json"),
        (("evaluate", "--output=o.json", "--model=small", "--num_bits=99"), "the model has 64"),
        (("unseen", "--output=o.json", "--lengths=25,x"), "--lengths=25,x: give numbers"),
        (("train", "--output=o.json"), "that ends in .npz"),
        (("evaluate", "--output=o.json", "--model=small", "--methods=x"), "choose from blsh, lsh"),
        (("train", "--output=o.npz", "--recipe=general", "--num_mixtures=0"), "give num_mixtures"),
        (("train", "--output=o.npz", "--recipe=general", "--noise_folds=1"), "noise_folds is 1"),
        (
            ("evaluate", "--output=o.json", "--model=small", "--report=/dev/null/y.html"),
            "/dev/null",
        ),
        (
            ("audio_examples", "--output=o.json", "--folder=o", "--num_bits=8"),
            "--blsh_bits=25: --num_bits=8 are fit",
        ),
    ],
)
def test_wrong_flags_are_named_before_any_work(arguments, message, tmp_path, capsys):
    code = launching.run(*arguments, f"--speech={tmp_path}", f"--noise={tmp_path}")
    assert code is not None
    assert message in f"{code} {capsys.readouterr().err}"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("bench_train", ("curve_frames", "scale_plans")),
        ("bench_recipe", ("scales",)),
        ("train", ("recipe", "num_bits", "sigma2", "seed", "num_mixtures", "levels", "plan")),
        ("unseen", ("recipe", "lengths", "num_groups")),
        ("rotation", ("recipe", "open_speech", "snrs", "tools")),
        ("evaluate", ("model", "methods", "num_bits")),
        ("adaptation", ("model", "open_speech", "snrs")),
        *(
            (name, ("open_speech", "protocol", "cache", "max_mixtures", "sigma2"))
            for name in TABLES
        ),
    ],
)
def test_every_launch_has_its_flags(name, wanted):
    with launching.defined(name):
        assert {"output", "speech", "noise", *wanted} <= set(flags.FLAGS)


def test_help_names_what_the_general_recipe_has_instead():
    with launching.defined("train"):
        said = flags.FLAGS["separation.num_neighbors"].help
    assert said == "K, the neighbours whose masks are averaged. --recipe=general has 40."


@pytest.mark.parametrize(
    "given",
    [
        ("--fit.num_bits=8", "--separation.features.kind=mel", "--fit.target=cosine"),
        ("--num_bits=8", "--features=mel", "--target=cosine"),
        ("--num-bits", "8", "--features=mel", "--fit.target", "cosine"),
    ],
)
def test_settings_are_given_by_their_whole_or_their_short_names(given, tmp_path):
    found = []
    with launching.defined("train") as module:
        paths = (f"--speech={tmp_path}", f"--noise={tmp_path}", f"--output={tmp_path}/m.npz")
        launch.start(
            lambda: None,
            lambda: found.append(launch.train_config()),
            ("--recipe=general", *paths, *given),
        )
        assert module.main
    (config,) = found
    assert (config.fit.num_bits, config.fit.target) == (8, "cosine")
    assert config.separation.features.kind == "mel"
    assert config.separation.num_neighbors == 40


def test_help_is_grouped_by_configuration_and_ends_well(capsys):
    assert launching.run("train", "--help") is None
    said = capsys.readouterr().out
    assert said.startswith("Train a BLSH model")
    assert said.index("--speech") < said.index("\nFitConfig: ") < said.index("--fit.num_bits")
    assert "--fit.mode=fast|published (default: fast)" in said and "\n  --num_bits" not in said


def test_training_writes_a_model_and_its_course(synthetic, tmp_path):
    for kind, loaded in zip(("speech", "noise"), synthetic, strict=True):
        for signal, recording in zip(loaded.signals[:2], loaded.recordings[:2], strict=True):
            audio.write(tmp_path / kind / f"{recording.key}.wav", signal, 16_000)
    output = tmp_path / "model.npz"
    arguments = ["train", *(f"--{kind}={tmp_path / kind}" for kind in ("speech", "noise"))]
    arguments += ["--num_bits=3", "--block_size=100", "--fast_steps=5", "--fast_candidates=2"]
    arguments += ["--dictionary_fraction=0.5", "--nokeep_frames", f"--output={output}"]
    assert launching.run(*arguments) is None
    trained = models.load(output)
    assert trained.hasher.num_bits == 3 and trained.frames is None
    assert len(json.loads(output.with_suffix(".json").read_text())["results"]["objective"]) == 3
    lines = [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]
    assert len(lines) >= 4
    assert not output.with_suffix(".checkpoint.npz").exists()
