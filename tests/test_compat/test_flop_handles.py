"""mmengine's FLOP counter with the nodes that today's PyTorch traces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import eyetoy_mm  # noqa: F401 - adds the formulas

analysis = pytest.importorskip("mmengine.analysis", reason="mmengine is not installed")


class Attention(torch.nn.Module):
    def forward(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value)


def test_fused_attention_is_counted() -> None:
    inputs = (torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 7, 6))
    assert analysis.FlopAnalyzer(Attention(), inputs).total() == 2 * 3 * 5 * 7 * (4 + 6)
    assert analysis.ActivationAnalyzer(Attention(), inputs).total() == 2 * 3 * 5 * 6


@pytest.mark.parametrize("padding", ["same", "valid", 0, 1])
def test_convolutions_are_counted_whatever_the_padding(padding: str | int) -> None:
    conv = torch.nn.Conv2d(4, 6, (3, 5), padding=padding, groups=2)
    image = torch.zeros(2, 4, 9, 11)
    assert analysis.FlopAnalyzer(conv, (image,)).total() == conv(image).numel() * 2 * 3 * 5


def test_formulas_that_are_there_stay(run_python: Callable[..., str]) -> None:
    code = (
        "from mmengine.analysis import complexity_analysis\n"
        "table = complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS\n"
        "table['aten::_convolution_mode'] = None\n"
        "import eyetoy_mm\n"
        "print(table['aten::_convolution_mode'], 'aten::scaled_dot_product_attention' in table)"
    )
    assert run_python(code).strip() == "None True"
