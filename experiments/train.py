"""Train a BLSH model on recordings.

    python -m experiments.train --speech DIR --noise DIR --output model.npz

Mixes every utterance with every noise, draws the dictionary from the mixtures' frames, learns the
projections on them, and writes one model file. The last part of every utterance (--held_back) is
left for the closed test set of experiments.evaluate. Prints and records the course of training
beside the model, as MODEL.json.
"""

from pathlib import Path

from absl import app, flags

from blsh_jax import config as configs
from blsh_jax import corpora, model, records, training
from experiments import flags as launch


def _define_flags() -> None:
    launch.define_corpora()
    launch.define_output("Model file to write (.npz).")
    launch.define_train_config()
    flags.DEFINE_bool("keep_frames", True, "Keep the dictionary's frames, for LSH and KNN.")


def main(argv: list[str]) -> None:
    """Flags, configuration, library, record."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    values, config = flags.FLAGS, launch.train_config()
    sources = corpora.list_speech(values.speech), corpora.list_noise(values.noise)
    speech, noise = (corpora.load(source, config.stft.sample_rate) for source in sources)
    mixtures = corpora.make_mixtures(
        speech, noise, config.snr_db, config.seed, part="train", held_back=config.held_back
    )
    for skipped in (speech, noise, mixtures):
        corpora.report(skipped)
    provenance = {"speech": _source(sources[0]), "noise": _source(sources[1])}
    environment = records.environment()
    trained, info = training.train(
        mixtures, config, provenance | {"environment": environment}, progress=True
    )
    model.save(trained if values.keep_frames else trained.without_frames(), values.output)
    record = {
        "results": info.to_dict(),
        "config": configs.to_dict(config),
        "provenance": trained.provenance,
        "environment": environment,
    }
    records.write_json(Path(values.output).with_suffix(".json"), record)
    print(
        f"wrote {values.output}: {trained.hasher.num_bits} bits, "
        f"{trained.dictionary.num_frames} dictionary frames"
    )


def _source(corpus: corpora.Corpus) -> dict:
    return {
        "layout": corpus.layout,
        "licence": corpus.licence,
        "recordings": len(corpus.recordings),
    }


def run() -> None:
    """Entry point."""
    _define_flags()
    app.run(main)


if __name__ == "__main__":
    run()
