from pathlib import Path

from blsh_jax import info, model

CARD = Path(__file__).parents[1] / "docs" / "model_card.md"


def test_the_card_describes_the_model_in_the_package():
    shipped = model.load_shipped()
    sizes, cost = info.model_bytes(shipped), info.cost(shipped)
    expected = {
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
    text = CARD.read_text()
    for name, value in expected.items():
        assert f"| {name} | {value:,} |" in text
    for corpus in ("speech", "noise"):
        assert shipped.provenance[corpus]["licence"] in text
    seen, speech = shipped.provenance["training_frames_seen"], shipped.provenance["speech"]
    assert f"{seen:,} frames" in text
    assert f"{speech['recordings']} utterances" in text
