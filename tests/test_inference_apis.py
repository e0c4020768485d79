"""The toolboxes' own inference functions and inferencers with our configs and checkpoints, on real photos."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import eyetoy_mm  # noqa: F401 - before mmdet and mmseg: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.distributed import joined
from eyetoy_mm.engine.runner import ShardedRunner

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = [str(path) for path in sorted((ROOT / "data/sample/images/validation").glob("*.jpg"))[:2]]
CONFIGS = {
    "mmdet": f"""
_base_ = "{ROOT}/configs/mask_rcnn_eyetoy_coco.py"
model = dict(
    backbone=dict(arch=dict(type="demo")),
    neck=dict(in_channels=[32, 64, 128, 192]),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=5)),
)
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(160, 120), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]))
""",
    "mmseg": f"""
_base_ = "{ROOT}/configs/sample/upernet_eyetoy-demo_sample.py"
""",
    "mmpretrain": f"""
_base_ = "{ROOT}/configs/eyetoy_imagenet.py"
model = dict(backbone=dict(arch=dict(type="demo")), head=dict(in_channels=192, num_classes=4))
""",
}
META = {
    "mmdet": dict(classes=tuple(f"class {i}" for i in range(80)), palette="random"),
    "mmseg": dict(classes=tuple("abcdefg"), palette=[[30 * i, 0, 0] for i in range(7)]),
    "mmpretrain": dict(classes=("a", "b", "c", "d")),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Config and untrained checkpoint, as a training run leaves them, of each toolbox."""

    def write(toolbox: str) -> tuple[str, str]:
        pytest.importorskip(toolbox, reason=f"{toolbox} is not installed")
        config, checkpoint = folder / f"{toolbox}.py", folder / f"{toolbox}.pth"
        if not checkpoint.exists():
            config.write_text(CONFIGS[toolbox])
            loaded = load_config(config)
            init_default_scope(toolbox)
            loaded.model.setdefault("data_preprocessor", loaded.get("data_preprocessor"))
            model = MODELS.build(loaded.model)
            meta = dict(dataset_meta=META[toolbox], cfg=loaded.pretty_text)
            torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
        return str(config), str(checkpoint)

    folder = tmp_path_factory.mktemp("models")
    return write


@pytest.fixture(scope="module")
def folder_of_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for photo in PHOTOS:
        (folder / Path(photo).name).write_bytes(Path(photo).read_bytes())
    return str(folder)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Frames of a video, as OpenCV reads them."""
    path = str(tmp_path_factory.mktemp("video") / "video.avi")
    photo = cv2.resize(cv2.imread(PHOTOS[0]), (160, 120))
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 5, (160, 120))
    for shift in range(3):
        writer.write(np.roll(photo, 20 * shift, axis=1))
    writer.release()
    video, found = cv2.VideoCapture(path), []
    while (frame := video.read())[0]:
        found.append(frame[1])
    assert len(found) == 3
    return found


def test_mmdet_functions(files, frames):
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(*files("mmdet"), device="cpu")
    assert model.dataset_meta["classes"] == META["mmdet"]["classes"]
    one, batch = inference_detector(model, PHOTOS[0]), inference_detector(model, PHOTOS)
    assert len(one.pred_instances) == 5 and one.pred_instances.masks.shape[1:] == cv2.imread(PHOTOS[0]).shape[:2]
    assert len(batch) == 2
    torch.testing.assert_close(batch[0].pred_instances.bboxes, one.pred_instances.bboxes)
    assert [r.pred_instances.masks.shape for r in inference_detector(model, frames)] == [(5, 120, 160)] * 3


def test_mmdet_inferencer(files, frames, folder_of_photos, tmp_path):
    from mmdet.apis import DetInferencer

    config, checkpoint = files("mmdet")
    inferencer = DetInferencer(config, checkpoint, device="cpu", show_progress=False)
    one = inferencer(PHOTOS[0])["predictions"][0]
    assert len(one["bboxes"]) == len(one["masks"]) == 5
    batch = inferencer(PHOTOS, batch_size=2, out_dir=str(tmp_path))["predictions"]
    np.testing.assert_allclose(batch[0]["bboxes"], one["bboxes"], rtol=1e-3, atol=1e-3)
    assert sorted(p.name for p in (tmp_path / "vis").iterdir()) == [Path(photo).name for photo in PHOTOS]
    assert len(inferencer(folder_of_photos)["predictions"]) == 2
    assert len(inferencer(frames, batch_size=3)["predictions"]) == 3

    from_checkpoint = DetInferencer(weights=checkpoint, device="cpu", show_progress=False)  # its config is in there
    np.testing.assert_allclose(from_checkpoint(PHOTOS[0])["predictions"][0]["bboxes"], one["bboxes"], atol=1e-3)


def test_mmseg_functions_and_inferencer(files, frames, folder_of_photos, tmp_path):
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    config, checkpoint = files("mmseg")
    labels = inference_model(init_model(config, checkpoint, device="cpu"), PHOTOS[0]).pred_sem_seg.data
    assert labels.shape == (1, *cv2.imread(PHOTOS[0]).shape[:2])

    inferencer = MMSegInferencer(config, checkpoint, device="cpu")
    np.testing.assert_array_equal(inferencer(PHOTOS[0])["predictions"], labels[0])
    assert [p.shape for p in inferencer(frames, batch_size=3)["predictions"]] == [(120, 160)] * 3
    found = inferencer(folder_of_photos, out_dir=str(tmp_path))["predictions"]
    np.testing.assert_array_equal(found[0], labels[0])
    assert len(found) == len(list((tmp_path / "vis").iterdir())) == len(list((tmp_path / "pred").iterdir())) == 2


def test_mmseg_paints_in_the_colours_that_it_is_given(files):
    """Mmseg's own paints in those of the checkpoint, or of Cityscapes without one."""
    from mmseg.apis import MMSegInferencer
    from mmseg.utils import get_palette

    config, checkpoint = files("mmseg")
    strip, white = cv2.imread(PHOTOS[0])[:8], [[255, 255, 255]] * 7
    options = dict(opacity=1.0, with_labels=False, return_vis=True)
    given = MMSegInferencer(config, checkpoint, META["mmseg"]["classes"], white, device="cpu")(strip, **options)
    assert (given["visualization"] == 255).all()
    saved = MMSegInferencer(config, checkpoint, device="cpu")(strip, **options)
    assert not saved["visualization"][..., 1:].any()  # META's are shades of red
    named = MMSegInferencer(config, dataset_name="ade20k", device="cpu")(strip, **options)
    colors = {tuple(color) for color in named["visualization"].reshape(-1, 3)}
    assert colors <= {tuple(color) for color in get_palette("ade20k")[:7]}


class Named(torch.utils.data.Dataset):
    """A data set of which a checkpoint takes the classes alone."""

    def __init__(self, metainfo):
        self.metainfo = metainfo

    def __len__(self):
        return 1


@pytest.mark.parametrize("toolbox", CONFIGS)
def test_files_of_sharded_trainings_open_as_others(toolbox, files, tmp_path):
    """What the FSDP2 engine saves for inference: the weights to the bit, plain tensors, and the classes."""
    config, plain = files(toolbox)
    loaded = load_config(config)
    loaded.model.setdefault("data_preprocessor", loaded.get("data_preprocessor"))
    settings = dict(engine="FSDP2", optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)))
    sampler = dict(type="DefaultSampler", shuffle=False)
    with joined(Config(settings)):
        runner = ShardedRunner(
            loaded.model,
            str(tmp_path / "work"),
            train_dataloader=dict(dataset=Named(META[toolbox]), batch_size=1, sampler=sampler),
            train_cfg=dict(by_epoch=False, max_iters=1),
            optim_wrapper=settings["optim_wrapper"],
            load_from=plain,
            default_scope=toolbox,
            experiment_name=str(tmp_path),
            log_level="ERROR",
            cfg=settings,
        )
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.load_or_resume()
        runner.save_checkpoint(str(tmp_path), "sharded.pth", save_optimizer=False, by_epoch=False)
    sharded, ordinary = (opened(toolbox, config, str(path)) for path in (tmp_path / "sharded.pth", plain))
    if toolbox != "mmpretrain":  # which takes the classes of the config's data set
        assert list(sharded.dataset_meta["classes"]) == list(META[toolbox]["classes"])
    weights = sharded.state_dict()
    assert weights.keys() == ordinary.state_dict().keys()
    for name, x in ordinary.state_dict().items():
        assert type(weights[name]) is torch.Tensor and torch.equal(weights[name], x), name


def opened(toolbox, config, checkpoint):
    """By the toolbox' own function."""
    if toolbox == "mmdet":
        from mmdet.apis import init_detector as open_model
    elif toolbox == "mmseg":
        from mmseg.apis import init_model as open_model
    else:
        from mmpretrain import get_model

        return get_model(config, pretrained=checkpoint, device="cpu")
    return open_model(config, checkpoint, device="cpu")


def test_mmpretrain_inferencers(files, frames):
    from mmpretrain import FeatureExtractor, ImageClassificationInferencer

    config, checkpoint = files("mmpretrain")
    inferencer = ImageClassificationInferencer(config, pretrained=checkpoint, device="cpu")
    one = inferencer(PHOTOS[0])[0]
    assert one["pred_class"] == "abcd"[one["pred_label"]] and one["pred_scores"].sum() == pytest.approx(1, abs=1e-5)
    batch = inferencer(PHOTOS, batch_size=2)
    np.testing.assert_allclose(batch[0]["pred_scores"], one["pred_scores"], atol=1e-5)
    assert len(inferencer(frames, batch_size=3)) == 3

    extractor = FeatureExtractor(config, pretrained=checkpoint, device="cpu")
    (token,) = extractor(PHOTOS[0], stage="backbone")[0]  # the context token
    assert token.shape == (192,)
    torch.testing.assert_close(extractor(PHOTOS[0], stage="pre_logits")[0], token)
    scores = torch.softmax(inferencer.model.head.fc(token), 0)
    np.testing.assert_allclose(scores.detach(), one["pred_scores"], atol=1e-5)


def test_without_the_import_where_the_config_has_it(files):
    """mmpretrain needs nothing of mmcv's compiled operators, so the config's `custom_imports` is enough."""
    config, _ = files("mmpretrain")
    code = (
        "import sys\n"
        "from mmpretrain import ImageClassificationInferencer\n"
        "assert 'eyetoy_mm' not in sys.modules\n"
        f"inferencer = ImageClassificationInferencer({config!r}, device='cpu')\n"
        f"print(sorted(inferencer({PHOTOS[0]!r})[0]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "pred_class" in done.stdout
