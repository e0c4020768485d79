"""One of two processes that share a synchronised batch norm; run by test_layers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Layer = TypeVar("Layer", bound=torch.nn.Module)


def inputs() -> Tensor:
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))


def weighted(layer: Layer) -> Layer:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1, 2]))
    return layer


def main(folder: Path, rank: int) -> None:
    import eyetoy_mm  # noqa: F401, I001 - before mmcv: supplies what mmcv-lite lacks
    from mmcv.ops import SyncBatchNorm

    dist.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=2)
    x = inputs()[2 * rank : 2 * rank + 2].clone().requires_grad_()
    layer = weighted(SyncBatchNorm(3))
    out = layer(x)
    out.square().sum().backward()
    torch.save([t.detach() for t in (out, x.grad, layer.running_mean, layer.running_var)], folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
