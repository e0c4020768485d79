"""Pictures of label maps: colours, names of the classes, the legend."""

import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401 - first: supplies what mmcv-lite lacks

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from eyetoy_mm.engine.painting import make_painter

CLASSES = ("meadow", "a much longer name than others", "сад")
PALETTE = [(0, 200, 0), (200, 0, 0), (0, 0, 200)]
PHOTO = np.full((120, 160, 3), 100, np.uint8)


def sample(labels: np.ndarray, truth: np.ndarray | None = None) -> BaseDataElement:
    made = BaseDataElement(pred_sem_seg=PixelData(data=torch.from_numpy(labels)[None]))
    if truth is not None:
        made.gt_sem_seg = PixelData(data=torch.from_numpy(truth)[None])
    return made


@pytest.fixture
def painter():
    return make_painter("mmseg", dict(classes=CLASSES, palette=PALETTE))


def test_classes_have_their_colours_and_names_where_there_is_room(painter):
    labels = np.zeros((120, 160), np.int64)
    labels[:, 80:] = 2
    labels[:4, :4] = 1  # too small for its name
    labels[100:] = 255
    painted = painter.paint(PHOTO, sample(labels))
    assert painted.shape == PHOTO.shape
    assert (painted[101:] == 100).all()  # no class
    assert painted[5, 1].tolist() == [40, 160, 40] and painted[5, 158].tolist() == [40, 40, 160]
    assert painted[1, 1].tolist() == [160, 40, 40]
    white = (painted == 255).all(-1)
    assert white[:100, :80].any() and white[:100, 80:].any()  # letters
    assert not white[:4, :4].any() and not white[100:].any()


def test_a_legend_is_of_one_width_and_has_what_is_there(painter):
    labels = np.zeros((120, 160), np.int64)
    plain = painter.paint(PHOTO, sample(labels))
    one = painter.paint(PHOTO, sample(labels), legend=True)
    labels[:60] = 2
    two = painter.paint(PHOTO, sample(labels), legend=True)
    assert one.shape == two.shape and one.shape[0] == 120 and one.shape[1] > 160
    assert (one[:, :160] == plain).all()

    def has(picture, color):
        return (picture[:, 160:] == color).all(-1).any()

    assert [has(one, color) for color in PALETTE] == [True, False, False]
    assert [has(two, color) for color in PALETTE] == [True, False, True]


def test_a_legend_says_how_many_classes_it_has_no_room_for():
    painter = make_painter("mmseg", dict(classes=[f"class {label}" for label in range(40)]))
    labels = np.arange(40).repeat(2)[:, None].repeat(9, 1)
    shown = {tuple(color) for color in painter.legend(labels).reshape(-1, 3)} & set(painter.dataset_meta["palette"])
    assert 2 <= len(shown) < 8


def test_truth_is_on_the_left(painter):
    labels = np.zeros((120, 160), np.int64)
    both = painter.paint(PHOTO, sample(labels, truth=labels + 2), truth=True)
    assert both.shape == (120, 320, 3)
    assert both[0, 0].tolist() == [40, 40, 160] and both[0, 319].tolist() == [40, 160, 40]


def test_boxes_that_end_outside_of_the_image_are_painted_without_a_word(recwarn):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    from mmdet.structures import DetDataSample

    boxes = InstanceData(bboxes=torch.tensor([[-9.0, 5, 40, 130]]), scores=torch.ones(1), labels=torch.zeros(1).long())
    painted = make_painter("mmdet", dict(classes=("cat",))).paint(PHOTO, DetDataSample(pred_instances=boxes))
    assert (painted != PHOTO).any() and not [w for w in recwarn if "out of bounds" in str(w.message)]
