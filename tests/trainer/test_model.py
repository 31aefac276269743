"""The model: what it may look at, what its loss counts, how large its presets are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from trainer.model import (
    GPT,
    PRESETS,
    GPTConfig,
    TokenLoss,
    per_sample_loss,
    rotary_table,
    rotate,
)

PAD = 1


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=32, context_length=16, width=32, layers=2, heads=2))


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(2, 32, (3, 16), generator=torch.Generator().manual_seed(0))


def test_a_later_token_changes_nothing_before_it(model: GPT, tokens: torch.Tensor) -> None:
    changed = tokens.clone()
    changed[:, 9] = (tokens[:, 9] + 1) % 30 + 2
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=0)
    assert (before[:, 9:] != after[:, 9:]).any(dim=-1).all()


def test_the_loss_is_the_mean_over_next_tokens(model: GPT, tokens: torch.Tensor) -> None:
    logits = model(tokens)[:, :-1]
    expected = torch.stack([F.cross_entropy(logits[i], tokens[i, 1:]) for i in range(len(tokens))])
    torch.testing.assert_close(per_sample_loss(model, tokens, PAD), expected)


def test_padding_counts_for_nothing(model: GPT, tokens: torch.Tensor) -> None:
    padded = tokens.clone()
    padded[1, 10:] = PAD
    padded[2] = PAD
    losses = per_sample_loss(model, padded, PAD)
    torch.testing.assert_close(losses[0], per_sample_loss(model, tokens, PAD)[0])
    torch.testing.assert_close(losses[1], per_sample_loss(model, tokens[1:2, :10], PAD)[0])
    assert losses[2] == 0


def test_padding_gives_no_gradient(model: GPT, tokens: torch.Tensor) -> None:
    padded = torch.cat([tokens, torch.full_like(tokens, PAD)])
    parameters = list(model.parameters())
    plain = torch.autograd.grad(per_sample_loss(model, tokens, PAD).sum(), parameters)
    filled = torch.autograd.grad(per_sample_loss(model, padded, PAD).sum(), parameters)
    for one, other in zip(plain, filled, strict=True):
        torch.testing.assert_close(one, other)


def test_under_bfloat16_weights_and_loss_stay_float32(model: GPT, tokens: torch.Tensor) -> None:
    exact = TokenLoss(model, pad_id=PAD, compute_dtype=torch.float32)(tokens)
    rounded = TokenLoss(model, pad_id=PAD, compute_dtype=torch.bfloat16)(tokens)
    assert rounded.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(rounded, exact, rtol=2e-2, atol=0)
    assert (rounded != exact).any()


def test_rotary_products_depend_on_the_distance_only() -> None:
    table = rotary_table(20, 8)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 8, generator=generator)
    everywhere = torch.ones(1, 1, 20, 1)
    queries, keys = rotate(query * everywhere, table)[0, 0], rotate(key * everywhere, table)[0, 0]
    products = queries @ keys.T
    torch.testing.assert_close(products[3:, 3:], products[:-3, :-3])
    assert not torch.allclose(products[0, 0], products[0, 5])


@pytest.mark.parametrize(
    ("preset", "vocab_size", "expected"),
    [
        ("1m", 2048, 1_115_264),
        ("14m", 8192, 13_767_552),
        ("110m", 32768, 110_119_680),
        ("350m", 32768, 337_167_360),
    ],
)
def test_presets_are_as_large_as_their_names(preset: str, vocab_size: int, expected: int) -> None:
    with torch.device("meta"):
        model = GPT(PRESETS[preset](vocab_size, 256))
    assert model.num_parameters == expected


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width=20 .* multiple of 2 \* heads = 12"):
        GPTConfig(vocab_size=8, context_length=8, width=20, layers=1, heads=6)


def test_a_type_to_compute_in_that_would_not_be_used_is_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match=r"float16 must be torch\.float32 or torch\.bfloat16"):
        TokenLoss(model, pad_id=PAD, compute_dtype=torch.float16)
