"""Checkpoints made to run something: by every payload, in every place of a file, through every way in; none runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmengine")

from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader

from benchmarks.trust import hostile
from eyetoy_mm.compat import checkpoint_loading
from eyetoy_mm.compat.checkpoint_loading import CheckpointError

if not checkpoint_loading.needed():
    pytest.skip("torch < 2.6 has another default", allow_module_level=True)

HARMLESS = ("a config", "getattr of an allowed class")  # refused for what they may lead to


def assert_refused(open_it: Callable[[], object], folder: Path, *texts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_it()
    assert not hostile.has_run(folder)
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize("place", hostile.PLACES)
@pytest.mark.parametrize("name", hostile.payloads(Path()))
def test_no_payload_runs_in_any_place(name: str, place: str, tmp_path: Path) -> None:
    path = hostile.saved(tmp_path, hostile.payloads(tmp_path)[name], place)
    assert_refused(lambda: hostile.load_checkpoint(path), tmp_path, path, "refused", "asks to import")


@pytest.mark.parametrize("name", [name for name in hostile.payloads(Path()) if name not in HARMLESS])
def test_the_payloads_are_real(name: str, tmp_path: Path) -> None:
    path = hostile.saved(tmp_path, hostile.payloads(tmp_path)[name])
    torch.load(path, weights_only=False)
    assert hostile.has_run(tmp_path)


@pytest.mark.parametrize("make", [hostile.tampered, hostile.old_tar, hostile.bare_pickle, hostile.legacy_zip])
@pytest.mark.parametrize("way", hostile.WAYS)
def test_no_format_runs_through_any_way(make: Callable[[Path], str], way: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    assert_refused(lambda: hostile.WAYS[way](path), tmp_path, path)


@pytest.mark.parametrize("way", hostile.WAYS)
def test_an_attack_is_named_through_every_way(way: str, tmp_path: Path) -> None:
    path = hostile.saved(tmp_path, hostile.system(tmp_path), "optimizer")
    assert_refused(lambda: hostile.WAYS[way](path), tmp_path, path, "system")


class Tiny(torch.nn.Linear):
    """A model for the toolboxes' functions, which build before they load."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(1, 1)


def open_in(toolbox: str, path: str) -> object:
    from mmengine.config import Config

    model = dict(type="Tiny", backbone=dict(type="x"))
    config = Config(dict(model=model, default_scope=toolbox, test_dataloader=dict(dataset=dict(type="x"))))
    if toolbox == "mmdet":
        from mmdet.apis import init_detector

        return init_detector(config, path, device="cpu")
    if toolbox == "mmseg":
        from mmseg.apis import init_model

        return init_model(config, path, device="cpu")
    from mmpretrain import get_model

    return get_model(config, pretrained=path)


@pytest.mark.parametrize("toolbox", ["mmdet", "mmseg", "mmpretrain"])
def test_the_toolboxes_own_functions(toolbox: str, tmp_path: Path) -> None:
    pytest.importorskip(toolbox, reason=f"{toolbox} is not installed")
    path = hostile.saved(tmp_path, hostile.system(tmp_path))
    MODELS.register_module("Tiny", module=Tiny, force=True)
    try:
        with DefaultScope.overwrite_default_scope(toolbox):
            assert_refused(lambda: open_in(toolbox, path), tmp_path, path, "system")
    finally:
        MODELS._module_dict.pop("Tiny")


@pytest.mark.parametrize("way", [name for name in hostile.WAYS if name != "eyetoy convert"])
def test_addresses(way: str, tmp_path: Path, server: str) -> None:
    hostile.saved(tmp_path, hostile.system(tmp_path), "optimizer")
    assert_refused(lambda: hostile.WAYS[way](f"{server}/hostile.pth"), tmp_path, f"{server}/hostile.pth", "system")


def test_a_hostile_file_in_the_cache_of_downloads(tmp_path: Path, server: str) -> None:
    torch.save({"state_dict": {"weight": torch.ones(1, 1), "bias": torch.ones(1)}}, tmp_path / "good.pth")
    load = partial(CheckpointLoader.load_checkpoint, f"{server}/good.pth", map_location="cpu", logger="silent")
    load()
    (cached,) = (tmp_path / "torch_home").rglob("good.pth")
    cached.write_bytes(Path(hostile.tampered(tmp_path)).read_bytes())
    assert_refused(load, tmp_path, "good.pth", "system")


def test_a_zip_with_a_path_in_it_is_extracted_nowhere_else(tmp_path: Path, server: str) -> None:
    """As torch.hub reads files of before torch 1.6: it extracts them beside the download."""
    hostile.legacy_zip(tmp_path)
    with pytest.raises((CheckpointError, ValueError)):
        hostile.load_checkpoint(f"{server}/hostile.zip")
    assert not (tmp_path / "ran").exists() and not (tmp_path.parent / "ran").exists()
    assert not (tmp_path / "torch_home" / "ran").exists()


def test_a_tensor_that_claims_more_than_the_file_has_is_refused_by_its_shape(tmp_path: Path) -> None:
    """A storage of one number, seen as 10**12 of them, costs nothing until something is computed with it."""
    from eyetoy_mm.backbones.pretrained import read_state
    from eyetoy_mm.engine.checkpoint import check_state_fits
    from eyetoy_mm.errors import UserError

    huge = torch.ones(1).as_strided((10**6, 10**6), (0, 0))
    torch.save({"state_dict": {"weight": huge, "bias": torch.ones(1)}}, path := tmp_path / "huge.pth")
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match=r"weight \(1000000, 1000000\) for \(1, 1\)"):
        check_state_fits(torch.nn.Linear(1, 1), read_state(str(path)), str(path))


def test_a_small_file_that_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hostile.inflated(tmp_path, 4)
    assert Path(path).stat().st_size < 100_000
    loaded = CheckpointLoader.load_checkpoint(path, map_location="cpu", logger="silent")
    assert loaded["state_dict"]["weight"].numel() == 1 << 20  # torch reads it
    monkeypatch.setattr(checkpoint_loading, "_SMALL", 1 << 20)
    assert_refused(lambda: hostile.load_checkpoint(path), tmp_path, path, "stand for 4,", "made to fill the memory")


def test_what_a_state_may_set_is_data(tmp_path: Path) -> None:
    """An allowed class with a state of a file's making: its methods stay those of the class."""
    from mmengine.logging import HistoryBuffer

    state = {"_history": [1.0], "_statistics_methods": {"mean": "x"}, "mean": "x"}
    path = hostile.saved(tmp_path, hostile.Built(HistoryBuffer, (), state), "message_hub")
    before = dict(HistoryBuffer._statistics_methods)
    CheckpointLoader.load_checkpoint(path, map_location="cpu", logger="silent")
    assert HistoryBuffer._statistics_methods == before and "x" not in before.values()
