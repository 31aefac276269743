"""Causal language models of other libraries, as the `model(tokens) -> logits` that everything here takes.

    model = AutoModelForCausalLM.from_pretrained(...)
    loss = TokenLoss(CausalLM(model), pad_id=pad_id, compute_dtype=torch.bfloat16)

`loss` then has what estimators and evaluation need: the loss of each sample.
"""

from __future__ import annotations

from torch import Tensor, nn


class CausalLM(nn.Module):
    """A Hugging Face causal language model, or any other whose output has `logits`.

    `trainer.model.per_sample_loss` of it is the mean over the tokens of each sample, where the model's own
    `loss` is one mean over all tokens of the batch.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, length, vocab_size) of the token after each position of int64 `tokens`."""
        # Padding stands at the end of a sample, where no token attends to it: no mask is needed.
        # A cache of keys and values would only be filled and thrown away.
        return self.model(input_ids=tokens, use_cache=False).logits  # type: ignore[no-any-return]
