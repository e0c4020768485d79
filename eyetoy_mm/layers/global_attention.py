"""Global attention through register and context tokens, linear in positions (docs/architecture.md, section 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyetoy_mm.layers.checks import at_least, fraction
from eyetoy_mm.layers.mlp import FeedForward, apply_linear
from eyetoy_mm.ops import token_attention


class GlobalAttentionTransformer(nn.Module):
    """One global layer over the context token, the register tokens and a map of any rank.

    The tokens attend to everything, a position of the map to itself and the tokens. The residual of the attention
    leaves from LayerNorm1's output (docs/architecture.md, equation 12).

    Args:
        d_model: Channels of the map and the tokens.
        num_heads: All attention heads; must divide ``d_model``.
        num_register_tokens: Number of register tokens; there may be none beside a context token.
        dropout: Dropout of both branches.
        use_input_context_token: Whether the context token comes from the layer before; else this layer owns it.
        use_input_register_tokens: The same for the register tokens.
        use_context_token: Whether there is a context token.

    Raises:
        ValueError: Heads that do not divide the channels, a negative number of registers, a dropout outside ``[0,
            1)``, or neither registers nor a context token: a position would attend to itself alone, whatever the
            queries and keys, and nothing would be global.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        num_register_tokens: int = 4,
        dropout: float = 0.1,
        use_input_context_token: bool = False,
        use_input_register_tokens: bool = False,
        use_context_token: bool = True,
    ) -> None:
        super().__init__()
        at_least(1, d_model=d_model, num_heads=num_heads)
        at_least(0, num_register_tokens=num_register_tokens)
        fraction(dropout=dropout)
        if d_model % num_heads:
            raise ValueError(f"num_heads must divide the channels, got {d_model=} and {num_heads=}")
        if not use_context_token and num_register_tokens == 0:
            raise ValueError(f"global attention needs a token, got {use_context_token=} and {num_register_tokens=}")
        self.num_heads = num_heads
        self.num_context_tokens = int(use_context_token)
        self.num_register_tokens = num_register_tokens
        for name, number, is_input in (
            ("context_token", self.num_context_tokens, use_input_context_token),
            ("register_tokens", num_register_tokens, use_input_register_tokens),
        ):
            if is_input:
                self.register_parameter(name, None)
            elif number:
                self.register_parameter(name, nn.Parameter(torch.randn(1, number, d_model)))
            else:  # not a parameter: it would never get a gradient
                self.register_buffer(name, torch.empty(1, 0, d_model), persistent=False)
        self.layernorm1 = nn.LayerNorm(d_model)
        self.qkv_proj = nn.Linear(d_model, 3 * d_model)
        self.layernorm2 = nn.LayerNorm(d_model)
        self.ffn = FeedForward(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, context_token: Tensor | None = None, register_tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine a map and the tokens.

        Args:
            x: ``(B, *spatial, d_model)``.
            context_token: ``(B, 1, d_model)``, or ``(B, 0, d_model)`` where there is none; needed exactly when the
                layer before owns it.
            register_tokens: ``(B, num_register_tokens, d_model)``; likewise.

        Returns:
            The map, the context token and the register tokens, shaped as they came.

        Raises:
            ValueError: Tokens that are missing, or that are given and not needed.
        """
        context_token = self._token("context_token", context_token, x.shape[0])
        register_tokens = self._token("register_tokens", register_tokens, x.shape[0])
        tokens = torch.cat([context_token, register_tokens], dim=1)
        sequence = self.layernorm1(torch.cat([tokens, x.flatten(1, -2)], dim=1))  # (B, tokens + N, C)

        query, key, value = apply_linear(self.qkv_proj, sequence).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        attended = token_attention(query, key, value, num_tokens=tokens.shape[1]).flatten(-2)
        sequence = sequence + self.dropout(attended)
        sequence = sequence + self.dropout(self.ffn(self.layernorm2(sequence)))

        context_token, register_tokens, flat = sequence.tensor_split((self.num_context_tokens, tokens.shape[1]), dim=1)
        return flat.reshape(x.shape), context_token, register_tokens

    def _token(self, name: str, passed: Tensor | None, batch: int) -> Tensor:
        learned = getattr(self, name)
        if (learned is None) == (passed is None):
            raise ValueError(f"{name} must {'be given: this layer owns none' if learned is None else 'not be given'}")
        return learned.expand(batch, -1, -1) if passed is None else passed


class GlobalAttentionStack(nn.Module):
    """Global layers; the first owns the tokens, each passes them on to the next.

    Args:
        d_model: Channels of the map and the tokens.
        num_heads: All attention heads of a layer.
        num_layers: Number of layers, at least 1.
        num_register_tokens: Number of register tokens; there may be none beside a context token.
        dropout: Dropout of both branches of each layer.
        use_context_token: Whether there is a context token.

    Raises:
        ValueError: No layers, or what :class:`GlobalAttentionTransformer` refuses.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        num_layers: int,
        num_register_tokens: int = 4,
        dropout: float = 0.1,
        use_context_token: bool = True,
    ) -> None:
        super().__init__()
        at_least(1, num_layers=num_layers)
        self.use_context_token = use_context_token
        self.layers = nn.ModuleList(
            GlobalAttentionTransformer(
                d_model,
                num_heads,
                num_register_tokens,
                dropout,
                use_input_context_token=index > 0,
                use_input_register_tokens=index > 0,
                use_context_token=use_context_token,
            )
            for index in range(num_layers)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(B, *spatial, d_model)`` -> the refined map, and the context token ``(B, 1, d_model)`` or None."""
        context_token = register_tokens = None
        for layer in self.layers:
            x, context_token, register_tokens = layer(x, context_token, register_tokens)
        return x, context_token if self.use_context_token else None
