"""Checkpoints of mmengine: read without running anything, refused with a reason, resumed exactly."""

from __future__ import annotations

import copy
import os
import pickle
import types
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401
from eyetoy_mm.compat import checkpoint_loading
from eyetoy_mm.compat.checkpoint_loading import CheckpointError, damaged_part

pytest.importorskip("mmengine")
if not checkpoint_loading.needed():
    pytest.skip("torch < 2.6 has another default", allow_module_level=True)

from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from tests.test_compat import compat_tiny_runner

load = partial(CheckpointLoader.load_checkpoint, map_location="cpu", logger="silent")


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


class Unknown:
    """A harmless class that is not on the list."""

    value = 1


def reduced(function: Callable, *arguments: Any) -> Any:
    """An object that is pickled as a call of `function`."""

    class Call:
        def __reduce__(self) -> tuple:
            return function, arguments

    return Call()


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Four epochs without a break; work_dir has the checkpoints of the last three."""
    runner = compat_tiny_runner.build(str(tmp_path_factory.mktemp("full")), "full")
    runner.train()
    return runner


@pytest.fixture(scope="module")
def released_dir(run_python: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, written by mmengine as released, without eyetoy_mm."""
    work_dir = tmp_path_factory.mktemp("released")
    here = Path(__file__).parent
    code = f"""
import runpy, sys
sys.argv = ['compat_tiny_runner.py', {str(work_dir)!r}]
runpy.run_path({str(here / "compat_tiny_runner.py")!r}, run_name='__main__')
assert 'eyetoy_mm' not in sys.modules
"""
    run_python(code)
    return work_dir


def test_what_cannot_be_downloaded_is_told_by_its_address(server: str) -> None:
    with pytest.raises(CheckpointError, match=f"{server}/gone.pth cannot be downloaded: .*404.* give the path of"):
        CheckpointLoader.load_checkpoint(f"{server}/gone.pth", map_location="cpu")


def assert_same(a: Any, b: Any) -> None:
    """Equal down to the last bit, whatever the nesting."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, strict=True)
    elif isinstance(a, HistoryBuffer):
        assert_same(list(a.data), list(b.data))
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def state_of(runner: Runner) -> dict[str, Any]:
    """All that training computes. Of the validation log only the last two values: mmengine saves a checkpoint before it
    validates the same epoch, so that the value of the epoch from which a run is resumed is not in it."""
    (ema,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    hub = runner.message_hub
    return {
        "model": runner.model.state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        "ema": ema.ema_model.state_dict(),
        "train": {key: hub.get_scalar(f"train/{key}") for key in ("loss", "loss_first", "lr", "grad_norm")},
        "val": {key: hub.get_scalar(f"val/{key}").data[0][-2:] for key in ("score", "loss", "count")},
        "at": [runner.epoch, runner.iter, hub.get_info("best_score")],
    }


# --- Save and resume ------------------------------------------------------------------------------------------------


def test_saved_and_resumed_is_the_uninterrupted_run(full_run: Runner, tmp_path: Path) -> None:
    resumed = compat_tiny_runner.build(
        str(tmp_path), "resumed", resume=True, load_from=str(Path(full_run.work_dir) / "epoch_2.pth")
    )
    resumed.train()
    assert len(state_of(full_run)["train"]["loss"].data[0]) == 12
    assert_same(state_of(resumed), state_of(full_run))


def test_resume_of_a_checkpoint_that_released_mmengine_wrote(
    full_run: Runner, released_dir: Path, tmp_path: Path
) -> None:
    path = str(released_dir / "epoch_2.pth")
    assert "builtins.getattr" in torch.serialization.get_unsafe_globals_in_checkpoint(path)
    resumed = compat_tiny_runner.build(str(tmp_path), "released", resume=True, load_from=path)
    resumed.train()
    assert_same(state_of(resumed), state_of(full_run))


def test_resume_finds_the_last_checkpoint_by_itself(full_run: Runner) -> None:
    resumed = compat_tiny_runner.build(full_run.work_dir, "last", resume=True)
    resumed.train()  # nothing is left to do
    assert resumed.epoch == 4
    assert_same(resumed.model.state_dict(), full_run.model.state_dict())


def test_our_checkpoints_need_no_getattr_and_load_with_plain_torch(full_run: Runner) -> None:
    for path in sorted(Path(full_run.work_dir).glob("*.pth")):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) == []
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        assert isinstance(checkpoint["message_hub"]["log_scalars"]["train/loss"], HistoryBuffer)


def test_checkpoints_contain_what_the_safe_list_is_for(released_dir: Path) -> None:
    best = load(str(next(released_dir.glob("best_score_epoch_*.pth"))))
    info = best["message_hub"]["runtime_info"]
    assert isinstance(info["best_score"], np.float64) and isinstance(info["val/rows"], np.ndarray)
    last = load(str(released_dir / "epoch_4.pth"))
    assert last["meta"]["dataset_meta"]["palette"].dtype == np.uint8
    assert {"ema_state_dict", "optimizer", "param_schedulers"} <= last.keys()
    assert last["param_schedulers"][0]["anneal_func"] is None  # a function in the file, which was not looked up


def test_statistics_of_a_loaded_log(full_run: Runner) -> None:
    log = load(str(Path(full_run.work_dir) / "epoch_4.pth"))["message_hub"]["log_scalars"]["train/loss"]
    assert [float(log.statistics(name)) for name in ("min", "max", "mean", "current")] == [
        log.data[0].min(),
        log.data[0].max(),
        log.data[0].mean(),
        log.data[0][-1],
    ]
    clone = copy.deepcopy(log)
    clone.update(1.0)
    assert len(clone.data[0]) == len(log.data[0]) + 1


@pytest.mark.parametrize("value", [1, 1.5, True, np.float32(2), torch.tensor(3)])
def test_every_kind_of_log_value_loads(value: Any, tmp_path: Path) -> None:
    from mmengine.logging import MessageHub

    hub = MessageHub("log_value")
    hub.update_scalar("a", value)
    hub.update_info("best_score", np.float32(value))
    torch.save({"state_dict": {}, "message_hub": hub.state_dict()}, path := str(tmp_path / "log.pth"))
    assert_same(load(path)["message_hub"], hub.state_dict())


def test_names_of_numpy_1_load(tmp_path: Path) -> None:
    array = np.arange(3.0)
    torch.save({"state_dict": {}, "a": array, "s": np.float64(2)}, path := tmp_path / "numpy.pth")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(new, old) if name.endswith("data.pkl") else content)
    loaded = load(str(path))
    np.testing.assert_array_equal(loaded["a"], array)
    assert loaded["s"] == 2


def test_one_cycle_keeps_its_function_through_a_resume() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    make = partial(OneCycleLR, eta_max=1.0, total_steps=10)
    first, second = (make(torch.optim.SGD([parameter], lr=0.1)) for _ in range(2))
    for _ in range(4):
        first.step()
    second.load_state_dict({**first.state_dict(), "anneal_func": None})
    assert second.anneal_func(0.0, 2.0, 0.5) == pytest.approx(1.0)
    for _ in range(3):
        first.step()
        second.step()
    assert first.get_last_value() == second.get_last_value()


# --- Refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_an_attack_is_refused_and_does_not_run(zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = str(tmp_path / "attack.pth")
    torch.save(
        {"state_dict": {}, "meta": Attack(marker)}, path, _use_new_zipfile_serialization=zipped, pickle_protocol=2
    )
    for loader in (load, partial(load_checkpoint, torch.nn.Linear(1, 1))):
        with pytest.raises(CheckpointError) as caught:
            loader(path)
        message = str(caught.value)
        assert path in message and "system" in message and "add_safe_globals" in message and "save it again" in message
        assert isinstance(caught.value.__cause__, pickle.UnpicklingError)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the attack is a real one
    assert marker.exists()


def test_resume_from_an_attack_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": {}, "meta": {}, "message_hub": Attack(marker)}, path := str(tmp_path / "attack.pth"))
    runner = compat_tiny_runner.build(str(tmp_path), "attacked", resume=True, load_from=path)
    with pytest.raises(CheckpointError, match="refused"):
        runner.train()
    assert not marker.exists()


def test_every_refused_class_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "unknown.pth")
    torch.save({"state_dict": {}, "a": Unknown(), "b": Path("x"), "c": slice(3)}, path)
    with pytest.raises(CheckpointError, match=r"test_checkpoint_loading\.Unknown") as caught:
        load(path)
    assert "pathlib" in str(caught.value) and "slice" in str(caught.value)


def test_a_class_that_the_user_allows_loads(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "a": Unknown()}, path := str(tmp_path / "unknown.pth"))
    with torch.serialization.safe_globals([Unknown]):
        assert load(path)["a"].value == 1


@pytest.mark.parametrize(
    ("owner", "name"),
    [(HistoryBuffer, "__init__"), (HistoryBuffer, "register_statistics"), (np.ndarray, "min"), (torch.Tensor, "min")],
)
def test_getattr_of_anything_else_is_refused(owner: type, name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "x": reduced(getattr, owner, name)}, path := str(tmp_path / "getattr.pth"))
    with pytest.raises(CheckpointError, match="refused.*getattr"):
        load(path)


def test_a_scheduler_class_in_a_file_makes_no_scheduler(tmp_path: Path) -> None:
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    torch.save({"state_dict": {}, "x": reduced(OneCycleParamScheduler, 1)}, path := str(tmp_path / "scheduler.pth"))
    with pytest.raises(CheckpointError, match="refused.*OneCycleParamScheduler"):
        load(path)


def test_a_file_cannot_replace_the_statistics(tmp_path: Path) -> None:
    buffer = HistoryBuffer([1.0], [1])  # the first one fills the table of the class
    before = dict(HistoryBuffer._statistics_methods)
    assert before
    buffer.__setstate__({**buffer.__getstate__(), "statistics_methods": {"mean": print, "other": print}})
    assert HistoryBuffer._statistics_methods == before
    assert "statistics_methods" not in buffer.__dict__


def test_the_safe_list_is_exactly_this() -> None:
    # In a fresh interpreter would be the same: nothing else in these tests adds to the list.
    safe = torch.serialization.get_safe_globals()
    ours = {entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in safe}
    mmengine_and_numpy = {name for name in ours if name.split(".")[0] in ("mmengine", "numpy", "builtins")}
    bools = {name for name in mmengine_and_numpy if name.startswith("numpy.dtypes.Bool")}
    assert mmengine_and_numpy - bools == {
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "UInt8")),
    }
    assert len(bools) == 1 and getattr not in safe


# --- Not a checkpoint -----------------------------------------------------------------------------------------------


def corrupt_files(good: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"this is not a checkpoint\n",
        "cut": good[: len(good) // 2],
        "short": good[:3],
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "zeros": b"\0" * 1000,
        "newline": b"c\xff\n\xff\n",
        "protocol_4": pickle.dumps({"a": 1}, protocol=4),
    }


@pytest.mark.parametrize("kind", corrupt_files(b""))
def test_a_file_that_is_no_checkpoint_says_so(kind: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(100)}}, tmp_path / "good.pth")
    path = tmp_path / f"{kind}.pth"
    path.write_bytes(corrupt_files((tmp_path / "good.pth").read_bytes())[kind])
    with pytest.raises(CheckpointError, match=f"{kind}.pth: not a readable checkpoint .*bytes") as caught:
        load(str(path))
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>404 not found</html>", "x.pth is a web page and no checkpoint"),
        (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\noid sha256:0\n", "x.pth is a pointer of Git LFS"),
        (b'{"message": "Not Found"}', "x.pth is JSON and no checkpoint"),
        (b"\x1f\x8b\x08\0archive", "x.pth is packed by gzip: unpack it first"),
    ],
    ids=["page", "pointer", "message", "archive"],
)
def test_what_a_download_leaves_is_called_what_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("place", ["weights", "text"])
def test_bytes_that_are_not_those_that_were_saved(place: str, tmp_path: Path) -> None:
    """PyTorch compares no checksums: it reads what a failing disk or half a download has in the place of weights."""
    torch.save({"state_dict": {"x": torch.arange(1000.0)}}, path := tmp_path / "x.pth")
    content, part = path.read_bytes(), torch.arange(500.0, 600.0).numpy().tobytes()
    changed = content.replace(part, bytes(len(part))) if place == "weights" else content.replace(b"state_d", b"stale_d")
    assert changed != content
    path.write_bytes(changed)
    assert torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match=r"x.pth is damaged: the bytes of its part x/data\S* are not those"):
        load(str(path))


def test_a_file_without_checksums(tmp_path: Path) -> None:
    checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"state_dict": {"x": torch.arange(1000.0)}}, path := tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(checksums)
    assert load(str(path))["state_dict"]["x"][-1] == 999
    assert damaged_part(path) is None


def test_a_file_is_looked_at_once_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict": {"x": torch.zeros(3)}}, path := tmp_path / "x.pth")
    looks = []
    testzip = zipfile.ZipFile.testzip
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda file: looks.append(1) or testzip(file))
    for _ in range(2):
        assert damaged_part(path) is None
        load(str(path))
    assert len(looks) == 1
    torch.save({"state_dict": {"x": torch.ones(3)}}, path)  # another version of it
    load(str(path))
    assert len(looks) == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("torchvision://resnet999", "torchvision has no weights of the name 'resnet999'"),
        ("file://{}/x.pth", "give the path without file://"),
        ("htps://host/x.pth", "nothing reads addresses with htps://"),
        ("s3://bucket/x.pth", "needs a package that is not installed"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(address.format(tmp_path))


def test_files_of_other_libraries_say_how_to_save_them(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "a.pt"))
    for name, message in {
        "a.h5": "an HDF5 file",
        "a.pt": r"a TorchScript archive; .*torch.save\({'state_dict': torch.jit.load\(.*\).state_dict\(\)}, '",
    }.items():
        with pytest.raises(CheckpointError, match=f"{name} is {message}"):
            load(str(tmp_path / name))


def test_random_damage_gives_this_error_or_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(4)}, "log": HistoryBuffer([1.0], [1])}, tmp_path / "good.pth")
    good = (tmp_path / "good.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "good.pth") as archive:
        inside = archive.read("good/data.pkl")
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(inside)
        for position in random.integers(2, len(inside), 3):
            damaged[position] = random.integers(256)
        path = tmp_path / "damaged.pth"
        path.write_bytes(good.replace(inside, bytes(damaged)))
        try:
            load(str(path))
        except CheckpointError as error:
            assert str(path) in str(error)


def test_errors_that_are_not_about_the_file_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="can not be found"):
        load(str(tmp_path / "missing.pth"))
    torch.save([1, 2], path := str(tmp_path / "list.pth"))
    with pytest.raises(RuntimeError, match="No state_dict found"):
        load_checkpoint(torch.nn.Linear(1, 1), path)
    if not torch.cuda.is_available():
        torch.save({"x": torch.zeros(2)}, path)
        with pytest.raises(RuntimeError, match="CUDA") as caught:
            CheckpointLoader.load_checkpoint(path, map_location="cuda")
        assert not isinstance(caught.value, CheckpointError)


def test_only_mmengines_loaders_are_changed(tmp_path: Path, released_dir: Path) -> None:
    torch.save({"a": Unknown()}, path := tmp_path / "unknown.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)
    with pytest.raises(pickle.UnpicklingError, match="getattr"):
        torch.load(released_dir / "epoch_2.pth")
    assert torch.load(path, weights_only=False)["a"].value == 1


def test_the_unsafe_second_try_of_the_fork_is_replaced(tmp_path: Path) -> None:
    # onedl-mmengine cannot be installed beside mmengine: this is its loader (runner/checkpoint.py) in short.
    source = """
import torch
load_url = torch.utils.model_zoo.load_url
def _safe_torch_load(file, map_location=None, weights_only=None):
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except Exception:
        return torch.load(file, map_location=map_location, weights_only=False)
class CheckpointLoader:
    @classmethod
    def load_checkpoint(cls, filename, map_location=None):
        return _safe_torch_load(filename, map_location=map_location)
"""
    fork = types.ModuleType("fork_checkpoint")
    exec(source, fork.__dict__)
    marker = tmp_path / "ran"
    torch.save(Attack(marker), path := str(tmp_path / "attack.pth"))
    checkpoint_loading._prepare_loaders(fork)
    with pytest.raises(CheckpointError, match="refused.*system"):
        fork.CheckpointLoader.load_checkpoint(path)
    assert not marker.exists()
