"""A checkpoint's classes beside those of the data that it is used on."""

import logging
from types import SimpleNamespace

import pytest

pytest.importorskip("mmengine")

from mmengine.config import Config

from eyetoy_mm.engine.hooks import CompareClassesHook
from eyetoy_mm.errors import UserError


def compare(split: str, before: list[str], now: list[str], caplog: pytest.LogCaptureFixture) -> str:
    """What is logged where a checkpoint of these classes is loaded for data of those."""
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=tuple(now)))))
    runner = SimpleNamespace(test_loop=loop, train_loop=loop, logger=logging.getLogger("classes"))
    CompareClassesHook(split).after_load_checkpoint(runner, dict(meta=dict(dataset_meta=dict(classes=before))))
    return caplog.text


def test_another_order_is_refused_in_a_test_and_told_in_a_training(caplog):
    with pytest.raises(UserError, match="label 0 is 'cat' there and 'dog' in the test data, which is another label"):
        compare("test", ["cat", "dog"], ["dog", "cat"], caplog)
    with pytest.raises(UserError, match="label 1 is 'dog' there and 'bee' in the test data"):
        compare("test", ["cat", "dog", "bee"], ["cat", "bee"], caplog)  # a part of them
    with pytest.raises(UserError, match="label 0 is 'cat' there and 'Dog ' in the test data, which is another label"):
        compare("test", ["cat", "dog"], ["Dog ", "cat_"], caplog)  # spelt otherwise
    assert "its heads begin with other classes" in compare("train", ["cat", "dog"], ["dog", "cat"], caplog)


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_the_same_says_nothing(split, caplog):
    assert not compare(split, ["cat", "dog"], ["Cat", "dog"], caplog)
    assert not compare(split, [], ["cat"], caplog)  # a file without names


def test_other_names_are_told_in_a_test(caplog):
    assert not compare("train", ["cat", "dog"], ["ant", "bee"], caplog)  # heads for new classes are trained
    assert not compare("train", ["cat", "dog", "bee"], ["dog", "cat"], caplog)  # of another number: not loaded
    assert "scores are right where both mean the same" in compare("test", ["cat", "dog"], ["ant", "bee"], caplog)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(), None),
        (dict(mean=None, std=None), "and come by mean=None, std=None, channels turned=True"),
        (dict(bgr_to_rgb=False), "channels turned=False"),
        (dict(mean=(1.0, 2.0, 3.0)), "come by mean=[1.0, 2.0, 3.0]"),
        (dict(bgr_to_rgb=False, rgb_to_bgr=True), None),
    ],
)
def test_images_that_are_normalised_otherwise_than_where_the_weights_come_from(change, told, caplog):
    preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
    saved = Config(dict(model=dict(type="X"), data_preprocessor=preprocessor)).pretty_text
    here = Config(dict(model=dict(data_preprocessor=preprocessor | change)))
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={})))
    runner = SimpleNamespace(train_loop=loop, logger=logging.getLogger("classes"), cfg=here)
    for resumed in (True, False):  # a run that goes on is compared elsewhere
        here.resume = resumed
        CompareClassesHook("train").after_load_checkpoint(runner, dict(meta=dict(cfg=saved)))
        assert bool(caplog.text) == (told is not None and not resumed) and (told or "") in (caplog.text or told or "")
