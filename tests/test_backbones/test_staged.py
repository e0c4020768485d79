"""What every backbone of ours has in common, whichever its stages are."""

from functools import partial

import pytest
import torch

from eyetoy_mm.backbones import NAT, EyeToy
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from tests.test_backbones.test_eyetoy import MINI as EYETOY
from tests.test_backbones.test_nat import MINI as NAT_OF

FAMILIES = [pytest.param(partial(EyeToy, arch=EYETOY), id="EyeToy"), pytest.param(partial(NAT, **NAT_OF), id="NAT")]


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_cfg": "x.pth"}, r"init_cfg must be as dict\(type='Pretrained', checkpoint='...'\), got 'x.pth'"),
        ({"init_cfg": dict(checkpoint="x")}, r"init_cfg must be as .* got {'checkpoint': 'x'}"),
        ({"init_cfg": dict(type="Pretrained")}, "init_cfg of type Pretrained needs a checkpoint, .* got {'type': 'Pre"),
        ({"init_cfg": [dict(type="Pretrained", checkpoint=None)]}, "needs a checkpoint"),
        ({"out_indices": 3}, "out_indices must be a list of ascending stages from 0 to 3, got 3"),
        ({"out_indices": [1.0]}, r"out_indices must be a list .* got \[1.0\]"),
        ({"out_indices": "3"}, "out_indices must be a list .* got '3'"),
        ({"frozen_stages": None}, "frozen_stages must be a whole number, got None"),
        ({"in_channels": "3"}, "in_channels must be a whole number, got '3'"),
        ({"drop_path_rate": None}, "drop_path_rate must be at least 0 and less than 1, got None"),
        ({"with_cp": "no"}, "with_cp must be True or False, got 'no'"),
        ({"arch": 5}, "arch must be one of .*, or a dict with numbers, got 5"),
        ({"arch": dict(type=["tiny"])}, r"unknown arch \['tiny'\]"),
        ({"init_cfg": dict(type="Pretrained", checkpoint="x", prefix=3)}, "prefix of init_cfg must be the text .* 3"),
    ],
)
def test_bad_arguments_are_named(backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        backbone(**arguments)


IMAGES = [
    (None, TypeError, r"must be a tensor \(B, 3, H, W\), got NoneType"),
    ([torch.zeros(3, 32, 32)], TypeError, "got list"),
    (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), TypeError, "of floating point, got torch.uint8: normalise"),
    (torch.zeros(3, 32, 32), ValueError, r"a batch \(B, 3, H, W\), got a tensor of shape \(3, 32, 32\)"),
    (torch.zeros(1, 4, 32, 32), ValueError, r"3 channels \(in_channels\), got 4"),
    (torch.zeros(1, 3, 0, 32), ValueError, "a height and a width of at least 1"),
]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_what_is_no_batch_of_images_is_named(backbone):
    model = backbone()
    for images, kind, message in IMAGES:
        with pytest.raises(kind, match=message):
            model(images)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_nothing_is_initialised_on_meta(backbone):
    with torch.device("meta"):
        model = backbone()
    with pytest.raises(ValueError, match="built on meta, .* build it on a device with memory"):
        model.init_weights()


@pytest.mark.parametrize("backbone", FAMILIES)
def test_checkpoints_of_odd_kinds(backbone, tmp_path):
    """By a path, of 8 bits, and of tensors that are no plain arrays."""
    path = tmp_path / "weights.pth"
    model = backbone(init_cfg=dict(type="Pretrained", checkpoint=path))
    state = {name: (torch.arange(x.numel()) % 3 + 1).view_as(x).to(x) / 2 for name, x in model.state_dict().items()}
    torch.save({name: x.to(torch.float8_e4m3fn) for name, x in state.items()}, path)
    model.init_weights()
    for name, x in model.state_dict().items():
        assert torch.equal(x, state[name]), name
    name = next(name for name, x in state.items() if x.dim() == 2)
    torch.save(state | {name: state[name].to_sparse()}, path)
    model = backbone(init_cfg=dict(type="Pretrained", checkpoint=path))
    with pytest.raises(CheckpointError, match=f"{name}: torch.sparse_coo, not strided"):
        model.init_weights()
