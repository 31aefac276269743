"""The training loop, as a story.

Before a batch the mixture may be renewed, after measuring alignment as a rule; it holds from that very
batch on. Then: draw, learn, and now and then log, evaluate, save. A run that was stopped
anywhere goes on from its last checkpoint; on a CPU it ends with the very same bits.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline import BudgetError, Corpus
from pipeline.corpus.corpus import check_corpus
from trainer.alignment.alignment import Scores
from trainer.health import Finding, Health
from trainer.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trainer.run.config import TrainConfig
from trainer.run.distributed import Ranks, choose_device, joined_ranks
from trainer.run.evaluation import Evaluator
from trainer.run.interrupt import Interrupt, TrainingInterrupted
from trainer.run.learner import Learner
from trainer.run.metrics import MetricsWriter, MixtureHistory, fetch_fields
from trainer.run.progress import ProgressLine
from trainer.run.resolve import resolve, steering_config
from trainer.run.run_folder import RunFolder, RunFolderError, device_name
from trainer.run.tally import ClosedWindow, Tally
from trainer.steering import Steering


def train(
    corpus: Corpus, config: TrainConfig, out: str | os.PathLike[str], *, quiet: bool = False
) -> dict[str, Any]:
    """Train as `config` says and keep everything in the folder `out`; what its result.json says.

    An unfinished run in `out` is continued, a finished one is returned as it is. Under torchrun every
    process calls this alike. Raises `RunFolderError` when `out` is another run's or no run's, or another
    process trains there, `ConfigError`, `MixtureError` or `BudgetError` for settings that do not fit the
    corpus, and `TrainingInterrupted` after Ctrl-C or SIGTERM, when all is saved.
    """
    check_corpus(corpus)
    device = choose_device(config.device)
    config = resolve(config, corpus, device)
    folder = RunFolder(Path(out))
    folder.check(config, corpus)
    finished = folder.result()
    if finished is not None:
        return finished
    with joined_ranks(device) as ranks, Interrupt() as interrupt, closing(folder):
        run = Run(corpus, config, folder, ranks=ranks, device=device, quiet=quiet)
        return run.to_the_end(interrupt)


class Run:
    """One run, from its beginning or its last checkpoint to its end; `config` is resolved."""

    def __init__(
        self,
        corpus: Corpus,
        config: TrainConfig,
        folder: RunFolder,
        *,
        ranks: Ranks,
        device: torch.device,
        quiet: bool,
    ) -> None:
        self.config, self.folder, self.ranks, self.device = config, folder, ranks, device
        self.learner = Learner(config, corpus, ranks=ranks, device=device)
        try:
            self.steering = Steering(
                corpus,
                steering_config(config),
                self.learner.loss,
                learning_rate=self.learner.schedule.at,
                ranks=ranks,
            )
        except BudgetError as error:
            raise BudgetError(
                f"the mixer {config.mixer!r} bounds passes: {error} Or take a mixer without a bound, such as "
                "importance."
            ) from error
        self.stream = self.steering.stream
        self.evaluator = Evaluator(
            corpus,
            config.evaluate,
            max_sequences=config.eval_sequences,
            batch_size=self.learner.local_batch_size,
            device=device,
            ranks=ranks,
        )
        self.history = MixtureHistory(self.stream.mixture)
        self.health = Health(config.health, target=config.target)
        self.tally = Tally(
            tokens_per_step=config.batch_size * corpus.tokens_per_sample, device=device
        )
        self._to_log: ClosedWindow | None = None
        self.step = 0
        """Steps that are done."""
        ranks.wait_for_all()  # every process has checked the folder before one writes to it
        if ranks.any(ranks.is_first and not folder.take()):
            raise RunFolderError(
                f"another process trains in {folder.path}. Wait for its end, or choose another --out."
            )
        if ranks.is_first:
            folder.begin(config, corpus, device)
        self.metrics = self._continue_from_checkpoint()
        quiet = quiet or not ranks.is_first
        self.progress = ProgressLine(config.steps, first_step=self.step, quiet=quiet)

    def to_the_end(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train the steps that are left and write result.json; its content."""
        with self.metrics, self.progress:
            if self.step == 0:
                self._record_mixture(None)
                self._tell_restraint()
            while self.step < self.config.steps:
                self._renew_mixture()
                # A GPU is still busy with the step before while this draws and copies.
                batch = next(self.stream)
                self.tally.add(*self.learner.step(self.step, batch, self.steering))
                self.steering.observe(self.learner.sample_losses, batch.domains)
                self.step += 1
                stop = self.ranks.any(interrupt.requested)
                self._after_step(stop=stop)
                if stop and self.step < self.config.steps:
                    raise TrainingInterrupted(self.step, interrupt.signal_number or 0)
        return self._finish()

    def _tell_restraint(self) -> None:
        held, passes = self.steering.restraint, self.steering.max_passes
        if held is not None and held.share < 1:
            bound = "no bound on passes" if passes is None else f"up to {passes:.1f} passes"
            self.progress.say(
                "The model is too small to learn all of the target's domains by heart: "
                f"{bound}, general start at {held.share:.0%} of its size."
            )

    def _after_step(self, *, stop: bool) -> None:
        """Log, evaluate and save when their time has come; save in any case before a stop.

        What is to be logged of a step is written after the next one, which the GPU computes meanwhile.
        """
        config, last = self.config, self.step == self.config.steps
        evaluate = last or self.step % config.eval_every == 0
        save = last or stop or self.step % config.checkpoint_every == 0
        self._write_log()
        if last or self.step % config.log_every == 0:
            self._to_log = self.tally.close_window(self.step, self.stream.wait_seconds)
        if evaluate or save:
            self._write_log()
        if evaluate:
            self._evaluate()
        if save:
            self._save()
        self.progress.advance(self.step)

    def _renew_mixture(self) -> None:
        if self.steering.is_due(self.step):
            self._write_log()  # the time that measuring takes is the next record's
        before = self.stream.mixture
        renewal = self.steering.after_step(self.step)
        if renewal is None:
            return
        scores = renewal.scores
        self._record_mixture(scores)
        if scores is not None or self.steering.learns_from_losses:
            self._report(
                self.health.after_update(
                    before=before,
                    after=self.stream.mixture,
                    scores=None if scores is None else scores.values,
                    halves=None if scores is None else scores.halves,
                    scored=self.steering.scored,
                    skipped_updates=self.steering.skipped_updates,
                )
            )

    def _record_mixture(self, scores: Scores | None) -> None:
        fields = self.history.record(
            self.stream,
            steps=self.config.steps,
            scores=scores,
            of_histograms=self.steering.scores_histograms,
        )
        self.metrics.write("mixture", self.step, **fields, **self.steering.details())
        self._report(
            self.health.after_record(mixture=self.stream.mixture, passes=self.stream.passes)
        )

    def _report(self, findings: list[Finding]) -> None:
        for finding in findings:
            self.metrics.write("health", self.step, **asdict(finding))
            self.progress.say(f"warning at step {self.step:,}: {finding.message}")

    def _write_log(self) -> None:
        window, self._to_log = self._to_log, None
        if window is None:
            return
        record = self.tally.read(window, self.ranks)
        self.progress.note("train", record["train_loss"])
        self.progress.note_speed(record["tokens_per_second"])
        self.progress.note_fetching(self.stream.statistics)
        self.metrics.write(
            "train",
            window.step,
            tokens=window.step * self.tally.tokens_per_step,
            learning_rate=self.learner.schedule.at(window.step - 1),
            **record,
            **fetch_fields(self.stream.statistics),
        )
        since = window.step - window.count
        self._report(self.health.after_training(loss=record["train_loss"], since_step=since))

    def _evaluate(self) -> None:
        evaluation = self.evaluator.evaluate(self.learner.loss)
        self.tally.add_evaluation(self.step, evaluation)
        for name, loss in evaluation.target_loss.items():
            self.progress.note(name, loss)
        self.metrics.write(
            "eval",
            self.step,
            target_loss=evaluation.target_loss,
            target_train_loss=evaluation.target_train_loss,
            generic_loss=evaluation.generic_loss,
            generalization_gap=evaluation.generalization_gap,
            seconds=evaluation.seconds,
        )
        self._report(self.health.after_evaluation(evaluation))
        self._record_mixture(None)

    def _save(self) -> None:
        steering, learner = self.steering.state_dict(), self.learner.state_dict()
        tally = self.tally.state_dict(self.stream.wait_seconds, self.ranks)  # these take all ranks
        if self.ranks.is_first:
            save_checkpoint(
                self.folder.checkpoints,
                Checkpoint(
                    step=self.step,
                    model=learner["model"],
                    optimizer=learner["optimizer"],
                    random={"cpu": torch.get_rng_state()},
                    state={
                        "steering": steering,
                        "history": self.history.state_dict(),
                        "health": self.health.state_dict(),
                        "tally": tally,
                        "metrics_bytes": self.metrics.sync(),
                    },
                ),
            )
        self.ranks.wait_for_all()

    def _continue_from_checkpoint(self) -> MetricsWriter:
        """Take up the last checkpoint, if there is one; the metrics, cut back to its step."""
        path = self.folder.metrics_file if self.ranks.is_first else None
        saved = load_checkpoint(self.folder.checkpoints, self.device)
        if saved is None:
            return MetricsWriter(path, keep_bytes=0)
        self.step = saved.step
        self.learner.load_state_dict({"model": saved.model, "optimizer": saved.optimizer})
        torch.set_rng_state(saved.random["cpu"])
        self.steering.load_state_dict(saved.state["steering"])
        self.history.load_state_dict(saved.state["history"])
        self.health.load_state_dict(saved.state["health"])
        self.tally.load_state_dict(saved.state["tally"])
        return MetricsWriter(path, keep_bytes=saved.state["metrics_bytes"])

    def _finish(self) -> dict[str, Any]:
        outcome = {
            **self.tally.outcome(self.step, self.stream.wait_seconds),
            "skipped_updates": self.steering.skipped_updates,
            "parameters": self.learner.model.num_parameters,
            "device": device_name(self.device),
        }
        if self.ranks.is_first:
            return self.folder.finish(self.config, outcome)
        return outcome
