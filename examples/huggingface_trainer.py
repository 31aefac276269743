"""The Hugging Face Trainer on a stream: a mixture that follows a schedule, exact resume.

    python examples/huggingface_trainer.py CORPUS --steps 200 --out trainer-run
    python examples/huggingface_trainer.py CORPUS --steps 400 --out trainer-run --resume

docs/integrations/huggingface.md explains each part.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from pipeline import Batch, Mixture, MixtureStream, open_corpus


class StreamTrainer(Trainer):
    """A Trainer whose `train_dataset` is a MixtureStream.

    The loader is not prepared by accelerate: it would deal the batches out over the ranks, and the stream
    has done so already. The Trainer still moves each batch to its device.
    """

    def get_train_dataloader(self) -> DataLoader:
        """Batches of the stream, as the model takes them."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            batch_size=None,  # the stream makes batches itself
            collate_fn=ModelInputs(pad_id=self.train_dataset.corpus.pad_id),
            num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
            generator=torch.Generator(),  # or it takes a number of the model's, also where a run goes on
        )


class ModelInputs:
    """Batch -> input_ids and labels; a class, since worker processes need to unpickle it."""

    def __init__(self, *, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Int64 tensors (n, tokens_per_sample); padding is -100 in the labels, so no loss counts it."""
        input_ids = torch.from_numpy(batch.tokens.astype(np.int64))
        labels = input_ids.masked_fill(input_ids == self.pad_id, -100)
        return {"input_ids": input_ids, "labels": labels}


class StreamState(TrainerCallback):
    """Keeps the stream's state in every checkpoint folder, beside the model's and the optimizer's."""

    def __init__(self, stream: MixtureStream) -> None:
        self.stream = stream

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Write it; every rank's state is the same, so one rank does."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            (folder / "stream.json").write_text(json.dumps(self.stream.state_dict()))

    def restore(self, checkpoint: str) -> None:
        """Continue the stream where that checkpoint left it."""
        self.stream.load_state_dict(json.loads(Path(checkpoint, "stream.json").read_text()))


class NaturalToUniform(TrainerCallback):
    """Moves the mixture from the natural one to the uniform one over the run, every ten steps."""

    def __init__(self, stream: MixtureStream) -> None:
        self.stream = stream

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Put the next mixture in force."""
        if state.global_step % 10 == 0:
            start, end = Mixture.natural(self.stream.view), Mixture.uniform(self.stream.view)
            self.stream.set_mixture(start.blend(end, state.global_step / state.max_steps))


def main(arguments: Sequence[str] | None = None) -> Trainer:
    """Train; returns the Trainer, whose `state` has the log."""
    options = parse_options(arguments)
    training = TrainingArguments(
        output_dir=str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        save_steps=options.save_every,
        logging_steps=options.save_every,
        dataloader_num_workers=options.workers,
        ignore_data_skip=True,  # the stream resumes by its state: nothing to skip
        report_to="none",
    )
    corpus = open_corpus(options.corpus)
    view = corpus.domains(k=options.k or corpus.num_leaves)
    stream = MixtureStream(
        corpus,
        Mixture.natural(view),
        batch_size=training.per_device_train_batch_size * training.world_size,
        rank=training.process_index,
        world_size=training.world_size,
    )
    state = StreamState(stream)
    trainer = StreamTrainer(
        model=tiny_llama(corpus.vocab_size, corpus.tokens_per_sample),
        args=training,
        train_dataset=stream,
        callbacks=[NaturalToUniform(stream), state],
    )
    checkpoint = get_last_checkpoint(training.output_dir) if options.resume else None
    if is_finished(checkpoint, options.steps):
        return trainer
    if checkpoint is not None:
        state.restore(checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def is_finished(checkpoint: str | None, steps: int) -> bool:
    """Whether all steps are done; the Trainer would look for that only after one step more."""
    finished = checkpoint is not None and int(checkpoint.rpartition("-")[2]) >= steps
    if finished:
        print(f"{checkpoint} has all {steps:,} steps; more come with --steps.")
    return finished


def tiny_llama(vocab_size: int, context: int) -> LlamaForCausalLM:
    """A model to try the loop with; yours takes its place."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            max_position_embeddings=context,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="a folder, or an address such as s3://bucket/prefix")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--k", type=int, help="number of domains; default: the leaves")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
