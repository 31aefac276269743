"""Small models of every build that scores are taken of: ours, one with dropout and biases, Hugging Face's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.causal_lm import CausalLM
from trainer.model import GPT, GPTConfig, TokenLoss

VOCABULARY, LENGTH, PAD = 40, 12, 39


class PlainLM(nn.Module):
    """What GPT leaves out: dropout, biases, LayerNorm, learned positions, frozen and reused layers."""

    def __init__(
        self, *, dropout: float = 0.0, tied: bool = True, checkpoints: str = "none"
    ) -> None:
        super().__init__()
        width = 16
        self.embedding = nn.Embedding(VOCABULARY, width, padding_idx=PAD)
        self.positions = nn.Embedding(LENGTH, width)
        self.first_norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)
        if tied:
            self.head.weight = self.embedding.weight
        self.checkpoints = checkpoints

    def block(self, x: Tensor) -> Tensor:
        mixed = x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1).unsqueeze(-1)
        x = x + self.dropout(torch.tanh(self.hidden(self.first_norm(mixed))))
        return x + torch.tanh(self.frozen(torch.tanh(self.hidden(x))))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        if self.checkpoints == "none":
            x = self.block(x)
        else:
            x = checkpoint(self.block, x, use_reentrant=self.checkpoints == "reentrant")
        return self.head(self.last_norm(x))  # type: ignore[no-any-return]


def gpt() -> nn.Module:
    return GPT(GPTConfig(vocab_size=VOCABULARY, context_length=LENGTH, width=16, layers=2, heads=2))


def llama() -> nn.Module:
    import transformers

    return CausalLM(
        transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=LENGTH,
                tie_word_embeddings=False,
                pad_token_id=PAD,
            )
        )
    )


def gpt2(*, dropout: float = 0.0) -> nn.Module:
    import transformers

    return CausalLM(
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=LENGTH,
                n_embd=16,
                n_layer=2,
                n_head=2,
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt": gpt,
    "plain": PlainLM,
    "untied": lambda: PlainLM(tied=False),
    "llama": llama,
    "gpt2": gpt2,
}


def some_tokens(seed: int, n: int, *, below: int = PAD) -> Tensor:
    """Token blocks int64 (n, LENGTH); the last one ends in padding."""
    tokens = torch.randint(below, (n, LENGTH), generator=torch.Generator().manual_seed(seed))
    tokens[-1, -4:] = PAD
    return tokens


def learned_loss(model: nn.Module, *, dtype: torch.dtype = torch.float32) -> TokenLoss:
    """The loss of `model` after a few steps: at first weights gradients are next to nothing."""
    loss = TokenLoss(model, pad_id=PAD, compute_dtype=torch.float32)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    for step in range(10):
        loss(some_tokens(step, 16, below=20)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    loss.compute_dtype = dtype
    return loss
