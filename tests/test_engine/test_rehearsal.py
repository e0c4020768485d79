"""The first evaluation before the first step: what only it touches is told, and the run is left as it was."""

import random
import re

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.registry import METRICS, TRANSFORMS

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.config_checks import config_findings
from eyetoy_mm.engine.evaluation_report import recorded_comparisons
from eyetoy_mm.engine.first_steps import explained_errors
from eyetoy_mm.engine.hooks import KeepPredictionsHook, RehearseEvaluationHook, WorstImagesHook
from eyetoy_mm.engine.hooks.common import unwrapped
from eyetoy_mm.engine.loop_checks import _odd_numbers, check_loops, check_test_loop
from eyetoy_mm.engine.rehearsal import rehearse_evaluation, try_metrics
from eyetoy_mm.engine.runner import CheckedRunner
from eyetoy_mm.errors import UserError
from tests.toolbox_runs import TOOLBOXES, own_mmengine, write_config

for _toolbox in TOOLBOXES:
    pytest.importorskip(_toolbox, reason="the toolboxes are not installed")

VAL = 'val_dataloader["dataset"] = dict(val_dataloader["dataset"], {})\n'
BEST = 'default_hooks["checkpoint"]["save_best"] = {!r}\n'


class Own(BaseMetric):
    """A metric of somebody's own, which wants more than one or two images."""

    default_prefix = "own"

    def process(self, data_batch, data_samples):
        self.results += [1] * len(data_samples)

    def compute_metrics(self, results):
        if len(results) < 3:
            raise ValueError("3 images at least")
        return dict(score_of_mine=1.0)


@pytest.fixture(autouse=True, scope="module")
def _registered():
    METRICS.register_module(module=Own, name="OwnMetric")
    yield
    METRICS.module_dict.pop("OwnMetric")


@pytest.fixture
def runner_of(tmp_path):
    def make(toolbox, extra=""):
        config = load_config(write_config(tmp_path, toolbox, extra), work_dir=str(tmp_path / "work"))
        return CheckedRunner.from_cfg(config)

    with own_mmengine():
        yield make


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_an_evaluation_that_runs_leaves_the_run_as_it_is(runner_of, toolbox):
    runner = runner_of(toolbox)
    model, evaluator = runner.model, runner.val_loop.evaluator
    model.train()
    model.backbone.eval()  # as frozen parts are
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    numbers = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    metrics = [dict(vars(metric)) for metric in evaluator.metrics]
    rehearse_evaluation(runner)
    assert all(torch.equal(x, weights[name]) for name, x in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(torch.get_rng_state(), numbers[0]) and random.getstate() == numbers[2]
    assert np.array_equal(np.random.get_state()[1], numbers[1])
    assert [vars(metric) for metric in evaluator.metrics] == metrics
    assert all(metric.results == [] for metric in evaluator.metrics)


@pytest.mark.parametrize(
    ("toolbox", "extra", "message"),
    [
        ("mmseg", VAL.format("pipeline=[load, resize, pack]"), "^val_evaluator or .* the images have no gt_sem_seg"),
        (
            "mmseg",
            VAL.format("pipeline=[load, annotations, resize, pack]"),
            "labels and prediction of .*LoadAnnotations",
        ),
        (
            "mmseg",
            'val_evaluator["beta"] = "2"\nval_evaluator["iou_metrics"] = ["mFscore"]',
            "^val_evaluator: fails in",
        ),
        ("mmdet", 'val_evaluator["metric_items"] = ["mAP_55"]', "^val_evaluator: fails in .*mAP_55"),
        ("mmpretrain", VAL.format("with_label=False"), "^val_evaluator or .* the images have no gt_label"),
        (
            "mmpretrain",
            'val_evaluator = dict(type="SingleLabelMetric", items=["recall"])\n'
            + BEST.format("single-label/precision"),
            "save_best='single-label/precision': not what val_evaluator gives; did you mean single-label/recall",
        ),
    ],
)
def test_what_only_an_evaluation_touches(runner_of, toolbox, extra, message):
    runner = runner_of(toolbox, extra)
    with pytest.raises(UserError, match=message), explained_errors(runner.cfg) as run:
        run.runner = runner
        rehearse_evaluation(runner)


@pytest.mark.parametrize("toolbox", ["mmdet", "mmseg"])
def test_a_test_with_a_report_counts_all_images_and_paints_the_worst(runner_of, toolbox, tmp_path):
    runner = runner_of(toolbox)
    if toolbox == "mmdet":
        find_everything(runner)
    counts = KeepPredictionsHook(None, report=True)
    for hook in (RehearseEvaluationHook(), counts, WorstImagesHook(tmp_path / "report")):
        runner.register_hook(hook)
    with recorded_comparisons() as compared:
        runner.test()
    assert counts.report.images == len(runner.test_dataloader.dataset)
    assert len(compared) == (toolbox == "mmdet")  # of all images, and not of the first batch
    assert (tmp_path / "report/worst.png").stat().st_size > 1000


def find_everything(runner):
    """One box for each image, which a model that has not learnt anything does not find by itself."""
    step = runner.model.test_step

    def with_boxes(batch):
        samples = step(batch)
        for sample in samples:
            boxes, masks = torch.tensor([[0.0, 0, 9, 9]]), torch.zeros(1, *sample.ori_shape, dtype=torch.bool)
            sample.pred_instances = type(sample.pred_instances)(
                bboxes=boxes, scores=torch.tensor([0.9]), labels=torch.tensor([0]), masks=masks
            )
        return samples

    runner.model.test_step = with_boxes


def test_a_metric_of_ones_own_may_want_each_image(runner_of, monkeypatch):
    told = []
    monkeypatch.setattr("eyetoy_mm.engine.rehearsal.print_log", lambda text, *args: told.append(text))
    extra = 'custom = dict(type="OwnMetric")\nval_evaluator = custom\n' + BEST.format("auto")
    runner = runner_of("mmpretrain", extra)
    rehearse_evaluation(runner)
    assert "compute_metrics of Own fails on 2 results: ValueError: 3 images at least" in told[0]
    metric = Own()
    metric.results += [1, 1, 1]
    assert try_metrics(Evaluator(metric)) == {"own/score_of_mine": 1.0} and metric.results == [1, 1, 1]
    with pytest.raises(UserError, match=r"metric 1 \(Own\) gives own/score_of_mine, as one before it does"):
        try_metrics(Evaluator([metric, metric]))


def test_the_first_metric_is_no_number(runner_of):
    runner = runner_of("mmpretrain", 'val_evaluator = dict(type="ConfusionMatrix")\n' + BEST.format("auto"))
    with pytest.raises(
        UserError, match="takes confusion_matrix/result, the first metric, which is a Tensor and no num"
    ):
        rehearse_evaluation(runner)


def test_the_first_metric_is_neither_better_when_greater_nor_less(runner_of, monkeypatch):
    monkeypatch.setattr(Own, "compute_metrics", lambda self, results: dict(of_mine=1.0))
    runner = runner_of("mmpretrain", 'val_evaluator = dict(type="OwnMetric")\n' + BEST.format("auto"))
    with pytest.raises(
        UserError, match="save_best='auto': takes own/of_mine, the first metric: .*Cannot infer the rule"
    ):
        rehearse_evaluation(runner)


def test_a_pipeline_that_packs_nothing(runner_of):
    runner = runner_of("mmseg", VAL.format("pipeline=[load, resize, annotations]"))
    with pytest.raises(UserError, match="val_dataloader.dataset.pipeline: ends without a step that packs"):
        check_loops(runner)


@pytest.mark.parametrize(
    ("toolbox", "part", "message"),
    [
        ("mmseg", "dict(test_dataset, indices=0)", "a data set has no image. Check the files of BaseSegDataset of"),
        ("mmdet", "dict(test_dataset, indices=0)", "a data set has no image. Check the files of CocoDataset of"),
        ("mmpretrain", "dict(test_dataset, indices=0, serialize_data=False)", "test_dataloader: has no image"),
        (
            "mmseg",
            'dict(type="ConcatDataset", datasets=[test_dataset, dict(test_dataset, indices=0, serialize_data=False)])',
            "test_dataloader: data set 1 of 2 has no image. Check the files of BaseSegDataset",
        ),
    ],
)
def test_a_test_without_images(runner_of, toolbox, part, message):
    extra = f'test_dataset = test_dataloader["dataset"]\ntest_dataloader = dict(test_dataloader, dataset={part})\n'
    with pytest.raises(UserError, match=message):
        check_test_loop(runner_of(toolbox, extra))


@pytest.mark.parametrize(
    ("toolbox", "extra", "message"),
    [
        ("mmseg", 'val_evaluator["format_only"] = True', "val_evaluator.format_only=True: needs output_dir"),
        (
            "mmseg",
            'val_evaluator = dict(type="IoUMetric", format_only=True, output_dir="x")\n' + BEST.format("mIoU"),
            "save_best='mIoU': val_evaluator gives no metric: it has format_only=True",
        ),
        (
            "mmseg",
            'param_scheduler = dict(type="ReduceOnPlateauLR", monitor="miou", rule="greater")',
            "param_scheduler.monitor='miou': not what val_evaluator gives; did you mean mIoU?",
        ),
        (
            "mmseg",
            'param_scheduler = [dict(type="OneCycleLR", eta_max=0.1, total_steps=3)]\ntrain_cfg["max_epochs"] = 9',
            "param_scheduler.0.total_steps=3: it ends the training with an error after 3 epochs",
        ),
        (
            "mmdet",
            'load = dict(type="LoadImageFromFil")\n'
            'custom_hooks = [dict(type="PipelineSwitchHook", switch_epoch=9, switch_pipeline=[load])]',
            "custom_hooks.0.switch_pipeline.0.type='LoadImageFromFil': no transform of that name",
        ),
        (
            "mmdet",
            'custom_hooks = [dict(type="YOLOXModeSwitchHook")]',
            "custom_hooks.0: leaves out steps of a MultiImageMixDataset in the last epochs, and this is a CocoDataset",
        ),
        (
            "mmseg",
            'default_hooks["checkpoint"]["filename_tmpl"] = "last.pth"',
            "default_hooks.checkpoint.filename_tmpl='last.pth': should have a place for the step",
        ),
        (
            "mmdet",
            'default_hooks["checkpoint"]["published_keys"] = ["state_dictt"]',
            "published_keys='state_dictt': no checkpoint has it; did you mean state_dict?",
        ),
        (
            "mmpretrain",
            f'default_hooks["checkpoint"]["out_dir"] = {__file__!r}',
            "default_hooks.checkpoint.out_dir=",
        ),
        ("mmdet", f'val_evaluator["outfile_prefix"] = {__file__ + "/x"!r}', "val_evaluator.outfile_prefix="),
        (
            "mmseg",
            'train_cfg["val_begin"] = 5',
            "train_cfg.val_begin=5: training ends at 1: there will be no evaluation",
        ),
    ],
)
def test_what_would_fail_in_the_last_epochs(tmp_path, toolbox, extra, message):
    config = load_config(write_config(tmp_path, toolbox, extra), work_dir=str(tmp_path / "work"))
    assert any(message in str(finding) for finding in config_findings(config, "train", "val"))


def test_a_rate_that_follows_a_metric_may_go_with_iterations(tmp_path):
    extra = (
        'param_scheduler = [dict(type="ReduceOnPlateauLR", monitor="mIoU", rule="greater")]\n'
        'train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=1)'
    )
    config = load_config(write_config(tmp_path, "mmseg", extra), work_dir=str(tmp_path / "work"))
    assert not [str(each) for each in config_findings(config, "train", "val") if "param_scheduler" in each.kind]


@pytest.mark.parametrize(
    ("toolbox", "numbers", "message"),
    [
        (
            "mmseg",
            dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
            "makes numbers of up to (9|1,[01])[0-9]+ of images of 0 to 2",
        ),
        ("mmpretrain", dict(mean=[0.5] * 3, std=[0.5] * 3), "makes numbers of up to [45].*Multiply both by 255"),
        ("mmdet", dict(mean=[0.0] * 3, std=[1.0] * 3), None),
        ("mmdet", dict(mean=[0.0] * 3, std=[255.0] * 3), None),
        ("mmseg", dict(mean=[103.53, 116.28, 123.675], std=[1.0] * 3), None),
    ],
)
def test_images_normalised_by_numbers_of_another_scale(runner_of, toolbox, numbers, message):
    runner = runner_of(toolbox)
    for name, values in numbers.items():
        setattr(runner.model.data_preprocessor, name, torch.tensor(values).view(-1, 1, 1))
    found = [str(each) for each in _odd_numbers(runner, runner.train_dataloader)]
    assert bool(found) == bool(message)
    assert message is None or re.search(message, found[0])


def test_images_as_they_are_stored_and_weights_that_know_normalised_ones(runner_of):
    runner = runner_of("mmseg")
    numbers = unwrapped(runner).data_preprocessor
    numbers.mean, numbers.std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    assert not [*_odd_numbers(runner, runner.train_dataloader)]  # a model that learns from nothing may
    runner.cfg.load_from = "weights.pth"
    (finding,) = _odd_numbers(runner, runner.train_dataloader)
    assert not finding.fatal and "numbers of 0 to 2" in finding.message
    numbers.mean = torch.full((3, 1, 1), 127.0)
    assert not [*_odd_numbers(runner, runner.train_dataloader)]


@pytest.mark.parametrize("toolbox", ["mmseg", "mmdet"])  # mmdet's are padded, with zeros between equal numbers
def test_images_normalised_twice(runner_of, toolbox):
    runner = runner_of(toolbox)
    normalise = dict(type="Normalize", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    runner.train_dataloader.dataset.pipeline.transforms.insert(-1, TRANSFORMS.build(normalise))
    with pytest.raises(
        UserError, match="model.data_preprocessor.std: .*is for images of 0 to 255, and the pipeline makes"
    ):
        check_loops(runner)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            'model["data_preprocessor"]["bgr_to_rgb"] = False',
            "are of red, green, blue, and images stay blue, green, red",
        ),
        (
            'model["data_preprocessor"]["mean"] = [103.53, 116.28, 123.675]',
            "are of blue, green, red, and bgr_to_rgb=True",
        ),
        ('optim_wrapper["optimizer"]["lr"] = 0.0', "optim_wrapper.optimizer.lr=0: nothing would be learnt"),
    ],
)
def test_what_trains_and_learns_badly_or_nothing(tmp_path, extra, message):
    config = load_config(write_config(tmp_path, "mmseg", extra), work_dir=str(tmp_path / "work"))
    assert [message in str(finding) for finding in config_findings(config, "train", "val")].count(True) == 1
