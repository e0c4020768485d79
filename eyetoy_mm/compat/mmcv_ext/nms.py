"""Non-maximum suppression of boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eyetoy_mm.compat.mmcv_ext.boxes import bbox_overlaps
from eyetoy_mm.compat.mmcv_ext.common import at_least_float, torchvision


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (K,) of the boxes that stay, by falling score.

    Args:
        boxes: (N, 4), x1 y1 x2 y2.
        scores: (N,).
        iou_threshold: A box goes when its overlap with a better one is larger than this.
        offset: 0, or 1 where a box from x1 to x2 is x2 - x1 + 1 pixels wide.
    """
    kernel = torchvision("nms").ops.nms
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    dtype = torch.promote_types(at_least_float(boxes).dtype, at_least_float(scores).dtype)
    if offset:
        # (x2 + 1) - x1 is mmcv's (x2 - x1) + 1 except for rounding, which double precision keeps out of the way.
        dtype = torch.float64
        boxes = boxes.to(dtype) + torch.tensor([0, 0, offset, offset], dtype=dtype, device=boxes.device)
    if dtype != torch.float64:
        # mmcv compares in float32. torchvision on CPU would compare with the double, and an overlap of exactly 0.3 is
        # larger than that when rounded to float32.
        iou_threshold = float(np.float32(iou_threshold))
    return kernel(boxes.to(dtype), scores.to(dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS on CPU, step by step as mmcv's (mmcv/ops/csrc/pytorch/cpu/nms.cpp), down to the order of equal scores.

    Args:
        boxes: (N, 4), x1 y1 x2 y2.
        scores: (N,).
        dets: (N, 5); its first K rows become the boxes that stay with their new scores, by falling score.
        iou_threshold: Overlap from which on a box loses score; not used by method 2.
        sigma: Width of the Gaussian of method 2.
        min_score: A box goes when its score falls below this.
        method: 0 (naive: the score becomes 0), 1 (linear), or 2 (Gaussian).
        offset: As in `nms`.

    Returns:
        Indices (K,) of the boxes that stay.
    """
    count = boxes.size(0)
    box = at_least_float(boxes).detach().cpu().numpy().astype(np.float32)
    score = at_least_float(scores).detach().cpu().numpy().astype(np.float32)
    areas = (box[:, 2] - box[:, 0] + np.float32(offset)) * (box[:, 3] - box[:, 1] + np.float32(offset))
    index = np.arange(count)
    out = np.zeros((count, 5), dtype=np.float32)
    columns = (box, score, areas, index)

    i = 0
    while i < count:
        best = i + int(np.argmax(score[i:count]))
        for column in columns:
            column[[i, best]] = column[[best, i]]
        out[i, :4], out[i, 4] = box[i], score[i]

        remaining = slice(i + 1, count)
        low, high = np.maximum(box[i, :2], box[remaining, :2]), np.minimum(box[i, 2:], box[remaining, 2:])
        sides = np.maximum(np.float32(0), high - low + np.float32(offset))
        inter = sides[:, 0] * sides[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):  # two boxes without area: nan, which changes no score
            overlap = inter / (areas[i] + areas[remaining] - inter)
        if method == 2:
            weight = np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            lowered = np.float32(1) - overlap if method == 1 else np.zeros_like(overlap)
            weight = np.where(overlap >= np.float32(iou_threshold), lowered, np.float32(1))
        score[remaining] *= weight

        # mmcv fills the place of a box that goes with the last box of the list, and looks at that one next: the gaps
        # among the first places are filled with the boxes that stay, taken from the end.
        goes = score[remaining] < np.float32(min_score)
        if goes.any():
            stays = int((~goes).sum())
            gaps = i + 1 + np.flatnonzero(goes[:stays])
            fillers = i + 1 + stays + np.flatnonzero(~goes[stays:])[::-1]
            for column in columns:
                column[gaps] = column[fillers]
            count = i + 1 + stays
        i += 1

    dets[:count] = torch.from_numpy(out[:count]).to(dets)
    return torch.from_numpy(index[:count].copy()).to(boxes.device)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes by what suppresses them: the index of a box that stays, then of those that it suppresses.

    Args:
        dets: (N, 5), x1 y1 x2 y2 score.
        iou_threshold: A box goes when its overlap with a better one is this or larger.

    Returns:
        The groups, by falling score of their first box; within a group by falling score.
    """
    order = dets[:, 4].sort(descending=True).indices
    boxes = at_least_float(dets[order, :4])
    overlaps = boxes.new_zeros(len(boxes), len(boxes))
    bbox_overlaps(boxes, boxes, overlaps, mode=0, aligned=False, offset=0)
    reached = (overlaps >= iou_threshold).cpu().numpy()
    left = np.ones(len(boxes), dtype=bool)
    names, groups = order.cpu().numpy(), []
    for i in range(len(boxes)):
        if left[i]:
            left[i] = False
            group = np.concatenate([[i], np.flatnonzero(reached[i] & left)])
            left[group] = False
            groups.append(names[group].tolist())
    return groups
