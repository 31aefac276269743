"""The estimator that draws nothing: scores of the training batch, out of its own backward pass.

    a_s = <∇L_s(θ), g> = d/dz_s L_s(θ + z_s g)   at z = 0

Every layer's output goes through a tap: an identity that is given z, zeros for the samples, as a further
input. On its way back each tap hands the gradient b on as it came and gives z_s the layer's share of
sample s (`layer_rules.py`). Autograd adds the shares up, so a layer that is used twice, a checkpointed
block or two layers with one weight (tied embeddings) need no case of their own.

The taps exist only inside `BatchProbe.scoring`. Training gradients are the same bits with and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.alignment.layer_rules import (
    Directions,
    Rule,
    ScoredLayer,
    UnknownLayerError,
    scored_layers,
)
from trainer.alignment.probe_audit import ProbeAudit
from trainer.run.sharding import is_sharded, return_to_shards

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Tensor | None]


class SampleScores:
    """What one `BatchProbe.scoring` found; there when its `with` block has ended."""

    values: Tensor
    """Shape (n,), float32 on the model's device: <∇L_s, g> for each sample of the batch."""


class BatchProbe:
    """Scores samples while the model learns from them.

        with probe.scoring(direction, samples=len(tokens)) as scored:
            loss(tokens).mean().backward()
        scored.values

    Raises `UnknownLayerError` for a layer that it cannot score. The first pass is checked: the shares
    of all samples must add up to <gradient, g>, or `HiddenUseError` names the parameters. Models sharded
    by FSDP are refused: their layers are whole only while they compute.
    """

    def __init__(self, model: nn.Module) -> None:
        return_to_shards(model)
        if is_sharded(model):
            raise ValueError(
                "the probe does not score models sharded by FSDP. Take DifferenceEstimator, or "
                "DistributedDataParallel where the model fits."
            )
        self._model = model
        self._layers = scored_layers(model)
        self._checked = False

    @contextmanager
    def scoring(
        self, direction: Sequence[Tensor], *, samples: int, loss_scale: float | None = None
    ) -> Iterator[SampleScores]:
        """Score the one forward and backward pass that the `with` block makes.

        `direction` is g: a tensor for each parameter that is trained, in the order of
        `model.parameters()`. `samples` is n, the length of the first axis of whatever passes through
        the layers. `loss_scale` is the factor with which a sample's loss enters what is differentiated,
        1/n unless given: divide it by the number of micro-batches when gradients are accumulated,
        multiply it by a gradient scaler's scale.

        A compiled model runs uncompiled inside the block: compiled code passes by the hooks.
        """
        names = {p: name for name, p in self._model.named_parameters() if p.requires_grad}
        direction_of = dict(zip(names, direction, strict=True))
        shares = [_zeros(samples, layer.key) for layer in self._layers]
        scored = SampleScores()
        with ExitStack() as until_the_end:
            until_the_end.enter_context(torch.compiler.set_stance("force_eager"))
            audit = None if self._checked else ProbeAudit(self._layers, direction_of)
            if audit is not None:
                until_the_end.callback(audit.close)
            for layer, z in zip(self._layers, shares, strict=True):
                directions = {name: direction_of[p] for name, p in layer.parameters.items()}
                hook = _tapping(layer, z, directions)
                handle = layer.module.register_forward_hook(hook, with_kwargs=True)
                until_the_end.callback(handle.remove)
            try:
                yield scored
            except RuntimeError as error:
                if _Tap.__name__ in str(error) and "modified inplace" in str(error):
                    raise UnknownLayerError(
                        "the output of a layer with trained parameters is changed in place (x += y, or "
                        "nn.ReLU(inplace=True)), where its scores are taken. Write x = x + y, or take "
                        "estimator='difference'."
                    ) from error
                raise
        found = [z if z.grad is None else z.grad for z in shares]
        if audit is not None:
            self._checked = audit.settle(found, names)
        scale = 1 / samples if loss_scale is None else loss_scale
        scored.values = torch.stack(found).detach().sum(dim=0) / scale


class _Tap(torch.autograd.Function):
    """(output, z, x) -> output; backwards, b goes to the output and the layer's share to z."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, z: Tensor, x: Tensor, rule: Rule, directions: Directions
    ) -> Tensor:
        # Saved like this, x is the copy that the layer keeps anyway, or, inside a checkpointed block,
        # none at all: it is computed again.
        ctx.save_for_backward(x)
        ctx.rule, ctx.directions, ctx.dtype = rule, directions, z.dtype
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (b,), (x,) = gradients, ctx.saved_tensors
        return b, ctx.rule(b, x, ctx.directions).to(ctx.dtype), None, None, None


def _tapping(layer: ScoredLayer, z: Tensor, directions: Directions) -> Hook:
    """The hook that puts a tap behind `layer`."""

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Tensor | None:
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if len(inputs) != 1 or not isinstance(output, Tensor):
            raise UnknownLayerError(
                f"{layer.name} ({type(module).__name__}) was called with {len(inputs)} tensors and gave "
                f"{type(output).__name__}; a layer with trained parameters must map one tensor to one "
                "tensor to be scored. Take estimator='difference' for this model."
            )
        if not output.requires_grad:
            return None  # the first pass of a reentrant checkpoint, or an evaluation
        per_sample = _with_samples(output, inputs[0], len(z), layer)
        return _Tap.apply(per_sample, z, inputs[0].detach(), layer.rule, directions)  # type: ignore[no-any-return]

    return hook


def _with_samples(output: Tensor, x: Tensor, samples: int, layer: ScoredLayer) -> Tensor:
    """`output` with one row per sample; what serves all samples alike is expanded, not copied."""
    if len(output) == samples and not (x.ndim == 1 and samples > 1 and output.ndim == 2):
        return output
    if len(output) == 1:
        return output.expand(samples, *output.shape[1:])
    if isinstance(layer.module, nn.Embedding) and x.ndim == 1 and len(x) != samples:
        return output.expand(samples, *output.shape)  # positions 0 .. length - 1
    raise UnknownLayerError(
        f"{layer.name} gave an output of shape {tuple(output.shape)} for {samples} samples; the first "
        "axis must be the samples' (or 1, for what serves all of them). Take estimator='difference' "
        "for this model."
    )


def _zeros(samples: int, parameter: nn.Parameter) -> Tensor:
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return torch.zeros(samples, dtype=dtype, device=parameter.device, requires_grad=True)
