"""One of two processes that evaluates with the buffers of the first: buffers_run.py FOLDER."""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from mmengine.config import Config
from torch import nn

from eyetoy_mm.engine.distributed import joined
from eyetoy_mm.engine.hooks import EvaluateSavedBuffersHook

if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined(Config(dict(launcher="pytorch", env_cfg=dict(dist_cfg=dict(timeout=60))))):
        rank = dist.get_rank()
        norm = nn.BatchNorm1d(3)
        norm.running_mean += rank + 1
        norm.weight.data += rank
        norm.register_buffer("cache", torch.full((2 + rank,), float(rank)), persistent=False)
        model = nn.parallel.DistributedDataParallel(norm, broadcast_buffers=False, init_sync=False)
        EvaluateSavedBuffersHook().before_val_epoch(SimpleNamespace(model=model))
        torch.save(dict(norm.named_buffers()) | dict(weight=norm.weight.detach()), Path(sys.argv[1], f"{rank}.pth"))
