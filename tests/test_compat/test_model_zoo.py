"""The models of our zoo by name, in the toolboxes that they are for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch
import yaml

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm import zoo
from eyetoy_mm.compat.checkpoint_loading import CheckpointError

for _name in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(_name)
hub = pytest.importorskip("mmengine.hub")
CheckpointLoader = pytest.importorskip("mmengine.runner.checkpoint").CheckpointLoader
BaseInferencer = pytest.importorskip("mmengine.infer").BaseInferencer
ROOT = Path(__file__).parents[2]
ZOO = [
    model
    for metafile in yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]
    for model in yaml.safe_load((ROOT / metafile).read_text())["Models"]
]
IMAGE = str(sorted((ROOT / "data/sample/images/validation").glob("*.jpg"))[0])


def ours_for(*tasks: str) -> set[str]:
    return {model["Name"] for model in ZOO if model["Results"][0]["Task"] in tasks}


def test_each_toolbox_lists_the_models_that_are_for_it() -> None:
    import mmdet.apis  # noqa: F401
    import mmpretrain
    import mmseg.apis  # noqa: F401

    names = {model["Name"] for model in ZOO}
    listed = {scope: set(BaseInferencer.list_models(scope)) & names for scope in ("mmdet", "mmseg", "mmpretrain")}
    assert listed["mmdet"] == ours_for("Object Detection", "Instance Segmentation", "Panoptic Segmentation")
    assert listed["mmseg"] == ours_for("Semantic Segmentation")
    assert listed["mmpretrain"] == ours_for("Image Classification")
    assert names == set().union(*listed.values()) == set(BaseInferencer.list_models("eyetoy_mm"))
    assert set(mmpretrain.list_models(task="Image Classification")) & names == listed["mmpretrain"]
    assert len(mmpretrain.list_models()) > len(names)  # its own stay


def test_nothing_is_read_before_models_are_asked_for(run_python: Callable[..., str]) -> None:
    code = (
        "import eyetoy_mm\nfrom mmengine.config import Config\nread = []\noriginal = Config.fromfile\n"
        "Config.fromfile = staticmethod(lambda *a, **k: read.append(a) or original(*a, **k))\n"
        "import mmpretrain\nfrom mmpretrain.apis.model import ModelHub\nbefore = len(ModelHub._models_dict)\n"
        "found = 'eyetoy_imagenet' in mmpretrain.list_models()\nprint(before, found, len(read))"
    )
    assert run_python(code).split() == ["0", "True", "0"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("upernet_eyetoy_ade20k.py", "EncoderDecoder"),
        ("mask_rcnn_eyetoy_coco", "MaskRCNN"),
        ("nat/nat-mini_8xb128_in1k", "ImageClassifier"),
    ],
)
def test_mmengine_builds_it_in_the_scope_of_its_toolbox(name: str, kind: str) -> None:
    with torch.device("meta"):
        model = hub.get_model(f"eyetoy_mm::{name}")
    assert type(model).__name__ == kind and type(model.backbone).__module__.startswith("eyetoy_mm.")


def test_published_weights_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "eyetoy_mm::nat/nat-mini_8xb128_in1k"
    address = hub.get_config(name, pretrained=True).model_path
    assert address in {model.get("Weights") for model in ZOO}
    state = hub.get_model(name).state_dict()  # as if downloaded earlier
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / Path(address).name)
    loaded = hub.get_model(name, pretrained=True).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["upernet_eyetoy_ade20k", "eyetoy/eyetoy-base_8xb128_in1k", "_base_/backbones/nat"])
def test_weights_that_are_not_published_are_an_error_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"no published weights of eyetoy_mm::{name}; pretrained=False"):
        hub.get_model(f"eyetoy_mm::{name}", pretrained=True)


def test_a_part_of_a_config_is_not_a_model() -> None:
    with pytest.raises(ValueError, match="eyetoy_mm::_base_/backbones/nat is a part of configs"):
        hub.get_model("eyetoy_mm::_base_/backbones/nat")


def test_mmpretrain_loads_the_file_that_the_metafile_names(tmp_path: Path) -> None:
    import mmpretrain

    from eyetoy_mm.backbones.nat_checkpoints import to_official

    name = "nat-mini_8xb128_in1k"
    state = mmpretrain.get_model(name).state_dict()
    torch.save(to_official(state), path := str(tmp_path / "nat_mini.pth"))
    loaded = mmpretrain.get_model(name, pretrained=path).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(
        CheckpointError, match=r"nat_mini.pth does not fit this NAT, and nothing was loaded: 251 missing"
    ):
        mmpretrain.get_model(name, pretrained=path)


def test_mmpretrain_by_name() -> None:
    import mmpretrain

    result = mmpretrain.inference_model("eyetoy-shallow_b128-30e_cifar10", IMAGE)
    assert 0 <= result["pred_label"] < 10
    with pytest.raises(ValueError, match="upernet_eyetoy_ade20k"):
        mmpretrain.get_model("upernet_eyetoy_ade20k")


def test_inferencers_by_name_without_weights() -> None:
    """On a strip of a photo: its long side becomes as long as the config says, and the short one costs little."""
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    strip = cv2.imread(IMAGE)[:8]
    painted = MMSegInferencer("upernet_eyetoy_ade20k", dataset_name="ade20k", device="cpu")(strip)
    assert painted["predictions"].shape == strip.shape[:2]
    found = DetInferencer("retinanet_eyetoy-t_fpn_1x_coco", device="cpu")(strip)
    assert "bboxes" in found["predictions"][0]
    with pytest.raises(ValueError, match="eyetoy_imagenet"):
        DetInferencer("eyetoy_imagenet", device="cpu")


SAMPLES = {
    "mmdet": "mask-rcnn_eyetoy-demo_nuclei",
    "mmseg": "upernet_eyetoy-demo_b4-1500it_nuclei-whole",
    "mmpretrain": "eyetoy-shallow-1.6m_muon-b128-22e_cifar10-45k",
}
WITHOUT_METAFILE = {
    "mmdet": "mask-rcnn_eyetoy-demo_sample",
    "mmseg": "upernet_eyetoy-demo_sample",
    "mmpretrain": "eyetoy-shallow_2e_cifar10-45k",
}


def openers(toolbox: str) -> dict[str, Callable[..., torch.nn.Module]]:
    """What opens a model of a toolbox by name, trained: functions that take a checkpoint, and inferencers."""
    if toolbox == "mmdet":
        from mmdet.apis import DetInferencer, init_detector

        return {
            "init_detector": lambda name: init_detector(name, name, device="cpu"),
            "weights": lambda name: DetInferencer(weights=name, device="cpu").model,
            "DetInferencer": lambda name: DetInferencer(name, device="cpu").model,
        }
    if toolbox == "mmseg":
        from mmseg.apis import MMSegInferencer, init_model

        return {
            "init_model": lambda name: init_model(name, name, device="cpu"),
            "weights": lambda name: MMSegInferencer(None, weights=name, device="cpu").model,
            "MMSegInferencer": lambda name: MMSegInferencer(name, device="cpu").model,
        }
    import mmpretrain

    return {
        "init_model": lambda name: mmpretrain.apis.init_model(name, True),
        "get_model": lambda name: mmpretrain.get_model(name, pretrained=True),
        "Inferencer": lambda name: mmpretrain.ImageClassificationInferencer(name, device="cpu").model,
        "FeatureExtractor": lambda name: mmpretrain.FeatureExtractor(name, device="cpu").model,
    }


@pytest.mark.parametrize("form", ["eyetoy_mm::{name}", "eyetoy_mm::{folder}/{name}.py"])
@pytest.mark.parametrize("toolbox", SAMPLES)
def test_every_function_takes_every_form_of_a_name(toolbox: str, form: str) -> None:
    name = SAMPLES[toolbox]
    form = form.format(name=name, folder=zoo.config_of(name).parent.name)
    state = CheckpointLoader.load_checkpoint(name)["state_dict"]
    key = next(key for key in state if key.startswith("backbone.") and key.endswith("weight"))
    for function, opens in {**openers(toolbox), "hub": lambda form: hub.get_model(form, pretrained=True)}.items():
        assert torch.equal(opens(form).state_dict()[key], state[key].float()), function


@pytest.mark.parametrize("toolbox", WITHOUT_METAFILE)
def test_inferencers_take_models_that_no_metafile_has(toolbox: str) -> None:
    *_, opens = openers(toolbox).values()
    for name in (WITHOUT_METAFILE[toolbox], f"eyetoy_mm::sample/{WITHOUT_METAFILE[toolbox]}"):
        assert opens(name).backbone is not None


@pytest.mark.parametrize("toolbox", SAMPLES)
def test_names_that_a_toolbox_does_not_open_are_told(toolbox: str) -> None:
    *_, opens = openers(toolbox).values()
    other, opener = {
        "mmdet": ("mmseg", "mmseg.apis.MMSegInferencer"),
        "mmseg": ("mmpretrain", "mmpretrain.get_model"),
        "mmpretrain": ("mmdet", "mmdet.apis.DetInferencer"),
    }[toolbox]
    with pytest.raises(ValueError, match=rf"is a model for {other}, and not for {toolbox}: {opener}"):
        opens(f"eyetoy_mm::{SAMPLES[other]}")
    with pytest.raises(ValueError, match=f"no model eyetoy_mm::{SAMPLES[toolbox]}s, but .* called {SAMPLES[toolbox]}"):
        opens(f"eyetoy_mm::{SAMPLES[toolbox]}s")
