"""The probe: scores of the training batch that are right, and a training step that does not notice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from tests.trainer.tiny_models import (
    LENGTH,
    MODELS,
    PAD,
    VOCABULARY,
    PlainLM,
    gpt,
    gpt2,
    learned_loss,
    some_tokens,
)
from trainer.alignment.layer_rules import UnknownLayerError
from trainer.alignment.probe import BatchProbe
from trainer.alignment.probe_audit import HiddenUseError
from trainer.model import TokenLoss

# Transformers, while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

BATCH = some_tokens(100, 6)


def trained(loss: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in loss.parameters() if parameter.requires_grad]


def target_gradient(loss: TokenLoss) -> list[Tensor]:
    loss.eval()
    found = torch.autograd.grad(loss(some_tokens(200, 8, below=10)).mean(), trained(loss))
    loss.train()
    return [*found]


def sample_gradients(loss: TokenLoss, tokens: Tensor, seed: int = 0) -> list[list[Tensor]]:
    """One backward pass per sample of a batch, under the same dropout masks for each."""
    gradients = []
    for sample in range(len(tokens)):
        torch.manual_seed(seed)
        gradients.append([*torch.autograd.grad(loss(tokens)[sample], trained(loss))])
    return gradients


def products(gradients: list[list[Tensor]], direction: list[Tensor]) -> list[float]:
    return [
        float(sum((a.double() * b.double()).sum() for a, b in zip(parts, direction, strict=True)))
        for parts in gradients
    ]


def scored_step(
    loss: TokenLoss, direction: list[Tensor], tokens: Tensor, seed: int = 0
) -> list[float]:
    torch.manual_seed(seed)
    with BatchProbe(loss).scoring(direction, samples=len(tokens)) as scored:
        loss(tokens).mean().backward()
    return scored.values.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_inner_products_with_each_samples_gradient(name: str) -> None:
    torch.manual_seed(1)
    loss = learned_loss(MODELS[name]())
    direction = target_gradient(loss)
    expected = products(sample_gradients(loss, BATCH), direction)
    np.testing.assert_allclose(scored_step(loss, direction, BATCH), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: PlainLM(dropout=0.3), lambda: gpt2(dropout=0.3)])
def test_with_dropout_it_scores_the_pass_that_is_trained_on(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    loss = learned_loss(make())
    direction = target_gradient(loss)
    expected = products(sample_gradients(loss, BATCH), direction)
    np.testing.assert_allclose(scored_step(loss, direction, BATCH), expected, rtol=1e-4, atol=1e-5)
    other_masks = scored_step(loss, direction, BATCH, seed=1)
    assert not np.allclose(other_masks, expected, rtol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_blurs_scores_by_a_percent(name: str) -> None:
    torch.manual_seed(1)
    loss = learned_loss(MODELS[name]())
    direction = target_gradient(loss)
    expected = products(sample_gradients(loss, BATCH), direction)
    loss.compute_dtype = torch.bfloat16
    np.testing.assert_allclose(
        scored_step(loss, direction, BATCH), expected, atol=0.015 * np.abs(expected).max()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_training_gradients_are_the_same_bits(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    loss = learned_loss(MODELS[name](), dtype=dtype)
    direction = target_gradient(loss)
    value = loss(BATCH).mean()
    plain = torch.autograd.grad(value, trained(loss))
    with BatchProbe(loss).scoring(direction, samples=len(BATCH)):
        again = loss(BATCH).mean()
        again.backward()
    assert torch.equal(value, again)
    for before, parameter in zip(plain, trained(loss), strict=True):
        assert parameter.grad is not None
        assert torch.equal(before, parameter.grad)


@pytest.mark.parametrize("kind", ["reentrant", "other"])
def test_checkpointed_blocks_are_scored_once(kind: str) -> None:
    torch.manual_seed(1)
    loss = learned_loss(PlainLM(dropout=0.3))
    direction = target_gradient(loss)
    expected = products(sample_gradients(loss, BATCH), direction)
    loss.model.checkpoints = kind
    np.testing.assert_allclose(scored_step(loss, direction, BATCH), expected, rtol=1e-4, atol=1e-5)


def test_a_checkpointed_block_keeps_no_inputs_for_the_probe() -> None:
    loss = learned_loss(PlainLM(checkpoints="other"))
    direction = target_gradient(loss)

    def saved_numbers(*, probed: bool) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if probed:
                with BatchProbe(loss).scoring(direction, samples=len(BATCH)):
                    loss(BATCH).mean().backward()
            else:
                loss(BATCH).mean().backward()
        return sum(sizes)

    in_block = BATCH.numel() * 16
    outside = 2 * BATCH.numel() * 16  # what the head and the last norm keep anyway
    assert saved_numbers(probed=True) - saved_numbers(probed=False) < outside + in_block


def test_gradients_may_accumulate_over_micro_batches() -> None:
    torch.manual_seed(1)
    loss = learned_loss(gpt())
    direction = target_gradient(loss)
    expected = products(sample_gradients(loss, BATCH), direction)
    probe, scores = BatchProbe(loss), []
    for part in BATCH.split(3):
        with probe.scoring(direction, samples=3, loss_scale=1 / 6) as scored:
            (loss(part).mean() / 2).backward()
        scores += scored.values.tolist()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_a_compiled_model_is_scored_and_stays_compiled() -> None:
    torch.manual_seed(1)
    loss = learned_loss(gpt())
    direction = target_gradient(loss)
    expected = products(sample_gradients(loss, BATCH), direction)
    loss.compile(backend="aot_eager")
    loss(BATCH)
    np.testing.assert_allclose(scored_step(loss, direction, BATCH), expected, rtol=1e-4, atol=1e-5)
    with torch.compiler.set_stance("fail_on_recompile"):
        loss(BATCH)


def test_outside_its_steps_nothing_is_left_on_the_model() -> None:
    loss = learned_loss(gpt())
    direction = target_gradient(loss)
    probe = BatchProbe(loss)
    with pytest.raises(RuntimeError, match="out of memory"), probe.scoring(direction, samples=6):
        raise RuntimeError("out of memory")
    with probe.scoring(direction, samples=6):
        loss(BATCH).mean().backward()
    assert not any(module._forward_hooks for module in loss.modules())
    assert not any(parameter._backward_hooks for parameter in loss.parameters())


def test_evaluating_inside_a_scored_step_changes_no_score() -> None:
    loss = learned_loss(gpt())
    direction = target_gradient(loss)
    with BatchProbe(loss).scoring(direction, samples=6) as scored:
        loss(BATCH).mean().backward()
        with torch.no_grad():
            loss(BATCH[:2])
    np.testing.assert_array_equal(scored.values, scored_step(loss, direction, BATCH))


class HiddenTie(nn.Module):
    """A tied output matrix that no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.embedding(tokens), self.embedding.weight)


class LooseParameter(nn.Module):
    """A parameter beside layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.head = nn.Linear(16, VOCABULARY)
        self.positions = nn.Parameter(torch.zeros(LENGTH, 16))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens) + self.positions)  # type: ignore[no-any-return]


class TimeFirst(nn.Module):
    """Samples on the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens.T)).transpose(0, 1)  # type: ignore[no-any-return]


def test_a_parameter_that_is_used_outside_its_layer_is_an_error_that_names_it() -> None:
    loss = TokenLoss(HiddenTie(), pad_id=PAD, compute_dtype=torch.float32)
    direction = target_gradient(loss)
    with pytest.raises(HiddenUseError, match=r"model\.embedding\.weight"):
        scored_step(loss, direction, BATCH)


def test_a_parameter_beside_layers_is_an_error_that_names_the_module() -> None:
    loss = TokenLoss(LooseParameter(), pad_id=PAD, compute_dtype=torch.float32)
    with pytest.raises(UnknownLayerError, match=r"model \(LooseParameter\)"):
        BatchProbe(loss)


def test_samples_must_be_the_first_axis() -> None:
    loss = TokenLoss(TimeFirst(), pad_id=PAD, compute_dtype=torch.float32)
    with pytest.raises(UnknownLayerError, match=r"model\.embedding .* first axis must be"):
        scored_step(loss, target_gradient(loss), BATCH)


def test_an_output_that_is_changed_in_place_is_an_error_with_a_remedy() -> None:
    loss = learned_loss(gpt())
    direction = target_gradient(loss)
    loss.model.head.register_forward_pre_hook(lambda layer, inputs: inputs[0].mul_(2))
    with pytest.raises(UnknownLayerError, match=r"in place .* Write x = x \+ y, or take"):
        scored_step(loss, direction, BATCH)


def test_an_embedding_whose_gradient_is_no_sum_over_samples_is_refused() -> None:
    model = HiddenTie()
    model.embedding.scale_grad_by_freq = True
    with pytest.raises(UnknownLayerError, match="scale_grad_by_freq"):
        BatchProbe(model)


def test_a_diverging_batch_has_scores_that_say_so() -> None:
    loss = learned_loss(gpt())
    direction = target_gradient(loss)
    with torch.no_grad():
        loss.model.norm.weight[0] = torch.nan
    assert np.isnan(scored_step(loss, direction, BATCH)).all()
