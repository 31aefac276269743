"""Steering in other people's loops: the example scripts, run as a user runs them, stopped and resumed."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from pipeline import Mixture, StateError, open_corpus
from tests.conftest import EXAMPLES
from tests.test_integrations import optimizer_takes, same_weights
from tests.trainer.test_steering import make_model
from trainer import Ranks, Steering, SteeringConfig

PYTORCH = pytest.mark.parametrize("example", [["steer_pytorch"]], indirect=True)
HUGGINGFACE = pytest.mark.parametrize(
    "example", [["steer_huggingface", "transformers", "accelerate"]], indirect=True
)
LIGHTNING = pytest.mark.parametrize("example", [["steer_lightning", "lightning"]], indirect=True)


def test_a_plain_loop_takes_at_most_ten_added_lines() -> None:
    lines = (EXAMPLES / "steer_pytorch.py").read_text().splitlines()
    rest = [line for line in lines if "# added" not in line]
    assert 5 <= len(lines) - len(rest) <= 9, "and one import"
    nodes = list(ast.walk(ast.parse("\n".join(rest))))
    steering = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "steering"
    }
    assert steering == {"stream", "state_dict", "load_state_dict"}, "what a stream has, too"
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert not called & {"SteeringConfig", "Steering"}


@PYTORCH
def test_a_plain_loop_moves_towards_its_target_and_resumes_exactly(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path
) -> None:
    def run(name: str) -> Mixture:
        where = str(tmp_path / f"{name}.pt")
        common = [str(tiny_corpus), "--target", "alpha", "--mixer", "dga", "--steps", "150"]
        mixture: Mixture = example.main([*common, "--checkpoint", where])
        return mixture

    mixture = run("whole")
    assert mixture.probabilities[1] > 0.6, "alpha is text like domain 1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", power_cut_in_second_save(torch.save))
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steering, "after_step", power_cut_at(110, Steering.after_step))
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    with optimizer_takes(150 - 100):
        assert run("parts") == mixture
    whole, parts = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    assert same_weights(whole["model"], parts["model"])
    assert whole["steering"] == parts["steering"]


@HUGGINGFACE
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_hugging_face_trainer_is_steered_and_resumes_exactly(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path, accumulate: int
) -> None:
    def run(name: str, *options: str) -> tuple[Any, dict[str, Any]]:
        common = ["--steps", "60", "--save-every", "30", "--out", str(tmp_path / name)]
        common += ["--target", "alpha", "--mixer", "dga+update_every=10"]
        trainer = example.main(
            [str(tiny_corpus), *common, "--accumulate", str(accumulate), *options]
        )
        state = tmp_path / name / "checkpoint-60" / "steering.json"
        return trainer, json.loads(state.read_text())

    trainer, whole = run("whole")
    weights = trainer.train_dataset.mixture.probabilities
    assert trainer.train_dataset.step == 60 * accumulate
    assert weights[1] > 0.4 > weights[0]
    shutil.copytree(tmp_path / "whole" / "checkpoint-30", tmp_path / "parts" / "checkpoint-30")
    with optimizer_takes(60 - 30):
        again, parts = run("parts", "--resume")
    assert same_weights(trainer.model.state_dict(), again.model.state_dict())
    assert whole == parts
    before = torch.get_rng_state()
    next(iter(trainer.get_train_dataloader()))
    assert torch.equal(torch.get_rng_state(), before), "the Trainer restores it before"


@LIGHTNING
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's use of torch
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")  # it goes on there
def test_lightning_is_steered_and_resumes_exactly(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path
) -> None:
    def run(*options: str) -> tuple[Any, Steering]:
        common = ["--steps", "60", "--save-every", "30", "--out", str(tmp_path)]
        common += ["--target", "alpha", "--mixer", "dga+update_every=10"]
        ran: tuple[Any, Steering] = example.main([str(tiny_corpus), *common, *options])
        return ran

    trainer, steering = run()
    weights = steering.stream.mixture.probabilities
    assert steering.stream.step == 60
    assert weights[1] > 0.4 > weights[0]
    with optimizer_takes(60 - 30):
        again, resumed = run("--resume", str(tmp_path / "step=30.ckpt"))
    assert same_weights(trainer.model.state_dict(), again.model.state_dict())
    assert steering.state_dict() == resumed.state_dict()


@LIGHTNING
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's use of torch
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")  # it goes on there
def test_a_checkpoint_that_lightning_saves_before_the_update_of_its_step_resumes_exactly(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path
) -> None:
    def run(resume: Path | None = None) -> tuple[Any, Steering]:
        example.lightning.seed_everything(0, verbose=False)
        corpus = open_corpus(tiny_corpus)
        module = example.NextToken(corpus.vocab_size, corpus.pad_id)
        config = SteeringConfig(
            num_steps=18, batch_size=8, target="alpha", mixer="dga+update_every=4"
        )
        loss = example.TokenLoss(module.model, pad_id=corpus.pad_id, compute_dtype=torch.float32)
        steering = Steering(corpus, config, loss)
        trainer = example.lightning.Trainer(
            max_steps=18,
            callbacks=[
                example.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=8, save_top_k=-1)
            ],
            default_root_dir=tmp_path,
            logger=False,
            enable_model_summary=False,
        )
        # As where Steering waits for the trainer's ranks: behind the callback that saves.
        trainer.callbacks.append(example.SteeringCallback(steering))
        loader = DataLoader(steering.stream, batch_size=None, collate_fn=example.token_tensor)
        trainer.fit(module, example.Steps(loader, steering.stream, 18), ckpt_path=resume)
        return module, steering

    module, steering = run()
    with optimizer_takes(18 - 8):
        again, resumed = run(tmp_path / "step=8.ckpt")
    assert same_weights(module.state_dict(), again.state_dict())
    assert steering.state_dict() == resumed.state_dict()


def test_callbacks_refuse_a_mixer_that_has_to_see_every_loss(tiny_corpus: Path) -> None:
    pytest.importorskip("transformers")
    from trainer.callbacks_huggingface import SteeringCallback

    corpus = open_corpus(tiny_corpus)
    config = SteeringConfig(num_steps=10, batch_size=8, mixer="odm")
    with pytest.raises(ValueError, match="'odm' learns from the loss of every sample"):
        SteeringCallback(Steering(corpus, config, make_model(corpus)))


def test_the_hugging_face_trainer_goes_on_from_the_streams_state_or_not_at_all(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from trainer.callbacks_huggingface import SteeringCallback

    corpus = open_corpus(tiny_corpus)
    config = SteeringConfig(num_steps=10, batch_size=8, mixer="uniform")
    callback = SteeringCallback(Steering(corpus, config, make_model(corpus)))
    for _ in range(5):
        next(callback.steering.stream)
    arguments = arguments_for(tmp_path)
    state: Any = SimpleNamespace(global_step=5, max_steps=10)
    with pytest.raises(StateError, match="checkpoint-5"):
        callback.on_train_begin(arguments, state, None)
    saved = tmp_path / "checkpoint-5" / "steering.json"
    saved.parent.mkdir()
    saved.write_text(json.dumps(callback.steering.state_dict()))
    callback.on_train_begin(arguments, state, None)
    arguments.ignore_data_skip = False
    with pytest.raises(StateError, match=r"TrainingArguments\(ignore_data_skip=True\)"):
        callback.on_train_begin(arguments, state, None)
    state.max_steps = 5
    with pytest.raises(StateError, match="5 of 5 steps, so the run is finished"):
        callback.on_train_begin(arguments, state, None)


def test_a_state_that_cannot_be_written_whole_is_not_there(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from trainer.callbacks_huggingface import SteeringCallback

    def fails(_: int) -> None:
        raise OSError("no space")

    corpus = open_corpus(tiny_corpus)
    config = SteeringConfig(num_steps=10, batch_size=8, mixer="uniform")
    callback = SteeringCallback(Steering(corpus, config, make_model(corpus)))
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    monkeypatch.setattr("os.fsync", fails)
    arguments: Any = SimpleNamespace(output_dir=str(tmp_path))
    state: Any = SimpleNamespace(global_step=5, is_world_process_zero=True)
    with pytest.raises(OSError, match="no space"):
        callback.on_save(arguments, state, None)
    assert not any(folder.iterdir())


def test_a_stream_that_stands_elsewhere_than_the_trainer_is_told(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("lightning")
    from trainer.callbacks_huggingface import SteeringCallback as HuggingFace
    from trainer.callbacks_lightning import SteeringCallback as Lightning

    corpus = open_corpus(tiny_corpus)
    config = SteeringConfig(num_steps=20, batch_size=8, mixer="uniform")
    steering = Steering(corpus, config, make_model(corpus))
    for _ in range(6):
        next(steering.stream)
    arguments = arguments_for(tmp_path)
    state: Any = SimpleNamespace(global_step=6, max_steps=10, is_world_process_zero=True)
    (tmp_path / "checkpoint-6").mkdir()
    HuggingFace(steering).on_save(arguments, state, None)
    HuggingFace(steering).on_train_begin(arguments, state, None)
    arguments.gradient_accumulation_steps = 2
    with pytest.warns(UserWarning, match="goes on after 12 batches and the stream after 6"):
        HuggingFace(steering).on_train_begin(arguments, state, None)
    trainer: Any = SimpleNamespace(global_step=6, accumulate_grad_batches=1)
    Lightning(steering).on_train_start(trainer, None)
    trainer.global_step = 5  # as on an exception within the sixth step
    with pytest.warns(UserWarning, match="goes on after 5 batches and the stream after 6"):
        Lightning(steering).on_train_start(trainer, None)


def test_a_stream_of_another_rank_is_refused(tiny_corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("lightning")
    from trainer.callbacks_huggingface import SteeringCallback as HuggingFace
    from trainer.callbacks_lightning import SteeringCallback as Lightning

    corpus = open_corpus(tiny_corpus)
    config = SteeringConfig(num_steps=10, batch_size=8, mixer="uniform")
    state: Any = SimpleNamespace(global_step=0, max_steps=10)
    steps = {"gradient_accumulation_steps": 1, "accumulate_grad_batches": 1, "max_steps": 10}
    steps |= {"bf16": False, "fp16": False}
    one: Any = SimpleNamespace(
        process_index=0, world_size=1, distributed_sampler_kwargs=None, **steps
    )
    second: Any = SimpleNamespace(
        process_index=1,
        world_size=2,
        distributed_sampler_kwargs={"rank": 1, "num_replicas": 2},
        **steps,
    )
    for ranks, fits, other in ((None, one, second), (Ranks(rank=1, world_size=2), second, one)):
        steering = Steering(corpus, config, make_model(corpus), ranks=ranks)
        HuggingFace(steering).on_train_begin(fits, state, None)
        Lightning(steering).on_fit_start(fits, None)
        with pytest.raises(ValueError, match=r"this process is rank . of .: .* ranks=Ranks"):
            HuggingFace(steering).on_train_begin(other, state, None)
        with pytest.raises(ValueError, match=r"this process is rank . of .: .* ranks=Ranks"):
            Lightning(steering).on_fit_start(other, None)


def test_a_trainer_that_takes_more_batches_than_were_planned_is_told(tiny_corpus: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("lightning")
    from trainer.callbacks_huggingface import SteeringCallback as HuggingFace
    from trainer.callbacks_lightning import SteeringCallback as Lightning

    corpus = open_corpus(tiny_corpus)
    config = SteeringConfig(num_steps=10, batch_size=8, mixer="uniform")
    steering = Steering(corpus, config, make_model(corpus))
    state: Any = SimpleNamespace(global_step=0, max_steps=10)
    trainer: Any = SimpleNamespace(
        process_index=0,
        world_size=1,
        gradient_accumulation_steps=2,
        distributed_sampler_kwargs=None,
        accumulate_grad_batches=2,
        max_steps=10,
        bf16=False,
        fp16=False,
    )
    with pytest.warns(UserWarning, match="takes 20 batches and Steering was planned for .*=10"):
        HuggingFace(steering).on_train_begin(trainer, state, None)
    with pytest.warns(UserWarning, match="takes 20 batches and Steering was planned for .*=10"):
        Lightning(steering).on_fit_start(trainer, None)
    trainer.max_steps = -1  # Lightning's "as long as there are epochs"
    Lightning(steering).on_fit_start(trainer, None)


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_step_that_the_trainers_rounding_would_drown_is_told(
    tiny_corpus: Path, kind: str
) -> None:
    pytest.importorskip("transformers")
    from trainer.callbacks_huggingface import SteeringCallback

    corpus = open_corpus(tiny_corpus)
    arguments: Any = SimpleNamespace(
        process_index=0, world_size=1, gradient_accumulation_steps=1, bf16=False, fp16=False
    )
    setattr(arguments, kind, True)
    state: Any = SimpleNamespace(global_step=0, max_steps=10)

    def begin(mixer: str, compute: torch.dtype = torch.float32, **settings: Any) -> None:
        loss = make_model(corpus)
        loss.compute_dtype = compute
        config = SteeringConfig(num_steps=10, batch_size=8, target="alpha", mixer=mixer, **settings)
        SteeringCallback(Steering(corpus, config, loss)).on_train_begin(arguments, state, None)

    with pytest.warns(UserWarning, match=r"float32, whose step is lost .* epsilon=0\.0005"):
        begin("dga")
    begin("dga", torch.bfloat16)
    begin("dga", epsilon=5e-4)
    begin("dga+estimator=exact")
    begin("importance")


def arguments_for(out: Path) -> Any:
    """What the callback reads of TrainingArguments."""
    return SimpleNamespace(
        output_dir=str(out),
        ignore_data_skip=True,
        process_index=0,
        world_size=1,
        gradient_accumulation_steps=1,
        bf16=False,
        fp16=False,
    )


def power_cut_at(step: int, whole: Any) -> Any:
    def cut(self: Steering, done: int) -> Any:
        if done == step:
            raise KeyboardInterrupt
        return whole(self, done)

    return cut


def power_cut_in_second_save(whole: Any) -> Any:
    saved: list[Path] = []

    def cut(state: Any, path: Path) -> None:
        saved.append(path)
        if len(saved) == 2:
            path.write_bytes(b"half of it")
            raise KeyboardInterrupt
        whole(state, path)

    return cut
