"""What the tests of configs rely on: which modules count as one, and what a model without values shows."""

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from eyetoy_mm.backbones import EyeToy
from tests.skeletons import parameters_without_gradient, structure

ARCH = dict(
    embed_dims=(8, 16), depths=(1, 2), num_heads=(1, 1), windows=((5, 3), (3, 3)), merging=((1, 2), (1, 3)),
    global_layers=1, global_heads=2, register_tokens=3,
)  # fmt: skip


def backbone(arch=None, **arguments):
    return EyeToy(arch=ARCH | (arch or {}), **(dict(out_indices=(0, 1)) | arguments))


@pytest.mark.parametrize("arch", [dict(embed_dims=(16, 32)), dict(depths=(1, 5)), dict(register_tokens=4)], ids=str)
def test_numbers_make_no_other_structure(arch):
    assert structure(backbone(arch)) == structure(backbone())


@pytest.mark.parametrize(
    ("arch", "arguments"),
    [
        (dict(register_tokens=0), {}), (dict(global_layers=0), {}), (dict(use_context_token=False), {}),
        ({}, dict(with_cp=True)), ({}, dict(out_indices=(1,))), ({}, dict(out_type="avg_featmap")),
        ({}, dict(frozen_stages=0)),
    ],
    ids=str,
)  # fmt: skip
def test_all_else_does(arch, arguments):
    assert structure(backbone(arch, **arguments)) != structure(backbone())


class Model(BaseModel):
    def __init__(self, channels, unused=False):
        super().__init__()
        self.backbone, self.head = backbone(out_indices=(1,)), nn.Conv2d(channels, 5, 1)
        if unused:
            self.unused = nn.Linear(2, 2)

    def extract_feat(self, images):
        return self.backbone(images)[-1]

    def forward(self, images):
        return self.head(self.extract_feat(images))


def test_models_without_values_run_and_fail_as_others():
    assert parameters_without_gradient(Model(16).to("meta"), (64, 48)) == []
    assert parameters_without_gradient(Model(16, unused=True).to("meta"), (64, 48)) == [
        "unused.weight",
        "unused.bias",
    ]
    with pytest.raises(RuntimeError, match="channel"):
        parameters_without_gradient(Model(8).to("meta"), (64, 48))


def test_a_run_on_meta_leaves_later_ones_alone():
    """Shapes of a map whose plan a back end keeps."""
    model = Model(16)
    expected = model(torch.ones(1, 3, 40, 40))
    parameters_without_gradient(Model(16).to("meta"), (40, 40))
    torch.testing.assert_close(model(torch.ones(1, 3, 40, 40)), expected)
