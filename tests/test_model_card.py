import dataclasses
from pathlib import Path

from blsh_jax import info, model
from blsh_jax.config import RECIPES

CARD = Path(__file__).parents[1] / "docs" / "model_card.md"


def _facts(shipped):
    sizes, cost = info.model_bytes(shipped), info.cost(shipped)
    return {
        "bits of a code": shipped.hasher.num_bits,
        "dictionary frames": shipped.dictionary.num_frames,
        "bytes of the projections": sizes["projections"],
        "bytes of the codes": sizes["codes"],
        "bytes of the masks": sizes["masks"],
        "multiplications and additions per frame, projection": cost.projection,
        "XORs and popcounts of 32-bit words per frame, search": cost.search,
        "floating-point operations per frame, transform and features": cost.transform
        + cost.features,
    }


def test_the_card_describes_the_models_in_the_package():
    default, small = (model.load_shipped(name) for name in ("default", "small"))
    assert model.shipped_names() == ["default", "small"]
    text, smaller = CARD.read_text(), _facts(small)
    for name, value in _facts(default).items():
        assert f"| {name} | {value:,} | {smaller[name]:,} |" in text
    for shipped in (default, small):
        for corpus in ("speech", "noise"):
            assert shipped.provenance[corpus]["licence"] in text
            assert f"{shipped.provenance[corpus]['recordings']} " in text
        assert f"{shipped.provenance['training_frames_seen']:,} frames" in text
    assert f"{default.config.variety.num_mixtures:,} random mixtures" in text
    assert "--recipe=general --held_back=0 " in text
    recipe = dataclasses.replace(RECIPES["general"], held_back=0.0)
    assert default.config == recipe
    kept = small.config.max_dictionary_frames
    assert small.config == dataclasses.replace(
        recipe, fit=small.config.fit, max_dictionary_frames=kept
    )
    assert f"--num_bits={small.config.fit.num_bits} " in text
    assert f"--max_dictionary_frames={kept} " in text
