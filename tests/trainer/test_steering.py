"""Steering as a library: a plain loop, any mixer, a stop anywhere, any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from pipeline import Corpus, Mixture, StateError, open_corpus
from tests.trainer.ranks import become_rank, free_port, start_ranks
from trainer import Steering, SteeringConfig
from trainer.alignment.alignment_source import AlignmentError
from trainer.mixers import mixer_settings
from trainer.model import GPT, GPTConfig, TokenLoss
from trainer.run.batches import to_device
from trainer.run.config import ConfigError
from trainer.run.distributed import joined_ranks
from trainer.run.schedule import make_optimizer

CPU = torch.device("cpu")
LEARNERS = [
    "dga-paced",
    "dga-paced-general",
    "dga+start=importance+score_scale=std+step_size=0.3",
    "dga-distributions",
    "doge+bregman=0.001",
    "doge+toward=all",
    "odm+update_every=2",
    "importance-paced+max_passes=2+repeat_decay=1+natural_share=0.5+natural_share_end=0",
    "dga-paced+max_passes=2+surplus=importance",
]


def make_model(corpus: Corpus) -> TokenLoss:
    torch.manual_seed(0)
    shape = GPTConfig(
        vocab_size=corpus.vocab_size,
        context_length=corpus.tokens_per_sample,
        width=32,
        layers=1,
        heads=2,
    )
    return TokenLoss(GPT(shape), pad_id=corpus.pad_id, compute_dtype=torch.float32)


class Loop:
    """A plain PyTorch loop, as a user has it, with steering added."""

    def __init__(self, corpus: Corpus, mixer: str, *, ranks: Any = None) -> None:
        self.loss = make_model(corpus)
        self.optimizer = make_optimizer(self.loss, learning_rate=3e-3, weight_decay=0.1)
        config = SteeringConfig(
            num_steps=30,
            batch_size=8,
            target="alpha",
            mixer=mixer if "odm" in mixer else f"{mixer}+update_every=6",
            k=6,
            sequences_per_domain=2,
            sequences_per_distribution=6,
            target_batch=16,
        )
        self.steering = Steering(
            corpus, config, self.loss, learning_rate=lambda step: 3e-3, ranks=ranks
        )
        self.ranks = ranks
        self.mixtures: list[Mixture] = []

    def run(self, until: int) -> None:
        while self.steering.stream.step < until:
            batch = next(self.steering.stream)
            losses = self.loss(to_device(batch.tokens, CPU))
            losses.mean().backward()
            self.share_gradients()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steering.observe(losses, batch.domains)
            self.steering.after_step(batch.step + 1)
            self.mixtures.append(self.steering.stream.mixture)

    def share_gradients(self) -> None:
        if self.ranks is not None:
            gradients = [p.grad for p in self.loss.parameters() if p.grad is not None]
            self.ranks.sum_tensors(gradients)
            torch._foreach_div_(gradients, self.ranks.world_size)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steering": json.dumps(self.steering.state_dict(), allow_nan=False),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steering.load_state_dict(json.loads(state["steering"]))


@pytest.mark.parametrize("mixer", LEARNERS)
def test_a_plain_loop_is_steered_and_resumes_exactly(
    corpus: Corpus, tmp_path: Path, mixer: str
) -> None:
    whole = Loop(corpus, mixer)
    whole.run(30)
    assert len(set(whole.mixtures)) > 2, "the mixture moved"
    for stop in (5, 6, 7, 17):
        first, second = Loop(corpus, mixer), Loop(corpus, mixer)
        first.run(stop)
        torch.save(first.state_dict(), tmp_path / "state.pt")
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        second.run(30)
        assert first.mixtures + second.mixtures == whole.mixtures
        for name, value in second.loss.state_dict().items():
            assert value.equal(whole.loss.state_dict()[name]), name


def test_a_renewal_says_when_it_holds_and_what_was_measured(corpus: Corpus) -> None:
    loop = Loop(corpus, "dga")
    assert loop.steering.after_step(0) is None
    loop.run(5)
    next(loop.steering.stream)
    renewal = loop.steering.after_step(6)
    assert renewal is not None
    assert renewal.first_step == 6
    assert renewal.scores is not None
    assert renewal.scores.values.shape == (6,)
    assert loop.steering.after_step(30) is None, "no batch follows the last"


def test_a_name_says_how_alignment_is_measured(corpus: Corpus, trained_loss: TokenLoss) -> None:
    def steering(mixer: str) -> Steering:
        config = SteeringConfig(num_steps=10, batch_size=8, target="alpha", mixer=mixer)
        return Steering(corpus, config, trained_loss)

    with pytest.raises(AlignmentError, match="measured_domains=2 leaves domains without a score"):
        steering("dga+update_every=1+measured_domains=2").after_step(1)
    steered = steering("dga+update_every=1+measured_domains=2+shrinkage=tree")
    assert steered.after_step(1) is not None
    assert steered.state_dict()["alignment"]["leaves"], "scores are kept per leaf"
    assert steering("dga+estimator=probe").watches_training


def test_without_k_the_first_level_is_steered(corpus: Corpus) -> None:
    config = SteeringConfig(num_steps=10, batch_size=8, mixer="uniform")
    steering = Steering(corpus, config, make_model(corpus))
    assert steering.stream.view == corpus.domains(level=1)
    assert steering.stream.mixture == Mixture.uniform(corpus.domains(level=1))


def test_the_state_of_another_run_is_refused(corpus: Corpus) -> None:
    state = Loop(corpus, "dga-paced").steering.state_dict()
    with pytest.raises(StateError, match="budget"):
        Loop(corpus, "dga").steering.load_state_dict(state)


@pytest.mark.parametrize(
    ("saved", "mixer"),
    [
        ("natural+max_passes=8", "dga-paced"),
        ("dga", "odm"),
        ("dga", "dga-distributions"),
        ("dga", "dga+shrinkage=tree"),
        ("dga+estimator=probe", "dga+shrinkage=tree"),
    ],
)
def test_the_state_of_another_kind_of_mixer_is_refused(
    corpus: Corpus, trained_loss: TokenLoss, saved: str, mixer: str
) -> None:
    first, second = (
        Steering(
            corpus,
            SteeringConfig(num_steps=30, batch_size=8, target="alpha", mixer=name, k=6),
            trained_loss,
        )
        for name in (saved, mixer)
    )
    with pytest.raises(StateError, match=r"state is that of .*, and this is .*cannot go on from"):
        second.load_state_dict(first.state_dict())
    assert second.stream.step == 0


def test_a_mixer_that_learns_nothing_goes_on_from_any(corpus: Corpus) -> None:
    learned, fixed = Loop(corpus, "dga"), Loop(corpus, "dga")
    learned.run(8)
    fixed.steering = Steering(
        corpus,
        SteeringConfig(num_steps=30, batch_size=8, target="alpha", mixer="natural", k=6),
        fixed.loss,
    )
    fixed.steering.load_state_dict(learned.steering.state_dict())
    assert fixed.steering.stream.step == 8


@pytest.mark.parametrize("estimator", ["difference", "exact", "probe"])
def test_a_loss_that_cannot_be_measured_is_explained(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, estimator: Any
) -> None:
    loop = Loop(corpus, f"dga+estimator={estimator}+probe_every=2")
    monkeypatch.setattr(loop.loss, "forward", lambda tokens: loop.loss.model(tokens).mean())
    with (
        pytest.raises(ValueError, match=r"of . samples the loss gave a tensor of shape \(\); "),
        loop.steering.watching(2, np.arange(8)),
    ):
        loop.steering.after_step(6)
    frozen = Loop(corpus, f"dga+estimator={estimator}")
    frozen.loss.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the loss requires a gradient"):
        frozen.steering.after_step(6)


def test_losses_that_were_not_shown_are_asked_for(corpus: Corpus) -> None:
    steering = Loop(corpus, "odm+update_every=2").steering
    assert steering.after_step(1) is None
    with pytest.raises(ValueError, match=r"has seen none .* call steering\.observe\(losses"):
        steering.after_step(2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"estimator": "exakt"}, "estimator='exakt' must be one of difference, exact, probe"),
        ({"shrinkage": "Tree"}, "shrinkage='Tree' must be one of none, tree"),
        ({"gradients": "norm"}, "gradients='norm' must be one of raw, clip, cosine"),
        ({"num_steps": 0}, "num_steps=0 must be at least 1"),
        ({"sequences_per_domain": 0}, "sequences_per_domain=0 must be at least 1"),
        ({"sequences_per_distribution": 0}, "sequences_per_distribution=0 must be at least 1"),
        ({"measured_domains": 0}, "measured_domains=0 must be at least 1"),
        ({"measured_tokens": 1}, "measured_tokens=1 must be 0 or at least 2"),
        ({"measuring_batch": 0}, "measuring_batch=0 must be at least 1"),
        ({"epsilon": 0.0}, "epsilon=0.0 must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SteeringConfig(**{"num_steps": 30, "batch_size": 8, **setting})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"basis": ("alpha",)}, "basis changes nothing in the mixer 'dga': it belongs to dga-dist"),
        ({"weights_file": "a.jsonl"}, "weights_file changes nothing .* it belongs to schedule"),
    ],
)
def test_what_the_mixer_never_reads_is_refused(setting: dict[str, Any], message: str) -> None:
    for mixer in ("dga", mixer_settings("dga")):
        with pytest.raises(ConfigError, match=message):
            SteeringConfig(num_steps=30, batch_size=8, target="alpha", mixer=mixer, **setting)


def test_what_is_no_corpus_or_no_module_is_named(corpus: Corpus) -> None:
    config = SteeringConfig(num_steps=30, batch_size=8, target="alpha", mixer="dga")
    with pytest.raises(TypeError, match=r"is no Corpus\. Open one first"):
        Steering(str(corpus.path), config, make_model(corpus))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"no torch\.nn\.Module.*such as TokenLoss\(model"):
        Steering(corpus, config, lambda tokens: tokens)  # type: ignore[arg-type]


def _wrapped(kind: str, model: torch.nn.Module) -> torch.nn.Module:
    """What such a wrapper looks like from outside, without the process group that it takes."""
    module, _, name = kind.rpartition(".")
    wrapper = type(name, (torch.nn.Module,), {"__module__": module})()
    wrapper.module = model
    return wrapper


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel",
            r"wrapped by FSDP1 .* Train with FSDP2",
        ),
        (
            "deepspeed.runtime.engine.DeepSpeedEngine",
            r"DeepSpeed engine.*TokenLoss\(engine\.module",
        ),
    ],
)
def test_a_model_in_which_nothing_can_be_measured_is_refused(
    corpus: Corpus, kind: str, message: str
) -> None:
    def steer(mixer: str) -> Steering:
        loss = make_model(corpus)
        loss.model = _wrapped(kind, loss.model)
        config = SteeringConfig(num_steps=30, batch_size=8, target="alpha", mixer=mixer)
        return Steering(corpus, config, loss)

    with pytest.raises(ValueError, match=message):
        steer("dga")
    steer("importance")
    loop = Loop(corpus, "dga")
    loop.loss.model = _wrapped(kind, loop.loss.model)  # as a trainer does that wraps in place
    with pytest.raises(ValueError, match=message):
        loop.steering.after_step(loop.steering.settings.update_every)


@pytest.mark.parametrize("mixer", ["dga", "importance-fading"])
def test_parameters_that_deepspeed_partitions_are_refused(corpus: Corpus, mixer: str) -> None:
    loss = make_model(corpus)
    for number, parameter in enumerate(loss.parameters()):
        parameter.ds_id = number  # type: ignore[attr-defined]
    config = SteeringConfig(num_steps=30, batch_size=8, target="alpha", mixer=mixer)
    with pytest.raises(ValueError, match=r"ZeRO stage 3.*Train with FSDP2"):
        Steering(corpus, config, loss)


def _steer_as_rank(
    rank: int, port: int, corpus_path: Path, mixer: str, out: Path, world_size: int
) -> None:
    """One process of a plain data-parallel loop; writes what it ends with."""
    become_rank(rank, world_size, port)
    with joined_ranks(CPU) as ranks:
        loop = Loop(open_corpus(corpus_path), mixer, ranks=ranks)
        loop.run(30)
        mixtures = np.stack([mixture.probabilities for mixture in loop.mixtures])
        np.savez(
            out / f"rank{rank}.npz", mixtures=mixtures, drawn=loop.steering.stream.samples_drawn
        )


def _measure_through_ddp(rank: int, port: int, corpus_path: Path) -> None:
    become_rank(rank, 2, port)
    with joined_ranks(CPU) as ranks:
        corpus = open_corpus(corpus_path)
        loss = make_model(corpus)
        config = SteeringConfig(num_steps=30, batch_size=8, target="alpha", mixer="dga")
        Steering(corpus, config, loss, ranks=ranks)
        loss.model = DistributedDataParallel(loss.model)
        with pytest.raises(ValueError, match=r"inside, such as TokenLoss\(model\.module"):
            Steering(corpus, config, loss, ranks=ranks)
        loss = make_model(corpus)
        loss.model = FullyShardedDataParallel(loss.model, device_id=CPU)
        with pytest.raises(ValueError, match=r"wrapped by FSDP1"):
            Steering(corpus, config, loss, ranks=ranks)


def test_ranks_that_would_wait_for_each_other_are_refused(corpus: Corpus) -> None:
    start_ranks(_measure_through_ddp, free_port(), corpus.path, count=2)


@pytest.mark.parametrize(
    ("world_size", "mixer"),
    [(2, "dga-distributions"), (2, "odm+update_every=2"), (4, "dga-paced"), (4, "doge+toward=all")],
)
def test_every_rank_ends_with_the_same_bits(
    corpus: Corpus, tmp_path: Path, world_size: int, mixer: str
) -> None:
    start_ranks(
        _steer_as_rank, free_port(), corpus.path, mixer, tmp_path, world_size, count=world_size
    )
    ranks = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(world_size)]
    for other in ranks[1:]:
        np.testing.assert_array_equal(ranks[0]["mixtures"], other["mixtures"])
        np.testing.assert_array_equal(ranks[0]["drawn"], other["drawn"])
    alone = Loop(corpus, mixer)
    alone.run(30)
    single = np.stack([mixture.probabilities for mixture in alone.mixtures])
    np.testing.assert_allclose(ranks[0]["mixtures"], single, atol=0.02)
