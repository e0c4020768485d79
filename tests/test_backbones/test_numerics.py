"""The backbone in half precision, compiled, exported, repeated, checkpointed and distributed; see docs/export.md."""

import io
import shutil
import sys

import pytest
import torch

from eyetoy_mm.backbones.eyetoy import EyeToy
from tests import program

# All parts (groups that merge tokens, a stage that downsamples, the global stack) in as few operators as can be.
SMALL = dict(
    embed_dims=(8, 16), depths=(1, 1), num_heads=(1, 1), windows=((5, 3), (3, 3)), merging=((1, 2), (1, 3)),
    global_layers=1, global_heads=2, register_tokens=3,
)  # fmt: skip


def small(**arguments):
    return EyeToy(**(dict(arch=SMALL, out_indices=(0, 1)) | arguments))


def images(batch=2, dtype=torch.float32):
    return torch.randn(batch, 3, 37, 50, dtype=dtype, generator=torch.Generator().manual_seed(batch))


def loss(maps):
    """Differs from channel to channel: the square of what a LayerNorm leaves has no gradient."""
    return sum((m.float().square().mean((0, 2, 3)) * torch.arange(m.shape[1])).mean() for m in maps)


def maps_and_gradients(function, x, backbone):
    """Maps, and the gradients of all parameters of the backbone."""
    maps = function(x)
    return [*maps, *torch.autograd.grad(loss(maps), list(backbone.parameters()))]


def together(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])


def relative_error(actual, expected):
    actual, expected = together(actual), together(expected)
    return ((actual - expected).norm() / expected.norm()).item()


# --- Precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_autocast_is_near_float32_and_gradients_are_float32(dtype, most):
    backbone, x = small(), images()
    exact = maps_and_gradients(backbone, x, backbone)
    with torch.autocast("cpu", dtype=dtype):
        maps = backbone(x)
    assert dtype in {m.dtype for m in maps}
    gradients = torch.autograd.grad(loss(maps), list(backbone.parameters()))
    assert {g.dtype for g in gradients} == {torch.float32}
    assert relative_error(maps, exact[:2]) < most
    assert relative_error(gradients, exact[2:]) < 3 * most


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float64, 1e-6)])
def test_a_model_of_another_dtype_is_near_float32(dtype, most):
    backbone, x = small(), images()
    exact = backbone(x)
    maps = backbone.to(dtype)(x.to(dtype))
    assert {m.dtype for m in maps} == {dtype}
    assert relative_error(maps, exact) < most


def test_maps_lie_in_memory_as_the_images_do():
    backbone, x = small(), images()
    expected = backbone(x)
    channels_last = backbone.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for actual, e in zip(channels_last, expected, strict=True):
        torch.testing.assert_close(actual, e)
        assert e.is_contiguous() and actual.is_contiguous(memory_format=torch.channels_last)


def test_deterministic_mode_repeats_bit_for_bit():
    backbone, x = small(dropout=0.1, drop_path_rate=0.1), images()
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(2):
            torch.manual_seed(0)
            results.append(maps_and_gradients(backbone, x, backbone))
    finally:
        torch.use_deterministic_algorithms(False)
    for again, first in zip(*results, strict=True):
        assert torch.equal(again, first)


# --- torch.compile ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [False, True])
def test_compiles_without_graph_breaks(train):
    torch.compiler.reset()  # compilations of other tests count against a limit
    # without dropout: on a CPU, aot_eager expects other strides of its gradient than it then gets
    backbone, x = small(drop_path_rate=0.5).train(train), images()
    compiled = torch.compile(backbone, fullgraph=True, dynamic=False, backend="aot_eager")
    results = []
    for function in (compiled, backbone):
        torch.manual_seed(0)
        results.append(maps_and_gradients(function, x, backbone))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_compiles_with_inductor():
    torch.compiler.reset()
    first = {field: value[:1] for field, value in SMALL.items() if isinstance(value, tuple)}
    backbone, x = small(arch=SMALL | first, out_indices=(0,)).eval(), images()
    compiled = torch.compile(backbone, fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), backbone(x))


# --- Export -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported():
    """A backbone, and its program for any batch and one size."""
    torch.manual_seed(0)
    backbone = small().eval()
    return backbone, torch.export.export(backbone, (images(),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})


@pytest.mark.slow
def test_exports_for_any_batch_and_one_size(exported):
    backbone, exported = exported
    assert not [node for node in exported.graph.nodes if "eyetoy_mm" in str(node.target)]  # plain operators alone
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for batch in (1, 2, 3):
        torch.testing.assert_close(loaded(images(batch)), backbone(images(batch)))
    with pytest.raises(AssertionError, match="Guard failed"):
        loaded(torch.randn(2, 3, 64, 64))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_traces_for_any_batch():
    backbone = small().eval()
    traced = torch.jit.trace(backbone, images(), check_trace=False)
    for batch in (1, 2, 3):
        torch.testing.assert_close(traced(images(batch)), backbone(images(batch)))


@pytest.mark.slow
def test_exports_to_onnx_for_any_batch(exported, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (backbone, graph), file = exported, tmp_path / "backbone.onnx"
    torch.onnx.export(graph, (), file, input_names=["x"], output_names=["map0", "map1"], dynamo=True)
    session = runtime.InferenceSession(file)
    for batch in (1, 2, 3):
        for actual, expected in zip(session.run(None, {"x": images(batch).numpy()}), backbone(images(batch))):
            torch.testing.assert_close(torch.from_numpy(actual), expected.detach(), atol=1e-4, rtol=1e-4)


# --- Training ---------------------------------------------------------------------------------------------------------


def test_with_cp_repeats_dropout():
    plain, checkpointed = small(dropout=0.1, drop_path_rate=0.1), small(dropout=0.1, drop_path_rate=0.1, with_cp=True)
    checkpointed.load_state_dict(plain.state_dict())
    results = []
    for backbone in (plain, checkpointed):
        torch.manual_seed(0)
        results.append(maps_and_gradients(backbone, images(), backbone))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


MEMORY = """
import pathlib, torch
from eyetoy_mm.backbones import EyeToy
torch.set_num_threads(1)
backbone = EyeToy(arch="tiny")
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: getrusage has that of the parent in it
def peak(size):
    sum(m.square().mean() for m in backbone(torch.randn(2, 3, size, size))).backward()
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak(32)
for backbone.encoder.transformer_stack.gradient_checkpointing in (True, False):  # a peak only rises
    print(peak(224) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_with_cp_needs_less_memory():
    done = program.run_code(MEMORY)
    assert done.returncode == 0, done.stderr
    checkpointed, plain = map(int, done.stdout.split())
    assert checkpointed < 0.75 * plain


DISTRIBUTED = """
import sys, torch
import torch.distributed as dist
from eyetoy_mm.backbones import EyeToy
arch, file, is_compiled = eval(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["compiled"]
draw = lambda *size: torch.randn(4, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

def gradients(wrap, batches):
    torch.manual_seed(0)
    model = wrap(EyeToy(arch=arch, out_indices=(0, 1)).double())
    for x in batches:
        sum((m.square().mean((0, 2, 3)) * torch.arange(m.shape[1])).mean() for m in model(x)).backward()
    return [p.grad for p in model.parameters()]

def step(rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    ddp = lambda m: torch.nn.parallel.DistributedDataParallel(m, find_unused_parameters=False)
    wrap = (lambda m: torch.compile(ddp(m), backend="eager", dynamic=False)) if is_compiled else ddp
    batches = [draw(37, 50), draw(32, 41)] if is_compiled else [draw(37, 50)]
    mine = gradients(wrap, [x[2 * rank : 2 * rank + 2] for x in batches])
    for a, e in zip(mine, gradients(lambda m: m, batches), strict=True):
        torch.testing.assert_close(a, e)
    dist.destroy_process_group()

torch.multiprocessing.start_processes(step, nprocs=2, start_method="fork")  # before any thread is started
"""


@pytest.mark.skipif(sys.platform != "linux", reason="starts processes by fork")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch was built without torch.distributed")
@pytest.mark.parametrize("how", [[], pytest.param(["compiled"], marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_two_processes_have_the_gradients_of_the_joined_batch(how, tmp_path):
    """Compiled for one size of images and then for the next."""
    done = program.run_code(DISTRIBUTED, repr(SMALL), tmp_path / "store", *how)
    assert done.returncode == 0, done.stderr
