import warnings

import jax
import jax.numpy as jnp
import mir_eval
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from blsh_jax.evaluation import metrics
from blsh_jax.evaluation.metrics import bss_eval, si_sdr

SAMPLES = 9000


def signals(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def oracle(reference, estimate):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mir_eval.separation.bss_eval_sources(reference, estimate, False)[:3]


def voice(seed, samples):
    """Coloured noise with a slow envelope, as ill-conditioned as speech."""
    smooth = np.convolve(signals(seed, samples + 99), np.hanning(100), "valid")
    envelope = 1.1 + np.sin(2 * np.pi * np.arange(samples) / 4000)
    return smooth * envelope + 1e-3 * signals(seed + 1, samples)


def separated(speech, noise, error_db, seed=0):
    """References, and estimates of a denoiser that leaves noise and artifacts at -error_db."""
    noise = noise * np.linalg.norm(speech) / np.linalg.norm(noise)
    artifacts = signals(seed, len(speech)) * np.std(speech)
    estimate = speech + 10 ** (-error_db / 20) * (0.5 * noise + 0.5 * artifacts)
    return np.stack([speech, noise]), np.stack([estimate, speech + noise - estimate])


def orthogonal(count, taps=512):
    """Sources whose delayed copies are orthogonal: pulses more than ``taps`` samples apart."""
    pulses = np.zeros((count, 4 * taps * count))
    pulses[np.arange(count), 2 * taps * np.arange(count)] = 1
    return pulses


@pytest.mark.parametrize(("interference", "artifacts"), [(10.0, 1.0), (1e-2, 1.0), (1e-4, 1e-3)])
def test_orthogonal_signals_give_the_scores_of_their_gains(interference, artifacts):
    first, second, third = orthogonal(3)
    reference = np.stack([first, second])
    estimate = np.stack([2 * first + interference * second + artifacts * third, 3 * second])
    scores = bss_eval(reference, estimate)
    power = interference**2
    sdr = 10 * np.log10(4 / (power + artifacts**2))
    np.testing.assert_allclose(scores.sdr[0], sdr, atol=1e-9)
    np.testing.assert_allclose(scores.sir[0], 10 * np.log10(4 / power), atol=1e-9)
    np.testing.assert_allclose(scores.sar[0], 10 * np.log10((4 + power) / artifacts**2), atol=1e-9)
    np.testing.assert_array_equal([values[1] for values in scores], np.inf)


def test_a_filter_shorter_than_the_taps_is_forgiven_and_a_longer_one_is_not():
    speech, noise = voice(0, SAMPLES), signals(5, SAMPLES)
    speech[-600:] = 0  # so that the filtered signal ends inside
    reference = np.stack([speech, noise])
    for delay, forgiven in ((511, True), (512, False)):
        filtered = 0.5 * speech + 0.3 * np.roll(speech, delay)
        sdr = bss_eval(reference, np.stack([filtered, noise])).sdr[0]
        assert (sdr > 100) == forgiven
    assert np.all(np.stack(bss_eval(reference, reference)) > 200)


@pytest.mark.parametrize("error_db", [-10, 10, 40, 100])
def test_agrees_with_mir_eval(error_db):
    pair = separated(voice(error_db + 20, SAMPLES), signals(1, SAMPLES), error_db)
    np.testing.assert_allclose(bss_eval(*pair), oracle(*pair), atol=1e-6)


@pytest.mark.parametrize("error_db", [-10, 40])
def test_agrees_with_mir_eval_on_recordings(real_data, error_db):
    speech_file = sorted((real_data / "LibriSpeech").rglob("*.flac"))[error_db % 7]
    noise_file = sorted((real_data / "noise" / "open").glob("*.flac"))[error_db % 11]
    speech, noise = (soundfile.read(f, frames=40_000)[0] for f in (speech_file, noise_file))
    pair = separated(speech, noise, error_db)
    np.testing.assert_allclose(bss_eval(*pair), oracle(*pair), atol=1e-5)


@pytest.mark.parametrize("num_sources", [1, 3])
def test_other_numbers_of_sources_agree_with_mir_eval(num_sources):
    reference = np.stack([voice(10 * j, SAMPLES) for j in range(num_sources)])
    estimate = reference + 0.1 * reference.sum(0) + 0.1 * signals(1, *reference.shape)
    expected = oracle(reference, estimate)
    if num_sources == 1:
        expected = expected[0], [np.inf], expected[2]
    np.testing.assert_allclose(bss_eval(reference, estimate), expected, atol=1e-6)


@pytest.mark.parametrize(("filter_length", "samples"), [(1, 60), (7, 60), (7, 5)])
def test_short_filters_agree_with_least_squares(filter_length, samples):
    reference, estimate = signals(0, 2, samples), signals(1, 2, samples)
    padded = np.pad(estimate, ((0, 0), (0, filter_length - 1)))

    def copies(sources):
        return np.stack(
            [np.pad(s, (d, filter_length - 1 - d)) for s in sources for d in range(filter_length)]
        ).T

    def projection(sources, signal):
        basis = copies(sources)
        return basis @ np.linalg.lstsq(basis, signal, rcond=1e-12)[0]

    decibels = lambda part, rest: 10 * np.log10(np.sum(part**2) / np.sum(rest**2))
    scores = bss_eval(reference, estimate, filter_length=filter_length)
    for j, signal in enumerate(padded):
        own, every = projection(reference[j : j + 1], signal), projection(reference, signal)
        np.testing.assert_allclose(scores.sdr[j], decibels(own, signal - own), atol=1e-8)
        np.testing.assert_allclose(scores.sir[j], decibels(own, every - own), atol=1e-8)
        if 2 * filter_length < samples:
            np.testing.assert_allclose(scores.sar[j], decibels(every, signal - every), atol=1e-8)


def test_one_source_twice_counts_once():
    speech, noise = voice(0, SAMPLES), signals(1, SAMPLES)
    estimate = speech + 0.1 * noise
    once = bss_eval(speech[None], estimate[None])
    twice = bss_eval(np.stack([speech, speech]), np.stack([estimate, estimate]))
    np.testing.assert_allclose(twice.sdr, once.sdr[0], atol=1e-6)
    np.testing.assert_allclose(twice.sar, once.sar[0], atol=1e-6)


def test_batch_of_different_lengths_equals_single_calls():
    lengths = np.array([9000, 700, 8192, 4000, 3])
    reference, estimate = signals(0, 5, 2, 9000), signals(1, 5, 2, 9000)
    estimate += reference
    padding = np.arange(9000) >= lengths[:, None, None]
    spoilt = np.where(padding, np.nan, reference), np.where(padding, np.inf, estimate)
    batch = np.stack(bss_eval(*spoilt, lengths))  # what is padded need not be finite
    assert batch.shape == (3, 5, 2)
    for u, n in enumerate(lengths):
        single = np.stack(bss_eval(reference[u, :, :n], estimate[u, :, :n]))
        np.testing.assert_allclose(batch[:, u], single, atol=1e-6)
    flat = si_sdr(reference[:, 0], estimate[:, 0], lengths)
    for u, n in enumerate(lengths):
        np.testing.assert_allclose(flat[u], si_sdr(reference[u, 0, :n], estimate[u, 0, :n]))
    many = signals(0, metrics._GROUP["cpu"] + 3, 2, 400)  # more than a group
    noisy = many + 0.3 * signals(1, *many.shape)
    batch = np.stack(bss_eval(many, noisy, filter_length=8))
    reverse = np.stack(bss_eval(many[::-1], noisy[::-1], filter_length=8))
    np.testing.assert_allclose(batch, reverse[:, ::-1], atol=1e-9)
    assert len(np.unique(batch)) == batch.size


@settings(max_examples=10, deadline=None)
@given(gains=st.lists(st.floats(-1e6, 1e6).filter(lambda g: abs(g) > 1e-6), min_size=4, max_size=4))
def test_gains_change_no_score(gains):
    reference, estimate = signals(0, 2, 500), signals(1, 2, 500) + signals(0, 2, 500)
    scaled = np.array(gains[:2])[:, None] * reference, np.array(gains[2:])[:, None] * estimate
    expected = bss_eval(reference, estimate, filter_length=4)
    np.testing.assert_allclose(bss_eval(*scaled, filter_length=4), expected, atol=1e-6)
    np.testing.assert_allclose(si_sdr(*scaled), si_sdr(reference, estimate), atol=1e-6)


def test_si_sdr_closed_form_and_no_filter_is_forgiven():
    first, second = orthogonal(2)
    for gain in (1.0, 1e-5):
        expected = 10 * np.log10(9 / gain**2)
        np.testing.assert_allclose(si_sdr(first, 3 * first + gain * second), expected, atol=1e-9)
    speech = voice(0, SAMPLES)
    speech[-1] = 0  # so that the delayed signal is whole
    delayed = np.roll(speech, 1)
    assert si_sdr(speech, delayed) < 40 < bss_eval(speech[None], delayed[None]).sdr[0]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_float_type_of_numpy_and_jax(kind):
    reference, estimate = (signals(seed, 2, 800).astype(kind) for seed in (0, 1))
    scores = bss_eval(reference, estimate)
    assert isinstance(scores, metrics.BssEval)
    assert all(isinstance(v, np.ndarray) and v.dtype == np.float64 for v in scores)
    expected = bss_eval(reference.astype(np.float64), estimate.astype(np.float64))
    np.testing.assert_array_equal(scores, expected)
    assert not jax.config.jax_enable_x64 and jnp.ones(2).dtype == jnp.float32
    if kind != np.float64:
        np.testing.assert_array_equal(bss_eval(jnp.asarray(reference), estimate), expected)


def near(seed=0):
    """Float32 batches of 3 utterances, as a loss sees them."""
    reference = signals(seed, 3, 2, 400)
    estimate = reference + 0.3 * reference[:, ::-1] + 0.3 * signals(seed + 1, 3, 2, 400)
    return reference.astype(np.float32), estimate.astype(np.float32)


def traced_sdr(reference, estimate):
    return bss_eval(reference, estimate, filter_length=8).sdr


@pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="jax 0.7 lowers no scan at compile time")
def test_traced_scores_equal_those_of_arrays():
    reference, estimate = near()
    lengths = np.array([400, 300, 123])
    run = jax.jit(lambda r, e, n: (bss_eval(r, e, n, 8), si_sdr(r[:, 0], e[:, 0], n)))
    scores, flat = run(reference, estimate, lengths)
    # Energies carry a relative rounding of some 1e-5 after sums of 400 products and 8 steps.
    np.testing.assert_allclose(scores, bss_eval(reference, estimate, lengths, 8), atol=1e-3)
    np.testing.assert_allclose(flat, si_sdr(reference[:, 0], estimate[:, 0], lengths), atol=1e-3)
    assert flat.dtype == scores.sdr.dtype == jnp.float32
    mapped = jax.jit(jax.vmap(traced_sdr))(reference, estimate)
    np.testing.assert_allclose(mapped, traced_sdr(reference, estimate), atol=1e-3)
    inside = []  # arrays inside a trace are scored as outside
    jax.jit(lambda x: inside.append(traced_sdr(reference, estimate)) or x)(1)
    np.testing.assert_array_equal(inside[0], traced_sdr(reference, estimate))
    with jax.enable_x64(True):
        wide = jax.jit(traced_sdr)(*(x.astype(np.float64) for x in (reference, estimate)))
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(wide, traced_sdr(reference, estimate), atol=1e-9)


def test_gradients():
    """Of SI-SDR in closed form; a step along that of BSS Eval raises the SDR."""
    reference, estimate = (x[0, 0] for x in near())
    unit = reference / np.linalg.norm(reference)
    rest = estimate - (unit @ estimate) * unit
    expected = 20 / np.log(10) * (unit / (unit @ estimate) - rest / (rest @ rest))
    np.testing.assert_allclose(
        jax.grad(si_sdr, 1)(reference, estimate), expected, atol=1e-4 * np.abs(expected).max()
    )
    reference, estimate = near()
    loss = jax.jit(jax.value_and_grad(lambda e: jnp.sum(traced_sdr(reference, e))))
    before, slope = loss(estimate)
    assert np.all(np.isfinite(slope))
    size = 1e-2 / np.sum(np.square(slope))
    after = np.sum(traced_sdr(reference, estimate + size * slope))
    np.testing.assert_allclose(after - before, 1e-2, rtol=0.2)
    # Nothing of the noise is left to divide by, and the gradient stays finite.
    _, slope = loss(np.stack([reference[:, 0], reference[:, 0]], axis=1) * np.float32(2))
    assert np.all(np.isfinite(slope))


def test_one_compilation_per_padded_shape():
    for compiled in (metrics._correlate, metrics._bss_scores):
        compiled.clear_cache()
    for samples in (5000, 6000, 7000, 9000):
        for count in (2, 3, metrics._GROUP["cpu"] + 2):
            bss_eval(signals(0, count, 2, samples), signals(1, count, 2, samples))
    assert metrics._correlate._cache_size() == 2
    assert metrics._bss_scores._cache_size() == 1
    bss_eval(signals(0, 2, 9000), signals(1, 2, 9000))
    assert metrics._correlate._cache_size() == 3
    assert metrics._bss_scores._cache_size() == 2


def with_value(value, utterance, source):
    reference = signals(0, 3, 2, 50)
    reference[utterance, source] = value
    return reference


@pytest.mark.parametrize(
    ("reference", "estimate", "lengths", "message"),
    [
        (with_value(0, 2, 1), signals(1, 3, 2, 50), None, "reference, utterance 2, source 1.*sil"),
        (signals(1, 3, 2, 50), with_value(0, 1, 0), None, "estimate, utterance 1, source 0.*silen"),
        (signals(1, 3, 2, 50), with_value(np.nan, 0, 1), None, "estimate, ut.* 0, source 1.*finit"),
        (with_value(np.inf, 1, 1), signals(1, 3, 2, 50), None, "reference, ut.* 1, so.* 1.*finite"),
        (signals(0, 2, 50), signals(1, 2, 51), None, r"estimate has shape \(2, 51\)"),
        (signals(0, 50), signals(1, 50), None, r"reference has shape \(50,\)"),
        (signals(0, 2, 0), signals(1, 2, 0), None, "reference is empty"),
        (np.ones((2, 50), int), signals(1, 2, 50), None, "reference has type int64"),
        (signals(0, 2, 50), signals(1, 2, 50), [50], "lengths is only for a batch"),
        (signals(0, 3, 2, 50), signals(1, 3, 2, 50), [50, 50], r"lengths has shape \(2,\)"),
        (signals(0, 3, 2, 50), signals(1, 3, 2, 50), [5.0, 5, 5], "lengths has .* float64"),
        (signals(0, 3, 2, 50), signals(1, 3, 2, 50), [50, 51, 50], "utterance 1 is 51"),
        (signals(0, 3, 2, 50), signals(1, 3, 2, 50), [50, 50, 0], "utterance 2 is 0"),
    ],
)
def test_bad_input(reference, estimate, lengths, message):
    with pytest.raises(ValueError, match=message):
        bss_eval(reference, estimate, lengths)


def test_bad_settings_and_traced_shapes():
    pair, (reference, estimate) = signals(0, 2, 2, 50), near()
    silent = np.stack([pair[0, 0], np.zeros(50)])
    for call, message in (
        (lambda: bss_eval(*pair, filter_length=0), "filter_length is 0"),
        (lambda: si_sdr(pair[None], pair[None]), "reference has shape"),
        (lambda: si_sdr(pair[0], silent), "estimate, utterance 1, source 0, is silent"),
        (lambda: jax.jit(bss_eval)(reference, estimate[..., 1:]), "estimate has shape"),
        (lambda: jax.jit(bss_eval)(reference, estimate, np.array([1, 2])), r"lengths .*\(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
