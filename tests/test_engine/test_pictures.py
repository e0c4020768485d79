"""Pictures and lines of a run: what they show is right, what fails is logged and ends nothing."""

import io
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks

pytest.importorskip("mmengine")

from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from eyetoy_mm.engine.evaluation_pictures import draw_class_bars, draw_confusion, draw_precision_recall
from eyetoy_mm.engine.evaluation_tallies import BoxTally, ClassTally, PixelTally
from eyetoy_mm.engine.hooks import DataPicturesHook, DescribeRunHook, EvaluationPicturesHook, LiveProgressHook
from eyetoy_mm.engine.hooks.data_pictures import images_of
from eyetoy_mm.engine.hooks.live_progress import line_of
from eyetoy_mm.engine.label_counts import count_labels
from eyetoy_mm.engine.picture_grids import grid, save
from eyetoy_mm.engine.terminal_log import IterationsFilter, shorten, terminal_handlers, tracked
from eyetoy_mm.errors import UserError

# --- What an evaluation says ------------------------------------------------------------------------------------------


def boxes_sample(truth: list, found: list, scale: float = 1.0) -> BaseDataElement:
    """Of (label, box) and of (label, score, box)."""
    sample = BaseDataElement(metainfo=dict(scale_factor=(scale, scale)))
    sample.gt_instances = InstanceData(
        labels=torch.tensor([label for label, _ in truth], dtype=torch.long),
        bboxes=torch.tensor([box for _, box in truth], dtype=torch.float).reshape(-1, 4) * scale,
    )
    sample.pred_instances = InstanceData(
        labels=torch.tensor([label for label, _, _ in found], dtype=torch.long),
        scores=torch.tensor([score for _, score, _ in found]),
        bboxes=torch.tensor([box for _, _, box in found], dtype=torch.float).reshape(-1, 4),
    )
    return sample


A, B, FAR = [0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 70, 70]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_boxes_are_matched_once_and_the_best_first(scale):
    tally = BoxTally(["cat", "dog"], scaled=scale != 1.0)
    tally.add(boxes_sample([(0, A), (1, B)], [(0, 0.9, A), (0, 0.8, A), (0, 0.7, B), (1, 0.2, B)], scale))
    # A cat is found, found again (nothing is left there), a dog is taken for a cat; the dog's own box scores too low.
    assert tally.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
    curves = tally.precision_recall()
    assert curves["cat"][0].tolist() == [1, 1, 1] and np.allclose(curves["cat"][1], [1, 1 / 2, 1 / 3])
    assert curves["dog"][0].tolist() == [1] and curves["dog"][1].tolist() == [1]
    tally.add(boxes_sample([(0, A)], []))
    assert tally.confusion[0].tolist() == [1, 0, 1]
    assert tally.precision_recall()["cat"][0].tolist() == [0.5, 0.5, 0.5]


def test_precision_is_that_of_pycocotools(tmp_path):
    """AP at an IoU of 0.5 from the curves, interpolated as COCO does, is COCO's."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(0)
    tally, coco, results = BoxTally(["cat", "dog"]), COCO(), []
    coco.dataset = dict(
        images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in enumerate(("cat", "dog"))]
    )
    for image in range(12):
        low = generator.uniform(0, 60, (5, 2))
        truth = np.hstack([low, low + generator.uniform(15, 40, (5, 2))])
        labels = generator.integers(0, 2, 5)
        found = truth + generator.normal(0, 4, truth.shape)
        scores, guesses = generator.uniform(0, 1, 5), np.where(generator.uniform(size=5) < 0.8, labels, 1 - labels)
        tally.add(boxes_sample(list(zip(labels.tolist(), truth.tolist())),
                               list(zip(guesses.tolist(), scores.tolist(), found.tolist()))))  # fmt: skip
        coco.dataset["images"].append(dict(id=image, width=120, height=120))
        for label, (x, y, x2, y2) in zip(labels.tolist(), truth.tolist()):
            box, number = [x, y, x2 - x, y2 - y], len(coco.dataset["annotations"]) + 1
            coco.dataset["annotations"].append(
                dict(id=number, image_id=image, category_id=label, bbox=box, area=box[2] * box[3], iscrowd=0)
            )
        for label, score, (x, y, x2, y2) in zip(guesses.tolist(), scores.tolist(), found.tolist()):
            results.append(dict(image_id=image, category_id=label, score=score, bbox=[x, y, x2 - x, y2 - y]))
    coco.createIndex()
    theirs = COCOeval(coco, coco.loadRes(results), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    for label, name in enumerate(("cat", "dog")):
        recall, precision = tally.precision_recall()[name]
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        ours = np.append(envelope, 0.0)[at]
        assert np.allclose(ours, theirs.eval["precision"][0, :, label, 0, -1], atol=1e-6)


def test_pixels_and_classes():
    pixels = PixelTally(["sky", "sea"])
    sample = BaseDataElement()
    sample.gt_sem_seg = PixelData(data=torch.tensor([[[0, 0, 1, 255]]]))
    sample.pred_sem_seg = PixelData(data=torch.tensor([[[0, 1, 1, 1]]]))
    pixels.add(sample)
    assert pixels.confusion.tolist() == [[1, 1], [0, 1]]
    assert pixels.iou() == {"sky": 50.0, "sea": 50.0}  # 1 of 2 each; 255 is ignored
    assert pixels.worst[0].badness == pytest.approx(1 / 3)

    classes = ClassTally(["cat", "dog"])
    for truth, scores in ((0, [0.9, 0.1]), (0, [0.2, 0.8]), (1, [0.6, 0.4])):
        scores = torch.tensor(scores)
        classes.add(
            BaseDataElement(gt_label=torch.tensor([truth]), pred_label=scores.argmax()[None], pred_score=scores)
        )
    assert classes.confusion.tolist() == [[1, 1], [1, 0]]
    assert [round(each.badness, 3) for each in classes.worst] == [0.8, 0.6]  # what is right is none of them


def test_figures(tmp_path):
    many = [f"class {index}" for index in range(60)]
    figures = [
        draw_confusion(np.eye(3, dtype=int), ["a", "b"], "3 images"),
        draw_confusion(np.diag(np.arange(60)), many),
        draw_precision_recall({"a": (np.array([0.5, 1.0]), np.array([1.0, 0.7]))}),
        draw_class_bars({"a": 20.0, "b": 10.0}, "IoU"),
    ]
    assert [label.get_text() for label in figures[0].axes[0].get_xticklabels()] == ["a", "b", "(nothing)"]
    assert "40 most frequent classes of 60" in figures[1].axes[0].get_title()
    assert [label.get_text() for label in figures[3].axes[0].get_yticklabels()] == ["b", "a"]
    with pytest.raises(UserError, match="1 classes do not fit a confusion matrix of 3"):
        draw_confusion(np.eye(3), ["a"])


def test_grid(tmp_path):
    pictures = [np.full((20, 40, 3), value, np.uint8) for value in (10, 20, 30)]
    whole = grid(pictures, columns=2, width=80)
    assert whole.shape == (80, 160, 3)
    assert [int(whole[y, x, 0]) for y, x in ((20, 40), (20, 120), (60, 40), (60, 120))] == [10, 20, 30, 255]
    assert grid(pictures, ["a", "b", "ü"], columns=3, width=80).shape == (40 + 18, 240, 3)
    save(whole, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_truth_is_painted_on_the_left_of_the_prediction():
    pytest.importorskip("mmseg")
    from eyetoy_mm.engine.painting import make_painter

    painter = make_painter("mmseg", dict(classes=("sky", "sea"), palette=[[255, 0, 0], [0, 0, 255]]))
    sample, image = BaseDataElement(), np.zeros((8, 12, 3), np.uint8)
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, 8, 12, dtype=torch.long))
    assert painter.paint(image, sample, truth=True)[4, 6].argmax() == 0
    sample.pred_sem_seg = PixelData(data=torch.ones(1, 8, 12, dtype=torch.long))
    both = painter.paint(image, sample, truth=True)
    assert both.shape == (8, 24, 3) and (both[4, 6].argmax(), both[4, 18].argmax()) == (0, 2)
    assert painter.paint(image, sample).shape == (8, 12, 3)


# --- What labels there are --------------------------------------------------------------------------------------------


def test_labels_are_counted_from_the_list_alone():
    class Boxes(BaseDataset):
        METAINFO = dict(classes=("cat", "dog"))

        def load_data_list(self) -> list[dict]:
            box = dict(bbox=[0, 0, 4, 3], bbox_label=1)
            return [dict(img_path="there is no such file", instances=[box] * (index + 1)) for index in range(3)]

    report = count_labels("train", Boxes())
    assert report.counts == {"train": {"dog": 6}} and report.unit == "boxes"
    assert report.boxes["train"].tolist() == [[4, 3]] * 6


def test_boxes_beside_masks_are_counted_and_labels_without_a_name_are_numbers():
    """Panoptic maps are colours, whose numbers are no labels; -1 is not the last class."""

    class Both(BaseDataset):
        METAINFO = dict(classes=("cat", "dog"))

        def load_data_list(self) -> list[dict]:
            boxes = [dict(bbox=[0, 0, 4, 3], bbox_label=label) for label in (0, -1)]
            return [dict(img_path="none", seg_map_path="none", instances=boxes)]

    report = count_labels("train", Both(pipeline=[LoadAnnotations(with_seg=True)]))
    assert report.counts == {"train": {"cat": 1, "-1": 1}} and report.unit == "boxes"


def test_images_of_a_batch_are_as_they_are_shown():
    image = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(torch.uint8)
    pairs = list(images_of(dict(inputs=image, data_samples=[BaseDataElement()] * 2), 12))
    assert len(pairs) == 2 and np.array_equal(pairs[1][0], image[1].numpy().transpose(1, 2, 0))
    assert list(images_of(dict(inputs=dict(sup=image)), 12)) == list(images_of(None, 12)) == []


@pytest.mark.parametrize(("name", "pixel"), [("CIFAR10", [200, 0, 0]), ("Files", [0, 0, 200])])
def test_the_first_batch_is_drawn_in_its_colours(name, pixel, tmp_path):
    """CIFAR's images are red, green, blue; those of files come as blue, green, red from OpenCV."""
    pytest.importorskip("mmpretrain")
    import cv2

    dataset = type(name, (), dict(metainfo=dict(classes=("cat",))))()
    wrapper = SimpleNamespace(dataset=dataset, metainfo=dataset.metainfo)
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=wrapper))
    logger, scope = logging.getLogger("test"), SimpleNamespace(scope_name="mmpretrain")
    runner = SimpleNamespace(logger=logger, work_dir=str(tmp_path), train_loop=loop, default_scope=scope)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[:, 0] = 200
    hook = DataPicturesHook()
    hook._painted = False
    hook.before_train_iter(runner, 0, dict(inputs=images, data_samples=[BaseDataElement()]))
    painted = cv2.imread(str(tmp_path / "train_batch.png"))[..., ::-1]
    assert painted[-20, -20].tolist() == pixel


# --- The terminal -----------------------------------------------------------------------------------------------------


@pytest.fixture
def logger(tmp_path):
    logger = MMLogger(f"test {tmp_path}", log_file=str(tmp_path / "log"))
    stream = io.StringIO()
    (handler,) = terminal_handlers(logger)
    handler.setStream(stream)
    yield logger, stream, tmp_path / "log"
    for handler in logger.handlers:
        handler.close()


def test_what_is_hundreds_of_lines_long_goes_to_the_file_alone(logger):
    logger, stream, file = logger
    shorten(logger)
    shorten(logger)
    (handler,) = terminal_handlers(logger)
    assert len(handler.filters) == 2  # mmengine's, and ours once
    for text in (
        "\n" + "-" * 60 + "\nSystem environment:\n",
        "Config:\nmodel = 1",
        "Hooks will be executed in the following order:\n",
        '"FileClient" will be deprecated in future. Please use io functions in x',
        "kept",
    ):
        logger.info(text)
    assert stream.getvalue().endswith("kept\n") and stream.getvalue().count("\n") == 1
    assert all(text in file.read_text() for text in ("System environment", "model = 1", "FileClient", "kept"))


def test_lines_of_iterations_are_known_by_who_writes_them():
    record = logging.LogRecord("", logging.INFO, "/x/hooks/logger_hook.py", 1, "Epoch(train) [1][1/2]", (), None,
                               func="after_train_iter")  # fmt: skip
    assert not IterationsFilter().filter(record)
    record.funcName = "after_val_epoch"
    assert IterationsFilter().filter(record)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def put_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Terminal:
    """In place of standard output; no fixture, after which pytest puts its own there."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("eyetoy_mm.engine.hooks.live_progress._EVERY", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    return terminal


def runner_of(logger: logging.Logger, **scalars: float) -> SimpleNamespace:
    hub = SimpleNamespace(
        log_scalars=scalars, runtime_info=dict(eta=61.2),
        get_scalar=lambda name: SimpleNamespace(current=lambda: scalars[name]),
    )  # fmt: skip
    return SimpleNamespace(logger=logger, message_hub=hub, iter=0, max_iters=4)


def test_a_live_line_moves_on_a_terminal_and_leaves_everything_as_it_was(logger, monkeypatch):
    logger, stream, _ = logger
    terminal = put_terminal(monkeypatch, 160)
    runner = runner_of(logger, **{"train/loss": 0.25, "train/images_per_s": 12.0})
    hook = LiveProgressHook()
    hook.before_train(runner)
    logger.info("above the line")
    hook.after_val_epoch(runner, {"coco/bbox_mAP": 0.3125})
    hook.after_train_iter(runner, 0)
    assert "loss 0.25, bbox_mAP 0.3125, 12.0 images/s" in terminal.getvalue() and "1/4" in terminal.getvalue()
    assert "above the line" in terminal.getvalue() and "ends in 0:01:01" in terminal.getvalue()
    hook.close()
    hook.close()
    import sys

    (handler,) = terminal_handlers(logger)
    assert handler.stream is stream and len(handler.filters) == 1 and sys.stdout is terminal


def test_a_narrow_terminal_has_the_time_first_and_no_bar(logger, monkeypatch):
    logger, _, _ = logger
    terminal = put_terminal(monkeypatch, 50)
    hook = LiveProgressHook()
    hook.before_train(runner_of(logger))
    path = "/a/path/that/is/longer/than/the/terminal/is/wide/" + "picture.png"
    logger.info(path)
    hook.after_train_iter(runner_of(logger, **{"train/loss": 0.25, "train/images_per_s": 12.0}), 0)
    hook.close()
    assert "1/4 ends in 0:01:01, loss 0.25" in re.sub(r"\x1b\[[\d;?]*\w", "", terminal.getvalue())
    assert path in terminal.getvalue()  # which can be copied


def test_no_live_line_where_the_output_is_kept(logger, monkeypatch):
    logger, _, _ = logger
    kept = io.StringIO()
    monkeypatch.setattr("sys.stdout", kept)
    runner = runner_of(logger)
    hook = LiveProgressHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    hook.after_train(runner)
    assert kept.getvalue() == "" and line_of(runner).endswith("ends in 0:01:01")


def test_lines_go_to_the_file_that_the_output_is_kept_in_and_not_to_the_bar(monkeypatch):
    for terminal, notebook in ((True, False), (True, True), (False, False)):
        kept, shown = io.StringIO(), Terminal() if terminal else io.StringIO()
        monkeypatch.setattr("sys.stdout", kept)
        monkeypatch.setattr("sys.stderr", shown)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("JPY_PARENT_PID", raising=False)
        if notebook:
            monkeypatch.setenv("JPY_PARENT_PID", "1")
        for item in tracked(["a", "b"], "going through", 2):
            print(item)
        assert kept.getvalue() == "a\nb\n"
        assert ("going through" in shown.getvalue()) == (terminal and not notebook)


# --- What fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", [DataPicturesHook(), DescribeRunHook(), EvaluationPicturesHook()])
def test_what_fails_is_logged_and_ends_nothing(hook, tmp_path):
    """A runner without anything that they ask for."""
    warnings: list[str] = []
    runner = SimpleNamespace(logger=SimpleNamespace(warning=warnings.append), work_dir=str(tmp_path), iter=0)
    if isinstance(hook, EvaluationPicturesHook):
        hook._tally = PixelTally(["a"])
        hook.after_val_iter(runner, 0, None, [BaseDataElement()])
        hook.after_train(runner)
    else:
        hook.before_train(runner)
    assert len(warnings) == 1 and "AttributeError" in warnings[0] and list(tmp_path.iterdir()) == []


def test_the_pipeline_says_whether_boxes_are_resized():
    from eyetoy_mm.engine.evaluation_tallies import make_tally

    pytest.importorskip("mmdet")
    from mmdet.datasets.transforms import LoadAnnotations, Resize

    steps = [LoadAnnotations(with_bbox=True), Resize(scale=(4, 4))]
    for scaled, order in ((True, steps), (False, steps[::-1])):
        dataset = SimpleNamespace(metainfo=dict(classes=("cat",)), pipeline=Compose(order))
        assert make_tally("mmdet", dataset).scaled == scaled
    assert make_tally("mmdet", SimpleNamespace(metainfo={})) is None
