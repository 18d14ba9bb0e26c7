"""``blsh evaluate``, under the name that it has among the experiments."""

from blsh_jax.commands import evaluate, launch

if __name__ == "__main__":
    launch.run(evaluate._define_flags, evaluate.main)
