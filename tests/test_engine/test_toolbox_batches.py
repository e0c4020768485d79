"""Made-up batches are of the size and number that are asked for."""

import pytest
from mmengine.config import Config

from eyetoy_mm.engine.toolbox_batches import make_batch


@pytest.mark.parametrize(
    ("scope", "training"), [("mmseg", True), ("mmdet", True), ("mmdet", False), ("mmpretrain", True)]
)
def test_batches_of_any_size(scope, training):
    pytest.importorskip(scope, reason=f"{scope} is not installed")
    from mmengine.registry import init_default_scope

    init_default_scope(scope)
    model = dict(type="any", data_preprocessor=dict(type="any"))
    batch = make_batch(Config(dict(default_scope=scope, model=model)), training, count=3, size=(40, 56))
    assert [tuple(image.shape) for image in batch["inputs"]] == [(3, 40, 56)] * 3 and len(batch["data_samples"]) == 3
