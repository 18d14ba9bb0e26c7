"""A strict JAX session, a compilation cache, and the recordings if they are at hand."""

import contextlib
import os
import pickle
import signal
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Compiled programs are kept between runs, and shared with the processes that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache/jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Threads of OpenBLAS spin while they wait: beside other processes an eigenvector takes up to a
# hundred times as long with two of them as with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["BLSH_NATIVE"] = "0"  # whatever this user has built; the fixture `path` has its own

import jax
import pytest
from filelock import FileLock

# Programs that tests start end by signals, also where this one ignores them, in the background.
for ending in {"SIGINT", "SIGHUP"} & set(dir(signal)):
    if signal.getsignal(getattr(signal, ending)) == signal.SIG_IGN:
        signal.signal(getattr(signal, ending), signal.SIG_DFL)

if not hasattr(jax, "enable_x64"):  # jax 0.7
    jax.enable_x64 = jax.experimental.enable_x64
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)

_REAL_DATA = Path(os.environ.get("BLSH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings (LibriSpeech, timit, noise), or a visible skip."""
    if not (_REAL_DATA / "LibriSpeech").is_dir():
        pytest.skip(f"no recordings at {_REAL_DATA} (set BLSH_REAL_DATA)")
    return _REAL_DATA


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Forget what a file compiled: thousands of programs take gigabytes, and slow what follows."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def natively(tmp_path_factory):
    """What searches take the native kernel inside of, or a skip where there is no compiler."""
    from blsh_jax.search import native

    folder = tmp_path_factory.mktemp("native")

    @contextlib.contextmanager
    def inside():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BLSH_NATIVE", str(folder))
            jax.clear_caches()
            yield folder
        jax.clear_caches()

    with inside():
        try:
            native.build()
        except RuntimeError as error:
            pytest.skip(str(error))
    return inside


@pytest.fixture(params=["XLA", "native"])
def path(request):
    """Both paths of the Hamming search, one after the other."""
    with contextlib.ExitStack() as stack:
        if request.param == "native":
            stack.enter_context(request.getfixturevalue("natively")())
        yield request.param


@pytest.fixture(scope="session", autouse=True)
def short_synthetic_noises():
    """Few synthetic noises for augmentation, of the length that others are made in, too."""
    from blsh_jax.robust import synthetic_noise

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_SECONDS": 4.0, "_OF_A_KIND": 1, "_NUM_TENS": 2}.items():
            patch.setattr(synthetic_noise, name, value)
        yield


@pytest.fixture(scope="session")
def synthetic():
    """Speech of four synthetic speakers and the ten synthetic noises."""
    from blsh_jax import corpora

    speech = corpora.synthetic_speech(jax.random.key(0), 4, 3, seconds=2.0)
    return speech, corpora.synthetic_noise(jax.random.key(1), seconds=4.0)


@pytest.fixture(scope="session")
def trained(synthetic, tmp_path_factory):
    """A model of 50 bits on the synthetic corpus, and how its training went.

    Of several processes of tests the first that asks trains it, the others read it.
    """
    from blsh_jax import config, corpora, training

    def make():
        settings = config.TrainConfig(
            fit=config.FitConfig(num_bits=50, block_size=500, fast_steps=100, fast_candidates=16),
            dictionary_fraction=0.5,
            max_fit_frames=3000,
        )
        mixtures = corpora.make_mixtures(*synthetic, 0.0, 0, "train", settings.held_back)
        return training.train(mixtures, settings, {"speech": {"layout": "synthetic"}})

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make()
    path = tmp_path_factory.getbasetemp().parent / "trained.pickle"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            path.write_bytes(pickle.dumps(make()))
    return pickle.loads(path.read_bytes())


@pytest.fixture(scope="session")
def model_file(trained, tmp_path_factory):
    """The trained model as a file."""
    from blsh_jax import models

    path = tmp_path_factory.mktemp("model") / "model.npz"
    models.save(trained[0], path)
    return path
