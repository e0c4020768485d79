"""The first evaluation rehearsed: what only it touches fails before the first step, and not hours later.

A pipeline that packs no labels, a mode of prediction that the model has not, a metric that fails when it is computed, a
metric by whose name the best checkpoint is chosen and that nobody gives: none of it is touched by training.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement
from torch import nn

from eyetoy_mm.datasets.findings import Finding, refuse_fatal
from eyetoy_mm.engine.config_places import at, explain
from eyetoy_mm.engine.config_rules import monitor_findings
from eyetoy_mm.engine.evaluation_report import passing_comparisons
from eyetoy_mm.engine.loop_checks import same_random_numbers
from eyetoy_mm.engine.terminal_log import quiet
from eyetoy_mm.errors import UserError, counted, first_few

_IMAGES = 2  # a batch of more than one, where validation has such
_DRAWS = ("draw", "enable")  # what the toolboxes call the switch of the hooks that draw predictions
_TOOLBOXES = ("mmengine", "mmdet", "mmseg", "mmpretrain")
# Metrics of the toolboxes that say of any part of a data set what they say of the whole; others want each image.
_OF_ANY_PART = {
    *("IoUMetric", "DepthMetric", "VOCMetric", "CocoMetric"),
    *("Accuracy", "ConfusionMatrix", "SingleLabelMetric", "MultiLabelMetric", "AveragePrecision"),
}


def rehearse_evaluation(runner: Runner) -> None:
    """Take one or two images of the validation set from the file to the metric; the run is left as it is.

    Args:
        runner: About to train, with the weights that it starts from.

    Raises:
        UserError: A hook or a schedule goes by a metric that the evaluation does not give.
        Exception: Whatever the pipeline, the model or a metric raises.
    """
    loop: Any = runner.val_loop
    if not isinstance(getattr(loop, "evaluator", None), Evaluator) or not len(loop.dataloader):
        return  # a loop of its own
    begun = time.perf_counter()
    with same_random_numbers(), _evaluating(runner.model):
        dataset = loop.dataloader.dataset
        count = min(_IMAGES, loop.dataloader.batch_size or 1, len(dataset))
        batch = loop.dataloader.collate_fn([dataset[index] for index in range(count)])
        with torch.no_grad(), autocast(enabled=getattr(loop, "fp16", False)):
            outputs = runner.model.val_step(batch)
        if isinstance(outputs[-1], BaseDataElement) and list(outputs[-1].keys()) == ["loss"]:
            outputs = outputs[:-1]  # as ValLoop takes it off
        refuse_fatal(_size_findings(outputs))
        with _unchanged(loop.evaluator.metrics):
            loop.evaluator.process(data_samples=outputs, data_batch=batch)
            scores = try_metrics(loop.evaluator)
        for hook in runner.hooks:
            if "VisualizationHook" in type(hook).__name__ and any(getattr(hook, name, False) for name in _DRAWS):
                hook.after_val_iter(runner, 0, batch, outputs)
    if scores is not None:
        refuse_fatal([*monitor_findings(runner.cfg, list(scores)), *_best_findings(runner.cfg, scores)])
    runner.logger.info(f"Rehearsed the evaluation on {counted(count, 'image')} in {time.perf_counter() - begun:.1f} s")


def try_metrics(evaluator: Evaluator) -> dict[str, Any] | None:
    """Compute the metrics of what was processed so far, where they can be of a part; nothing of it stays.

    Returns:
        What they give, by name, in their order; None where that is not known of each.

    Raises:
        UserError: Two of them give the same name.
        Exception: What a metric of the toolboxes raises. What others raise is logged: they may want each image.
    """
    scores: dict[str, Any] = {}
    known = type(evaluator) is Evaluator and is_main_process()  # others give names of their own
    for index, metric in enumerate(evaluator.metrics if is_main_process() else ()):
        given = _computed(metric)
        if known and (twice := scores.keys() & (given or {}).keys()):
            told = f"metric {index} ({type(metric).__name__}) gives {first_few(sorted(twice))}, as one before it does"
            raise UserError(f"val_evaluator or test_evaluator: {told}. Give it a prefix of its own: prefix=...")
        known = known and bool(given)
        scores |= given or {}
    return scores if known else None


def _computed(metric: BaseMetric) -> dict[str, Any] | None:
    """What a metric gives, by name, as far as it has seen images; None where it is not computed."""
    is_own = type(metric).__module__.partition(".")[0] not in _TOOLBOXES
    results = list(metric.results)
    if not results or not (is_own or type(metric).__name__ in _OF_ANY_PART):
        return None
    with _unchanged([metric]), quiet(), passing_comparisons():
        if type(metric).__name__ == "CocoMetric":
            metric.img_ids = [truth["img_id"] for truth, _ in results]  # type: ignore[attr-defined]
        try:
            given = metric.compute_metrics(results)
        except Exception as error:  # whatever it raises
            if not is_own:
                raise
            told = f"compute_metrics of {type(metric).__name__} fails on {len(results)} results"
            failed = f"{told}: {type(error).__name__}: {error}. Does it need each image of the data set?"
        else:
            return {f"{metric.prefix}/{name}" if metric.prefix else name: score for name, score in given.items()}
    print_log(failed, "current", logging.WARNING)
    return None


def _size_findings(outputs: Sequence[Any]) -> Iterator[Finding]:
    """Label maps of another size than the prediction, which mmseg makes as large as the image was on the disk."""
    for sample in outputs:
        truth, predicted = (
            getattr(getattr(sample, name, None), "data", None) for name in ("gt_sem_seg", "pred_sem_seg")
        )
        if truth is None or predicted is None or truth.shape[-2:] == predicted.shape[-2:]:
            continue
        sizes = " and ".join(" x ".join(map(str, each.shape[-2:])) for each in (truth, predicted))
        told = f"labels and prediction of {sample.metainfo.get('img_path', 'an image')} are of {sizes} (height x width)"
        advice = "labels are compared as they are on the disk: put LoadAnnotations after the steps that resize"
        yield Finding("val_dataloader.dataset.pipeline", f"{told}: {advice}")
        return


def _best_findings(config: Config, scores: dict[str, Any]) -> Iterator[Finding]:
    """What the checkpoint hook makes of the first metric, by which ``save_best="auto"`` goes."""
    hook = (config.get("default_hooks") or {}).get("checkpoint") or {}
    if hook.get("save_best") != "auto":
        return
    key, (name, score) = at("default_hooks.checkpoint.save_best", "auto"), next(iter(scores.items()))
    arguments = {name: value for name, value in hook.items() if name != "priority"} | dict(save_best=name)
    arguments.setdefault("type", CheckpointHook)
    try:
        format(score, "0.4f")  # as it logs it
        HOOKS.build(arguments)
    except TypeError:
        yield Finding(key, f"takes {name}, the first metric, which is a {type(score).__name__} and no number")
    except Exception as error:  # of a name that is neither better when greater nor when less
        told = explain(error, "default_hooks.checkpoint", arguments, HOOKS).finding.message
        yield Finding(key, f"takes {name}, the first metric: {told}")


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """A model in the mode of evaluation, each part back in its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def _unchanged(metrics: Sequence[BaseMetric]) -> Iterator[None]:
    """Metrics that have seen and kept afterwards what they had before."""
    states = [(metric, dict(vars(metric)), list(metric.results)) for metric in metrics]
    try:
        yield
    finally:
        for metric, state, results in states:
            vars(metric).clear()
            vars(metric).update(state)
            metric.results[:] = results
