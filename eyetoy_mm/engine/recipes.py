"""A schedule for a data set and a machine: model, image scale, batch size, epochs, learning rate, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from eyetoy_mm.engine.measuring import usable_cores

TASKS = ("classification", "segmentation", "instances", "detection")
_ITERATIONS = {False: 2000, True: 20000}  # on CPUs, on an accelerator: from scratch, and yet to an end
_FEWEST_EPOCHS, _MOST_EPOCHS = 12, 300
_SMALLEST_OBJECT = 16  # pixels of the shorter side of a box, as the detector should see it


@dataclass(frozen=True)
class Machine:
    """What a run will have.

    Args:
        accelerator: The name of its kind (``cuda``, ``mps``, ...); empty for CPUs alone.
        memory: Of the accelerator, in GiB; 0 where it does not say.
        cores: CPU cores of this process.
    """

    accelerator: str = ""
    memory: float = 0.0
    cores: int = 1

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        cores = usable_cores()
        if not torch.accelerator.is_available():
            return cls(cores=cores)
        kind = torch.accelerator.current_accelerator()
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0
        return cls(kind.type if kind else "", memory, cores)

    def __str__(self) -> str:
        cores = f"{self.cores} CPU core{'s' if self.cores > 1 else ''}"
        memory = f" with {self.memory:.0f} GiB" if self.memory else ""
        return f"{self.accelerator}{memory}, {cores}" if self.accelerator else f"{cores}, no accelerator"


@dataclass(frozen=True)
class DataSize:
    """How much data there are.

    Args:
        images: For training.
        size: Median width and height of the images.
        boxes: Shorter side of each box in pixels; none where there are no boxes.
    """

    images: int
    size: tuple[int, int]
    boxes: Sequence[float] = ()


@dataclass
class Recipe:
    """What a run is made of.

    Args:
        model: The size of EyeToy: ``shallow``, ``demo`` or ``tiny``.
        scale: Width and height that images are resized to fit into.
        crop: Side of the square that is trained on; 0 for whole images.
        batch: Images in a batch.
        epochs: Of training.
        interval: Epochs between evaluations and checkpoints.
        lr: Learning rate of AdamW.
        workers: Processes that load images.
        amp: Mixed precision.
        why: A sentence for each choice.
    """

    model: str
    scale: tuple[int, int]
    crop: int
    batch: int
    epochs: int
    interval: int
    lr: float
    workers: int
    amp: bool
    why: list[str] = field(default_factory=list)


def choose_recipe(task: str, data: DataSize, machine: Machine) -> Recipe:
    """Choose what fits the data and the machine.

    Args:
        task: One of :data:`TASKS`.
        data: How much there is.
        machine: Where it will run.
    """
    strong = bool(machine.accelerator)
    scale, crop, why_scale = _scale(task, data, strong)
    model = _model(task, crop, strong)
    most = _batch(task, machine)
    batch = max(1, min(most, data.images // 2 if task == "classification" else data.images))
    wanted = round(_ITERATIONS[strong] * batch / data.images)
    epochs = min(max(wanted, _FEWEST_EPOCHS), _MOST_EPOCHS)
    lr = 3e-4 if model == "tiny" else 1e-3
    iterations = epochs * max(1, data.images // batch)
    why = [
        _why_model(model, strong),
        why_scale,
        f"{batch} images a batch: " + ("what CPUs do in seconds" if not strong else "for the memory of the accelerator")
        + (", no more than the data have" if batch < most else ""),
        f"{epochs} epochs: {iterations:,} iterations"
        + (f", at least {_FEWEST_EPOCHS} epochs" if epochs == _FEWEST_EPOCHS else "")
        + (f", at most {_MOST_EPOCHS} epochs" if epochs == _MOST_EPOCHS else "")
        + "; it starts from nothing, so that fewer learn little",
        f"learning rate {lr:g} of AdamW, two epochs of warm-up, then a cosine to 0",
    ]  # fmt: skip
    interval = max(1, epochs // 10)
    return Recipe(model, scale, crop, batch, epochs, interval, lr, min(4, machine.cores - 1), strong, why)


def _model(task: str, crop: int, strong: bool) -> str:
    if task == "classification":
        return "tiny" if strong and crop >= 128 else "shallow"
    return "tiny" if strong else "demo"


def _why_model(model: str, strong: bool) -> str:
    if model == "tiny":
        return "EyeToy-tiny: for one GPU"
    return f"EyeToy-{model}: small, {'as the images are' if strong else 'for CPUs; on a GPU this would be EyeToy-tiny'}"


def _batch(task: str, machine: Machine) -> int:
    """The most images of a batch."""
    if not machine.accelerator:
        return 32 if task == "classification" else 4
    memory = machine.memory or 8.0
    per_image = {"classification": 0.25, "segmentation": 2.0, "instances": 4.0, "detection": 4.0}[task]
    return int(min(max(memory // per_image, 2), 128 if task == "classification" else 16))


def _scale(task: str, data: DataSize, strong: bool) -> tuple[tuple[int, int], int, str]:
    """Width and height that images are resized to, the side of crops, and why."""
    long, short = max(data.size), min(data.size)
    seen = f"images are {data.size[0]} x {data.size[1]} (median)"
    if task == "classification":
        crop = 32 if short <= 40 else 64 if short <= 80 else 224 if strong else 128
        return (crop, crop), crop, f"crops of {crop} pixels: {seen}"
    if task == "segmentation":
        side = min(short, 512 if strong else 256)
        crop = max(64, side // 32 * 32)
        return (
            (round(long * side / short), side),
            crop,
            f"scale {round(long * side / short)} x {side}, crops of {crop}: {seen}",
        )
    most = 800 if strong else 320
    side = min(short, most)
    why = seen
    if len(data.boxes):
        small = float(np.quantile(data.boxes, 0.1))
        needed = round(short * _SMALLEST_OBJECT / max(small, 1.0))
        if needed > side:
            side = min(needed, short, 2 * most)
            why += f", and a tenth of the boxes are under {small:.0f} pixels"
    return (round(long * side / short), side), 0, f"scale {round(long * side / short)} x {side}: {why}"
