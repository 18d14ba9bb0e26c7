"""Other training material, and dictionaries of many frames."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_models import SMALL_GENERAL

from blsh_jax import codes, corpora
from blsh_jax.separation import Dictionary
from experiments import dictionaries, materials, validation

SMALL = dataclasses.replace(
    SMALL_GENERAL,
    max_fit_frames=200,  # fewer than are drawn, so that every model has the same shapes
    max_dictionary_frames=200,
)
RATE = 16_000


@pytest.fixture(scope="module")
def group(synthetic):
    return validation.left_out_in_turn(*synthetic, num_groups=2, num_mixtures=3)[0]


def test_a_room_is_a_click_and_echoes_that_die_away():
    responses = [materials.room_response(RATE, np.random.default_rng(seed)) for seed in range(40)]
    for response in responses:
        assert response[0] == 1
        assert 0.2 * RATE - 1 <= len(response) <= 0.8 * RATE + 1
        energy = np.square(response[1:])
        direct_db = -10 * np.log10(energy.sum())
        assert -3 <= direct_db <= 9
        # 60 dB in its length: 30 dB from the first quarter's middle to the third's.
        first, third = (part.mean() for part in np.array_split(energy, 4)[0:3:2])
        assert 10 * np.log10(first / third) == pytest.approx(30, abs=2)
    assert len({len(response) for response in responses}) > 30


def test_mixtures_in_rooms_keep_their_ratio_and_noise(group):
    dry = corpora.training_mixtures(group.speech, group.noise, SMALL)
    rooms = materials.InRooms(dry, 0.5, RATE)
    assert len(rooms) == len(dry)
    changed = 0
    for plain, heard in zip(dry, rooms, strict=True):
        assert heard.key == plain.key and heard.speech.dtype == np.float32
        ratio = 10 * np.log10(np.sum(heard.speech**2) / np.sum(heard.noise**2))
        assert ratio == pytest.approx(plain.snr_db, abs=1e-2)
        cosine = np.sum(heard.noise * plain.noise)
        cosine /= np.linalg.norm(heard.noise) * np.linalg.norm(plain.noise)
        assert cosine == pytest.approx(1, abs=1e-5)
        changed += not np.array_equal(heard.speech, plain.speech)
    assert 6 <= changed <= 18
    np.testing.assert_array_equal(rooms[3].speech, rooms[3].speech)


def test_what_goes_through_a_room_is_a_convolution():
    rng = np.random.default_rng(0)
    signal, response = rng.standard_normal(300), rng.standard_normal(40)
    expected = np.convolve(signal, response)[:300]
    np.testing.assert_allclose(materials._heard_through(signal, response), expected, atol=1e-4)


def test_every_material_is_scored_near_the_microphone_and_in_rooms(group, monkeypatch):
    for same_code in ("the recipe", "all of the speech in rooms"):
        monkeypatch.delitem(materials._MATERIALS, same_code)
    rows = materials.materials(group, SMALL, [12])
    assert [row["material"] for row in rows] == list(materials._MATERIALS)
    assert all(np.isfinite([row[score] for score in materials._COLUMNS[2:]]).all() for row in rows)
    assert len({row["sdr"] for row in rows}) == len(rows)  # no two of them do the same


def test_merged_entries_hold_the_majority_of_the_frames_nearest_to_them():
    rng = np.random.default_rng(0)
    bits, speech = rng.random((200, 40)) < 0.5, rng.random((200, 70)) < 0.5
    hasher = codes.Hasher(jnp.ones((40, 3)), jnp.zeros(40), jnp.ones(40))
    packed = codes.pack_bits(jnp.asarray(speech))
    dictionary = Dictionary(hasher, codes.pack_bits(jnp.asarray(bits)), packed, 70)
    found = dictionaries.merged(dictionary, 12)
    distance = (bits[:, None] != bits[None, :12]).sum(axis=-1)
    places = distance.argmin(axis=1)  # the first of equals
    assert (places[:12] == np.arange(12)).all()
    expected = [
        2 * speech[places == entry].sum(axis=0) > (places == entry).sum() for entry in range(12)
    ]
    np.testing.assert_array_equal(codes.unpack_bits(found.masks, 70), expected)
    np.testing.assert_array_equal(found.codes, dictionary.codes[:12])


def test_dictionaries_of_every_size_are_scored(group, monkeypatch):
    monkeypatch.setattr(dictionaries, "_POOL_MIXTURES", 16)
    monkeypatch.setattr(dictionaries, "_SIZES", (20, 700))
    monkeypatch.setattr(dictionaries, "_MERGED_SIZES", (20,))
    rows = dictionaries.dictionaries(group, SMALL, [12])
    assert [row["entries"] for row in rows] == [20, 20, 20, 700, 20]
    assert np.isfinite([[row["sdr"], row["si_sdr"]] for row in rows]).all()
    assert len({row["sdr"] for row in rows}) == len(rows)  # no two of them do the same
    for sizes, message in (((20, 2000), "2000 are needed"), ((700, 700), "700 more are needed")):
        monkeypatch.setattr(dictionaries, "_SIZES", sizes)
        with pytest.raises(ValueError, match=message):
            dictionaries.dictionaries(group, SMALL, [12])
