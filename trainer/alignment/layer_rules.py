"""How much of each sample's score lies in one layer, for the kinds of layer that models are made of.

With a layer's input x, the gradient b at its output and the direction G for its parameters, the share
of sample s is

    <b_s, J_s G>,   J_s = derivative of the layer's output in its parameters, at the input x_s

No gradient of a single sample is ever formed (Goodfellow, arXiv 1510.01799, used the same identity for
norms). The layers below are linear in their parameters, so J_s G is the layer itself with G in place of
the parameters; any other layer's is computed by forward differentiation of that layer alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from pipeline import BraidstreamError

Directions = dict[str, Tensor]
"""By the name that a trained parameter has in its layer: the direction for it, of the same shape."""

Rule = Callable[[Tensor, Tensor, Directions], Tensor]
"""(b of shape (n, ..., out), x of shape (n, ...), directions) -> shares (n,).

x may be (1, ...), or lack the samples' axis, where the layer's output serves all samples alike.
"""


_NORM_FORWARDS = (nn.LayerNorm.forward, nn.RMSNorm.forward)


class UnknownLayerError(BraidstreamError, TypeError):
    """A layer whose share of a sample's score cannot be computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredLayer:
    """A layer that owns trained parameters."""

    name: str
    """Its path in the model."""
    module: nn.Module
    rule: Rule
    parameters: dict[str, nn.Parameter]
    """The trained parameters that it owns, by their names in it."""

    @property
    def key(self) -> nn.Parameter:
        """The parameter that stands for the layer; tied layers share it."""
        return next(iter(self.parameters.values()))


def scored_layers(model: nn.Module) -> list[ScoredLayer]:
    """All layers of `model` that own trained parameters; `UnknownLayerError` if one has no rule."""
    layers = []
    for name, module in model.named_modules():
        owned = module.named_parameters(recurse=False)
        trained = {own: parameter for own, parameter in owned if parameter.requires_grad}
        if trained:
            rule = rule_for(name, module)
            layers.append(ScoredLayer(name=name, module=module, rule=rule, parameters=trained))
    return layers


def rule_for(name: str, layer: nn.Module) -> Rule:
    """The rule of `layer`, which is called `name` and owns trained parameters.

    A layer of a kind that is not known here is differentiated forward (`torch.func.jvp`), which is right
    for every layer that is a function of one tensor and its own parameters, without chance: Hugging
    Face's Conv1D and norms, convolutions. Raises `UnknownLayerError` where that cannot be.
    """
    # A subclass with a forward of its own (adapters, say) computes something else.
    forward = type(layer).forward
    if isinstance(layer, nn.Linear) and forward is nn.Linear.forward:
        return _linear_share
    if isinstance(layer, nn.Embedding) and forward is nn.Embedding.forward:
        return _embedding_rule(name, layer)
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and forward in _NORM_FORWARDS:
        return _norm_rule(layer)
    if any(True for _ in layer.children()) or any(True for _ in layer.buffers()):
        raise UnknownLayerError(
            f"{name or 'the model'} ({type(layer).__name__}) owns trained parameters beside layers or "
            "running statistics of its own, so its share of a sample's score cannot be computed alone. "
            "Move the parameters into a layer that has nothing else, or take estimator='difference'."
        )
    return _forward_rule(layer)


def _linear_share(b: Tensor, x: Tensor, directions: Directions) -> Tensor:
    """Σ_t b_tᵀ (G x_t + g): as (b G)·x, which never holds an array of the size of the logits."""
    share = torch.zeros((), device=b.device)
    if "weight" in directions:
        share = share + _dot(b @ directions["weight"].to(b.dtype), x.to(b.dtype))
    if "bias" in directions:
        per_sample = _sum_positions(b)
        share = share + per_sample @ directions["bias"].to(per_sample.dtype)
    return share


def _embedding_rule(name: str, layer: nn.Embedding) -> Rule:
    if layer.max_norm is not None or layer.scale_grad_by_freq:
        raise UnknownLayerError(
            f"{name} is an nn.Embedding with max_norm or scale_grad_by_freq, whose gradient is no sum "
            "over samples. Leave both off, or take estimator='difference'."
        )
    padding = -1 if layer.padding_idx is None else layer.padding_idx

    def share(b: Tensor, x: Tensor, directions: Directions) -> Tensor:
        rows = F.embedding(x, directions["weight"]).to(b.dtype)
        # Autograd keeps the row of the padding still here; a tied output layer may well move it.
        rows = rows.masked_fill((x == padding).unsqueeze(-1), 0)
        return _dot(b, rows)

    return share


def _norm_rule(layer: nn.LayerNorm | nn.RMSNorm) -> Rule:
    def share(b: Tensor, x: Tensor, directions: Directions) -> Tensor:
        total = torch.zeros((), device=b.device)
        if "weight" in directions:
            if isinstance(layer, nn.LayerNorm):
                normed = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
            else:
                normed = F.rms_norm(x, layer.normalized_shape, eps=layer.eps)
            total = total + _dot(b, normed * directions["weight"])
        if "bias" in directions:
            total = total + _dot(b, directions["bias"].to(b.dtype))
        return total

    return share


def _forward_rule(layer: nn.Module) -> Rule:
    def share(b: Tensor, x: Tensor, directions: Directions) -> Tensor:
        def output(parameters: Directions) -> Any:
            return torch.func.functional_call(layer, parameters, (x,))

        present = {name: layer.get_parameter(name).detach() for name in directions}
        low = b.dtype in (torch.bfloat16, torch.float16)
        # Under autocast the layer computed in lower precision than it keeps its parameters in.
        with torch.autocast(b.device.type, dtype=b.dtype if low else torch.bfloat16, enabled=low):
            derivative = torch.func.jvp(output, (present,), (directions,))[1]
        return _dot(b, derivative.to(b.dtype))

    return share


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product per sample, added up in float32 at least: (n, ...) twice -> (n,)."""
    product = first * second
    return product.flatten(1).sum(dim=1, dtype=_wide(product))


def _sum_positions(b: Tensor) -> Tensor:
    """(n, ..., out) -> (n, out), added up in float32 at least."""
    return b.reshape(len(b), -1, b.shape[-1]).sum(dim=1, dtype=_wide(b))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
