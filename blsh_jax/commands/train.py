"""Train a BLSH model on recordings.

    blsh train --speech DIR --noise DIR --output model.npz

Mixes every utterance with every noise, draws the dictionary from the mixtures' frames, learns the
projections on them, and writes one model file. The last part of every utterance (--held_back) is
left for the closed test set of blsh evaluate. The course of training is recorded beside the
model, as MODEL.json, and bit by bit in MODEL.jsonl. After every bit MODEL.checkpoint.npz is kept:
the same command goes on from it after an interruption, and it is removed at the end. Ctrl-C leaves
a model of the bits so far.

--recipe=general starts from the settings of the pretrained models instead of the paper's: augmented
mixtures, levels above the noise floor and voicing beside the spectra, bits boosted on the likeness
of speech and of noise and then fine-tuned together, masks joined by speech presence.

100,000 dictionary frames and 150 bits take about five minutes on two cores with the paper's recipe.
The other one, at the size of the pretrained models, takes about half an hour.
"""

from pathlib import Path
from typing import Any

from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, models, training
from blsh_jax.commands import launch
from blsh_jax.evaluation import records
from blsh_jax.robust.augmentation import training_mixtures
from blsh_jax.training import plans


def _define_flags() -> None:
    launch.define_corpora()
    launch.define_output("Model file to write (.npz).", ".npz")
    launch.define_train_config()
    flags.DEFINE_bool("keep_frames", True, "Keep the dictionary's frames, for LSH and KNN.")
    flags.DEFINE_string("speech_licence", None, "Licence of the speech, if its layout says none.")
    flags.DEFINE_string("noise_licence", None, "Licence of the noise, if its layout says none.")
    flags.DEFINE_enum(
        "plan", None, list(plans.PLANS), "Memory plan; the fastest that fits if not given."
    )
    flags.DEFINE_integer("num_devices", 1, "Devices that the blocks of frames are sharded over.")


def main() -> None:
    """Flags, configuration, library, record."""
    values, config = flags.FLAGS, launch.train_config()
    output, mesh = Path(values.output), training.training_mesh(values.num_devices)
    if config.fit.blocks_per_step % mesh.size:
        raise ValueError(
            f"--blocks_per_step={config.fit.blocks_per_step}: give a multiple of --num_devices="
            f"{mesh.size}"
        )
    sources = {name: launch.corpus(name) for name in ("speech", "noise")}
    rate = config.separation.stft.sample_rate
    speech, noise = (launch.load(source, rate) for source in sources.values())
    mixtures = training_mixtures(speech, noise, config)
    corpora.report(mixtures)
    environment = records.environment()
    provenance = {
        "speech": _source(sources["speech"], values.speech_licence),
        "noise": _source(sources["noise"], values.noise_licence),
        "environment": environment,
    }
    checkpoint = output.with_suffix(".checkpoint.npz")
    options: dict[str, Any] = {
        "plan": values.plan,
        "mesh": mesh,
        "checkpoint": checkpoint,
        "log": output.with_suffix(".jsonl"),
    }
    trained, info = training.train(mixtures, config, provenance, progress=True, **options)
    models.save(trained if values.keep_frames else trained.without_frames(), output)
    record = {
        "results": info.to_dict(),
        "config": configs.to_dict(config),
        "provenance": trained.provenance,
        "environment": environment,
    }
    records.write_json(output.with_suffix(".json"), record)
    if trained.hasher.num_bits == config.fit.num_bits:
        checkpoint.unlink(missing_ok=True)
    print(
        f"wrote {output}: {trained.hasher.num_bits} bits, "
        f"{trained.dictionary.num_frames} dictionary frames"
    )


def _source(corpus: corpora.Corpus, licence: str | None) -> dict:
    return {
        "layout": corpus.layout,
        "licence": licence or corpus.licence,
        "recordings": len(corpus.recordings),
    }
