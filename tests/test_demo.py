import json

import pytest
import soundfile

from blsh_jax import config, demo, models

TINY = demo.DemoConfig(
    train=config.TrainConfig(
        fit=config.FitConfig(num_bits=8, block_size=400, fast_steps=30, fast_candidates=4),
        max_fit_frames=1200,
        held_back=0.0,
    ),
    num_bits=(4, 8),
    num_speakers=2,
    num_training=2,
    num_scored=4,
    num_examples=1,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of the demo at a tiny size, and the rows it returned."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, demo.run(folder, seed=3, config=TINY)


def test_the_demo_writes_what_it_says(made):
    folder, rows = made
    record = json.loads((folder / "scores.json").read_text())
    assert record["results"] == rows
    assert record["config"]["seed"] == 3
    assert [row["num_bits"] for row in rows if row["method"] == "blsh"] == [4, 8]
    assert {row["utterances"] for row in rows} == {4}
    assert models.load(folder / "model.npz").hasher.num_bits == 8
    names = {path.name for path in folder.iterdir()}
    sounds = {"noisy", "lsh_8_bits", "blsh_8_bits", "ibm", "clean"}
    pages = {"report.html", "spectrograms.png", "self_similarity.png", "model.npz", "scores.json"}
    assert names == pages | {f"{name}.wav" for name in sounds}
    for name in sounds:
        assert soundfile.info(folder / f"{name}.wav").duration == 2.5


def test_every_system_is_between_the_mixture_and_the_oracle(made):
    sdr = {(row["method"], row["num_bits"]): row["sdr"] for row in made[1]}
    for system, value in sdr.items():
        if system[0] in ("lsh", "blsh", "knn"):
            assert sdr["noisy", None] < value < sdr["ibm", None]


def test_held_back_utterances_are_not_trained_on():
    learned, held_back = demo._make_mixtures(TINY, 0)
    first, second = ({m.speech_key for m in mixtures} for mixtures in (learned, held_back))
    assert len(first) == 4 and len(second) == 2
    assert not first & second
    assert {key.partition("/")[0] for key in second} == {key.partition("/")[0] for key in first}
