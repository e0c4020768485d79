"""Boxes of datasets that no check of files knows: users' own, CrowdHuman, files of mmengine's form."""

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, RepeatDataset

from eyetoy_mm.datasets.corner_boxes import instance_findings
from eyetoy_mm.engine.hooks.images import CheckImagesHook
from eyetoy_mm.errors import UserError

RNG = np.random.default_rng(0)
UPPER_LEFT = RNG.uniform(0, [60, 40], (40, 2))
SIDES = RNG.uniform(4, [40, 40], (40, 2))
CORNERS = np.concatenate([UPPER_LEFT, np.minimum(UPPER_LEFT + SIDES, [100, 80])], 1)


class Boxes(BaseDataset):
    METAINFO = dict(classes=("cat", "dog"))

    def load_data_list(self):
        return self.metainfo["samples"]


def find(corners=CORNERS, label=1, ignore_flag=0, **settings):
    instances = [dict(bbox=box.tolist(), bbox_label=label, ignore_flag=ignore_flag) for box in corners]
    samples = [dict(img_path="a.jpg", width=100, height=80, **settings) for _ in range(10)]
    for index, sample in enumerate(samples):
        sample.setdefault("instances", instances[4 * index : 4 * index + 4])
    return list(instance_findings(Boxes(metainfo=dict(samples=samples))))


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(instances=[]), dict(instances=[dict(mask=1)]), dict(instances=[dict(bbox=[1, 2, 3, 4, 5])])],
)
def test_what_is_right_or_without_boxes_is_passed(settings):
    assert find(**settings) == []


def test_people_beyond_the_border_are_right():
    """CrowdHuman's boxes are of whole bodies, seen or not."""
    beyond = CORNERS.copy()
    beyond[::4, 3] += 40
    assert not any(finding.fatal for finding in find(beyond))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (dict(corners=CORNERS / [100, 80, 100, 80]), "box form", "normalised to 0..1"),
        (dict(corners=np.hstack([UPPER_LEFT, SIDES])), "box form", "seem to be x, y, width, height: write x2"),
        (dict(corners=np.hstack([UPPER_LEFT, CORNERS[:, 2:] + UPPER_LEFT])), "box form", "corners already"),
        (dict(corners=CORNERS * 3), "boxes beyond the image", "of 40 boxes that reach far beyond"),
        (dict(label=2), "label out of range", "boxes of label 2, and 2 classes"),
        (dict(label=-1, ignore_flag=1), "boxes ignored", "40 of 40 boxes that are to be ignored"),
    ],
)
def test_what_is_wrong_is_fatal(settings, kind, message):
    (finding,) = find(**settings)
    assert finding.fatal and finding.kind == kind
    assert message in finding.message and finding.where == ("a.jpg",)


def test_a_run_looks_at_what_it_has_built():
    samples = [dict(img_path="a.jpg", instances=[dict(bbox=[1, 2, 3, 4], bbox_label=2)])]
    data = Boxes(metainfo=dict(samples=samples))
    with pytest.raises(UserError, match="Boxes has boxes of label 2"):
        CheckImagesHook().check(RepeatDataset(data, times=2))
