"""What the paper and its web page state, for tables that set ours beside it.

Sources: [ICASSP20] table 1 and section 4.1; the authors' page, "Learning to Hash for Source
Separation".
"""

from typing import NamedTuple


class Scores(NamedTuple):
    """Means over a test set, in dB."""

    sdr: float
    sar: float
    sir: float


# Method, by the name that our records have for it, to its scores by test set. Codes have 150 bits,
# the dictionary 10 % of the frames, targets are cosines, mixtures are at 0 dB.
TABLE1 = {
    "irm": {"closed": Scores(15.79, 17.19, 25.22), "open": Scores(21.92, 23.13, 28.48)},
    "knn": {"closed": Scores(10.72, 11.76, 18.77), "open": Scores(9.66, 12.11, 16.81)},
    "lsh": {"closed": Scores(9.69, 11.14, 16.60), "open": Scores(8.75, 11.31, 15.02)},
    "blsh": {"closed": Scores(10.20, 11.57, 17.22), "open": Scores(10.04, 12.12, 18.20)},
    "fc": {"closed": Scores(12.17, 13.39, 19.37), "open": Scores(12.04, 13.67, 21.22)},
    "blstm": {"closed": Scores(13.37, 14.79, 19.68), "open": Scores(12.65, 14.31, 21.77)},
}
TABLE1_BITS = 150
# Layers and units of the networks.
NETWORKS = {"fc": (3, 1024), "blstm": (2, 1024)}
NUM_BINS, NUM_NEIGHBORS = 513, 10
# 10 % of the frames of 10 hours, 62.5 a second.
DICTIONARY_FRAMES = 225_000

# SDR in dB of one mixture on the page, and the bits of its codes.
AUDIO_EXAMPLES = {"lsh": 8.95, "blsh": 8.33}
AUDIO_BITS = {"lsh": 125, "blsh": 25}
