"""panopticapi for mmdet, where it is not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eyetoy_mm.compat import panoptic_api

pytest.importorskip("mmdet")


@pytest.fixture(scope="module")
def stand_in():
    file = Path(panoptic_api.__file__).with_name("_panopticapi.py")
    spec = importlib.util.spec_from_file_location("stand_in_panopticapi", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_colors_are_digits_of_base_256(stand_in):
    numbers = np.array([[0, 255, 256], [65536, 1 + 2 * 256 + 3 * 65536, 256**3 - 1]])
    colors = stand_in.id2rgb(numbers)
    assert colors.dtype == np.uint8 and colors[1, 1].tolist() == [1, 2, 3]
    assert np.array_equal(stand_in.rgb2id(colors), numbers)
    assert stand_in.id2rgb(66051) == [3, 2, 1] and stand_in.rgb2id([3, 2, 1]) == 66051


def test_segments_have_numbers_of_their_own(stand_in):
    """mmdet's converter of ADE20K asks for them: things each, stuff one of its category."""
    colors = {0: (10, 20, 30), 1: (11, 20, 30), 2: (255, 255, 255), 3: (0, 0, 0)}
    segments = stand_in.IdGenerator({i: dict(color=color, isthing=i != 1) for i, color in colors.items()})
    found = [segments.get_id_and_color(category) for category in (0, 0, 1, 1, 2, 2, 3)]
    assert all(stand_in.rgb2id(color) == number for number, color in found)
    numbers = [number for number, _ in found]
    assert numbers[2] == numbers[3] == stand_in.rgb2id(colors[1])
    assert len(set(numbers)) == len(numbers) - 1 and stand_in.VOID not in numbers
    assert segments.get_color(0) != list(colors[0]) and segments.get_id(0) not in numbers


def test_qualities_of_a_worked_example(stand_in):
    first, second = stand_in.PQStat(), stand_in.PQStat()
    first[1].tp, first[1].iou, first[1].fp = 1, 0.8, 1
    second[1].tp, second[1].iou, second[1].fn = 1, 0.6, 1
    second[2].fn = 1
    first += second
    categories = {1: dict(isthing=1), 2: dict(isthing=0), 3: dict(isthing=0)}
    means, own = first.pq_average(categories, isthing=None)
    assert own[1] == pytest.approx(dict(pq=1.4 / 3, sq=0.7, rq=2 / 3))
    assert means == pytest.approx(dict(pq=0.7 / 3, sq=0.35, rq=1 / 3, n=2))  # the third is nowhere
    assert first.pq_average(categories, isthing=True)[0]["n"] == 1
    assert stand_in.PQStat().pq_average(categories, isthing=False)[0] == dict(pq=0, sq=0, rq=0, n=0)


def test_mmdet_finds_it(run_python: Callable[..., str]):
    code = (
        "import eyetoy_mm, mmdet.evaluation.metrics.coco_panoptic_metric as metric\n"
        "from mmdet.datasets.transforms import LoadPanopticAnnotations\n"
        "LoadPanopticAnnotations()\n"
        "print(metric.PQStat.__module__, metric.VOID)\n"
    )
    assert run_python(code).split() == ["panopticapi.evaluation", "0"]


def test_a_present_panopticapi_is_left_alone(run_python: Callable[..., str], tmp_path: Path):
    (tmp_path / "panopticapi.py").write_text("real = True\n")
    assert run_python("import eyetoy_mm, panopticapi; print(panopticapi.real)", tmp_path).strip() == "True"
