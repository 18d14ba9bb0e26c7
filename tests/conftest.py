"""A strict JAX session, a compilation cache, and the recordings if they are at hand."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import pytest

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
