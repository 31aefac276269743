"""Steering in the Hugging Face Trainer.

    steering = Steering(corpus, SteeringConfig(...), TokenLoss(CausalLM(model), ...))
    Trainer(model, args, train_dataset=steering.stream, callbacks=[SteeringCallback(steering)])

The Trainer's loader has to hand the stream's batches on as they are; examples/steer_huggingface.py does
that in five lines. With gradient accumulation a batch of the stream is one micro-batch:
`SteeringConfig.num_steps` is then max_steps · gradient_accumulation_steps.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline import StateError
from pipeline.whole_files import write_whole
from trainer.run.distributed import Ranks
from trainer.steering import (
    Steering,
    check_callback_can_steer,
    check_callback_ranks,
    warn_of_callback_steps,
    warn_of_callback_stream,
    warn_of_rounded_measurements,
)

STATE_FILE = "steering.json"


class SteeringCallback(TrainerCallback):  # type: ignore[misc]
    """Renews the mixture between steps and keeps the state of mixer and stream in every checkpoint.

    `trainer.train(resume_from_checkpoint=...)` continues both, and takes `ignore_data_skip=True`: the stream
    skips nothing, it goes on. Raises ValueError for a mixer that learns from losses.
    """

    def __init__(self, steering: Steering) -> None:
        check_callback_can_steer(steering)
        self.steering = steering

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Continue where the checkpoint that is resumed left the stream.

        Raises ValueError where Steering was made before this process knew its rank.
        """
        ranks = Ranks(rank=args.process_index, world_size=args.world_size)
        check_callback_ranks(self.steering, ranks)
        warn_of_callback_steps(self.steering, state.max_steps * args.gradient_accumulation_steps)
        if args.bf16 or args.fp16:  # the Trainer puts autocast into the model itself
            computes = torch.bfloat16 if args.bf16 else torch.float16
            warn_of_rounded_measurements(self.steering, computes)
        if state.global_step == 0:
            return
        if state.global_step >= state.max_steps:
            raise StateError(
                f"the checkpoint has {state.global_step} of {state.max_steps} steps, so the run is finished, "
                "and the Trainer would train a step more before it noticed. Raise max_steps, and num_steps "
                "with it, to go on."
            )
        if not args.ignore_data_skip:
            raise StateError(
                f"the Trainer goes on from step {state.global_step} with ignore_data_skip=False: it would "
                "draw and throw away as many batches as were trained on, and the stream, which goes on by "
                "its state, would lose them. Set TrainingArguments(ignore_data_skip=True)."
            )
        path = Path(args.output_dir, f"checkpoint-{state.global_step}", STATE_FILE)
        if not path.exists():
            raise StateError(
                f"the Trainer goes on from step {state.global_step} and {path} is not there, so nothing says "
                "where the stream stood. Resume a checkpoint in output_dir that was saved with this callback."
            )
        self.steering.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
        batches = state.global_step * args.gradient_accumulation_steps
        warn_of_callback_stream(self.steering, batches)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Measure when it is due; the next batch is drawn from what came of it."""
        self.steering.after_step(state.global_step * args.gradient_accumulation_steps)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Write the state beside the model's; one rank does, for all have the same."""
        content = json.dumps(self.steering.state_dict())
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            write_whole(folder / STATE_FILE, content.encode())
