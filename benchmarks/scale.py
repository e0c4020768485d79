"""A run on many GPUs, computed on paper: bytes read, steps, hours, checkpoints, network, and what would hold it up.

    python benchmarks/scale.py --into docs/scale.md
    python benchmarks/scale.py --gpus 256 --gpu-tflops 990 --utilisation 0.3 --network-gbit 400

What is measured here, of each config: parameters, FLOPs of an image, the size of a checkpoint as it is saved, and the
processor time of an image from file to batch. Sizes of the data sets are those that are published. All else is assumed,
and an option: no figure of a GPU is measured.
"""

from __future__ import annotations

import argparse
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyetoy_mm.paths import package_file
from eyetoy_mm.tables import markdown_table, write_into

PHOTO = "data/sample/images/training"


@dataclass(frozen=True)
class Data:
    """A data set, as published.

    Args:
        images: Of one epoch.
        size: Bytes of an image, the mean.
        pixels: Height and width of a typical image.
    """

    images: int
    size: float
    pixels: tuple[int, int]


@dataclass(frozen=True)
class Measured:
    """What is measured of a config on this machine.

    Args:
        parameters: That are trained.
        flops: Multiply-adds of an image, forward.
        checkpoint: Bytes of a file with weights, their EMA if there is one, and the optimizer's state.
        loading: Processor seconds of an image, from its file to the batch.
    """

    parameters: int
    flops: float
    checkpoint: int
    loading: float


@dataclass(frozen=True)
class Cluster:
    """What is assumed; the options of this program."""

    gpus: int = 64
    gpus_per_node: int = 8
    gpu_tflops: float = 312.0
    utilisation: float = 0.25
    cores_per_gpu: float = 8.0
    network_gbit: float = 100.0
    storage_gbyte: float = 5.0


@dataclass(frozen=True)
class Cost:
    """What a run takes; seconds are of one step, bytes of the whole cluster unless it says otherwise."""

    steps: int
    images_per_s: float
    compute: float
    loading: float
    gradients: float
    storage: float
    hours: float
    bytes_read: float
    bytes_per_s: float
    gradient_bytes: float

    @property
    def slowest(self) -> str:
        """What holds a step up."""
        parts = {name: getattr(self, name) for name in ("compute", "loading", "gradients", "storage")}
        return max(parts, key=parts.__getitem__)


def cost(data: Data, measured: Measured, batch: int, epochs: int, cluster: Cluster) -> Cost:
    """The formula.

    Computing, loading, the gradients' all-reduce and reading go on at the same time; the slowest gives the step. A
    backward pass is two forward ones, a multiply-add two operations. A ring all-reduce sends and receives each gradient
    2 (n - 1) / n times by each node's network, in float32, after the sum within the node.

    Args:
        data: The data set.
        measured: Of the model.
        batch: Images of a GPU and step.
        epochs: Of the run.
        cluster: What it runs on.
    """
    whole = batch * cluster.gpus
    steps = epochs * -(-data.images // whole)
    nodes = -(-cluster.gpus // cluster.gpus_per_node)
    gradient_bytes = 4 * measured.parameters * 2 * (nodes - 1) / nodes
    compute = batch * 6 * measured.flops / (cluster.gpu_tflops * 1e12 * cluster.utilisation)
    loading = batch * measured.loading / cluster.cores_per_gpu
    gradients = gradient_bytes / (cluster.network_gbit * 1e9 / 8)
    storage = whole * data.size / (cluster.storage_gbyte * 1e9)
    step = max(compute, loading, gradients, storage)
    return Cost(
        steps=steps,
        images_per_s=whole / step,
        compute=compute,
        loading=loading,
        gradients=gradients,
        storage=storage,
        hours=steps * step / 3600,
        bytes_read=epochs * data.images * data.size,
        bytes_per_s=whole / step * data.size,
        gradient_bytes=gradient_bytes,
    )


# Published: winter 2021's ImageNet has 1.31 TB of images in tar files; COCO's train2017.zip 19.3 GB.
RUNS = {
    "EyeToy-base, ImageNet-22k": dict(
        config="configs/eyetoy/eyetoy-base_8xb128_in1k.py",
        options={"model.head.num_classes": 21841},
        data=Data(13_153_500, 1.31e12 / 13_153_500, (400, 480)),
        image=(224, 224),
        epochs=90,
    ),
    "Mask R-CNN, EyeToy-tiny, COCO": dict(
        config="configs/mask_rcnn_eyetoy_coco.py",
        options={},
        data=Data(118_287, 19.3e9 / 118_287, (480, 640)),
        image=(800, 1216),
        epochs=12,
    ),
}


def measure(config: str, options: dict, data: Data, image: tuple[int, int], **_: object) -> tuple[Measured, int]:
    """Measure a config; its batch, too."""
    import torch
    from mmengine.registry import MODELS, init_default_scope

    from eyetoy_mm.engine.config import load_config

    loaded = load_config(package_file(config), options=options)
    init_default_scope(loaded.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(loaded.model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    has_ema = any(hook.get("type") == "EMAHook" for hook in loaded.get("custom_hooks") or ())
    found = Measured(
        parameters=sum(p.numel() for p in parameters),
        checkpoint=_checkpoint(model, parameters, has_ema),
        flops=_flops(model.eval(), image, loaded.default_scope),
        loading=_loading(loaded.train_dataloader.dataset.pipeline, data.pixels),
    )
    return found, loaded.train_dataloader.batch_size


class _Counter(io.RawIOBase):
    """A file that only knows how long it is."""

    bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, content) -> int:
        self.bytes += len(content)
        return len(content)


def _flops(model: object, image: tuple[int, int], scope: str) -> float:
    """Counted on shapes alone; a detector's heads are for 1,000 boxes, 100 with a mask, without RoIAlign."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    class Detector(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x, boxes, masks):
            roi = self.model.roi_head
            return self.model.rpn_head(self.model.extract_feat(x)), roi.bbox_head(boxes), roi.mask_head(masks)

    shapes = [(1, 3, *image)]
    if scope == "mmdet":
        model.to("meta")
        shapes += [(1000, 256, 7, 7), (100, 256, 14, 14)]
    inputs = tuple(torch.zeros(shape, device="meta") for shape in shapes)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        (Detector() if scope == "mmdet" else model.to("meta"))(*inputs)
    return counter.get_total_flops() / 2  # a multiply-add is two of them


def _checkpoint(model: object, parameters: list, has_ema: bool) -> int:
    import torch

    optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = model.state_dict()
    saved = dict(state_dict=state, optimizer=optimizer.state_dict())
    if has_ema:
        saved["ema_state_dict"] = {f"module.{key}": value.clone() for key, value in state.items()}
    counter = _Counter()
    torch.save(saved, counter)
    return counter.bytes


def _loading(pipeline: list, pixels: tuple[int, int], rounds: int = 40) -> float:
    """Seconds of one core, of a photo of that size without objects: those are few next to pixels."""
    import tempfile

    import cv2
    from mmengine.dataset import Compose

    steps = Compose(pipeline)
    cv2.setNumThreads(1)
    photos = sorted(package_file(PHOTO).glob("*.jpg"))[:8]
    with tempfile.TemporaryDirectory() as folder:
        samples = []
        for photo in photos:
            path = str(Path(folder, photo.name))
            cv2.imwrite(path, cv2.resize(cv2.imread(str(photo)), pixels[::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
            samples.append(dict(img_path=path, img_id=0, gt_label=0, instances=[], height=pixels[0], width=pixels[1]))
        np.random.seed(0)
        for sample in samples:
            steps(dict(sample))
        start = time.process_time()
        for number in range(rounds):
            steps(dict(samples[number % len(samples)]))
        return (time.process_time() - start) / rounds


def report(cluster: Cluster) -> str:
    """The table."""
    columns, rows = [], []
    for run in RUNS.values():
        measured, batch = measure(**run)
        columns.append((run, measured, batch, cost(run["data"], measured, batch, run["epochs"], cluster)))

    def line(name: str, cell: object) -> None:
        rows.append([name, *(cell(*column) for column in columns)])

    line("images, epochs, images of a GPU and step", lambda r, m, b, c: f"{r['data'].images:,}, {r['epochs']}, {b}")
    line("**measured**: parameters", lambda r, m, b, c: f"{m.parameters / 1e6:.1f} M")
    line("multiply-adds of an image, forward", lambda r, m, b, c: f"{m.flops / 1e9:.1f} G")
    line("checkpoint", lambda r, m, b, c: f"{m.checkpoint / 1e9:.2f} GB")
    line("processor time of an image, file to batch", lambda r, m, b, c: f"{1e3 * m.loading:.1f} ms")
    line("**computed**: steps", lambda r, m, b, c: f"{c.steps:,}")
    line("bytes read", lambda r, m, b, c: f"{c.bytes_read / 1e12:.2f} TB")
    for part in ("compute", "loading", "gradients", "storage"):
        line(f"a step's {part}", lambda r, m, b, c, part=part: f"{1e3 * getattr(c, part):.0f} ms")
    line("**it waits for**", lambda r, m, b, c: c.slowest)
    line("images a second, hours", lambda r, m, b, c: f"{c.images_per_s:,.0f}, {c.hours:.1f}")
    line("read a second", lambda r, m, b, c: f"{c.bytes_per_s / 1e9:.2f} GB in {c.images_per_s:,.0f} requests")
    line("network of a node and step", lambda r, m, b, c: f"{c.gradient_bytes / 1e9:.2f} GB each way")
    line("cores a GPU needs to be fed", lambda r, m, b, c: f"{b * m.loading / c.compute:.1f}")
    assumed = (
        f"Assumed: {cluster.gpus} GPUs, {cluster.gpus_per_node} a node; {cluster.gpu_tflops:g} TFLOP/s each, used to "
        f"{cluster.utilisation:.0%}; {cluster.cores_per_gpu:g} cores a GPU; {cluster.network_gbit:g} Gbit/s a node; "
        f"{cluster.storage_gbyte:g} GB/s from the storage."
    )
    return f"{assumed}\n\n{markdown_table(['', *RUNS], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in Cluster().__dict__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"({default})")
    parser.add_argument("--into", type=Path, help="page that keeps a place for the table")
    arguments = vars(parser.parse_args())
    into = arguments.pop("into")
    text = report(Cluster(**arguments))
    print(text) if into is None else write_into(into, "benchmarks/scale.py", text)


if __name__ == "__main__":
    main()
