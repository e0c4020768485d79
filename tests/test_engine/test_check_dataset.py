"""The checker opens every file of each toolbox's datasets, names what is wrong, and is silent where nothing is."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from benchmarks.trust.photos import CASES, classification, coco, detection, jpeg, put, segmentation
from eyetoy_mm.cli import main
from eyetoy_mm.engine.check_dataset import Report, check_dataset
from eyetoy_mm.engine.dataset_picture import picture_dataset
from eyetoy_mm.errors import UserError

for toolbox in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(toolbox, reason=f"{toolbox} is not installed")


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


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_decoders_write_is_told_with_the_file(tmp_path, jobs, capfd):
    whole = jpeg(0, (640, 480))
    middle = len(whole) // 2
    torn = whole[:middle] + bytes(200) + whole[middle + 200 :]
    put(tmp_path, {"whole.jpg": whole, "torn.jpg": torn})
    coco(tmp_path, "train.json", {"whole.jpg": (640, 480), "torn.jpg": (640, 480)})
    coco(tmp_path, "val.json", {"whole.jpg": (640, 480)})
    report = check_dataset(detection(tmp_path), ["train"], jobs)
    assert found(report) == {("train", "damaged image", "torn.jpg", False)}
    assert "Corrupt JPEG data" in str(report.findings[0][1]) and "Corrupt" not in capfd.readouterr().err


def test_processes_do_not_wait_for_threads_that_opencv_has_here(tmp_path):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((512, 512, 3), np.uint8), (31, 31), 5)  # starts them
        put(tmp_path, {"0.jpg": jpeg(0), "1.jpg": jpeg(1)})
        coco(tmp_path, "train.json", {"0.jpg": (48, 32)})
        coco(tmp_path, "val.json", {"1.jpg": (48, 32)})
        assert check_dataset(detection(tmp_path), jobs=2).images == 2
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


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
    told = [finding for _, finding in report.findings if "sound" in str(finding)]
    assert [finding.kind for finding in told] == ["one label and ignored"]  # of all masks together
    assert report.counts["train"] == {"sky": 31 * 48 * 2 + 15 * 24, "road": 0}
    assert report.counts["val"] == {"sky": 48, "road": 31 * 48}


def test_labels_of_masks(tmp_path):
    mask = np.ones((32, 48), np.uint8)
    put(tmp_path, {"train/images/one.jpg": jpeg(7), "train/masks/one.png": mask})
    assert ("train", "class without example", "road", False) in found(check_dataset(segmentation(tmp_path), ["train"]))
    masks = {
        "sound": mask, "colour": np.dstack([mask] * 3), "wide": mask.astype(np.uint16) * 257, "beyond": mask * 7,
        "void": mask * 0,
    }  # fmt: skip
    put(tmp_path, {f"train/images/{name}.jpg": jpeg(i) for i, name in enumerate(masks)})
    put(tmp_path, {f"train/masks/{name}.png": content for name, content in masks.items()})
    report = check_dataset(segmentation(tmp_path), ["train"])
    assert found(report) == {
        ("train", "masks in colour", "colour.png", True),
        ("train", "labels beyond 255", "wide.png", True),
        ("train", "labels out of range", "beyond.png", True),
        ("train", "masks without labels", "void.png", False),
    }
    assert "beyond.png (labels 6)" in str(report.findings) and "wide.png (257 to 257)" in str(report.findings)


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
        ("", "classes", "", True),
    }
    assert not [kind for _, kind, _, _ in found(check_dataset(classification(tmp_path, 2))) if kind.startswith("label")]


def test_images_of_other_channels_than_most(tmp_path):
    put(tmp_path, {f"train/{name}/{i}.jpg": jpeg(i) for i, name in enumerate(("cat", "cat", "dog"))})
    put(tmp_path, {"train/cat/grey.png": np.zeros((32, 48), np.uint8)})
    config = classification(tmp_path)
    assert not check_dataset(config, ["train"]).findings
    config.train_dataloader.dataset.pipeline[0].color_type = "unchanged"
    assert found(check_dataset(config, ["train"])) == {("train", "number of channels", "grey.png", True)}


def test_a_config_without_data_is_not_one_without_findings(tmp_path):
    (tmp_path / "config.py").write_text("default_scope = 'mmdet'\n")
    with pytest.raises(SystemExit, match="error: the config has no train_dataloader and no val_dataloader: no data to"):
        main(["check", str(tmp_path / "config.py"), "--split", "train", "val"])


def test_the_program_tells_writes_and_leaves_an_exit_code(tmp_path, capsys):
    put(tmp_path, {"a.jpg": jpeg(0), "b.jpg": jpeg(0)})
    for name, file in (("train", "a.jpg"), ("val", "b.jpg")):
        coco(tmp_path, f"{name}.json", {file: (48, 32)})
    config = tmp_path / "config.py"
    detection(tmp_path, image_orientation="stored").dump(config)
    command = ["check", str(config), "--jobs", "1", "--json", str(tmp_path / "found.json")]
    with pytest.raises(SystemExit, match=r"^error: --plot classes.what must end in one of .*\.png"):
        main([*command, "--plot", "classes.what"])
    assert "opened" not in capsys.readouterr().out  # refused before the work
    main([*command, "--plot", str(tmp_path / "new/classes.png")])
    out = " ".join(capsys.readouterr().out.split())
    assert "warning val: images of training: these images" in out and f"{tmp_path}/b.jpg = {tmp_path}/a.jpg" in out
    assert "2 images opened" in out and "0 errors, 1 warning" in out
    assert out.endswith(f"-> {tmp_path}/found.json -> {tmp_path}/new/classes.png")
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["findings"][0]["where"] == [f"{tmp_path}/b.jpg = {tmp_path}/a.jpg"]
    assert written["classes"] == {"train": {"cat": 1}, "val": {"cat": 1}}
    assert Image.open(tmp_path / "new/classes.png").size[0] > 100
    main(command[:-1])
    out, err = capsys.readouterr()
    assert json.loads(out)["findings"] == written["findings"] and "2 images opened" in err  # JSON alone
    with pytest.raises(SystemExit, match="0 findings with which a run would be wrong, 1 in all"):
        main([*command, "--strict"])
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match="1 finding with which a run would be wrong, 1 in all"):
        main(command)


SAYS = {
    "square photo with an EXIF tag and boxes": "nothing says whether boxes and masks are of the turned photo",
    "photo upside down by its EXIF tag": "nothing says whether boxes and masks are of the turned photo",
    "boxes of the stored photo, which is turned": "Set image_orientation='stored' in the config",
    "the same with image_orientation='stored'": "loaded 1 images",
    "boxes of the turned photo": "loaded 1 images",
    "mask of a square photo with an EXIF tag": "nothing says whether boxes and masks are of the turned photo",
    "mask of the stored photo, which is turned": "Set image_orientation='stored' in the config",
    "photos resized after annotation": "were they resized after annotation?",
    "width and height swapped in the annotation": "width and height are swapped",
    "mask of another size": "annotated 24 x 16, loaded 48 x 32",
    "mask that is no image": "a.png cannot be loaded: neither OpenCV nor Pillow knows this format",
    "empty photo": "a.jpg cannot be loaded: these files have no bytes",
    "photo cut off": "a.jpg cannot be loaded: the file ends before the picture does",
    "web page called .jpg": "a.jpg cannot be loaded: this is a web page",
    "HEIC called .jpg": "a.jpg cannot be loaded: this is HEIC",
    "1 of 10 photos unreadable, skip_unreadable_images=0.1": "loaded 10 images",
    "3 of 10 photos unreadable, skip_unreadable_images=0.1": "2 of 10 images cannot be loaded, more than",
    "1 of 10 photos of validation unreadable, skip_unreadable_images=0.1": "0.jpg cannot be loaded: this is a web page",
    "photo whose second half is zeros (eyetoy check)": "truncated image: the file ends before the picture does",
    "photo with a gap in it (eyetoy check)": "damaged image: what could not be decoded of these is loaded grey or odd",
    "a device among the photos (eyetoy check)": "unreadable file: it cannot be read [1: /dev/zero (it is a device or a",
    "the same photo in training and validation (eyetoy check)": "images of training: these images are trained on too",
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_says_of_a_bad_photo(name, tmp_path):
    if name == "photo cut off" and int(cv2.__version__[0]) < 5:
        pytest.skip("OpenCV before 5 loads the rest of the photo grey")
    try:
        said = CASES[name](tmp_path)
    except UserError as error:
        said = str(error)
    assert SAYS[name] in said
    assert "loaded" in said or str(tmp_path) in said or "/dev/zero" in said
