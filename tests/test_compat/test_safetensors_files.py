"""Safetensors files are checkpoints, in every place that takes one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmengine")
pytest.importorskip("safetensors")

import safetensors.torch as library
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from eyetoy_mm.backbones import NAT
from eyetoy_mm.backbones.pretrained import read_state
from eyetoy_mm.compat import safetensors_files
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.compat.safetensors_files import is_safetensors, read, write
from eyetoy_mm.engine.checkpoint import check_fits
from eyetoy_mm.errors import UserError

SMALL = dict(arch=None, embed_dims=8, depths=(1, 1), num_heads=(1, 1), kernel_size=3, mlp_ratio=1)
META = {"dataset_meta": {"classes": ["a", "ü"], "palette": [[0, 1, 2]]}}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(x, right[name]) for name, x in left.items())


@pytest.fixture
def backbone() -> NAT:
    backbone = NAT(**SMALL)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter)
    return backbone


def test_what_is_written_is_read(backbone: NAT, tmp_path: Path) -> None:
    state = backbone.state_dict()
    state["tied"] = state["norm0.weight"]
    for name in ("a", "b"):
        write(tmp_path / f"{name}.safetensors", state, META)
    found = read(tmp_path / "a.safetensors")
    assert same(found["state_dict"], state) and found["meta"] == META
    assert found["state_dict"]._metadata[""] == {"version": NAT._version}
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_files_of_the_library_load_by_every_way(backbone: NAT, name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: x.to(dtype) for key, x in backbone.state_dict().items()}
    library.save_file(state, path := tmp_path / name)
    expected = {key: x.float() for key, x in state.items()}
    assert same(CheckpointLoader.load_checkpoint(str(path))["state_dict"], state)
    by_init = NAT(**SMALL, init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    by_init.init_weights()
    assert same(by_init.state_dict(), expected)
    check_fits(loaded := NAT(**SMALL), str(path))
    assert load_checkpoint(loaded, str(path), map_location="cpu")["meta"] == {}
    assert same(loaded.state_dict(), expected)
    with pytest.raises(UserError, match="does not fit"):
        check_fits(NAT(**(SMALL | dict(embed_dims=16))), str(path))


def test_addresses_with_a_hash_in_the_name(backbone: NAT, server: str, tmp_path: Path) -> None:
    write(tmp_path / "weights.safetensors", backbone.state_dict(), META)
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    for name in (f"nat-{digest[:8]}.safetensors", "nat-00000000.safetensors"):
        (tmp_path / name).write_bytes((tmp_path / "weights.safetensors").read_bytes())
    good = f"{server}/nat-{digest[:8]}.safetensors"
    assert same(CheckpointLoader.load_checkpoint(good)["state_dict"], backbone.state_dict())
    with pytest.raises(CheckpointError, match="nat-00000000.safetensors: invalid hash value"):
        CheckpointLoader.load_checkpoint(f"{server}/nat-00000000.safetensors")
    with pytest.raises(CheckpointError, match="missing.safetensors cannot be downloaded: HTTP Error 404"):
        CheckpointLoader.load_checkpoint(f"{server}/missing.safetensors")


def test_damage_is_told(backbone: NAT, tmp_path: Path) -> None:
    write(path := tmp_path / "weights.safetensors", backbone.state_dict(), META)
    good = path.read_bytes()
    random = np.random.default_rng(0)
    start = 8 + int.from_bytes(good[:8], "little")
    for _ in range(100):
        damaged = bytearray(good)
        for position in random.integers(0, start, 3):
            damaged[position] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            CheckpointLoader.load_checkpoint(str(path))
        except CheckpointError as error:
            assert str(path) in str(error)
    for content in (b"", good[:5], good[: len(good) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="weights.safetensors: not a readable safetensors file"):
            CheckpointLoader.load_checkpoint(str(path))


@pytest.mark.parametrize("kept", ["{", "[]", '{"versions": 1}'])
def test_what_another_has_written_beside_the_tensors(kept: str, backbone: NAT, tmp_path: Path) -> None:
    library.save_file(backbone.state_dict(), path := tmp_path / "weights.safetensors", {"eyetoy_mm": kept})
    with pytest.raises(CheckpointError, match="weights.safetensors: not a readable safetensors file"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html>not found</html>\n", "is a web page and no checkpoint"),
    ],
)
def test_what_is_often_in_the_place_of_weights(content: bytes, message: str, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "weights.pth"):
        (path := tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name} {message}"):
            read_state(str(path))
    torch.save({"state_dict": {}}, path := tmp_path / "renamed.safetensors")
    with pytest.raises(CheckpointError, match="is no safetensors file but one of torch.save: call it .pth"):
        read(path)


def test_other_files_are_not_taken_for_it(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "new.pth")
    torch.save({"state_dict": {}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "text.pth").write_text('12345678{"a": 1}')
    (tmp_path / "empty.pth").touch()
    assert not [path.name for path in tmp_path.iterdir() if is_safetensors(path)]
    assert not is_safetensors(tmp_path / "missing.safetensors")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (path := tmp_path / "a.safetensors").touch()
    monkeypatch.setattr(safetensors_files, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="a.safetensors needs safetensors, which is not installed: pip install"):
        read(path)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        write(path, {}, {})


def test_traps_that_are_set_again_leave_other_loaders_in_place(monkeypatch):
    from mmengine.runner import checkpoint

    from eyetoy_mm.compat import safetensors_files

    schemes = dict(checkpoint.CheckpointLoader._schemes)
    monkeypatch.setattr(checkpoint.CheckpointLoader, "_schemes", schemes)
    schemes[""] = mine = lambda filename, map_location=None: {"state_dict": {}}
    safetensors_files._teach_loaders(checkpoint)
    assert checkpoint.CheckpointLoader._schemes[""] is mine
