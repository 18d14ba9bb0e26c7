"""The main job on real recordings, small: skipped, visibly, where there are none."""

import dataclasses

import pytest

from blsh_jax import config, corpora, evaluation, training
from blsh_jax.corpora import audio

pytestmark = pytest.mark.slow
RATE = 16_000


@pytest.fixture(scope="module")
def real_rows(real_data):
    """SDR by (method, bits) on held-back parts, after training on 16 speakers and 4 noises."""
    speech = corpora.load(_first(corpora.list_speech(real_data / "LibriSpeech"), 16), RATE)
    noise = corpora.load(_first(corpora.list_noise(real_data / "noise" / "train"), 4), RATE)
    settings = config.TrainConfig(
        fit=config.FitConfig(num_bits=25, fast_candidates=8, fast_steps=100),
        dictionary_fraction=0.3,
        max_fit_frames=6000,
    )
    mixtures = corpora.make_mixtures(speech, noise, 0.0, 0, "train", settings.held_back)
    model, _ = training.train(mixtures, settings, {})
    held_back = corpora.make_mixtures(
        speech, noise, 0.0, 0, "closed", settings.held_back, max_mixtures=24
    )
    methods = ("noisy", "lsh", "blsh", "knn", "ibm")
    systems = evaluation.make_systems(model, methods, (10, 25))
    rows = evaluation.evaluate(systems, held_back)
    return {(row["method"], row["num_bits"]): row["sdr"] for row in rows}


def _first(corpus: corpora.Corpus, count: int) -> corpora.Corpus:
    return dataclasses.replace(corpus, recordings=corpus.recordings[:count])


def test_learned_codes_beat_random_ones_and_the_oracle_beats_all(real_rows):
    assert abs(real_rows["noisy", None]) < 0.5
    for num_bits in (10, 25):
        assert real_rows["blsh", num_bits] > real_rows["lsh", num_bits]
    assert real_rows["blsh", 25] > real_rows["blsh", 10] > 2.0
    assert real_rows["ibm", None] > real_rows["knn", None] > real_rows["blsh", 25]


def test_every_recording_is_whole_and_half_of_one_is_refused(real_data, tmp_path):
    speech = corpora.list_speech(real_data / "timit")
    assert corpora.load(speech, RATE).skipped == []
    noise = corpora.list_noise(real_data / "noise" / "train")
    for path in (speech.recordings[0].path, noise.recordings[0].path):
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2])
        with pytest.raises(audio.AudioError, match=f"{path.name}: cut short"):
            audio.read(tmp_path / path.name)
