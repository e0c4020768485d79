"""Data files run nothing, and what they are for still works: YAML, pickles, configs as checkpoints hold them."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine")

from mmengine import fileio
from mmengine.config import Config

from benchmarks.trust import hostile
from eyetoy_mm.compat.data_files import DataFileError
from eyetoy_mm.engine.plain_config import read_plain
from eyetoy_mm.errors import UserError

# --- YAML -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag",
    [
        "object/apply:os.system ['touch {ran}']",
        "object/new:subprocess.Popen [[touch, {ran}]]",
        "name:os.system",
        "module:os",
        "object:collections.Counter {{}}",
    ],
)
def test_yaml_makes_no_objects(tag: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text("model:\n  a: !!python/" + tag.format(ran=tmp_path / "ran"))
    with pytest.raises(DataFileError, match=r"hostile.yaml: refused, line 2: the YAML tag !!python/\w+"):
        fileio.load(path)
    with pytest.raises(UserError, match=r"cannot read the config .*hostile.yaml: .*refused, line 2"):
        read_plain(path)
    assert not hostile.has_run(tmp_path)


def test_the_attack_by_yaml_is_a_real_one(tmp_path: Path) -> None:
    import yaml

    text = f"!!python/object/apply:os.system ['touch {tmp_path / 'ran'}']"
    yaml.load(text, Loader=yaml.Loader)
    assert hostile.has_run(tmp_path)


def test_configs_that_mmengine_writes_as_yaml_come_back(tmp_path: Path) -> None:
    config = Config(dict(model=dict(size=(1, 2), rate=1e-3, name="x", none=None, flag=True, nested=[((1,), [2])])))
    config.dump(tmp_path / "config.yaml")
    assert "!!python/tuple" in (tmp_path / "config.yaml").read_text()
    assert Config.fromfile(tmp_path / "config.yaml")._cfg_dict == config._cfg_dict


@pytest.mark.parametrize("text", [hostile.YAML_BOMB, "a: &a [*a]"])
def test_yaml_made_to_fill_memory(text: str, tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(DataFileError, match=r"bomb.yaml: refused. Its aliases stand for more than 1,000,000 values"):
        fileio.load(tmp_path / "bomb.yaml")


def test_aliases_that_are_no_attack(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &x [1, 2]\nb: *x\nc: {d: *x}\n")
    assert fileio.load(tmp_path / "a.yaml") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


# --- Pickles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", [name for name in hostile.payloads(Path()) if not name.startswith("getattr")])
def test_no_pickle_runs(name: str, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps([hostile.payloads(tmp_path)[name]], protocol))
    with pytest.raises((DataFileError, pickle.UnpicklingError)) as caught:
        fileio.load(tmp_path / "hostile.pkl")
    if name != "file in the file":  # there torch refuses
        assert "hostile.pkl: refused: asks to import" in str(caught.value)
    assert not hostile.has_run(tmp_path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_results_and_annotations_still_load(protocol: int, tmp_path: Path) -> None:
    objects = np.array(["a", None], dtype=object)
    data = {
        "boxes": np.ones((2, 4), np.float32),
        "objects": objects,
        "score": np.float64(0.5),
        "mask": {"size": [2, 2], "counts": b"\x00\xff"},
        "tensor": torch.arange(3),
        "size": torch.Size([1, 2]),
        "ordered": OrderedDict(a=1),
        "default": defaultdict(list, a=[1]),
        "set": {1, 2},
        "shape": (2, 3),
    }
    fileio.dump(data, tmp_path / "data.pkl", protocol=protocol)
    loaded = fileio.load(tmp_path / "data.pkl")
    assert loaded.keys() == data.keys() and loaded["objects"].tolist() == objects.tolist()
    assert torch.equal(loaded.pop("tensor"), data.pop("tensor"))
    np.testing.assert_array_equal(loaded.pop("boxes"), data.pop("boxes"))
    loaded.pop("objects"), data.pop("objects")
    assert loaded == data and type(loaded["size"]) is torch.Size


def test_a_pickle_cannot_change_what_it_imports(tmp_path: Path) -> None:
    """Attributes of functions can be written by the opcode BUILD."""
    from torch._utils import _rebuild_tensor_v2

    # cos of `_rebuild_tensor_v2`, then BUILD with (None, {"__defaults__": ("x",)})
    content = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__X\x01\x00\x00\x00x\x85s\x86b."
    before = _rebuild_tensor_v2.__defaults__
    (tmp_path / "hostile.pkl").write_bytes(content)
    fileio.load(tmp_path / "hostile.pkl")
    assert _rebuild_tensor_v2.__defaults__ == before
    assert pickle.loads(content) is _rebuild_tensor_v2 and before != ("x",)
    _rebuild_tensor_v2.__defaults__ = before  # plain pickle has changed it


@pytest.mark.parametrize("module", ["mmpretrain.datasets.cifar", "mmseg.utils.io"])
def test_modules_that_unpickle_by_themselves(module: str, tmp_path: Path) -> None:
    from importlib import import_module

    pytest.importorskip(module.split(".")[0])
    reader = import_module(module).pickle
    with pytest.raises(DataFileError, match="asks to import"):
        reader.loads(pickle.dumps(hostile.system(tmp_path)))
    assert reader.loads(pickle.dumps({"data": np.ones(2)}, 2), encoding="latin1")["data"].sum() == 2
    assert not hostile.has_run(tmp_path)


def test_the_tree_of_openimages(tmp_path: Path) -> None:
    openimages = pytest.importorskip("mmdet.datasets.openimages")
    for name, array in (("plain", np.eye(3)), ("objects", np.array([["a", 1], [2.0, None]], dtype=object))):
        np.save(tmp_path / f"{name}.npy", array)
        loaded = openimages.np.load(str(tmp_path / f"{name}.npy"), allow_pickle=True)
        assert loaded.tolist() == array.tolist()
    array = np.empty(1, dtype=object)
    array[0] = hostile.system(tmp_path)
    np.save(tmp_path / "hostile.npy", array)
    with pytest.raises(DataFileError, match=r"hostile.npy: refused: asks to import \w+.system"):
        openimages.np.load(str(tmp_path / "hostile.npy"), allow_pickle=True)
    assert not hostile.has_run(tmp_path)
    assert openimages.np.array is np.array


# --- Configs in checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["meta", "message_hub"])
def test_code_in_place_of_the_config_does_not_run(place: str, tmp_path: Path) -> None:
    text = f"model = dict(type='x')\n{hostile.code(tmp_path)}"
    content: dict[str, Any] = {"state_dict": {}, "meta": {"cfg": text}}
    if place == "message_hub":
        content["message_hub"] = {"runtime_info": {"cfg": text}}
    torch.save(content, path := str(tmp_path / "hostile.pth"))
    with pytest.raises(DataFileError, match=r"the config in the checkpoint, line 2: `open\(.*it was not run"):
        hostile.from_weights_alone(path)
    assert not hostile.has_run(tmp_path)


def test_resuming_does_not_run_the_config_in_the_checkpoint(tmp_path: Path) -> None:
    from tests.test_compat import compat_tiny_runner

    runner = compat_tiny_runner.build(str(tmp_path), "resumes_code")
    meta = {"epoch": 0, "iter": 0, "config": hostile.code(tmp_path)}
    torch.save({"state_dict": runner.model.state_dict(), "meta": meta}, path := str(tmp_path / "hostile.pth"))
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.call_hook("before_run")
    with pytest.raises(DataFileError, match="it was not run"):
        runner.resume(path)
    assert not hostile.has_run(tmp_path)


def test_configs_of_checkpoints_and_of_users_are_read_as_ever(tmp_path: Path) -> None:
    from eyetoy_mm.compat import data_files

    config = Config.fromfile(Path(__file__).parents[2] / "configs/sample/upernet_eyetoy-demo_sample.py")
    with data_files._foreign_texts():
        again = Config.fromstring(config.pretty_text, ".py")
    assert again._cfg_dict.to_dict() == config._cfg_dict.to_dict()
    assert Config.fromstring("import os\nname = os.sep", ".py").name == os.sep  # a user's own, in a program of theirs
