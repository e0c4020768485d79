"""Losses of a batch that do not depend on how many processes it is split over."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from eyetoy_mm.engine.hooks.common import unwrapped
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class SplitInvariantHook(Hook):
    """Have mmdet's detectors compute for a batch on several processes what they compute for it on one.

    Three things differ otherwise. Anchors and proposals are drawn for one image after the other from one stream of
    random numbers, so that a draw depends on which images a process has: here it is seeded by the iteration and the
    image's boxes. Losses of anchors, boxes and masks are means over what was drawn, and gradients means over processes
    of these: a mask of a process with few counts for more. Here the number is the mean over the processes, of
    :class:`AnchorHead` and :class:`StandardRoIHead`. (The third is batch norm, for which there is SyncBN.)

    What has other heads or samplers is named in the log. Dropout, drop path and mixing of images stay a matter of each
    process, and images are padded to the largest of a process: mmdet's ``BatchFixedSizePad`` makes them of one size.
    ``split_invariant=True`` in a config adds this hook.
    """

    def before_train(self, runner: Runner) -> None:
        """Replace what counts and draws, in this model alone."""
        model = unwrapped(runner)
        if not any(kind.__module__.startswith("mmdet.") for kind in type(model).__mro__):
            return
        from mmdet.models.dense_heads import AnchorHead
        from mmdet.models.roi_heads import StandardRoIHead
        from mmdet.models.task_modules.samplers import PseudoSampler, RandomSampler

        others = []
        for module in model.modules():
            for sampler in _samplers_of(module):
                if type(sampler) is RandomSampler:
                    _seed_draws(sampler, runner)
                elif not isinstance(sampler, PseudoSampler):
                    others.append(type(sampler).__name__)
            kind: Any = type(module)
            if getattr(kind, "get_targets", None) is AnchorHead.get_targets:
                module.get_targets = _with_mean_count(module.get_targets)
            elif getattr(kind, "bbox_loss", None) is StandardRoIHead.bbox_loss:
                _weigh_losses(module)
            elif hasattr(kind, "loss_by_feat") or hasattr(kind, "bbox_loss"):
                others.append(kind.__name__)
        if others:
            runner.logger.warning(
                f"split_invariant does not know {', '.join(dict.fromkeys(others))}: their losses may depend on the "
                "number of processes"
            )


def _samplers_of(module: nn.Module) -> Iterator[Any]:
    from mmdet.models.task_modules.samplers import BaseSampler

    for value in vars(module).values():
        yield from (x for x in (value if isinstance(value, list) else [value]) if isinstance(x, BaseSampler))


def _seed_draws(sampler: Any, runner: Runner) -> None:
    """Have a sampler draw from numbers of the image's own."""
    generator, sample = torch.Generator(), sampler.sample

    def sample_seeded(assign_result: Any, pred_instances: Any, gt_instances: Any, *args: Any, **kwargs: Any) -> Any:
        boxes = getattr(gt_instances.bboxes, "tensor", gt_instances.bboxes)
        image = zlib.crc32(boxes.detach().float().cpu().numpy().tobytes())
        seed = np.random.SeedSequence((runner.seed, runner.iter, image)).generate_state(1)[0]
        generator.manual_seed(int(seed))
        return sample(assign_result, pred_instances, gt_instances, *args, **kwargs)

    def random_choice(gallery: Tensor, num: int) -> Tensor:
        chosen = torch.randperm(len(gallery), generator=generator)[:num]
        return gallery[chosen.to(gallery.device)]

    sampler.sample, sampler.random_choice = sample_seeded, random_choice


def _with_mean_count(get_targets: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_targets)
    def run(*args: Any, **kwargs: Any) -> Any:
        targets = get_targets(*args, **kwargs)
        if targets is None or kwargs.get("return_sampling_results"):
            return targets
        return (*targets[:-1], max(_mean_over_processes(targets[-1]), 1.0))

    return run


def _weigh_losses(head: Any) -> None:
    """Give the means over boxes and masks of this process the weight that they have in the mean over all."""
    bbox_loss, mask_loss = head.bbox_loss, head.mask_loss

    def weighed_bbox_loss(x: Any, sampling_results: list[Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        results = bbox_loss(x, sampling_results, *args, **kwargs)
        return _weighed(results, "loss_bbox", sum(len(each.priors) for each in sampling_results))

    def weighed_mask_loss(x: Any, sampling_results: list[Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        results = mask_loss(x, sampling_results, *args, **kwargs)
        return _weighed(results, "loss_mask", sum(len(each.pos_priors) for each in sampling_results))

    head.bbox_loss, head.mask_loss = weighed_bbox_loss, weighed_mask_loss


def _weighed(results: dict[str, Any], key: str, count: int) -> dict[str, Any]:
    weight = count / max(_mean_over_processes(count), 1e-6)
    results[key] = {name: x * weight if name.startswith("loss") else x for name, x in results[key].items()}
    return results


def _mean_over_processes(count: float) -> float:
    total = torch.tensor(float(count), device=dist.get_comm_device() if dist.get_world_size() > 1 else None)
    dist.all_reduce(total, "mean")
    return total.item()
