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
    speakers: dict[tuple, list[Recording]] = {}
    for recording in sorted(corpus.recordings, key=lambda r: r.key):
        speakers.setdefault((recording.sex, recording.speaker), []).append(recording)
    rng = np.random.default_rng(seed)
    train, closed, opened = [], [], []
    for sex in ("F", "M"):
        known = sorted(name for name in speakers if name[0] == sex and name[1] is not None)
        known = [known[i] for i in rng.permutation(len(known))]
        able = [name for name in known if len(speakers[name]) > _CLOSED_UTTERANCES]
        chosen = able[: num_train // 2]
        others = [name for name in known if name not in chosen][: num_test // 2]
        if len(chosen) < num_train // 2 or len(others) < num_test // 2:
            raise ValueError(
                f"the corpus has {len(known)} speakers of sex {sex}, {len(able)} of them with more "
                f"than {_CLOSED_UTTERANCES} utterances; the split needs {num_train // 2} such for "
                f"training and {num_test // 2} others: ask for fewer speakers (num_train, num_test)"
            )
        for speaker in chosen:
            closed += speakers[speaker][:_CLOSED_UTTERANCES]
            train += speakers[speaker][_CLOSED_UTTERANCES:]
        opened += [recording for speaker in others for recording in speakers[speaker]]
    parts = (sorted(part, key=lambda r: r.key) for part in (train, closed, opened))
    return tuple(corpus.subset(part) for part in parts)  # type: ignore[return-value]
