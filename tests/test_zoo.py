"""Models by name: their configs, and their weights wherever a checkpoint is taken."""

import argparse
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm import zoo

pytest.importorskip("mmengine")
from mmengine.runner.checkpoint import CheckpointLoader

from eyetoy_mm.cli import main
from eyetoy_mm.cli.options import take_checkpoint
from eyetoy_mm.engine.checkpoint import check_exists
from eyetoy_mm.engine.config import find_config, load_config
from eyetoy_mm.engine.dry_run import build
from eyetoy_mm.engine.preprocessing import check_image_exists
from eyetoy_mm.errors import UserError
from tests.toolbox_runs import PHOTOS, own_mmengine

ROOT = Path(__file__).resolve().parents[1]
SEGMENTOR = "segformer-head_eyetoy-2.2m_b8-200e_camvid"
CLASSIFIER = "eyetoy-shallow_b128-30e_cifar10"
DETECTOR = "retinanet_eyetoy-t_fpn_1x_coco"
TRAINED = "mask-rcnn_eyetoy-demo_nuclei"  # has weights


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Writes weights of a model into a folder of one's own, in float16; returns them as they are there."""
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path))

    def write(name: str) -> dict[str, torch.Tensor]:
        with own_mmengine():
            state = build(load_config(name, work_dir=str(tmp_path))).state_dict()
        state = {key: x.half() if x.is_floating_point() else x for key, x in state.items()}
        torch.save({"state_dict": state, "meta": {"dataset_meta": {"classes": ("a", "b")}}}, tmp_path / f"{name}.pth")
        return state

    return write


def is_loaded(model, state):
    return all(torch.equal(x.to(state[key].dtype), state[key]) for key, x in model.state_dict().items())


# --- By name --------------------------------------------------------------------------------------------------------


def test_every_model_of_the_metafiles_is_found_by_its_name():
    models = zoo.models()
    assert len(models) > 100 and len({model.name for model in models}) == len(models)
    for model in models:
        assert find_config(model.name) == model.config.resolve() == find_config(f"{model.name}.py"), model
    (found,) = [model for model in models if model.name == "cascade-mask-rcnn_nat-b_fpn_ms-crop-3x_coco"]
    assert found.toolbox == "mmdet" and found.tasks == ("Object Detection", "Instance Segmentation")
    assert found.results == {"COCO": {"box AP": 52.3, "mask AP": 45.1}} and found.parameters == 146978430
    assert found.weights.endswith("/nat_base_cascademaskrcnn.pth")


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("eyetoy_imagenet.py").write_text("")
    assert find_config("eyetoy_imagenet.py") == Path("eyetoy_imagenet.py")
    Path("some.pth").touch()
    assert zoo.located("some.pth") == "some.pth" and zoo.located("s3://a/b.pth") == "s3://a/b.pth"


def test_a_name_has_a_package_and_a_folder_before_it_and_a_suffix(tmp_path):
    from mmengine.config import Config

    for name, folder in ((SEGMENTOR, "evidence"), (DETECTOR, "eyetoy"), ("eyetoy_imagenet", "")):
        file = (ROOT / "configs" / folder / f"{name}.py").resolve()
        below = f"{folder}/{name}".lstrip("/")
        for form in (name, f"{name}.py", *(f"eyetoy_mm::{x}{end}" for x in (name, below) for end in ("", ".py"))):
            assert zoo.config_of(form) == file == find_config(form).resolve() == Path(Config.fromfile(form).filename)
    assert zoo.config_of(f"eyetoy_mm::nat/{SEGMENTOR}") is None is zoo.config_of(f"evidence/{SEGMENTOR}")
    assert Config.fromfile("eyetoy_mm::_base_/datasets/camvid").data_root == "data/camvid"
    (tmp_path / "child.py").write_text(f"_base_ = 'eyetoy_mm::{SEGMENTOR}'")
    assert Config.fromfile(tmp_path / "child.py").model == Config.fromfile(SEGMENTOR).model
    with pytest.raises(
        FileNotFoundError, match="no config eyetoy_mm::nat/eyetoy_imagen, but .* called eyetoy_imagenet"
    ):
        Config.fromfile("eyetoy_mm::nat/eyetoy_imagen")
    with pytest.raises(FileNotFoundError, match="none.py"):
        Config.fromfile("none.py")


def test_a_name_that_is_none_is_told_with_those_that_are_near():
    with pytest.raises(UserError, match="no config file upernet_eyetoy_ade.*called upernet_eyetoy_ade20k"):
        find_config("upernet_eyetoy_ade")
    with pytest.raises(
        UserError, match=r"no config file upernet, but models of the package are called upernet_\S+, .* more"
    ):
        find_config("upernet")
    with pytest.raises(UserError, match=r"is a folder, and should be a config file"):
        find_config(Path(__file__).parent)
    with pytest.raises(UserError, match="no config file .*mmseg_runtime"):
        find_config("mmseg_runtime")  # a part
    with pytest.raises(UserError, match="no weights of upernet_eyetoy_ade20k in the package"):
        check_exists("upernet_eyetoy_ade20k")
    with pytest.raises(UserError, match="there is no checkpoint missing.pth"):
        check_exists("missing.pth")
    for misspelt in (f"{TRAINED}x", f"{TRAINED}x.safetensors", f"weights/{TRAINED}.pth"):
        with pytest.raises(
            UserError, match=f"there is no checkpoint .*, but models of the package are called {TRAINED}$"
        ):
            check_exists(misspelt)
    with pytest.raises(UserError, match=f"there is no image .*, but models of the package are called {TRAINED}$"):
        check_image_exists(f"{TRAINED}x")  # which was meant for the checkpoint before the images
    assert zoo.advice("upernet_eyetoy_ade20", with_weights=True) == "" == zoo.advice("photo.jpg", with_weights=True)


def test_a_folder_of_weights_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(zoo.ZooError, match=r"EYETOY_WEIGHTS should name a folder with weights, and .*none is none"):
        zoo.weights_of("eyetoy_imagenet")


# --- Wherever a checkpoint is taken -----------------------------------------------------------------------------------


def test_a_name_is_a_checkpoint(weights, tmp_path):
    state = weights(SEGMENTOR)
    path = str(tmp_path / f"{SEGMENTOR}.pth")
    for name in (SEGMENTOR, f"eyetoy_mm::{SEGMENTOR}", f"eyetoy_mm::evidence/{SEGMENTOR}"):
        assert zoo.located(name) == path
        check_exists(name)
        assert list(CheckpointLoader.load_checkpoint(name)["state_dict"]) == list(state)
    assert zoo.weights_of_config(ROOT / "configs" / "evidence" / f"{SEGMENTOR}.py") == path
    (copy := tmp_path / f"{SEGMENTOR}.py").write_text("")
    assert zoo.weights_of_config(copy) is None  # of the same name, and another config


def test_backbones_start_from_a_name(weights):
    from eyetoy_mm.registry import MODELS

    state = weights(SEGMENTOR)
    config = dict(load_config(SEGMENTOR).model.backbone)
    backbone = MODELS.build(config | dict(init_cfg=dict(type="Pretrained", checkpoint=SEGMENTOR, prefix="backbone.")))
    backbone.init_weights()
    assert is_loaded(backbone, {key.removeprefix("backbone."): x for key, x in state.items()})


def test_segmentors_by_name(weights):
    state = weights(SEGMENTOR)
    from mmengine.hub import get_model
    from mmseg.apis import MMSegInferencer

    with own_mmengine():
        assert is_loaded(MMSegInferencer(SEGMENTOR, device="cpu").model, state)
        assert is_loaded(get_model(f"eyetoy_mm::evidence/{SEGMENTOR}", pretrained=True), state)


def test_detectors_by_name(weights):
    state = weights(DETECTOR)
    from mmdet.apis import DetInferencer

    with own_mmengine():
        inferencer = DetInferencer(DETECTOR, device="cpu")
    assert is_loaded(inferencer.model, state)
    assert inferencer.model.dataset_meta["classes"] == ("a", "b")


def test_classifiers_by_name(weights):
    import mmpretrain

    before = mmpretrain.get_model(CLASSIFIER)
    state = weights(CLASSIFIER)
    with own_mmengine():
        assert not is_loaded(before, state)
        assert is_loaded(mmpretrain.get_model(CLASSIFIER, pretrained=True), state)
        inferencer = mmpretrain.ImageClassificationInferencer(CLASSIFIER, pretrained=True, device="cpu")
    assert is_loaded(inferencer.model, state)


def test_a_command_line_without_a_checkpoint_takes_the_weights_of_the_model(weights, tmp_path, capsys):
    weights(SEGMENTOR)
    (tmp_path / f"{SEGMENTOR}.md").write_text("# Card\n")
    with own_mmengine():
        main(["infer", SEGMENTOR, *map(str, PHOTOS[:2]), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert f"Weights: {tmp_path / SEGMENTOR}.pth, described in {tmp_path / SEGMENTOR}.md" in said
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize("form", ["{}", "eyetoy_mm::{}", "eyetoy_mm::sample/{}"])
def test_a_name_before_images_is_the_checkpoint(form):
    name = form.format("mask-rcnn_eyetoy-demo_nuclei")
    args = argparse.Namespace(config=name, checkpoint=name, images=["photo.jpg"])
    assert take_checkpoint(args, []) == [] and args.checkpoint == name and args.images == ["photo.jpg"]


@pytest.mark.parametrize("verb", ["test", "infer", "export", "attention"])
def test_a_model_without_weights(verb, tmp_path, capsys):
    arguments = {
        "infer": ["photo.jpg", "--out", "out"],
        "export": ["--out", "a.onnx"],
        "attention": ["photo.jpg", "--position", "1,1", "--out", "a.png"],
    }
    with pytest.raises(SystemExit, match="no CHECKPOINT is given, and no weights of eyetoy_imagenet come with"):
        main([verb, "eyetoy_imagenet", *arguments.get(verb, [])])


# --- What comes with the package --------------------------------------------------------------------------------------


def test_what_is_in_the_folder_of_weights():
    """Each file is small, in float16, of a model of the zoo that says so, and has a card."""
    entries = {entry["Name"]: entry for entry in zoo.entries()}
    files = {path for path in (ROOT / "weights").iterdir() if path.name != "README.md"}
    weights = {path for path in files if path.suffix == ".safetensors"}
    assert files == weights | {path.with_suffix(".md") for path in weights}
    for path in weights:
        assert path.stat().st_size <= 6e6, path
        size = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + size])
        kinds = {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}
        assert "F16" in kinds and not kinds & {"F32", "F64"}, (path, kinds)
        entry = entries[path.stem]
        assert entry["Weights"] == f"weights/{path.name}"
        assert all(result["Metrics"] for result in entry["Results"]), path
        card = path.with_suffix(".md").read_text()
        for part in ("Data", "Recipe", "Figures", "Limits", "Licence"):
            assert re.search(rf"^## {part}\n\n\S", card, re.MULTILINE), (path, part)
    named = {entry["Weights"] for entry in entries.values() if str(entry.get("Weights")).startswith("weights/")}
    assert named == {f"weights/{path.name}" for path in weights}


@pytest.mark.parametrize("path", sorted((ROOT / "weights").glob("*.safetensors")), ids=lambda path: path.stem)
def test_the_figures_are_those_of_the_evaluations(path):
    """Those of metafile, card and table of weights stand in the JSON that `eyetoy test` wrote."""
    measured, name = set(), path.stem
    for file in (ROOT / "docs/results").glob(f"{name}_*.json"):
        found = json.loads(file.read_text())
        figures = {key: value for key, value in (found["metrics"] | found["reported"]).items() if value >= 0}
        scale = 100 if max(figures.values()) <= 1 else 1
        measured |= {f"{scale * value:.1f}" for value in figures.values()}
        measured |= {f"{100 * one['IoU']:.1f}" for one in found["per_class"].values() if "IoU" in one}
        measured |= {f"{100 * found['calibration']['ece']:.1f}"} if "calibration" in found else set()
    card = path.with_suffix(".md").read_text()
    entry = next(entry for entry in zoo.entries() if entry["Name"] == name)
    in_card = re.search(r"^## Figures\n(.*?)^## ", card, re.MULTILINE | re.DOTALL)[1]
    in_table = re.search(
        rf"^\| \[{re.escape(name)}\].*\|(.*)\|$", (ROOT / "weights/README.md").read_text(), re.MULTILINE
    )[1]
    shown = {
        "metafile": [str(value) for result in entry["Results"] for value in result["Metrics"].values()],
        "card": re.findall(r"\b\d+\.\d\b", in_card),
        "weights/README.md": re.findall(r"\d+\.\d", in_table),
    }
    for place, figures in shown.items():
        assert figures and set(figures) <= measured, (place, set(figures) - measured)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card and f"{path.stat().st_size / 1e6:.1f} MB" in card
    assert f"{entry['Metadata']['Parameters']:,} parameters" in card


def test_the_index_is_read_as_yaml():
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]
    read = [model for metafile in index for model in yaml.safe_load((ROOT / metafile).read_text())["Models"]]
    assert list(zoo.entries()) == read
