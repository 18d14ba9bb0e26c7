"""The paper's split of a speech corpus into training, closed and open sets."""

import numpy as np

from blsh_jax.corpora.recordings import Corpus, Recording

_CLOSED_UTTERANCES = 2


def paper_split(
    corpus: Corpus, seed: int, num_train: int = 160, num_test: int = 110
) -> tuple[Corpus, Corpus, Corpus]:
    """Splits a corpus by speakers, as many women as men on each side.

    Args:
        corpus: speech whose speakers' sex is known.
        seed: chooses the speakers.
        num_train: training speakers; even.
        num_test: other speakers, of the open set; even.

    Returns:
        The training corpus; the closed set, which is the first two utterances (by key) of each
        training speaker, taken out of training; and the open set, every utterance of the other
        speakers.

    Raises:
        ValueError: a number is odd, or there are too few speakers of a sex with the three
            utterances that a training speaker needs.

    Source: [ICASSP20] section 4.1.
    """
    if num_train % 2 or num_test % 2 or num_train < 2 or num_test < 0:
        raise ValueError(f"num_train {num_train} and num_test {num_test}: give even numbers")
    speakers = _by_speaker(corpus)
    rng = np.random.default_rng(seed)
    train, closed, opened = [], [], []
    for sex in ("F", "M"):
        chosen, others = _choose(speakers, sex, num_train // 2, num_test // 2, rng)
        for speaker in chosen:
            closed += speakers[speaker][:_CLOSED_UTTERANCES]
            train += speakers[speaker][_CLOSED_UTTERANCES:]
        opened += [recording for speaker in others for recording in speakers[speaker]]
    parts = (sorted(part, key=lambda r: r.key) for part in (train, closed, opened))
    return tuple(corpus.subset(part) for part in parts)  # type: ignore[return-value]


def _by_speaker(corpus: Corpus) -> dict[str, list[Recording]]:
    speakers: dict[str, list[Recording]] = {}
    for recording in sorted(corpus.recordings, key=lambda r: r.key):
        if recording.speaker is not None and recording.sex is not None:
            speakers.setdefault(recording.speaker, []).append(recording)
    return speakers


def _choose(
    speakers: dict[str, list[Recording]],
    sex: str,
    num_train: int,
    num_test: int,
    rng: np.random.Generator,
) -> tuple[list[str], list[str]]:
    """Training speakers of one sex, and others; those with few utterances are never the former."""
    known = sorted(name for name, rows in speakers.items() if rows[0].sex == sex)
    known = [known[i] for i in rng.permutation(len(known))]
    able = [name for name in known if len(speakers[name]) > _CLOSED_UTTERANCES]
    train = able[:num_train]
    others = [name for name in known if name not in train]
    if len(train) < num_train or len(others) < num_test:
        raise ValueError(
            f"the corpus has {len(known)} speakers of sex {sex}, {len(able)} of them with more "
            f"than {_CLOSED_UTTERANCES} utterances; the split needs {num_train} such for training "
            f"and {num_test} others: ask for fewer speakers (num_train, num_test)"
        )
    return train, others[:num_test]
