"""A small GPT: rotary positions, RMSNorm, SwiGLU, tied embeddings, causal attention.

tokens (n, length) -> embedding -> [norm, attention, norm, SwiGLU] x layers -> norm -> logits

Everything that measures a model (training, evaluation, alignment) goes through `loss_of_logits`, so
another model can take this one's place: it needs nothing but `model(tokens) -> logits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """The shape of a GPT."""

    vocab_size: int
    """Number of tokens of the corpus' tokenizer."""
    context_length: int
    """Longest input in tokens; the rotary table is this long."""
    width: int
    """Features per token; a multiple of 2 * heads."""
    layers: int
    """Number of blocks."""
    heads: int
    """Attention heads per block."""

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.context_length, self.width, self.layers, self.heads) < 1:
            raise ValueError(f"{self} has a size below 1; every size must be positive.")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width={self.width} with heads={self.heads}: rotary positions turn pairs of features, "
                f"so the width must be a multiple of 2 * heads = {2 * self.heads}."
            )

    @property
    def hidden(self) -> int:
        """Hidden features of SwiGLU: 8/3 of the width (three matrices cost what two of 4x would)."""
        return -(-8 * self.width // (3 * 64)) * 64


def gpt_1m(vocab_size: int, context_length: int) -> GPTConfig:
    """0.85M parameters beside the embedding: trains on a CPU in minutes."""
    return GPTConfig(
        vocab_size=vocab_size, context_length=context_length, width=128, layers=4, heads=4
    )


def gpt_14m(vocab_size: int, context_length: int) -> GPTConfig:
    """10.6M parameters beside the embedding: what `braidstream train` takes unless told otherwise."""
    return GPTConfig(
        vocab_size=vocab_size, context_length=context_length, width=384, layers=6, heads=6
    )


def gpt_110m(vocab_size: int, context_length: int) -> GPTConfig:
    """85M parameters beside the embedding: GPT-2 small's shape."""
    return GPTConfig(
        vocab_size=vocab_size, context_length=context_length, width=768, layers=12, heads=12
    )


def gpt_350m(vocab_size: int, context_length: int) -> GPTConfig:
    """304M parameters beside the embedding: GPT-2 medium's shape."""
    return GPTConfig(
        vocab_size=vocab_size, context_length=context_length, width=1024, layers=24, heads=16
    )


PRESETS: dict[str, Callable[[int, int], GPTConfig]] = {
    "1m": gpt_1m,
    "14m": gpt_14m,
    "110m": gpt_110m,
    "350m": gpt_350m,
}


class GPT(nn.Module):
    """Decoder-only transformer; `model(tokens)` gives the logits of each position's next token."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        # The embedding is also the output matrix: at these sizes it is a third of all parameters. On
        # the meta device the layer draws no first weights of its own only to throw them away.
        self.head = nn.Linear(config.width, config.vocab_size, bias=False, device="meta")
        self.head.weight = self.embedding.weight
        rotation = rotary_table(config.context_length, config.width // config.heads)
        self.rotation: Tensor
        self.register_buffer("rotation", rotation, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Normal(0, 0.02); what writes into the residual stream is scaled down by its depth."""
        residual_std = 0.02 / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                writes = name.endswith(("attention.output.weight", "mlp.output.weight"))
                nn.init.normal_(parameter, std=residual_std if writes else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, length, vocab_size) of the token after each position of `tokens` (n, length)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.rotation[: tokens.shape[1]])
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, length, vocab_size) out of what the last block gives (n, length, width)."""
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers; the tied embedding counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


class Block(nn.Module):
    """One layer: attention, then SwiGLU, each on a normed input and added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width)
        self.mlp = SwiGLU(config)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(n, length, width) -> the same shape."""
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Causal multi-head self-attention with rotary positions."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(n, length, width) -> the same shape; `rotation` is (length, 2, width / heads / 2)."""
        n, length, width = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        # Padding stands only at the end of a sample, where a causal mask hides it from every token.
        mixed = F.scaled_dot_product_attention(
            rotate(query, rotation), rotate(key, rotation), value, is_causal=True
        )
        return self.output(mixed.transpose(1, 2).reshape(n, length, width))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(config.width, 2 * config.hidden, bias=False)
        self.output = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, width) -> the same shape."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.output(F.silu(gate) * value)  # type: ignore[no-any-return]


def rotary_table(length: int, head_width: int) -> Tensor:
    """Cosines and sines (length, 2, head_width / 2) float32 of rotary positions (arXiv 2104.09864)."""
    frequency = 10_000.0 ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    return torch.stack([angle.cos(), angle.sin()], dim=1).float()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each feature pair (j, j + half) of x (n, heads, length, head_width) by its position."""
    cosine, sine = rotation[:, 0].to(x.dtype), rotation[:, 1].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def per_sample_loss(model: Callable[[Tensor], Tensor], tokens: Tensor, pad_id: int) -> Tensor:
    """Mean next-token cross-entropy of each sample, in nats: float32 (n,).

    `tokens` is int64 (n, length). Positions whose next token is `pad_id` count for nothing; a sample
    of padding alone has the loss 0. The loss is computed in float32 whatever the model computes in.
    """
    return loss_of_logits(model(tokens), tokens, pad_id)


def loss_of_logits(logits: Tensor, tokens: Tensor, pad_id: int) -> Tensor:
    """`per_sample_loss` out of the model's logits (n, length, vocab_size): float32 (n,)."""
    # Every position goes through the model and the last one's target is masked: a length of 256
    # stays 256 and not 255, which the matrix units of a GPU would pad again.
    following = F.pad(tokens[:, 1:], (0, 1), value=pad_id)
    logits = logits.float()  # under the same name, so that the bfloat16 ones can be freed
    losses = F.cross_entropy(
        logits.flatten(0, 1), following.flatten(), ignore_index=pad_id, reduction="none"
    )
    count = (following != pad_id).sum(dim=1).clamp(min=1)
    return losses.view_as(following).sum(dim=1) / count


class TokenLoss(nn.Module):
    """`per_sample_loss` of one model as a module, so that it can be compiled and data-parallel.

    With `compute_dtype` bfloat16 the forward pass runs under autocast; weights stay float32. ValueError for
    any other but float32.
    """

    def __init__(self, model: nn.Module, *, pad_id: int, compute_dtype: torch.dtype) -> None:
        super().__init__()
        if compute_dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(
                f"compute_dtype={compute_dtype} must be torch.float32 or torch.bfloat16: the gradients that "
                "are measured pass through no scaler, without which float16 loses the small ones."
            )
        self.model = model
        self.pad_id = pad_id
        self.compute_dtype = compute_dtype
        self.of_logits: Callable[[Tensor, Tensor, int], Tensor] = loss_of_logits
        """The same function compiled after `compile_parts`."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Loss of each sample of tokens int64 (n, length): float32 (n,)."""
        # Autocast is entered anew on every call: its cache of cast weights would not notice
        # that the difference estimator has moved them.
        enabled = self.compute_dtype != torch.float32
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=enabled):
            return self.of_logits(self.model(tokens), tokens, self.pad_id)


def compile_parts(loss: TokenLoss, model: GPT) -> None:
    """Compile every block, the head and the cross-entropy of a GPT on their own, for a model that FSDP cuts.

    Its hooks around the blocks gather weights and cannot be traced: a graph of the whole loss breaks at them.
    """
    for block in model.blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    model.logits = torch.compile(model.logits, dynamic=False)  # type: ignore[method-assign]
    loss.of_logits = torch.compile(loss.of_logits, dynamic=False)
