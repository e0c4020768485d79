"""Time EyeToy backbones against Swin-T, ConvNeXt-T, ResNet-50 and DeiT-S of mmpretrain.

    python benchmarks/models.py                          # tiny at 224 and 512, the peers beside it
    python benchmarks/models.py --arch tiny small --size 224 --batch 4

Prints a markdown table: images per second of the forward pass in inference and of a training step (forward, backward;
no optimizer), and both relative to Swin-T. A figure is the median over rounds; in each round every model takes a turn,
so that all meet the same disturbances. Backbones alone, float32 on a CPU (bfloat16 autocast with `--device cuda`); the
peers give the maps that a dense head takes, where they have some.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from eyetoy_mm.archs import encoder_params, resolve
from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.engine.measuring import take_turns
from eyetoy_mm.layers.conv import to_channels_first

PEERS = {
    "Swin-T": dict(type="SwinTransformer", arch="tiny", img_size=224, out_indices=(0, 1, 2, 3), drop_path_rate=0.0),
    "ConvNeXt-T": dict(
        type="ConvNeXt", arch="tiny", out_indices=(0, 1, 2, 3), gap_before_final_norm=False, drop_path_rate=0.0
    ),
    "ResNet-50": dict(type="ResNet", depth=50, out_indices=(0, 1, 2, 3)),
    "DeiT-S": dict(type="VisionTransformer", arch="deit-small", img_size=224, patch_size=16),
}


TIMM = {
    "Swin-T": "swin_tiny_patch4_window7_224",
    "ConvNeXt-T": "convnext_tiny",
    "ResNet-50": "resnet50",
    "DeiT-S": "deit_small_patch16_224",
}


def build(name: str, size: int) -> nn.Module:
    """A backbone by name; without OpenMMLab, as on a machine that has no more than torch, peers of timm and our own."""
    if name not in PEERS:
        try:
            from eyetoy_mm.backbones import EyeToy
        except Exception:  # not there, or not for this Python or NumPy
            return EyeToyWithoutOpenMMLab(name)
        return EyeToy(arch=name, drop_path_rate=0.0)
    sizes = {"img_size": size} if "img_size" in PEERS[name] else {}
    try:
        from mmpretrain.registry import MODELS
    except Exception:  # likewise
        import timm

        return timm.create_model(TIMM[name], features_only=True, drop_path_rate=0.0, **sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS.build(PEERS[name] | sizes)


class EyeToyWithoutOpenMMLab(nn.Module):
    """What the backbone computes: the encoder, and a norm for the map of each stage."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        resolved = resolve(arch)
        self.encoder = Encoder2D(**encoder_params(resolved, 3).__dict__)
        self.norms = nn.ModuleList(map(nn.LayerNorm, resolved.embed_dims))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [features for features, _ in self.encoder.forward_stages(x)]
        return [to_channels_first(norm(features)) for norm, features in zip(self.norms, maps, strict=True)]


def total(output: object) -> Tensor:
    maps = output if isinstance(output, list | tuple) else [output]
    return sum((x.float().mean() for x in maps), torch.zeros(()))


def forward(model: nn.Module, x: Tensor) -> None:
    model.eval()
    with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
        model(x)


def step(model: nn.Module, x: Tensor) -> None:
    model.train()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
        loss = total(model(x))
    loss.backward()
    model.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["tiny"])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--size", nargs="+", type=int, default=[224, 512])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{arguments.threads} threads"
    print(f"torch {torch.__version__}, {where}, batch {arguments.batch}, medians of {arguments.rounds}\n")
    print("| size | model | parameters | forward, images/s | of Swin-T | training, images/s | of Swin-T |")
    print("|---|---|---|---|---|---|---|")
    for size in arguments.size:
        names = [*arguments.arch, *arguments.peers]
        models = {name: build(name, size).to(arguments.device) for name in names}
        x = torch.randn(arguments.batch, 3, size, size, device=arguments.device)
        tasks = {(name, task): partial(timed, task, models[name], x) for name in names for task in (forward, step)}
        times = take_turns(tasks, arguments.rounds)
        rates = {key: arguments.batch / statistics.median(seconds) for key, seconds in times.items()}
        for name in names:
            cells = [f"{sum(p.numel() for p in models[name].parameters()) / 1e6:.1f} M"]
            for task in (forward, step):
                peer = rates.get(("Swin-T", task))
                cells += [f"{rates[name, task]:.1f}", f"{rates[name, task] / peer:.2f}" if peer else "-"]
            print(f"| {size} | {name} | {' | '.join(cells)} |", flush=True)


def timed(task: Callable[[nn.Module, Tensor], None], model: nn.Module, x: Tensor) -> float:
    synchronize(x)
    start = time.perf_counter()
    task(model, x)
    synchronize(x)
    return time.perf_counter() - start


def synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
