"""What was tried in place of the recipe's parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import SMALL_GENERAL

from blsh_jax import codes, corpora, spectra, training
from blsh_jax.config import FitConfig
from experiments import alternatives, validation

SMALL = dataclasses.replace(
    SMALL_GENERAL,
    fit=FitConfig(num_bits=16, block_size=100, fast_candidates=2, fast_steps=3),
)


@pytest.fixture(scope="module")
def trained(synthetic):
    """The material of one group, and the recipe's model of it."""
    mixtures = corpora.training_mixtures(*synthetic, SMALL)
    sample = training.sample_frames(mixtures, SMALL)
    model, _ = training.learn(sample, SMALL, {})
    return alternatives._Material(SMALL, mixtures, sample, model.hasher), model


# Learning takes longest, and these run no code that others or ``test_reweighting`` do not.
SAME_CODE = (
    "residuals, likeness of masks",
    "residuals, likeness of frames and of masks",
    "boosted, cosines of frames",
    "boosted, kernel a third as wide",
    "boosted, kernel three times as wide",
    "boosted, frames, nearest pairs first",
    "boosted, likeness of speech and of noise",
    "boosted, likeness of frames and of masks",
    "boosted, likeness of binary masks",
    *(
        f"boosted, {likeness}, {remedy}"
        for likeness in alternatives._SUPERVISED
        for remedy in alternatives._REMEDIES
    ),
)


def test_every_alternative_is_scored(synthetic, monkeypatch):
    for name in SAME_CODE:
        monkeypatch.delitem(alternatives._ALTERNATIVES["bits"], name)
    group = validation.left_out_in_turn(*synthetic, num_groups=2, num_mixtures=2)[0]
    rows = alternatives.alternatives(group, SMALL, [16])
    named = {(row["part"], row["alternative"], row["num_bits"]): row["sdr"] for row in rows}
    parts = alternatives._ALTERNATIVES | {
        "evidence": alternatives._EVIDENCE,
        "attenuation": alternatives._LEAST_GAINS,
    }
    expected = {(part, name, 16) for part, makers in parts.items() for name in makers}
    assert set(named) == expected and len(rows) == len(named)
    assert np.isfinite(list(named.values())).all()
    assert len(set(named.values())) == len(named)  # no two of them do the same


def test_the_recipe_and_its_averages_are_what_the_model_does(trained):
    material, model = trained
    mixture = material.mixtures[0]
    spectrum = spectra.stft(jnp.asarray((mixture.speech + mixture.noise)[None]), SMALL.stft)
    frames = spectra.features(spectrum, SMALL.features, SMALL.stft)[0]
    queries = model.dictionary.encode(frames)
    nearest = np.asarray(model.dictionary.nearest(queries, SMALL.num_neighbors))
    bits = np.unpackbits(material.sample.masks.view(np.uint8), axis=1, bitorder="little")[:, :513]
    expected = bits[nearest].mean(axis=1)
    mask = alternatives._recipe(material, [16])[16](spectrum)[0]
    np.testing.assert_allclose(mask, expected, atol=1e-6)
    smoothed = alternatives._smoothed(material, [16])[16](spectrum)[0]
    np.testing.assert_allclose(smoothed[1:], 0.7 * expected[1:] + 0.3 * expected[:-1], atol=1e-6)
    weighted = alternatives._nearer_counts_more(material, [16])[16](spectrum)[0]
    codes = np.unpackbits(np.asarray(model.dictionary.codes).view(np.uint8), axis=1)
    asked = np.unpackbits(np.asarray(queries).view(np.uint8), axis=1)
    for query, near, found in zip(asked, nearest, np.asarray(weighted), strict=True):
        distance = (codes[near] != query).sum(axis=1)
        weights = np.exp(-2 * np.exp(0.25 - 0.77 * np.log(2)) * (distance - distance.min()))
        np.testing.assert_allclose(found, weights @ bits[near] / weights.sum(), atol=1e-4)


def test_frames_surprise_where_neighbours_of_other_mixtures_are_wrong(trained):
    material, _ = trained
    sample, k = material.sample, SMALL.num_neighbors
    surprise = material.surprise
    codes = np.asarray(material.dictionary(material.hasher).codes)
    bits = np.unpackbits(codes.view(np.uint8), axis=1)
    shares = np.asarray(sample.shares, np.float64)
    parts = shares[:, 0] / np.maximum(shares.sum(axis=1), 1e-30)
    for row in (0, 7, len(codes) - 1):
        order = np.argsort((bits != bits[row]).sum(axis=1), kind="stable")[: 2 * k]
        others = order[sample.mixtures[order] != sample.mixtures[row]][:k]
        mask = parts[others].mean(axis=0) if len(others) else np.zeros(parts.shape[1])
        wrong = (shares[row, 0] * (1 - mask) + shares[row, 1] * mask).sum()
        assert surprise[row] == pytest.approx(wrong, abs=2e-3)
    assert surprise.shape == (len(codes),) and (surprise >= 0).all()


def test_blended_targets_are_alike_by_the_mean_of_both_cosines(trained):
    material, _ = trained
    unit = lambda values: values / np.linalg.norm(values, axis=1, keepdims=True)
    frames = unit(material.fitted.frames - material.fitted.frames.mean(axis=0))[:50]
    mask = unit(alternatives._masks_target(material))[:50]
    blended = unit(alternatives._blended_target(material))[:50]
    expected = (frames @ frames.T + mask @ mask.T) / 2
    np.testing.assert_allclose(blended @ blended.T, expected, atol=1e-5)


def test_targets_of_speech_and_noise_tell_both_spectra_apart(trained):
    material, _ = trained
    shares = np.asarray(material.fitted.shares, np.float64)
    target = alternatives._speech_and_noise_target(material)
    assert target.shape == (len(shares), 2 * shares.shape[-1])
    np.testing.assert_allclose(target.mean(axis=0), 0, atol=1e-5)
    speech, noise = np.split(target - target[:1], 2, axis=1)
    roots = np.sqrt(shares) - np.sqrt(shares[:1])
    np.testing.assert_allclose(speech, roots[:, 0], atol=1e-4)
    np.testing.assert_allclose(noise, roots[:, 1], atol=1e-4)


def test_iterative_quantization_comes_nearer_to_signs_than_its_start(trained):
    material, _ = trained
    frames = np.asarray(material.fitted.frames, np.float64)
    hasher = alternatives._rotated(frames, 8, seed=0)
    centered, rows = frames - frames.mean(axis=0), np.asarray(hasher.projections, np.float64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-4)
    np.testing.assert_allclose(hasher.biases, -rows @ frames.mean(axis=0), atol=1e-4)
    # The rotated axes span the first principal components.
    variance = np.linalg.eigvalsh(np.cov(frames.T))[::-1][:8].sum()
    rotated = centered @ rows.T
    assert rotated.var(axis=0, ddof=1).sum() == pytest.approx(variance, rel=1e-3)
    loss = lambda values: np.square(np.sign(values) - values).sum()
    turned = [
        loss(rotated @ np.linalg.qr(np.random.default_rng(seed).standard_normal((8, 8)))[0])
        for seed in range(20)
    ]
    assert loss(rotated) < min(turned)


def test_pairs_left_out_are_those_of_frames_foretold_worst(trained, monkeypatch):
    material, _ = trained
    learned = {}
    monkeypatch.setattr(
        alternatives._Material,
        "boost",
        lambda self, vectors: learned.update(frames=self.fitted.frames, vectors=vectors),
    )
    monkeypatch.setattr(alternatives, "_by_length", lambda *of: of[1:])
    alternatives._boosted_on_foretold(material, [16])
    half = np.argsort(material.surprise)[: len(material.surprise) // 2]
    expected = {frame.tobytes() for frame in material.sample.frames[half]}
    assert {frame.tobytes() for frame in learned["frames"]} == expected
    assert len(learned["vectors"]) == len(learned["frames"])


def test_binary_masks_say_which_bands_are_speech(trained):
    material, _ = trained
    shares = np.asarray(material.fitted.shares, np.float64)
    target = alternatives._binary_masks_target(material)
    np.testing.assert_allclose(target.mean(axis=0), 0, atol=1e-5)
    louder = shares[:, 0] > shares[:, 1]
    np.testing.assert_array_equal(target > 0, louder & (louder.mean(axis=0) < 1))


def test_balanced_bits_halve_the_frames(trained):
    material, _ = trained
    hasher = alternatives._halving(material)
    bits = codes.unpack_bits(codes.encode(hasher, jnp.asarray(material.fitted.frames)), 16)
    np.testing.assert_allclose(np.asarray(bits).mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_array_equal(hasher.projections, material.hasher.projections)


def test_ratio_masks_are_drawn_with_the_frames_of_their_mixtures(trained):
    material, _ = trained
    everything = dataclasses.replace(SMALL, dictionary_fraction=1.0, lowest_speech_hz=50.0)
    frames, steps = alternatives._draw_ratio_masks(dataclasses.replace(material, config=everything))
    sample = training.sample_frames(material.mixtures, everything)
    assert len(frames) == sample.num_seen and steps.max() == 15 and not steps[:, :4].any()
    bits = np.unpackbits(sample.masks.view(np.uint8), axis=1, bitorder="little")[:, :513]
    # A bin is speech where more than half of its energy is: a ratio mask above sqrt(1/2).
    rows = {row.tobytes(): mask for row, mask in zip(sample.frames, bits, strict=True)}
    agree = [
        np.mean((mask > 15 * np.sqrt(0.5)) == rows[row.tobytes()])
        for row, mask in zip(frames, steps, strict=True)
        if row.tobytes() in rows
    ]
    assert len(agree) > 0.5 * len(frames) and np.mean(agree) > 0.97


def test_jit_of_each_mask_is_one_function_of_the_spectrum(trained):
    material, _ = trained
    mixture = material.mixtures[1]
    spectrum = spectra.stft(jnp.asarray((mixture.speech + mixture.noise)[None]), SMALL.stft)
    for make in (alternatives._groups_of_bands, alternatives._ratio_masks):
        mask = make(material, [16])[16]
        found = jax.jit(mask)(spectrum)
        assert found.shape == spectrum.shape and found.min() >= 0 and found.max() <= 1
        np.testing.assert_allclose(found, mask(spectrum), atol=1e-6)
