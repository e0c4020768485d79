"""Focal losses (1708.02002) over sigmoid and over softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from eyetoy_mm.compat.mmcv_ext.common import at_least_float

_TINY = torch.finfo(torch.float32).tiny  # FLT_MIN, in double precision too, as in mmcv's kernels


def _focal_terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """p, log p, log(1 - p) in at least float32, and the factors (N, C) of the positive and of the negative term."""
    p = torch.sigmoid(at_least_float(input))
    log_p, log_not_p = p.clamp(min=_TINY).log(), (1 - p).clamp(min=_TINY).log()
    positive = torch.arange(input.size(1), device=input.device) == target[:, None]  # a background row has no positive
    factor = torch.ones_like(p)
    if weight.numel() > 0:
        # The background label is one past the last weight. mmcv's kernel reads whatever lies there; we take 1.
        has_weight = (target >= 0) & (target < weight.numel())
        factor = factor * torch.where(has_weight, weight.to(p)[target.clamp(0, weight.numel() - 1)], 1.0)[:, None]
    return p, log_p, log_not_p, -alpha * factor * positive, -(1 - alpha) * factor * ~positive


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss (N, C) of logits (N, C) and labels (N,) into output.

    Args:
        input: Logits (N, C).
        target: Labels (N,), with C for background.
        weight: (C,), one weight per label, or empty.
        output: (N, C), written to.
        gamma: Exponent that makes easy examples count less.
        alpha: Weight of the positive class; the negative one has 1 - alpha.
    """
    p, log_p, log_not_p, positive, negative = _focal_terms(input, target, weight, alpha)
    output.copy_(positive * (1 - p).pow(gamma) * log_p + negative * p.pow(gamma) * log_not_p)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of `sigmoid_focal_loss_forward` by each logit into grad_input (N, C)."""
    p, log_p, log_not_p, positive, negative = _focal_terms(input, target, weight, alpha)
    positive = positive * (1 - p).pow(gamma) * (1 - p - gamma * p * log_p)
    negative = negative * p.pow(gamma) * (gamma * (1 - p) * log_not_p - p)
    grad_input.copy_(positive + negative)


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss (N,) of probabilities (N, C) and labels (N,) into output; 0 for a label below 0.

    Args:
        input: The softmax of the logits (N, C).
        target: Labels (N,).
        weight: (C,), one weight per label, or empty.
        output: (N,), written to.
        gamma: Exponent that makes easy examples count less.
        alpha: Factor of the whole.
    """
    p, factor = _of_label(input, target, weight, alpha)
    output.copy_(-factor * (1 - p).pow(gamma) * p.clamp(min=_TINY).log())


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of `softmax_focal_loss_forward` by each logit into grad_input (N, C); buff (N,) is room."""
    p, factor = _of_label(input, target, weight, alpha)
    complement = (1 - p).clamp(min=_TINY)  # at p = 1 the second term is 0, also with gamma < 1
    by_p = gamma * complement.pow(gamma - 1) * p * p.clamp(min=_TINY).log() - (1 - p).pow(gamma)
    one_hot = torch.arange(input.size(1), device=input.device) == target[:, None]
    grad_input.copy_((factor * by_p)[:, None] * (one_hot.to(p) - at_least_float(input)))


def _of_label(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Probability (N,) of each label, in at least float32, and the factor (N,) of its loss."""
    label = target.clamp(min=0)
    p = at_least_float(input).gather(1, label[:, None])[:, 0]
    factor = alpha * (target >= 0).to(p)
    return p, factor * weight.to(p)[label] if weight.numel() else factor
