"""``blsh train``, under the name that it has among the experiments."""

from blsh_jax.commands import launch, train

if __name__ == "__main__":
    launch.run(train._define_flags, train.main)
