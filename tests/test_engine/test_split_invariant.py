"""The losses of a detector's batch, in one piece and split."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("mmdet")

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.hooks import SplitInvariantHook

CONFIG = "configs/sample/mask-rcnn_eyetoy-demo_sample.py"


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)


def batch(count: int) -> dict:
    """Images with very different numbers of boxes, so that a mean of means is another mean."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(1)
    samples = []
    for image in range(count):
        boxes = [1, 7, 2, 5][image]
        corners = torch.rand(boxes, 2, generator=generator) * 40
        bboxes = torch.cat([corners, corners + 8 + torch.rand(boxes, 2, generator=generator) * 16], dim=1)
        masks = torch.zeros(boxes, 64, 64, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, bboxes.int().tolist()):
            mask[top:bottom, left : (left + right) // 2] = 1
        sizes = ("img_shape", "ori_shape", "pad_shape", "batch_input_shape")
        sample = DetDataSample(metainfo=dict.fromkeys(sizes, (64, 64)))
        sample.gt_instances = InstanceData(
            bboxes=bboxes, labels=torch.arange(boxes), masks=BitmapMasks(masks.numpy(), 64, 64)
        )
        samples.append(sample)
    return dict(inputs=torch.randn(count, 3, 64, 64, generator=generator), data_samples=samples)


@pytest.fixture(scope="module")
def model():
    config = load_config(CONFIG)
    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        return MODELS.build(Config(config.model)).train()


def losses_of(model, images: slice) -> dict[str, float]:
    whole = batch(4)
    part = dict(inputs=whole["inputs"][images], data_samples=whole["data_samples"][images])
    with torch.no_grad():
        losses = model(**part, mode="loss")
        return {name: value.item() for name, value in model.parse_losses(losses)[1].items() if "loss" in name}


def test_the_mean_of_two_processes_is_the_loss_of_one(model, monkeypatch):
    """Processes are played one after the other: the first pass of each counts, the second has the means."""
    runner = SimpleNamespace(model=model, seed=3, iter=5, logger=Logger())
    halves = slice(0, 4, 2), slice(1, 4, 2)  # as samplers deal them out
    hook = SplitInvariantHook()
    hook.before_train(runner)
    assert not runner.logger.lines
    together = losses_of(model, slice(0, 4))
    assert together == losses_of(model, slice(0, 4))

    place = "eyetoy_mm.engine.hooks.split_invariant._mean_over_processes"
    counted: list[list[float]] = []
    for images in halves:
        counts: list[float] = []
        monkeypatch.setattr(place, lambda count, counts=counts: counts.append(count) or count)
        losses_of(model, images)
        counted.append(counts)
    assert counted[0] != counted[1] and len(counted[0]) == len(counted[1]) == 3  # anchors, boxes, masks
    split = []
    for images in halves:
        means = iter([sum(pair) / 2 for pair in zip(*counted)])
        monkeypatch.setattr(place, lambda count, means=means: next(means))
        split.append(losses_of(model, images))
    mean = {name: (split[0][name] + split[1][name]) / 2 for name in together}
    assert mean == pytest.approx(together, rel=1e-4)
    assert split[0]["loss_mask"] != pytest.approx(split[1]["loss_mask"], rel=1e-2)


def test_what_is_not_known_is_named():
    from mmdet.models.task_modules.samplers import OHEMSampler

    class Detector(torch.nn.Module):
        pass

    Detector.__module__ = "mmdet.models.detectors.of_a_test"
    detector = Detector()
    detector.sampler = OHEMSampler.__new__(OHEMSampler)
    runner = SimpleNamespace(model=detector, logger=Logger())
    SplitInvariantHook().before_train(runner)
    assert runner.logger.lines == [
        "split_invariant does not know OHEMSampler: their losses may depend on the number of processes"
    ]
