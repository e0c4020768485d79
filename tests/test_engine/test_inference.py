"""Opening models for inference."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks
from benchmarks.trust.onerule import write_odd_images
from eyetoy_mm.archs import ARCHS
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import build
from eyetoy_mm.engine.image_sources import find_sources
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.inference_run import Settings, infer
from eyetoy_mm.engine.prediction_files import Wanted
from eyetoy_mm.engine.preprocessing import read_image
from eyetoy_mm.errors import UserError
from tests.toolbox_runs import CLASSES, TOOLBOXES, own_mmengine, write_checkpoint, write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["deformable-detr_eyetoy-t_16xb2-50e_coco", "dino-4scale_eyetoy-t_8xb2-12e_coco"])
def test_detectors_that_write_into_their_config_open_more_than_once(name, tmp_path):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    config = load_config(ROOT / f"configs/eyetoy/{name}.py", work_dir=str(tmp_path))
    config.model.backbone.arch.type = "demo"
    config.model.neck.in_channels = list(ARCHS["demo"].embed_dims)[1:]
    config.model.encoder.num_layers = config.model.decoder.num_layers = 1
    config.model.num_queries = 20
    config.model.test_cfg.max_per_img = 5
    config.test_dataloader.dataset.pipeline[1].scale = (96, 64)
    checkpoint = tmp_path / "weights.pth"
    torch.save(build(config).state_dict(), checkpoint)
    before = copy.deepcopy(config.model)

    photo = read_image(next((ROOT / "data/sample/images/validation").glob("*.jpg")))
    found = [open_predictor(config, str(checkpoint), "cpu").predict(photo).pred_instances for _ in range(2)]
    assert len(found[0]) == 5 and torch.equal(found[0].scores, found[1].scores)
    assert config.model == before


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_odd_images_do_not_end_a_folders_run(toolbox, tmp_path):
    pytest.importorskip(toolbox)
    resize = (
        'resize.update(type="ResizeEdge", scale=64)' if toolbox == "mmpretrain" else "resize.update(keep_ratio=True)"
    )
    config = write_config(tmp_path, toolbox, resize + "\n")
    (folder := tmp_path / "photos").mkdir()
    paths = write_odd_images(folder)
    with own_mmengine():
        predictor = open_predictor(load_config(config), str(write_checkpoint(config)), "cpu")
        painted = infer(predictor, find_sources(paths), Settings(tmp_path / "painted", batch=3))
        done = []
        with pytest.raises(UserError, match="of 9 images were not predicted") as refused:
            done.extend(target for _, target in painted)  # extend keeps what came before the error
    reasons = str(refused.value).splitlines()[1:]
    assert f"{folder / 'empty.png'} is empty" in str(refused.value)
    (folder / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(UserError, match="phone.jpg is not an image that can be read; it is HEIC, as iPhones write it"):
        predictor.read(folder / "phone.jpg")
    for name in ("cut short", "no image"):
        assert f"{folder / name}.png is not an image that can be read" in str(refused.value)
    assert {"good", "grey", "rgba", "16 bit"} <= {path.stem for path in (tmp_path / "painted").iterdir()}
    assert len(reasons) + len(done) == len(paths) and all(str(folder) in reason for reason in reasons)


def test_a_folder_with_a_video_as_pictures_and_files(tmp_path):
    """Frames are predicted in batches with images; a video that is none is told, and ends nothing."""
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    (folder := tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), pixels[index])
    video = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for frame in pixels[2:]:
        video.write(frame)
    video.release()
    (folder / "broken.mp4").write_text("no video")
    config = write_config(tmp_path, "mmseg")
    settings = Settings(tmp_path / "out", files=Wanted(json=True, masks=True), batch=2)
    with own_mmengine():
        predictor = open_predictor(load_config(config), str(write_checkpoint(config)), "cpu")
        done = infer(predictor, find_sources([folder]), settings)
        with pytest.raises(UserError, match=r"1 of 6 images were not predicted:\n.*broken.mp4 is not a video"):
            places = []
            places.extend(place for _, place in done)
        expected = [predictor.predict(image).pred_sem_seg.data[0].numpy() for image in pixels[:2]]
    out = tmp_path / "out"
    assert places == [out / "0.png", out / "1.png", *[out / "clip.mp4"] * 3]
    content = json.loads((out / "predictions.json").read_text())
    assert [image["mask"] for image in content["images"]] == [
        "masks/0.png", "masks/1.png", *(f"masks/clip/{index:06}.png" for index in range(3)),
    ]  # fmt: skip
    for index, labels in enumerate(expected):
        saved = cv2.imread(str(out / f"masks/{index}.png"), cv2.IMREAD_UNCHANGED)
        assert (saved == labels).mean() > 0.999  # in a batch of two, sums are rounded otherwise
    capture = cv2.VideoCapture(str(out / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and capture.get(cv2.CAP_PROP_FRAME_HEIGHT) == 48
    capture.release()
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "clip.mp4", "masks", "predictions.json"]


@pytest.mark.parametrize(
    ("toolbox", "settings", "message"),
    [
        ("mmpretrain", dict(tile=64), "--tile is for labels and objects"),
        ("mmseg", dict(overlap=8), "--overlap is that of the windows of --tile"),
        ("mmseg", dict(tile=64, overlap=64), "--overlap 64 must be from 0 to less than --tile 64"),
        ("mmdet", dict(tile=64, files=Wanted(crops=True)), "--save-crops cuts out of whole images"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(toolbox, settings, message, tmp_path):
    predictor = SimpleNamespace(scope=toolbox, has_masks=False, model=None)
    with pytest.raises(UserError, match=message):
        next(infer(predictor, [], Settings(tmp_path / "out", **settings)))
    assert not (tmp_path / "out").exists()


def test_what_windows_cannot_be_read_of(tmp_path):
    (tmp_path / "clip.mp4").touch()
    meta = dict(dataset_meta=dict(classes=("a",)), preprocessing=None)
    predictor = SimpleNamespace(scope="mmseg", has_masks=False, model=None, **meta)
    sources = find_sources(["s3://bucket/a.tif", tmp_path / "no.tif", tmp_path / "clip.mp4"])
    with pytest.raises(UserError, match="3 of 3 images were not predicted") as refused:
        list(infer(predictor, sources, Settings(tmp_path / "out", tile=64)))
    _, address, missing, video = str(refused.value).splitlines()
    assert "s3://bucket/a.tif: --tile reads files of this machine's disks" in address
    assert "there is no image" in missing and "no.tif" in missing
    assert "clip.mp4: --tile is for images; leave it out for videos" in video


def test_all_that_was_not_predicted_is_kept(tmp_path):
    meta = dict(dataset_meta=dict(classes=("a",)), preprocessing=None)
    predictor = SimpleNamespace(scope="mmseg", has_masks=False, model=None, **meta)
    sources = find_sources([tmp_path / f"{index}\udce9.tif" for index in range(25)])
    with pytest.raises(UserError, match=r"and 5 more, all in .*out/not_predicted.txt$"):
        list(infer(predictor, sources, Settings(tmp_path / "out", tile=64)))
    listed = (tmp_path / "out/not_predicted.txt").read_text().splitlines()
    assert len(listed) == 25 and all("there is no image" in line for line in listed) and "24\\udce9.tif" in listed[-1]


def test_pictures_take_the_place_of_no_input(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).touch()
    predictor = SimpleNamespace(scope="mmseg", has_masks=False, model=None)
    with pytest.raises(UserError, match="pictures in --out .* would take the place of .*b.png: take another folder"):
        next(infer(predictor, find_sources([tmp_path]), Settings(tmp_path)))


def test_classes_are_named_without_the_checkpoints_word(tmp_path):
    """By the data set of the config, where the file has tensors alone."""
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    config = write_config(tmp_path, "mmseg")
    checkpoint = write_checkpoint(config)
    torch.save(torch.load(checkpoint)["state_dict"], checkpoint)
    with own_mmengine():
        predictor = open_predictor(load_config(config), str(checkpoint), "cpu")
    assert predictor.painter.dataset_meta["classes"] == tuple("0123456")


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_labels_that_the_checkpoint_has_no_name_for_are_numbers(toolbox, tmp_path):
    pytest.importorskip(toolbox)
    config = write_config(tmp_path, toolbox)
    checkpoint = write_checkpoint(config)
    saved = torch.load(checkpoint)
    saved["meta"] = dict(dataset_meta=dict(classes=("only",), palette=[(1, 2)]))
    torch.save(saved, checkpoint)
    with own_mmengine():
        predictor = open_predictor(load_config(config), str(checkpoint), "cpu")
    names = ("only", *map(str, range(1, CLASSES[toolbox])))
    assert predictor.dataset_meta["classes"] == names
    assert len(predictor.painter.dataset_meta["palette"]) == len(names)
