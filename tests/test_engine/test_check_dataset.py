"""The checker opens every file of each toolbox's datasets, names what is wrong, and is silent where nothing is."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.cli import main
from eyetoy_mm.engine.check_dataset import Report, check_dataset
from eyetoy_mm.engine.dataset_picture import picture_dataset

for toolbox in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(toolbox, reason=f"{toolbox} is not installed")


def jpeg(seed: int, size=(48, 32), orientation=None) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    exif, buffer = Image.Exif(), io.BytesIO()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def put(root: Path, files: dict[str, bytes | np.ndarray]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            Image.fromarray(content).save(root / name)


def coco(root: Path, name: str, files: dict[str, tuple[int, int]]) -> None:
    images = [dict(id=i, file_name=n, width=w, height=h) for i, (n, (w, h)) in enumerate(files.items(), 1)]
    boxes = [
        dict(id=i["id"], image_id=i["id"], category_id=1, bbox=[2, 3, 10, 20], area=200, iscrowd=0) for i in images
    ]
    categories = [dict(id=1, name="cat")]
    (root / name).write_text(json.dumps(dict(images=images, annotations=boxes, categories=categories)))


def detection(root: Path, **settings) -> Config:
    def loader(split):
        dataset = dict(
            type="CocoDataset", data_root=str(root), ann_file=f"{split}.json", data_prefix=dict(img=""),
            metainfo=dict(classes=("cat",)), test_mode=split == "val",
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)],
        )  # fmt: skip
        return dict(dataset=dict(type="RepeatDataset", times=2, dataset=dataset) if split == "train" else dataset)

    return Config(
        dict(default_scope="mmdet", train_dataloader=loader("train"), val_dataloader=loader("val"), **settings)
    )


def found(report: Report) -> set[tuple[str, str, str, bool]]:
    """Split, kind, name of the file and whether it is fatal, of each finding."""
    return {
        (split, finding.kind, Path(place.split(" ")[0]).name, finding.fatal)
        for split, finding in report.findings
        for place in finding.where or ("",)
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_detection(tmp_path, jobs):
    sound, shared = jpeg(0), jpeg(1)
    put(tmp_path, {
        "sound.jpg": sound, "turned.jpg": jpeg(2, orientation=6), "square.jpg": jpeg(3, (32, 32), 6),
        "resized.jpg": jpeg(4), "half.jpg": jpeg(5)[:900], "empty.jpg": b"", "shared.jpg": shared, "again.jpg": shared,
    })  # fmt: skip
    names = ("sound", "turned", "square", "resized", "half", "empty", "shared")
    sizes = {f"{name}.jpg": (32, 32) if name == "square" else (48, 32) for name in names} | {"resized.jpg": (96, 64)}
    coco(tmp_path, "train.json", sizes)
    coco(tmp_path, "val.json", {"again.jpg": (48, 32)})
    tracked = []
    report = check_dataset(detection(tmp_path), jobs=jobs, track=lambda samples, n: tracked.append(n) or samples)
    fatal_if_cut = {fatal for _, kind, _, fatal in found(report) if kind == "truncated image"}  # OpenCV 4: False
    assert found(report) == {
        ("train", "orientation of photos", "turned.jpg", True),
        ("train", "orientation of photos", "square.jpg", True),
        ("train", "size of images", "resized.jpg", True),
        ("train", "truncated image", "half.jpg", *fatal_if_cut),
        ("train", "empty file", "empty.jpg", True),
        ("val", "images of training", "again.jpg", False),
    }
    assert tracked == [8] and report.images == 8
    assert report.counts == {"train": {"cat": 7}, "val": {"cat": 1}}
    assert report.boxes["train"].tolist() == [[10, 20]] * 7
    picture_dataset(report).savefig(tmp_path / "picture.png")


def segmentation(root: Path) -> Config:
    def loader(split):
        return dict(
            dataset=dict(
                type="BaseSegDataset", data_root=str(root), reduce_zero_label=True,
                data_prefix=dict(img_path=f"{split}/images", seg_map_path=f"{split}/masks"),
                metainfo=dict(classes=("sky", "road"), palette=[[0, 0, 0], [9, 9, 9]]),
                pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
            )
        )  # fmt: skip

    return Config(dict(default_scope="mmseg", train_dataloader=loader("train"), val_dataloader=loader("val")))


def test_segmentation(tmp_path):
    mask = np.ones((32, 48), np.uint8)
    mask[0] = 0
    names = ("sound", "small", "broken", "turned", "bare")
    put(tmp_path, {f"train/images/{name}.jpg": jpeg(i) for i, name in enumerate(names)})
    put(tmp_path, {"train/images/turned.jpg": jpeg(9, orientation=8)})
    put(tmp_path, {f"train/masks/{name}.png": mask for name in ("sound", "turned")})
    put(tmp_path, {"train/masks/small.png": mask[:16, :24], "train/masks/broken.png": b"no mask"})
    put(tmp_path, {"val/images/a.jpg": jpeg(10), "val/masks/a.png": mask + 1})
    report = check_dataset(segmentation(tmp_path))
    assert found(report) >= {
        ("train", "size of images", "small.jpg", True),
        ("train", "not an image", "broken.png", True),
        ("train", "missing file", "bare.png", True),
        ("train", "orientation of photos", "turned.jpg", True),
        ("val", "class without training", "road", False),
    }
    assert "sound" not in str(report.findings)
    assert report.counts["train"] == {"sky": 31 * 48 * 2 + 15 * 24, "road": 0}
    assert report.counts["val"] == {"sky": 48, "road": 31 * 48}


def classification(root: Path, num_classes: int) -> Config:
    def loader(split):
        pipeline = [dict(type="LoadImageFromFile")]
        return dict(dataset=dict(type="CustomDataset", data_root=str(root), data_prefix=split, pipeline=pipeline))

    head = dict(head=dict(num_classes=num_classes))
    loaders = dict(train_dataloader=loader("train"), val_dataloader=loader("val"))
    return Config(dict(default_scope="mmpretrain", model=head, **loaders))


def test_classification(tmp_path):
    twice = jpeg(1)
    put(tmp_path, {
        "train/cat/a.jpg": jpeg(0), "train/cat/b.jpg": twice, "train/dog/b.jpg": twice,
        "train/dog/page.jpg": b"<html>404</html>", "train/dog/phone.jpg": jpeg(2, (32, 32), 6),
        "val/cat/a.jpg": jpeg(3), "val/dog/b.jpg": jpeg(4),
    })  # fmt: skip
    report = check_dataset(classification(tmp_path, 1))
    assert found(report) == {
        ("train", "not an image", "page.jpg", True),
        ("train", "contradictory labels", "b.jpg", False),
        *(("train", "label out of range", name, True) for name in ("b.jpg", "page.jpg", "phone.jpg")),
        ("val", "label out of range", "b.jpg", True),
    }
    assert not [kind for _, kind, _, _ in found(check_dataset(classification(tmp_path, 2))) if kind.startswith("label")]


def test_the_program_tells_writes_and_leaves_an_exit_code(tmp_path, capsys):
    put(tmp_path, {"a.jpg": jpeg(0), "b.jpg": jpeg(0)})
    for name, file in (("train", "a.jpg"), ("val", "b.jpg")):
        coco(tmp_path, f"{name}.json", {file: (48, 32)})
    config = tmp_path / "config.py"
    detection(tmp_path, image_orientation="stored").dump(config)
    command = ["check", str(config), "--jobs", "1", "--json", str(tmp_path / "found.json")]
    main([*command, "--plot", str(tmp_path / "classes.png")])
    out = capsys.readouterr().out
    assert "| val | warning | 1 | images of training | " in out and f"{tmp_path}/b.jpg = {tmp_path}/a.jpg" in out
    assert "2 images opened" in out and "0 errors, 1 warnings" in out
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["findings"][0]["where"] == [f"{tmp_path}/b.jpg = {tmp_path}/a.jpg"]
    assert written["classes"] == {"train": {"cat": 1}, "val": {"cat": 1}}
    assert Image.open(tmp_path / "classes.png").size[0] > 100
    with pytest.raises(SystemExit, match="0 findings with which a run would be wrong, 1 in all"):
        main([*command, "--strict"])
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match="1 findings with which a run would be wrong, 1 in all"):
        main(command)
