"""The operator in ONNX, at many sizes from one graph, against the definition."""

import os
from pathlib import Path

import pytest
import torch

from eyetoy_mm.errors import UserError
from eyetoy_mm.ops import neighborhood_attention

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from eyetoy_mm.export import operator
from eyetoy_mm.export.kernels import build_kernels
from eyetoy_mm.export.onnx_graph import build_graph, without_slow_rules
from eyetoy_mm.export.runtimes import open_session

HEADERS = os.environ.get("EYETOY_ONNXRUNTIME_HEADERS")  # the folder that has onnxruntime_c_api.h
NAMES = ["sequence", "biased", "even", "volume"]


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


def check(session):
    for shape in ((1, 3, 1, 1), (2, 3, 5, 19), (1, 3, 23, 8), (3, 3, 2, 9)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 255
        expected = Attentions("reference")(images)
        for name, actual, right in zip(NAMES, session.run(None, {"images": images.numpy()}), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(actual), right, atol=2e-6, rtol=1e-5, msg=f"{name} of {shape}")


def test_one_graph_serves_every_size(monkeypatch):
    monkeypatch.setattr(operator, "SCORES_AT_ONCE", 4000)  # the smaller maps at once, the larger ones in steps
    check(open_session(build_graph(Attentions(), NAMES).SerializeToString()))


@pytest.mark.skipif(HEADERS is None, reason="EYETOY_ONNXRUNTIME_HEADERS names no folder of onnxruntime's headers")
def test_our_kernels_are_an_operator_of_onnxruntime(tmp_path):
    library = build_kernels(tmp_path, Path(HEADERS))
    proto = build_graph(Attentions(), NAMES, kernels="eyetoy")
    assert [node.op_type for node in proto.graph.node].count("NeighborhoodAttention") == len(NAMES)
    for threads in (1, 3):
        check(open_session(proto.SerializeToString(), threads=threads, library=library))
    assert str(tmp_path).encode() not in library.read_bytes()


def test_headers_that_are_none_are_told(tmp_path):
    with pytest.raises(UserError, match=r"has no onnxruntime_c_api.h; they are in the folder include of"):
        build_kernels(tmp_path, tmp_path)
    (tmp_path / "onnxruntime_c_api.h").write_text("#error too old\n")
    with pytest.raises(UserError, match="does not compile against the headers in .* 1.17 or newer: .*too old"):
        build_kernels(tmp_path, tmp_path)


def test_the_optimizer_goes_without_the_rule_that_tries_all_pairs_of_nodes(monkeypatch):
    onnx = pytest.importorskip("onnx")
    optimizer = pytest.importorskip("onnxscript.optimizer")
    common = pytest.importorskip("onnxscript.rewriter.rules.common")
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) {y = Relu(x)}'
    )
    tried = []
    monkeypatch.setattr(common.slice_split_rule, "match", lambda *args, **kwargs: tried.append(args))
    with without_slow_rules():
        optimizer.optimize(model)
    assert not tried
    optimizer.optimize(model)
    assert tried
