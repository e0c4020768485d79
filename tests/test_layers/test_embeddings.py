"""Positional embeddings against sines and cosines written out."""

import math

import torch

from eyetoy_mm.layers import PositionalEmbedding1D, PositionalEmbedding2D, PositionalEmbedding3D


def test_one_axis_is_interleaved_sine_and_cosine():
    embedding = PositionalEmbedding1D(4)(torch.zeros(2, 3, 7))
    for p in range(3):
        expected = [math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)]
        torch.testing.assert_close(embedding[p], torch.tensor(expected))


def test_two_axes_are_rows_then_columns():
    embedding = PositionalEmbedding2D(8)(torch.zeros(1, 5, 3, 8))
    rows, columns = PositionalEmbedding1D(4)(torch.zeros(1, 5, 1)), PositionalEmbedding1D(4)(torch.zeros(1, 3, 1))
    assert embedding.shape == (5, 3, 8)
    for r in range(5):
        for c in range(3):
            torch.testing.assert_close(embedding[r, c], torch.cat([rows[r], columns[c]]))


def test_three_axes_tell_every_position_apart():
    embedding = PositionalEmbedding3D(12)(torch.zeros(1, 4, 3, 2, 12)).flatten(0, 2)
    assert torch.cdist(embedding, embedding).fill_diagonal_(1).min() > 0.1


def test_half_precision_does_not_blur_positions():
    embedding = PositionalEmbedding1D(4)
    low = embedding(torch.zeros(1, 3000, 4, dtype=torch.bfloat16))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), embedding(torch.zeros(1, 3000, 4)), atol=0.01, rtol=0)
