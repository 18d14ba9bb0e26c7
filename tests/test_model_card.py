from pathlib import Path

from blsh_jax import models
from blsh_jax.export import costs

CARD = Path(__file__).parents[1] / "docs" / "model_card.md"


def _facts(pretrained):
    sizes, cost = costs.model_bytes(pretrained), costs.cost(pretrained)
    return {
        "bits of a code": pretrained.hasher.num_bits,
        "dictionary frames": pretrained.dictionary.num_frames,
        "bytes of the projections": sizes["projections"],
        "bytes of the codes": sizes["codes"],
        "bytes of the masks": sizes["masks"],
        "bytes of the ferns": sizes["ferns"],
        "multiplications and additions per frame, projection": cost.projection,
        "XORs and popcounts of 32-bit words per frame, search": cost.search,
        "floating-point operations per frame, transform and features": cost.transform
        + cost.features,
        "operations per frame, masks": cost.masks,
    }


def test_the_card_describes_the_models_in_the_package():
    text = CARD.read_text()
    default, small = (models.load_pretrained(name) for name in ("default", "small"))
    assert models.pretrained_names() == ["default", "small"]
    smaller = _facts(small)
    for name, value in _facts(default).items():
        assert f"| {name} | {value:,} | {smaller[name]:,} |" in text
    for pretrained in (default, small):
        for corpus in ("speech", "noise"):
            assert pretrained.provenance[corpus]["licence"] in " ".join(text.split())
