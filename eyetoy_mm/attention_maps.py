"""What a model looks at: the probabilities of its attention, and where on the image they lie.

Hooks keep what the attention was given while the model runs as it always does; the few rows of probabilities that are
asked for are computed from that. Works on whatever has an :class:`~eyetoy_mm.encoder.Encoder2D` in it: the encoder
itself, the backbone, or a whole segmentor, detector or classifier.

Boxes are ``x1, y1, x2, y2`` in pixels of the encoder's input: the cell that a token stands for where its map is laid
over the image, as heads lay it. What reached the token through the layers before it comes from farther away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.errors import UserError
from eyetoy_mm.layers.attention import SharedScaleNA
from eyetoy_mm.layers.global_attention import GlobalAttentionTransformer
from eyetoy_mm.ops.neighborhood import Axis


@dataclass(frozen=True)
class GroupAttention:
    """The attention of one position in one head group.

    Attributes:
        merging: Positions per axis that the group merges into one token.
        window: The group's window in tokens per axis; a map that is smaller is attended as a whole.
        token: Row and column of the position's token; all positions of a token attend alike.
        rows: Rows of the tokens that are attended to.
        columns: Their columns.
        probabilities: ``(heads, rows, columns)``; those of a head sum to 1.
        boxes: ``(rows, columns, 4)``, the cells of the tokens that are attended to.
        own_box: ``(4,)``, the cell of the position's token.
    """

    merging: int
    window: int
    token: tuple[int, int]
    rows: range
    columns: range
    probabilities: Tensor
    boxes: Tensor
    own_box: Tensor

    @property
    def average(self) -> Tensor:
        """``(rows, columns)``, the mean over the heads."""
        return self.probabilities.mean(dim=0)


@dataclass(frozen=True)
class TokenAttention:
    """The attention of the context and register tokens in one global layer.

    Attributes:
        names: Of the tokens: ``"context"`` first where there is one, then ``"register 0"`` and so on.
        on_map: ``(tokens, heads, rows, columns)``, probabilities over the last map.
        on_tokens: ``(tokens, heads, tokens)``, probabilities over the tokens; together they sum to 1.
        boxes: ``(rows, columns, 4)``, the cells of the map.
    """

    names: tuple[str, ...]
    on_map: Tensor
    on_tokens: Tensor
    boxes: Tensor

    @property
    def average(self) -> Tensor:
        """``(tokens, rows, columns)``, the mean over the heads of what falls on the map."""
        return self.on_map.mean(dim=1)


@contextmanager
def record_attention(model: nn.Module, block: int = 0) -> Iterator[AttentionRecord]:
    """Record one pass of a model: one of its blocks, and its global layers.

    ::

        with record_attention(model, block=2) as record:
            model(images)
        groups, layers = record.neighborhoods(x=100, y=40), record.tokens()

    Args:
        model: An ``Encoder2D``, or anything that holds one.
        block: Which block, counted from 0 through all stages.

    Yields:
        The record; it can be asked as soon as the model has run, and as often as wanted.

    Raises:
        UserError: The model has no encoder, or the encoder no such block.
    """
    encoder = next((module for module in model.modules() if isinstance(module, Encoder2D)), None)
    if encoder is None:
        raise UserError(f"{type(model).__name__} has no EyeToy encoder, whose attention could be shown")
    count = len(encoder.transformer_stack.blocks)
    if not 0 <= block < count:
        raise UserError(f"there is no block {block}: the encoder has blocks 0 to {count - 1}")
    record = AttentionRecord(encoder, block)
    with record._hooks():
        yield record


class AttentionRecord:
    """What :func:`record_attention` kept; its size is linear in the number of positions."""

    def __init__(self, encoder: Encoder2D, block: int) -> None:
        self._stem = encoder.initial_proj
        self._first = encoder.transformer_stack.blocks[0]
        self._block = encoder.transformer_stack.blocks[block]
        self._heads = [module for module in self._block.modules() if isinstance(module, SharedScaleNA)]
        self._layers = [module for module in encoder.modules() if isinstance(module, GlobalAttentionTransformer)]
        self._sizes: dict[nn.Module, tuple[int, int]] = {}  # rows and columns of a module's input
        self._projected: dict[nn.Module, Tensor] = {}  # query, key and value of all heads, in the last axis

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module in {self._stem, self._first, self._block, *self._layers}:
                stack.enter_context(module.register_forward_hook(self._keep_size))
            for head in self._heads:
                stack.enter_context(head.register_forward_hook(self._project))
            for layer in self._layers:
                stack.enter_context(layer.qkv_proj.register_forward_hook(partial(self._keep_projected, layer)))
            yield

    def _keep_size(self, module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        if module in self._sizes:
            raise UserError("the encoder ran more than once (for sliding windows?); record one pass over whole images")
        _, rows, columns, _ = args[0].shape
        self._sizes[module] = rows, columns

    @torch.no_grad()
    def _project(self, head: SharedScaleNA, args: tuple[Tensor, ...], output: Tensor) -> None:
        # Again: the group may take a shorter way that does not pass these modules. No dropout, as in evaluation.
        self._projected[head] = head.qkv_proj(head.tokenizer(head._pad(args[0])))

    def _keep_projected(self, layer: nn.Module, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._projected[layer] = output.detach()

    def neighborhoods(self, x: float, y: float, image: int = 0) -> tuple[GroupAttention, ...]:
        """The attention of the position at a pixel, in each head group of the recorded block.

        Args:
            x: Column in the encoder's input, from 0 to below its width.
            y: Row, likewise.
            image: Which image of the batch.

        Raises:
            UserError: The pixel lies outside the image, or the model has not run.
        """
        height, width = self._size(self._stem)
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"position {x},{y} lies outside the image of {width} x {height} pixels")
        return tuple(self._neighborhood(head, x, y, image) for head in self._heads)

    def tokens(self, image: int = 0) -> tuple[TokenAttention, ...]:
        """The attention of the context and register tokens, for each global layer.

        Args:
            image: Which image of the batch.

        Raises:
            UserError: The model has no global stack, or has not run.
        """
        if not self._layers:
            raise UserError("the encoder has no global stack, so there are no context and register tokens")
        return tuple(self._tokens(layer, image) for layer in self._layers)

    def _neighborhood(self, head: SharedScaleNA, x: float, y: float, image: int) -> GroupAttention:
        cells = self._cells(self._block, head.merging)
        query, key = self._query_and_key(head, image)  # (rows, columns, heads, dim)
        token = cells[0].at(y), cells[1].at(x)
        window, dilation = head.attn_params.attention_window, head.attn_params.dilation
        rows, columns = (Axis(cell.count, window, dilation).keys(at) for cell, at in zip(cells, token))
        scores = torch.einsum("hd,rchd->hrc", query[token], key[list(rows)][:, list(columns)])
        scores = scores * query.shape[-1] ** -0.5
        boxes = _boxes(*cells)
        return GroupAttention(
            merging=head.merging,
            window=window,
            token=token,
            rows=rows,
            columns=columns,
            probabilities=scores.flatten(1).softmax(dim=-1).view_as(scores).cpu(),
            boxes=boxes[list(rows)][:, list(columns)],
            own_box=boxes[token],
        )

    def _tokens(self, layer: GlobalAttentionTransformer, image: int) -> TokenAttention:
        cells = self._cells(layer)
        shape = cells[0].count, cells[1].count
        query, key = self._query_and_key(layer, image)  # (tokens + positions, heads, dim)
        count = len(query) - shape[0] * shape[1]
        scores = torch.einsum("qhd,khd->qhk", query[:count], key) * query.shape[-1] ** -0.5
        probabilities = scores.softmax(dim=-1).cpu()
        registers = layer.num_register_tokens
        return TokenAttention(
            names=("context",) * (count - registers) + tuple(f"register {i}" for i in range(registers)),
            on_map=probabilities[..., count:].unflatten(-1, shape),
            on_tokens=probabilities[..., :count],
            boxes=_boxes(*cells),
        )

    def _query_and_key(
        self, attention: SharedScaleNA | GlobalAttentionTransformer, image: int
    ) -> tuple[Tensor, Tensor]:
        """``(*positions, heads, head_dim)``, in float32 at least."""
        projected = self._projected[attention][image]
        projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
        query, key, _ = projected.unflatten(-1, (3, attention.num_heads, -1)).unbind(-3)
        return query, key

    def _size(self, module: nn.Module) -> tuple[int, int]:
        if module not in self._sizes:
            raise UserError("nothing was recorded: run the model inside `with record_attention(model) as record`")
        return self._sizes[module]

    def _cells(self, module: nn.Module, merging: int = 1) -> tuple[_Cells, _Cells]:
        """The cells of the rows and of the columns of a module's input."""
        stride = cast(tuple[int, int], self._stem.stride)
        sizes = zip(self._size(self._stem), self._size(self._first), stride, self._size(module))
        rows, columns = (_Cells(pixels, stem * step, length, merging) for pixels, stem, step, length in sizes)
        return rows, columns


@dataclass(frozen=True)
class _Cells:
    """What the tokens along one axis of a map stand for.

    The stem's positions lie a stride apart. A map that is halved, odd or even, spreads evenly over the same extent; so
    does every later one. The last cells may reach beyond the image, where they are cut.
    """

    pixels: int
    covered: int  # pixels that the stem's map covers
    length: int  # positions of the map
    merging: int

    @property
    def count(self) -> int:
        """Number of tokens."""
        return -(-self.length // self.merging)

    def at(self, pixel: float) -> int:
        """Token whose cell holds a pixel."""
        return min(int(pixel * self.length // self.covered), self.length - 1) // self.merging

    def borders(self) -> Tensor:
        """``(count + 1,)`` borders of the cells in pixels."""
        positions = (torch.arange(self.count + 1, dtype=torch.float64) * self.merging).clamp(max=self.length)
        return (positions * self.covered / self.length).clamp(max=self.pixels).float()


def _boxes(rows: _Cells, columns: _Cells) -> Tensor:
    """``(rows, columns, 4)``."""
    y, x = rows.borders(), columns.borders()
    top, left = torch.meshgrid(y[:-1], x[:-1], indexing="ij")
    bottom, right = torch.meshgrid(y[1:], x[1:], indexing="ij")
    return torch.stack([left, top, right, bottom], dim=-1)
