"""Corpora: recognised by layout, listed with keys that are unique, loaded without silent loss."""

import re

import numpy as np
import pytest
import soundfile

from blsh_jax import corpora

RATE = 16_000


def _put(path, samples=None, rate=RATE, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if samples is None:
        samples = 0.1 * np.random.default_rng(0).standard_normal(rate // 4)
    soundfile.write(path, samples, rate, format=kind)


def _put_sphere(path, samples=4000):
    header = (
        f"NIST_1A\n   1024\nsample_count -i {samples}\nsample_n_bytes -i 2\nchannel_count -i 1\n"
        f"sample_byte_format -s2 01\nsample_rate -i {RATE}\nsample_coding -s3 pcm\nend_head\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).integers(-3000, 3000, samples).astype("<i2")
    path.write_bytes(header.encode().ljust(1024) + data.tobytes())


def _listed(corpus, *fields):
    return [tuple(getattr(r, field) for field in fields) for r in corpus.recordings]


def test_timit_in_any_case_sphere_or_riff(tmp_path):
    _put_sphere(tmp_path / "TRAIN/DR1/FCJF0/SA1.WAV")
    _put_sphere(tmp_path / "TEST/DR2/MABC1/SA1.WAV")
    _put(tmp_path / "train/dr3/faks0/sa1.wav")
    _put(tmp_path / "train/dr3/faks0/SX9.WAV", kind="WAV")
    _put(tmp_path / "TRAIN/DR1/FCJF0/SA1.WAV.wav")
    corpus = corpora.list_speech(tmp_path)
    assert corpus.layout == "timit" and "LDC" in corpus.licence
    assert _listed(corpus, "key", "speaker", "sex") == [
        ("FAKS0/SA1", "FAKS0", "F"),
        ("FAKS0/SX9", "FAKS0", "F"),
        ("FCJF0/SA1", "FCJF0", "F"),
        ("MABC1/SA1", "MABC1", "M"),
    ]
    assert corpus.recordings[2].path.name == "SA1.WAV"
    loaded = corpora.load(corpus, RATE)
    assert len(loaded) == 4 and not loaded.skipped
    assert all(s.dtype == np.float32 and s.shape == (4000,) for s in loaded.signals)
    for below in ("TRAIN", "TRAIN/DR1", "TRAIN/DR1/FCJF0"):
        corpus = corpora.list_speech(tmp_path / below)
        assert corpus.layout == "timit" and "FCJF0/SA1" in {r.key for r in corpus.recordings}


def test_librispeech_from_its_root_above_and_below_with_its_table_or_without(tmp_path):
    root = tmp_path / "LibriSpeech"
    for name in ("103/1240/103-1240-0000", "103/1241/103-1241-0003", "1034/1/1034-1-0001"):
        _put(root / f"train-clean-100/{name}.flac")
    text = "; a comment | M\n103 | F | train-clean-100 | 25.0 | A\n1034|M|train-clean-100|1|B\n"
    (root / "SPEAKERS.TXT").write_text(text)
    for given in ("", "LibriSpeech", "LibriSpeech/train-clean-100"):
        corpus = corpora.list_speech(tmp_path / given)
        assert (corpus.layout, corpus.licence) == ("librispeech", "CC BY 4.0")
        assert _listed(corpus, "key", "speaker", "sex") == [
            ("103-1240-0000", "103", "F"),
            ("103-1241-0003", "103", "F"),
            ("1034-1-0001", "1034", "M"),
        ]
    (root / "SPEAKERS.TXT").unlink()
    corpus = corpora.list_speech(tmp_path)
    assert corpus.layout == "librispeech" and {r.sex for r in corpus.recordings} == {None}


def test_any_folder_of_speech_or_noise(tmp_path):
    for name in ("a.wav", "a.flac", "ann/one.wav", "bob/one.wav"):
        _put(tmp_path / name)
    speech, noise = corpora.list_speech(tmp_path), corpora.list_noise(tmp_path)
    assert (speech.layout, speech.licence, noise.layout) == ("folder", None, "folder")
    keys = ["a.flac", "a.wav", "ann/one", "bob/one"]
    assert _listed(speech, "key", "speaker") == [
        *zip(keys, (None, None, "ann", "bob"), strict=True)
    ]
    assert _listed(noise, "key", "name") == [*zip(keys, ("a", "a", "one", "one"), strict=True)]


def test_duan_by_its_names_each_of_one_noise(tmp_path):
    names = "birds casino cicadas computerkeyboard eatingchips frogs jungle machineguns motorcycles"
    for name in (*names.split(), "Ocean"):
        _put(tmp_path / "duan" / f"{name}.wav")
    corpus = corpora.list_noise(tmp_path / "duan")
    assert (corpus.layout, corpus.licence) == ("duan", None)
    assert [r.name for r in corpus.recordings] == sorted([*names.split(), "ocean"])
    for name in ("ocean_1", "ocean_2", "birds"):
        _put(tmp_path / "other" / f"{name}.wav")
    corpus = corpora.list_noise(tmp_path / "other")
    assert corpus.layout != "duan" and len(corpus.recordings) == 3


def test_demand_gives_its_first_channel_only(tmp_path):
    for place in ("DKITCHEN", "TMETRO"):
        for channel in (1, 2, 16):
            _put(tmp_path / place / f"ch{channel:02d}.wav")
    corpus = corpora.list_noise(tmp_path)
    assert corpus.layout == "demand" and "CC BY-SA" in corpus.licence
    found = [(r.key, r.path.name) for r in corpus.recordings]
    assert found == [("DKITCHEN", "ch01.wav"), ("TMETRO", "ch01.wav")]


@pytest.mark.parametrize("listing", [corpora.list_speech, corpora.list_noise])
def test_missing_and_empty_folders_are_named(tmp_path, listing):
    with pytest.raises(ValueError, match="nowhere: no such folder; give"):
        listing(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ": no audio in it .* give"):
        listing(tmp_path)


def test_unusable_files_are_skipped_by_name_and_reported_once(tmp_path, capsys):
    _put(tmp_path / "good.wav", rate=8_000)
    _put(tmp_path / "short.wav", np.ones(100))
    _put(tmp_path / "silent.wav", np.zeros(RATE))
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "zero.wav").touch()
    loaded = corpora.load(corpora.list_speech(tmp_path), RATE)
    assert [r.key for r in loaded.recordings] == ["good"]
    assert loaded.signals[0].shape == (4_000,)
    reasons = {path.rsplit("/", 1)[1]: reason for path, reason in loaded.skipped}
    assert set(reasons) == {"short.wav", "silent.wav", "nan.wav", "text.wav", "zero.wav"}
    assert "too short" in reasons["short.wav"] and reasons["silent.wav"] == "silent"
    assert "NaN" in reasons["nan.wav"] and "empty" in reasons["zero.wav"]
    assert not any("wav" in reason for reason in reasons.values())
    corpora.report(loaded)
    printed = capsys.readouterr().err
    assert "left out 5" in printed and all(name in printed for name in reasons)
    corpora.report(corpora.Loaded([], ()))
    assert capsys.readouterr().err == ""
    corpora.report(corpora.Loaded([], (), [(f"{i}.wav", "silent") for i in range(40)]))
    assert "and 35 more" in capsys.readouterr().err
    (tmp_path / "good.wav").unlink()
    with pytest.raises(ValueError, match=r"none of the 5 recordings.*nan\.wav: holds"):
        corpora.load(corpora.list_speech(tmp_path), RATE)


def _people(women, men, utterances=4, first=0):
    recordings = [
        corpora.Recording(f"{sex}{person}/U{utterance}", None, f"{sex}{person}", sex)
        for sex, count in (("F", women), ("M", men))
        for person in range(first, first + count)
        for utterance in range(utterances)
    ]
    return corpora.Corpus("folder", None, tuple(recordings))


def _sexes(corpus):
    speakers = {(r.speaker, r.sex) for r in corpus.recordings}
    return [sum(sex == s for _, s in speakers) for sex in "FM"]


def test_paper_split_is_balanced_disjoint_and_seeded():
    corpus = _people(9, 20)
    train, closed, opened = corpora.paper_split(corpus, 3, num_train=10, num_test=6)
    assert _sexes(train) == _sexes(closed) == [5, 5] and _sexes(opened) == [3, 3]
    assert {r.speaker for r in train.recordings} == {r.speaker for r in closed.recordings}
    assert not {r.speaker for r in train.recordings} & {r.speaker for r in opened.recordings}
    assert {r.key.split("/")[1] for r in closed.recordings} == {"U0", "U1"}
    assert {r.key.split("/")[1] for r in train.recordings} == {"U2", "U3"}
    assert (len(train), len(closed), len(opened)) == (20, 20, 24)
    backwards = corpus.subset(reversed(corpus.recordings))
    assert corpora.paper_split(corpus, 1, 6, 4) == corpora.paper_split(backwards, 1, 6, 4)
    assert corpora.paper_split(corpus, 1, 6, 4) != corpora.paper_split(corpus, 2, 6, 4)
    few = _people(4, 0, utterances=2, first=50)  # too few to train on
    corpus = few.subset(few.recordings + _people(2, 2).recordings)
    train, _, opened = corpora.paper_split(corpus, 0, num_train=4, num_test=0)
    assert {r.speaker for r in train.recordings} == {"F0", "F1", "M0", "M1"} and len(opened) == 0


def test_paper_split_says_what_is_missing():
    with pytest.raises(ValueError, match=r"3 speakers of sex F.*fewer"):
        corpora.paper_split(_people(3, 50), 0, num_train=6, num_test=2)
    with pytest.raises(ValueError, match="even"):
        corpora.paper_split(_people(3, 3), 0, num_train=3, num_test=2)
    unknown = corpora.Corpus("folder", None, (corpora.Recording("a"),))
    with pytest.raises(ValueError, match="0 speakers of sex F"):
        corpora.paper_split(unknown, 0, 2, 0)


def test_the_real_recordings(real_data):
    speech = corpora.list_speech(real_data / "LibriSpeech")
    assert speech.layout == "librispeech" and _sexes(speech) == [80, 80] and len(speech) == 160
    timit = corpora.list_speech(real_data / "timit")
    assert timit.layout == "timit" and _sexes(timit) == [8, 8]
    assert len({r.key for r in timit.recordings}) == len(timit) == 160
    assert len(corpora.list_noise(real_data / "noise" / "train")) == 10
    assert len(corpora.list_noise(real_data / "noise" / "open")) == 12
    loaded = corpora.load(timit, RATE)
    assert len(loaded) == 160 and not loaded.skipped
