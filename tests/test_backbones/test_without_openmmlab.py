"""What benchmarks/gpu_check.py measures where OpenMMLab is not installed is what it measures elsewhere."""

import torch

from benchmarks.models import EyeToyWithoutOpenMMLab
from eyetoy_mm.backbones import EyeToy


def test_the_encoder_with_norms_is_the_backbone():
    alone, backbone = EyeToyWithoutOpenMMLab("demo").eval(), EyeToy("demo").eval()
    for parameter in alone.norms.parameters():
        torch.nn.init.normal_(parameter)
    backbone.load_state_dict({name.replace("norms.", "norm"): x for name, x in alone.state_dict().items()})
    x = torch.randn(1, 3, 70, 64)
    with torch.no_grad():
        for actual, expected in zip(alone(x), backbone(x), strict=True):
            assert torch.equal(actual, expected)
