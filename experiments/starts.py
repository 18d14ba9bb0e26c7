"""Where a bit may start from, and what may follow: exact objectives on the same pair weights.

    python -m experiments.starts --model model.npz --output starts.json

Needs a model with its frames (experiments.train). For some bits of the model, the pair weights
that its earlier bits leave are kept fixed, and the best of R candidates is compared: random starts
before and after the fast mode's steps; the leading generalised eigenvectors of the negated pair
matrix between features, before and after the same steps; and the best candidate of the fast mode
after sign iteration, or one-flip polish, of its code in every block, refitted as a hyperplane.
Half a minute on two cores.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from blsh_jax import config as configs
from blsh_jax import learner, model, records, similarity
from blsh_jax.codes import self_similarity, sign
from blsh_jax.config import FitConfig
from experiments import flags as launch

_COLUMNS = ["bit", "start", "best", "after_steps"]
_FLIPS = 200
_SIGN_ITERATIONS = 20


def _define_flags() -> None:
    flags.DEFINE_string("model", None, "Model file with its frames.", required=True)
    launch.define_output("Record to write (.json).")
    flags.DEFINE_list("bits", ["1", "2", "21", "61"], "Bits to learn again, counted from 1.")
    flags.DEFINE_integer("num_blocks", 12, "Blocks of frames.")


def main(argv: list[str]) -> None:
    """Flags, experiment, record."""
    del argv
    values = flags.FLAGS
    trained = model.load(values.model)
    config = trained.config.fit
    count = values.num_blocks * config.block_size
    frames = trained.spectral_dictionary().frames[:count]
    basis = learner.whitening(frames, config.ridge)
    blocks = frames.reshape(values.num_blocks, config.block_size, -1)
    rows = []
    for bit in map(int, values.bits):
        terms = [_terms(block, trained.hasher, bit - 1, config) for block in blocks]
        constant = float(np.mean([term[0] for term in terms]))
        matrices = jnp.stack([term[1] for term in terms])
        rows += _compare(bit, blocks, matrices, constant, basis, config)
    settings = {"fit": configs.to_dict(config), "num_blocks": values.num_blocks}
    record = records.record(rows, settings)
    records.write_json(values.output, record)
    print(records.table(rows, _COLUMNS))


def _terms(block, hasher, learned: int, config: FitConfig) -> tuple[float, jax.Array]:
    """The constant sum V A and the pair matrix M = V C of one block, after the bits so far."""
    ssm = similarity.self_similarity(block, config.target, config.sigma2)
    constants, slopes = similarity.affine(ssm)
    logits = jnp.zeros_like(ssm)
    if learned:
        betas = hasher.betas[:learned]
        candidates = jnp.concatenate([hasher.projections, hasher.biases[:, None]], axis=1)
        bits = learner.activations(candidates[:learned], block) >= 0
        total = jnp.sum(betas)
        agreement = (2 * self_similarity(bits, betas) - 1) * total
        logits = total * constants + agreement * slopes
    weights = jax.nn.softmax(logits.ravel()).reshape(ssm.shape)
    return float(jnp.sum(weights * constants)), weights * slopes


def _compare(bit, blocks, matrices, constant, basis, config) -> list[dict]:
    features = blocks.shape[-1]
    objective = lambda rows: _objectives(rows @ basis.T, blocks, matrices) + constant
    random = learner.start(jax.random.key(bit), features, config)
    fast = _steps(random.rows, blocks, matrices, basis, config)
    eigen = _eigenvectors(blocks, matrices, basis, config.fast_candidates)
    after = objective(fast)
    best = (fast @ basis.T)[jnp.argmin(after)]
    row = lambda start, before, steps: {
        "bit": bit,
        "start": start,
        "best": float(jnp.min(before)),
        "after_steps": None if steps is None else float(jnp.min(steps)),
    }
    code = sign(jnp.stack([learner.activations(best[None], block)[:, 0] for block in blocks]))
    refit = lambda codes: _objectives(_refit(codes, blocks, config.ridge)[None], blocks, matrices)
    return [
        row("random directions", objective(random.rows), after),
        row("generalised eigenvectors", objective(eigen),
            objective(_steps(eigen, blocks, matrices, basis, config))),
        row("best of fast, refitted", refit(code) + constant, None),
        row("best of fast, sign iteration, refitted",
            refit(jax.vmap(_sign_iteration)(code, matrices)) + constant, None),
        row("best of fast, one-flip polish, refitted",
            refit(jax.vmap(_one_flip)(code, matrices)) + constant, None),
    ]  # fmt: skip


@jax.jit
def _objectives(candidates, blocks, matrices):
    """(R,) quadratic forms, mean over blocks."""
    one = lambda pair: learner.block_gradient(candidates, *pair)[0]
    return jnp.mean(jax.lax.map(one, (blocks, matrices)), axis=0)


@functools.partial(jax.jit, static_argnames="config")
def _steps(rows, blocks, matrices, basis, config):
    """The fast mode's steps from given rows."""
    walk = learner.start(jax.random.key(0), blocks.shape[-1], config)._replace(rows=rows)

    def step(walk, index):
        block = index % blocks.shape[0]
        candidates = learner.hyperplanes(walk, basis)
        gradient = learner.block_gradient(candidates, blocks[block], matrices[block])[1]
        return learner.move(walk, gradient, basis, config), None

    return jax.lax.scan(step, walk, jnp.arange(config.fast_steps))[0].rows


@functools.partial(jax.jit, static_argnames="count")
def _eigenvectors(blocks, matrices, basis, count):
    """Directions of the largest -sum X'MX against the features' covariance, of unit length."""
    extended = jnp.concatenate([blocks, jnp.ones((*blocks.shape[:2], 1), blocks.dtype)], axis=2)
    white = jnp.einsum("gbd,de->gbe", extended, basis)
    form = -jnp.einsum("gbd,gbc,gce->de", white, matrices, white)
    return jnp.linalg.eigh(form)[1][:, ::-1][:, :count].T


def _sign_iteration(code, matrix):
    """Repeats h <- sign(-Mh + lambda h); this lambda keeps the objective from rising."""
    lift = jnp.max(jnp.sum(jnp.abs(matrix), axis=1))
    turn = lambda _, h: sign(-matrix @ h + lift * h)
    return jax.lax.fori_loop(0, _SIGN_ITERATIONS, turn, code)


def _one_flip(code, matrix):
    """The frame whose flip lowers the objective most, again and again."""
    diagonal = jnp.diagonal(matrix)

    def flip(_, h):
        gain = h * (matrix @ h) - diagonal
        worst = jnp.argmax(gain)
        return jnp.where(gain[worst] > 0, h.at[worst].multiply(-1.0), h)

    return jax.lax.fori_loop(0, _FLIPS, flip, code)


def _refit(codes, blocks, ridge: float):
    """The hyperplane nearest to codes in squared error, (D + 1,)."""
    frames = blocks.reshape(-1, blocks.shape[-1])
    center = jnp.mean(frames, axis=0)
    centered = frames - jnp.broadcast_to(center, frames.shape)
    covariance = centered.T @ centered
    floor = ridge * jnp.trace(covariance) / center.size
    target = codes.ravel()
    right = centered.T @ (target - jnp.mean(target))
    projection = jnp.linalg.solve(covariance + floor * jnp.eye(center.size), right)
    return jnp.append(projection, jnp.mean(target) - projection @ center)


if __name__ == "__main__":
    launch.run(_define_flags, main)
