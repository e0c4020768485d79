"""Run NAT, DiNAT and DiNAT_s beside their original code on a CPU: how far results differ, and how fast both are.

    python benchmarks/nat.py --official CHECKOUT --natten-python OLD/bin/python
    python benchmarks/nat.py ... --table speed --rounds 5
    python benchmarks/nat.py ... --record tests/test_backbones/nat_parity        # the small cases, as test data

CHECKOUT is the public repository SHI-Labs/Neighborhood-Attention-Transformer, OLD an environment with natten 0.17, its
torch, and timm. The original models run there, in a process that takes turns with this one, so that both meet the same
disturbances.

Parity: both have the same random weights, much larger than those that a training starts from, ours through `init_cfg`
from a file; a figure is the largest difference relative to the largest value. Speed: classifiers, medians over rounds,
in each of which both take a turn; a training step is forward and backward, no optimizer; a ratio is their time to ours.
With `--threads 1` time is that of the processor, which other work on the machine does not add to.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring import header, machine, row, show
from torch import Tensor, nn

FOUR = dict(embed_dims=4, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4], mlp_ratio=2, layer_scale=0)
TWO = FOUR | dict(depths=[2, 2], num_heads=[2, 4])


def arch_of(depths: list[int], width: int, heads: int, ratio: int, pattern=((1,),) * 4, layer_scale=0.0) -> dict:
    dilations = [[cycle[i % len(cycle)] for i in range(depth)] for depth, cycle in zip(depths, pattern)]
    heads = [heads * 2**stage for stage in range(4)]
    arch = dict(embed_dims=width, depths=depths, num_heads=heads, kernel_size=7, mlp_ratio=ratio, dilations=dilations)
    return arch | dict(layer_scale=layer_scale)


GAPS = ((1, 8), (1, 4), (1, 2), (1,))
MODELS = {  # a family, its numbers
    "NAT-M": ("NAT", arch_of([3, 4, 6, 5], 64, 2, 3)),
    "NAT-T": ("NAT", arch_of([3, 4, 18, 5], 64, 2, 3)),
    "NAT-S": ("NAT", arch_of([3, 4, 18, 5], 96, 3, 2, layer_scale=1e-5)),
    "DiNAT-T": ("DiNAT", arch_of([3, 4, 18, 5], 64, 2, 3, GAPS)),
    "DiNAT_s-T": ("DiNAT_s", arch_of([2, 2, 6, 2], 96, 3, 4, GAPS)),
}
RECORDED = {  # the family, its numbers, height and width of the image, padding
    "window-3": ("NAT", FOUR | dict(kernel_size=3, dilations=[[1], [1], [1, 1], [1]]), (65, 78), "clamp"),
    "window-5": ("NAT", TWO | dict(kernel_size=5, dilations=[[1, 1], [1, 1]]), (41, 50), "clamp"),
    "window-7": ("NAT", TWO | dict(kernel_size=7, dilations=[[1, 1], [1, 1]]), (56, 67), "clamp"),
    "window-11": ("NAT", TWO | dict(kernel_size=11, dilations=[[1, 1], [1, 1]]), (82, 95), "clamp"),
    "dilated": ("DiNAT", TWO | dict(kernel_size=3, dilations=[[1, 4], [1, 2]]), (50, 69), "clamp"),
    "layer-scale": (
        "DiNAT",
        TWO | dict(kernel_size=5, dilations=[[2, 1], [1, 1]], layer_scale=0.1),
        (43, 40),
        "clamp",
    ),
    "swin": ("DiNAT_s", TWO | dict(kernel_size=3, dilations=[[1, 3], [2, 1]]), (53, 46), "clamp"),
    "small-maps": ("DiNAT", FOUR | dict(kernel_size=7, dilations=[[2], [1], [1, 2], [1]]), (45, 70), "zeros"),
    "small-maps-swin": ("DiNAT_s", TWO | dict(kernel_size=5, dilations=[[1, 4], [2, 1]]), (37, 58), "zeros"),
}
LARGE = {name: (*MODELS[name], (224, 256), "clamp") for name in ("NAT-M", "NAT-T", "DiNAT-T", "DiNAT_s-T")} | {
    "DiNAT-T, map too small": (*MODELS["DiNAT-T"], (150, 221), "zeros")
}
CLASSES = 10
FILES = {"NAT": "nat", "DiNAT": "dinat", "DiNAT_s": "dinats"}
TIMED = [("NAT-M", 1, 224), ("NAT-T", 1, 224), ("DiNAT-T", 1, 224), ("DiNAT_s-T", 1, 224), ("NAT-M", 1, 512)]

Case = tuple[str, dict, tuple[int, int], str]

# --- Both sides -------------------------------------------------------------------------------------------------------


def draw(name: str, shape: Sequence[int]) -> np.ndarray:
    """The image, or random weights with which every part matters: a function of the name alone."""
    random = np.random.RandomState(zlib.crc32(name.encode()))  # a generator whose numbers stay what they are
    if name == "image":
        return random.randint(-2, 3, shape).astype(np.float32)
    if len(shape) == 1:
        return np.float32(0.1 * random.randn(*shape) + bool(re.search(r"norm.*weight|gamma", name)))
    return np.float32(random.randn(*shape) * (0.5 if name.endswith("rpb") else math.prod(shape[1:]) ** -0.5))


def evaluate(name: str, model: Callable, image: np.ndarray, table: Tensor) -> dict[str, np.ndarray]:
    """Outputs, and gradients of the sum of their sines by the image and by a table of relative position bias."""
    x = torch.from_numpy(image).requires_grad_()
    outputs = model(x)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    gradients = torch.autograd.grad(sum(y.sin().sum() for y in outputs), [x, table])
    results = {f"{name}/output {i}": y for i, y in enumerate(outputs)}
    results |= {f"{name}/image gradient": gradients[0], f"{name}/bias gradient": gradients[1]}
    return {key: y.detach().numpy() for key, y in results.items()}


def turn(model: nn.Module, x: Tensor, task: str) -> float:
    """Seconds of one forward pass in inference, or of one training step."""
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.process_time
    model.train(task == "step")
    start = clock()
    if task == "step":
        model(x).square().mean().backward()
        model.zero_grad(set_to_none=True)
    else:
        with torch.inference_mode():
            model(x)
    return clock() - start


# --- The original code, in the process that has it --------------------------------------------------------------------


class Original:
    """Answers the requests of the other process; each is the name of a method and its arguments."""

    def __init__(self, checkout: Path) -> None:
        torch.cuda.get_device_capability = lambda *_: (0, 0)  # natten asks when it is imported
        self.checkout = checkout
        self.timed: nn.Module = nn.Identity()
        self.image = torch.zeros(())

    def build(self, folder: str, family: str, arch: dict, **more) -> nn.Module:
        """A model of a folder of the repository; what that imports of OpenMMLab 1.x is only needed to register."""
        registry = types.SimpleNamespace(register_module=lambda: lambda cls: cls)
        for name in ("mmcv", "mmcv.runner", "mmdet", "mmdet.utils", "mmdet.models", "mmdet.models.builder"):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__dict__.update(load_checkpoint=None, get_root_logger=None, BACKBONES=registry)
        for name in FILES.values():
            sys.modules.pop(name, None)
        sys.path.insert(0, str(self.checkout / folder))
        cls = getattr(importlib.import_module(FILES[family]), family)
        sys.path.pop(0)
        arch = {{"embed_dims": "embed_dim"}.get(name, name): value for name, value in arch.items()}
        if not arch["layer_scale"]:
            del arch["layer_scale"]
        return cls(**arch, drop_path_rate=0.0, **more)

    def record(self, family: str, arch: dict, size: list[int], padding: str, path: str) -> None:
        """Write results of a classifier and a dense backbone, and the shapes of the weights that both have."""
        stages = tuple(range(len(arch["depths"])))
        models = {
            "classifier": self.build("classification", family, arch, num_classes=CLASSES),
            "dense": self.build("detection", family, arch, out_indices=stages),
        }
        arrays, shapes = {}, {}
        for name, model in models.items():
            shapes[name] = {key: list(x.shape) for key, x in model.state_dict().items()}
            model.load_state_dict({key: torch.from_numpy(draw(key, shape)) for key, shape in shapes[name].items()})
            model.eval()
            if padding == "zeros":
                _pad_as_before(model)
            tables = [x for key, x in model.named_parameters() if key.endswith("rpb")]
            arrays |= evaluate(name, model, draw("image", (1, 3, *size)), tables[0])
        np.savez_compressed(path, shapes=json.dumps(shapes), **arrays)

    def prepare(self, family: str, arch: dict, batch: int, side: int) -> None:
        """Build the model that takes turns."""
        self.timed = self.build("classification", family, arch, num_classes=1000)
        self.image = torch.randn(batch, 3, side, side)

    def turn(self, task: str) -> float:
        """Seconds of one turn."""
        return turn(self.timed, self.image, task)


def _pad_as_before(model: nn.Module) -> None:
    """The rule for small maps of natten 0.14 and 0.15, which 0.17 refuses: zeros around the input of the layer."""

    def before(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        height, width = module.size = inputs[0].shape[1:3]
        reach = [kernel * dilation for kernel, dilation in zip(module.kernel_size, module.dilation)]
        return F.pad(inputs[0], (0, 0, 0, max(0, reach[1] - width), 0, max(0, reach[0] - height)))

    for module in model.modules():
        if hasattr(module, "rpb"):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(lambda module, _, y: y[:, : module.size[0], : module.size[1]])


def answer(checkout: Path) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no reply
    original = Original(checkout)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(getattr(original, method)(*arguments)), file=replies, flush=True)


# --- Ours, and the tables ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def other_process(arguments: argparse.Namespace) -> Iterator[Callable]:
    """A function that calls a method of :class:`Original` there."""
    command = [arguments.natten_python, "-W", "ignore", __file__, "--worker", "--official", str(arguments.official)]
    command += ["--threads", str(arguments.threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(method: str, *values) -> object:
            process.stdin.write(json.dumps([method, values]) + "\n")
            process.stdin.flush()
            reply = process.stdout.readline()
            if not reply:
                sys.exit(f"the original code failed at {method}{values}; its message is above")
            return json.loads(reply)

        yield ask
        process.stdin.close()


class Classifier(nn.Module):
    def __init__(self, classes: int, family: str, arch: dict, **more) -> None:
        super().__init__()
        from eyetoy_mm import backbones

        self.backbone = getattr(backbones, family)(None, **arch, out_type="avg_featmap", **more)
        self.head = nn.Linear(arch["embed_dims"] * 2 ** (len(arch["depths"]) - 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)[-1])


def ours(case: Case, shapes: dict[str, dict[str, list[int]]], folder: Path) -> dict[str, np.ndarray]:
    """Results with the same weights, through files with the names that the published ones have."""
    from eyetoy_mm import backbones

    family, arch, size, padding = case
    states = {
        name: {key: torch.from_numpy(draw(key, shape)) for key, shape in named.items()}
        for name, named in shapes.items()
    }
    init = {name: dict(type="Pretrained", checkpoint=str(folder / f"{name}.pth")) for name in states}
    for name, state in states.items():
        torch.save(state, init[name]["checkpoint"])
    classifier = Classifier(CLASSES, family, arch, padding=padding, init_cfg=init["classifier"])
    classifier.head.load_state_dict({name: states["classifier"][f"head.{name}"] for name in ("weight", "bias")})
    dense = getattr(backbones, family)(None, **arch, padding=padding, init_cfg=init["dense"])
    results = {}
    for name, model, backbone in (("classifier", classifier, classifier.backbone), ("dense", dense, dense)):
        backbone.init_weights()
        model.eval()
        results |= evaluate(name, model, draw("image", (1, 3, *size)), backbone.levels[0].blocks[0].attn.rpb)
    return results


def parity_table(ask: Callable, arguments: argparse.Namespace) -> None:
    header("case", "image", "logits", "maps", "gradient by the image", "by the bias")
    with tempfile.TemporaryDirectory() as folder:
        for name, case in (RECORDED if arguments.record else RECORDED | LARGE).items():
            path = Path(folder) / "recorded.npz"
            ask("record", *case, str(path))
            recorded = dict(np.load(path))
            shapes = json.loads(str(recorded.pop("shapes")))
            results = ours(case, shapes, Path(folder))
            worst = dict.fromkeys(("classifier/output", "dense/output", "image gradient", "bias gradient"), 0.0)
            for key, mine in results.items():
                column = next(column for column in worst if column in key)
                worst[column] = max(worst[column], np.abs(mine - recorded[key]).max() / np.abs(recorded[key]).max())
            row(name, "x".join(map(str, case[2])), *(f"{value:.0e}" for value in worst.values()))
            if arguments.record:  # a part of the gradients tells as much as all of them
                thin = {key: x[..., ::5, ::5] if "image gradient" in key else x for key, x in recorded.items()}
                description = dict(case=json.dumps(case), shapes=json.dumps(shapes))
                np.savez_compressed(arguments.record / f"{name}.npz", **description, **thin)


def speed_table(ask: Callable, arguments: argparse.Namespace) -> None:
    header("model", "images", "forward: ours, ms", "original, ms", "ratio", "step: ours, ms", "original, ms", "ratio")
    for name, batch, side in TIMED:
        if arguments.only not in name:
            continue
        model, image = Classifier(1000, *MODELS[name]), torch.randn(batch, 3, side, side)
        ask("prepare", *MODELS[name], batch, side)
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(arguments.rounds + 1):
            for task in ("forward", "step"):
                pair = {"ours": turn(model, image, task), "original": ask("turn", task)}
                for side_of, seconds in pair.items() if number else ():  # the first warms up
                    times.setdefault((task, side_of), []).append(1e3 * seconds)
        cells = []
        for task in ("forward", "step"):
            mine, other = (statistics.median(times[task, side_of]) for side_of in ("ours", "original"))
            cells += [show([mine]), show([other]), f"{other / mine:.2f}"]
        row(name, f"{batch} of {side}x{side}", *cells)


TABLES = {"parity": parity_table, "speed": speed_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="checkout of the original repository")
    parser.add_argument("--natten-python", help="interpreter of an environment with natten 0.17, its torch, and timm")
    parser.add_argument("--table", choices=TABLES, help="one of the tables")
    parser.add_argument("--only", default="", help="models whose name has this in it, in the table of speed")
    parser.add_argument("--record", type=Path, help="folder for the small cases of parity; no other table then")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.worker:
        answer(arguments.official)
        return
    if arguments.natten_python is None:
        parser.error("--natten-python is needed, for the original code")
    from mmengine.logging import MMLogger

    MMLogger.get_instance("benchmark", log_level="WARNING")
    print(f"torch {torch.__version__}, {machine('cpu')}, {arguments.threads} threads, medians of {arguments.rounds}")
    with other_process(arguments) as ask:
        for name, table in TABLES.items():
            if name == ("parity" if arguments.record else arguments.table or name):
                table(ask, arguments)


if __name__ == "__main__":
    main()
