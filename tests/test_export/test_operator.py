"""The operator in ONNX, at many sizes from one graph, against the definition."""

import pytest
import torch

from eyetoy_mm.ops import neighborhood_attention

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from eyetoy_mm.export.onnx_file import open_session
from eyetoy_mm.export.onnx_graph import build_graph


class Attentions(torch.nn.Module):
    """A sequence, two maps and a volume; even and odd windows, dilation, bias, values of another width."""

    def __init__(self, backend=None):
        super().__init__()
        self.backend = backend
        self.register_buffer("bias", torch.randn(1, 5, 9, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        pixels = images.permute(0, 2, 3, 1).unsqueeze(3) / 255  # (B, H, W, 1, 3)
        rows, cubes = pixels.mean(2), pixels.movedim(-1, 3).unsqueeze(-1)  # (B, H, 1, 3), (B, H, W, 3, 1, 1)
        of = self.backend
        return (
            neighborhood_attention(rows, rows, rows, 4, 2, backend=of),
            neighborhood_attention(pixels, pixels, pixels, (3, 5), (4, 1), self.bias, backend=of),
            neighborhood_attention(pixels, pixels, pixels[..., :2], 6, backend=of),
            neighborhood_attention(cubes, cubes, cubes, (3, 3, 2), backend=of),
        )


def test_one_graph_serves_every_size():
    names = ["sequence", "biased", "even", "volume"]
    session = open_session(build_graph(Attentions(), names).SerializeToString())
    for shape in ((1, 3, 1, 1), (2, 3, 5, 19), (1, 3, 23, 8), (3, 3, 2, 9)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 255
        expected = Attentions("reference")(images)
        for name, actual, right in zip(names, session.run(None, {"images": images.numpy()}), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(actual), right, atol=2e-6, rtol=1e-5, msg=f"{name} of {shape}")
