"""Which back end runs: by preference, by name, for a whole model, for a whole program; and that the log says it."""

import logging
import subprocess
import sys
import threading

import pytest
import torch

from eyetoy_mm.ops import backend_cpp, backend_flex, backend_torch, neighborhood_attention, selection, use_backend
from eyetoy_mm.ops.attention import BACKENDS


@pytest.fixture
def ran(monkeypatch):
    """Names of the back ends that run."""
    names = []
    for name in ("cpp", "torch", "reference"):
        attend = BACKENDS[name].attend
        monkeypatch.setattr(BACKENDS[name], "attend", lambda *a, n=name, f=attend: names.append(n) or f(*a))
    return names


def attend(**arguments):
    q = torch.randn(1, 5, 5, 1, 8)
    return neighborhood_attention(q, q, q, 3, **arguments)


def test_a_whole_model_runs_in_the_back_end_that_is_asked_for(ran):
    pytest.importorskip("mmengine", reason="mmengine is not installed")
    from eyetoy_mm.backbones import NAT

    model = NAT(None, embed_dims=8, depths=(1, 1), num_heads=(2, 2), kernel_size=3, mlp_ratio=2)
    images = torch.randn(1, 3, 16, 16)
    with use_backend("reference"):
        expected = model(images)
    assert set(ran) == {"reference"}
    ran.clear()
    with use_backend("torch"):
        for a, e in zip(model(images), expected, strict=True):
            torch.testing.assert_close(a, e, atol=1e-5, rtol=1e-4)
    assert set(ran) == {"torch"}


def test_it_holds_within_and_in_order(ran):
    with use_backend("reference", "torch"):
        attend()
        with use_backend("natten", "torch"):  # natten cannot
            attend()
        with use_backend():  # as always
            attend()
        attend(backend="torch")  # a name of its own
        thread = threading.Thread(target=attend)
        thread.start()
        thread.join()
    with pytest.raises(ZeroDivisionError), use_backend("reference"):
        _ = 1 / 0
    attend()
    usual = "torch" if isinstance(backend_cpp.KERNELS, str) else "cpp"
    assert ran == ["reference", "torch", usual, "torch", "reference", usual]


def test_threads_that_leave_in_another_order_leave_nothing_behind():
    first, second = use_backend("torch"), use_backend("reference")
    before = selection._allowed
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert selection._allowed == ("reference",)
    second.__exit__(None, None, None)
    assert selection._allowed == before


def test_nothing_falls_back_in_silence():
    with use_backend("flex"), pytest.raises(RuntimeError, match="back end 'flex' cannot run .* CUDA"):
        attend()
    with use_backend("flex", "natten"), pytest.raises(RuntimeError, match="none of .*flex: .*CUDA.*; natten: .*CUDA"):
        attend()
    with (
        use_backend("cuda"),
        pytest.raises(ValueError, match="unknown back end 'cuda'; choose one of cpp, triton, natten"),
    ):
        attend()
    with use_backend("torch", "cuda"), pytest.raises(ValueError, match="unknown back end 'cuda'"):
        attend()
    with pytest.raises(ValueError, match=r"given by name.*\['torch'\]"), use_backend(["torch"]):
        pass


def test_recomputed_blocks_take_the_same_back_end(ran):
    """The backward pass runs them again, on a GPU in a thread of its own."""
    q = torch.randn(1, 5, 5, 1, 8, requires_grad=True)
    with use_backend("reference"):
        again = torch.utils.checkpoint.checkpoint(lambda x: neighborhood_attention(x, x, x, 3), q, use_reentrant=False)
        again.sum().backward()
    assert ran == ["reference", "reference"]


def test_it_compiles_and_compiles_again_when_it_changes(ran):
    compiled = torch.compile(lambda x: neighborhood_attention(x, x, x, 3), backend="aot_eager", fullgraph=True)
    q = torch.randn(1, 5, 5, 1, 8)
    results = []
    for name in ("torch", "reference", "torch"):
        with use_backend(name):
            results.append(compiled(q))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)
    assert {"torch", "reference"} <= set(ran)


def environment(value):
    code = (
        "import torch; from eyetoy_mm.ops import neighborhood_attention as n; q = torch.ones(1, 4, 1, 8); n(q, q, q, 3)"
    )
    return subprocess.run(
        [sys.executable, "-c", "import logging; logging.basicConfig(level='INFO')\n" + code],
        capture_output=True, text=True, env={**__import__("os").environ, selection.VARIABLE: value},
    )  # fmt: skip


def test_a_variable_of_the_environment_chooses_for_a_program():
    done = environment(" flex, reference ")
    assert done.returncode == 0
    assert "on cpu runs in back end 'reference'; not flex: compiled flex_attention trains on CUDA alone" in done.stderr
    done = environment("tpu")
    assert done.returncode and "unknown back end 'tpu'" in done.stderr


def test_the_log_says_it_once(monkeypatch, caplog):
    monkeypatch.setattr(selection, "_told", set())
    with caplog.at_level(logging.INFO, "eyetoy_mm"):
        for _ in range(3):
            attend()
            neighborhood_attention(*torch.randn(3, 1, 9, 2, 8), 5)
        with use_backend("torch"):
            attend()
            attend()
        attend(backend="reference")  # asked for by name
    lines = [record.getMessage() for record in caplog.records if record.name == "eyetoy_mm"]
    first = "torch" if isinstance(backend_cpp.KERNELS, str) else "cpp"
    reasons = "; not cpp: " if first == "torch" else ""
    assert lines[0].startswith(f"neighborhood attention on cpu runs in back end '{first}'{reasons}")
    assert lines[1:] == ([] if first == "torch" else ["neighborhood attention on cpu runs in back end 'torch'"])


def test_a_back_end_of_ones_own(monkeypatch):
    """A module, or anything with `refusal` and `attend`, under a name."""

    class Mine:
        @staticmethod
        def refusal(query, neighborhood, bias):
            return "it is for maps" if len(neighborhood.axes) != 2 else None

        @staticmethod
        def attend(query, key, value, neighborhood, bias, scale):
            return backend_torch.attend(query, key, value, neighborhood, bias, scale) * 2

    monkeypatch.setitem(BACKENDS, "mine", Mine)
    q = torch.randn(1, 5, 5, 1, 8)
    torch.testing.assert_close(
        neighborhood_attention(q, q, q, 3, backend="mine"), 2 * neighborhood_attention(q, q, q, 3)
    )
    with use_backend("mine", "reference"):
        neighborhood_attention(*[q[:, 0]] * 3, 3)
        with pytest.raises(RuntimeError, match="'mine' cannot run .* it is for maps"):
            neighborhood_attention(*[q[:, 0]] * 3, 3, backend="mine")


@pytest.mark.parametrize("backend", [backend_flex, BACKENDS["natten"]])
def test_back_ends_without_rules_for_transforms_say_so(backend, monkeypatch):
    asked = []

    class OnCuda:  # what a refusal asks about, before there is a GPU
        is_cuda, dtype, shape, device = True, torch.float32, (1, 9, 9, 1, 32), "cuda"

    def inside(x):
        from eyetoy_mm.ops.neighborhood import Neighborhood

        asked.append(backend.refusal(OnCuda, Neighborhood.of((9, 9), (3, 3), (1, 1)), None))
        return x.sum()

    torch.func.grad(inside)(torch.ones(2))
    assert "torch.func" in asked[0]


def test_natten_refuses_second_derivatives():
    from eyetoy_mm.ops.backend_natten import _refuse_second_derivative

    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(_refuse_second_derivative)
    torch.autograd.grad(y.sum(), x, retain_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative.*use_backend\\('torch'\\)"):
        torch.autograd.grad(y.sum(), x, create_graph=True)
