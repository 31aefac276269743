"""The Hugging Face Trainer on a stream that a mixer steers towards a target.

    python examples/steer_huggingface.py CORPUS --target recipes --steps 200 --out steered-run
    python examples/steer_huggingface.py CORPUS --target recipes --steps 200 --out steered-run --resume

The Trainer with its loader is the one of huggingface_trainer.py; only the steering is new.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_trainer import StreamTrainer, is_finished, tiny_llama
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from pipeline import open_corpus
from trainer import CausalLM, Steering, SteeringConfig, TokenLoss
from trainer.callbacks_huggingface import SteeringCallback


def main(arguments: Sequence[str] | None = None) -> Trainer:
    """Train; returns the Trainer, whose `train_dataset` is the stream."""
    options = parse_options(arguments)
    training = TrainingArguments(
        output_dir=str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        save_steps=options.save_every,
        logging_steps=options.save_every,
        ignore_data_skip=True,  # the stream resumes by its state: nothing to skip
        report_to="none",
    )
    corpus = open_corpus(options.corpus)
    model = tiny_llama(corpus.vocab_size, corpus.tokens_per_sample)
    steering = Steering(
        corpus,
        SteeringConfig(
            num_steps=options.steps * options.accumulate,
            batch_size=training.per_device_train_batch_size * training.world_size,
            target=options.target,
            mixer=options.mixer,
        ),
        TokenLoss(CausalLM(model), pad_id=corpus.pad_id, compute_dtype=torch.float32),
    )
    trainer = StreamTrainer(
        model=model,
        args=training,
        train_dataset=steering.stream,
        callbacks=[SteeringCallback(steering)],
    )
    checkpoint = get_last_checkpoint(training.output_dir) if options.resume else None
    if not is_finished(checkpoint, options.steps):
        trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="a folder, or an address such as s3://bucket/prefix")
    parser.add_argument("--target", required=True, help="a target set of the corpus")
    parser.add_argument("--mixer", default="dga-paced", help="as `braidstream train --help` lists")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--accumulate", type=int, default=1, help="batches per optimizer step")
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
