"""Masks and names of segmentation data, as users have them."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

from mmengine.config import Config
from mmengine.registry import DefaultScope

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.masks import _steps, colour_findings
from eyetoy_mm.datasets.segmentation_files import look_at_segmentation
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import package_file

RNG = np.random.default_rng(0)
SIZE = (6, 8)


def labels(*values: int, dtype=np.uint8) -> np.ndarray:
    mask = RNG.choice(values, SIZE).astype(dtype)
    mask.flat[: len(values)] = values
    return mask


def write(root: Path, masks: list, suffix: str = ".jpg", mask_suffix: str = ".png") -> dict:
    """A dataset of two classes, and its config."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / f"images/{index}{suffix}")
        if mask is not None:
            (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(
                root / f"masks/{index}{mask_suffix}"
            )
    return dict(
        type="BaseSegDataset", data_root=str(root), data_prefix=dict(img_path="images", seg_map_path="masks"),
        metainfo=dict(classes=("sky", "tree")), pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    )  # fmt: skip


def find(dataset: dict, num_classes: int = 2, **settings) -> list[Finding]:
    with DefaultScope.overwrite_default_scope("mmseg"):
        return look_at_segmentation("train", dataset, num_classes, **settings).findings


def palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    return image


GOOD = [labels(0, 1), labels(0, 1, 255), labels(1)]


@pytest.mark.parametrize(
    "masks",
    [
        GOOD,
        [palette(mask) for mask in GOOD],
        [GOOD[0], labels(255)],  # one that is ignored as a whole
        [mask.astype(np.uint16) for mask in GOOD],
    ],
)
def test_what_is_right_is_left_alone(masks, tmp_path):
    assert find(write(tmp_path, masks)) == []


def test_what_is_left_out_is_looked_for_where_links_lead_and_not_in_hidden_folders(tmp_path):
    dataset = write(tmp_path, GOOD)
    for place in ("elsewhere", "masks/.trash", "images/.trash"):
        (tmp_path / place).mkdir()
        for suffix in (".png", ".tif"):
            (tmp_path / place / f"left{suffix}").touch()
    for folder in ("images", "masks"):
        (tmp_path / folder / "linked").symlink_to(tmp_path / "elsewhere")
    told = {finding.kind: finding for finding in find(dataset)}
    assert told.keys() == {"images left out", "masks left out"}
    assert told["images left out"].message.endswith("are not used: .tif (1)")
    assert told["masks left out"].where == (str(tmp_path / "masks/linked/left.png"),)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([labels(0, 255), labels(0, 255)], "one label and ignored: .*hold 0, 255 alone, and 255 is ignored.*Write 1"),
        ([labels(255), labels(255)], "nothing but ignored: .*in all 2 masks .*the loss would be 0"),
        (
            [labels(0, 1), labels(0, 128, 255)],
            r"labels out of range: .*labels 0 to 1 after loading.*\[1: .*1.png \(labels 128\)",
        ),
        ([labels(0, 1, 300, dtype=np.uint16)], "labels beyond 255: .*256 becomes 0"),
        ([np.zeros((*SIZE, 3), np.uint8)], r"masks in colour: .*3 channels"),
        ([np.zeros((*SIZE, 4), np.uint8)], r"masks in colour: .*4 channels"),
        ([labels(0, 1).T], r"size of images: .*annotated 6 x 8, loaded 8 x 6"),
        ([np.dstack([labels(0, 1)] * 3)], "masks in colour: .*the channels are equal: keep one"),
        ([labels(0, 1), None], r"masks missing: .*1 of 2 images have no mask.*seg_map_suffix \(now '.png'\)"),
    ],
)
def test_what_is_wrong_is_fatal(masks, message, tmp_path):
    with DefaultScope.overwrite_default_scope("mmseg"):
        (finding,) = [finding for finding in find(write(tmp_path, masks)) if finding.fatal]
    assert re.search(message, str(finding)), str(finding)


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ((1, 2), {}, "hold 1, 2, and after loading no label 0, the first class, of 3.*reduce_zero_label=True"),
        ((0, 1, 2), dict(reduce_zero_label=True), "no label 2, the last class, of 3.*reduce_zero_label=False"),
    ],
)
def test_labels_that_are_counted_from_elsewhere(values, settings, message, tmp_path):
    (finding,) = find(write(tmp_path, [labels(*values)] * 2) | settings, num_classes=3)
    assert not finding.fatal and re.search(message, finding.message), finding
    assert find(write(tmp_path, [labels(0, 1, 2)] * 2), num_classes=3) == []


def test_labels_that_were_mixed_like_colours(tmp_path):
    sharp = np.kron(RNG.choice([0, 5], (6, 8)), np.ones((16, 16))).astype(np.uint8)
    assert _steps(sharp, 255)[1] == 0 < _steps(sharp, 255)[0]
    assert _steps(sharp, 5) == (0, 0) == _steps(sharp[:2, :2], 255)  # borders of what is ignored are often smooth
    smooth = cv2.resize(cv2.resize(sharp, (64, 48)), (128, 96))
    names = ("images", "masks")
    dataset = write(tmp_path, [])
    for index, mask in enumerate((sharp, smooth)):
        for folder, pixels, suffix in zip(names, (np.dstack([mask] * 3), mask), ("jpg", "png")):
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.{suffix}")
    (finding,) = find(dataset, num_classes=6)
    assert finding.kind == "blended labels" and not finding.fatal and finding.where == (str(tmp_path / "masks/1.png"),)


def test_masks_that_programs_show_turned(tmp_path):
    dataset = write(tmp_path, GOOD)
    tag = Image.Exif()
    tag[0x0112] = 2
    Image.fromarray(GOOD[0]).save(tmp_path / "masks/0.png", exif=tag)
    (finding,) = find(dataset)
    assert (
        finding.fatal and finding.kind == "orientation of masks" and finding.where == (str(tmp_path / "masks/0.png"),)
    )


def test_palettes_that_number_colours_otherwise(tmp_path):
    colours = [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    masks = []
    for order in (colours, colours[::-1]):
        mask = Image.fromarray(labels(0, 1, 2), mode="P")
        mask.putpalette(bytes(np.ravel(order).tolist()))
        masks.append(mask)
    dataset = write(tmp_path / "first", masks[:1]), write(tmp_path / "second", masks[1:])
    with DefaultScope.overwrite_default_scope("mmseg"):
        opened = [pair for one in dataset for pair in look_at_segmentation("train", one, 3).masks]
    (finding,) = colour_findings(opened)
    assert finding.fatal and "(0, 255, 0) is 0, and 2 in " in finding.message and "second" in finding.where[0]
    assert not list(colour_findings([opened[0], opened[0]]))


def test_palettes_that_colour_classes_otherwise_than_the_data_set(tmp_path):
    dataset = write(tmp_path, [palette(mask) for mask in GOOD])
    names = dataset["metainfo"]["classes"]
    for colours, wrong in (
        ([[0, 0, 0], [255, 0, 0]], False),
        ([[255, 0, 0], [0, 0, 0]], True),
        ([[1, 2, 3]] * 2, False),
    ):
        found = find(dataset | dict(metainfo=dict(classes=names, palette=colours)))
        assert [finding.kind for finding in found] == ["palettes"] * wrong
    # Colours are those of labels after loading.
    reduced = dict(metainfo=dict(classes=("tree",), palette=[[255, 0, 0]]), reduce_zero_label=True)
    assert "palettes" not in [finding.kind for finding in find(dataset | reduced)]


def test_a_pipeline_that_loads_masks_from_nowhere(tmp_path):
    dataset = write(tmp_path, GOOD) | dict(data_prefix=dict(img_path="images"))
    (finding,) = find(dataset)
    assert finding.kind == "masks missing" and "data_prefix=dict(seg_map_path=...)" in finding.message
    assert not find(dataset | dict(pipeline=dataset["pipeline"][:1], test_mode=True))


def test_hidden_files_are_no_masks(tmp_path):
    dataset = write(tmp_path, GOOD)
    (tmp_path / "masks" / "._0.png").write_bytes(b"of macOS")
    assert not find(dataset)


def test_images_that_are_their_own_masks_or_listed_twice(tmp_path):
    dataset = write(tmp_path, GOOD)
    (tmp_path / "list.txt").write_text("0\n0\n1\n")
    (finding,) = find(dataset | dict(ann_file="list.txt"))
    assert finding.kind == "images listed twice" and not finding.fatal and finding.where[0].endswith("0.jpg")
    own = dict(img_suffix=".png", data_prefix=dict(img_path="masks", seg_map_path="masks"))
    (finding,) = find(dataset | own)
    assert finding.fatal and "3 of 3 images are their own masks" in finding.message


def test_zeros_that_are_reduced(tmp_path):
    """Two classes, of which one is taken for "other"."""
    pipeline = [dict(type="LoadAnnotations", reduce_zero_label=True)]
    dataset = write(tmp_path, [labels(0, 1), labels(0, 1)]) | dict(reduce_zero_label=True, pipeline=pipeline)
    (finding,) = find(dataset)
    assert finding.fatal and "Set reduce_zero_label=False" in finding.message
    assert "hold 0, 1 alone" in finding.message and "only label 0 of 2 is left" in finding.message


@pytest.mark.parametrize("settings", [dict(metainfo=dict(classes=3)), dict(data_prefix=7), dict(img_sufix=".png")])
def test_settings_that_mmseg_fails_at(settings, tmp_path):
    (finding,) = find(write(tmp_path, GOOD) | settings)
    assert finding.fatal and finding.kind == "unreadable dataset" and "BaseSegDataset cannot read" in finding.message


def test_the_hint_names_what_is_there(tmp_path):
    dataset = write(tmp_path, [labels(0, 1)] * 11, mask_suffix="_label.png")
    (finding,) = find(dataset)
    assert "11 of 11 images have no mask; there is 0_label.png." in finding.message
    (tmp_path / "masks/1_label.png").unlink()
    (finding,) = find(dataset | dict(seg_map_suffix="_label.png"))
    assert "1 of 11 images have no mask. Add" in finding.message  # 10_label.png is of another


def test_names(tmp_path):
    dataset = write(tmp_path, GOOD, suffix=".JPEG")
    (finding,) = find(dataset)
    assert finding.fatal and "no image that ends in img_suffix='.jpg'; it has files of .JPEG (3)" in finding.message
    assert find(dataset | dict(img_suffix=".JPEG")) == []
    dataset = write(tmp_path / "labels", GOOD, mask_suffix="_labelTrainIds.png")
    (finding,) = find(dataset)
    assert finding.fatal and "3 of 3 images have no mask" in finding.message
    assert find(dataset | dict(seg_map_suffix="_labelTrainIds.png")) == []
    (tmp_path / "labels/list.txt").write_text("0\n1\nnone\n")
    (finding,) = find(dataset | dict(ann_file="list.txt", seg_map_suffix="_labelTrainIds.png"))
    assert finding.fatal and "1 of 3 images are listed" in finding.message and "none.jpg" in str(finding)


def test_masks_beside_the_images(tmp_path):
    """As Roboflow writes them: another suffix is fine, the same one makes every mask an image."""
    dataset = write(tmp_path, []) | dict(data_prefix=dict(img_path="images", seg_map_path="images"))
    for suffix in (".jpg", "_mask.png"):
        for name in ("a", "b"):
            Image.fromarray(labels(0, 1)).save(tmp_path / f"images/{name}{suffix}")
    assert find(dataset | dict(seg_map_suffix="_mask.png")) == []
    for photo in tmp_path.glob("images/*.jpg"):
        photo.rename(photo.with_suffix(".png"))
    (finding,) = find(dataset | dict(img_suffix=".png", seg_map_suffix="_mask.png"))
    assert finding.fatal and "2 of the images found are masks" in finding.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.jpg\n1.jpg", "names without img_suffix='.jpg'"),
        ("0\n\n1", "an empty line, 2"),
        ("\ufeff0\n1", "a byte order mark"),
        ("", "is empty; it should list images"),
    ],
)
def test_lists(text, message, tmp_path):
    dataset = write(tmp_path, GOOD) | dict(ann_file="list.txt")
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    (finding,) = find(dataset)
    assert finding.fatal and message in finding.message


def test_numbers_that_loading_changes(tmp_path):
    dataset = write(tmp_path, [Image.fromarray(labels(0, 0.5, 1, dtype=np.float32))], mask_suffix=".tif")
    (finding,) = find(dataset | dict(seg_map_suffix=".tif"))
    assert finding.fatal and finding.kind == "fractions in masks" and "as 0.5" in str(finding)
    dataset = write(tmp_path / "jpeg", GOOD, mask_suffix=".jpg") | dict(seg_map_suffix=".jpg")
    assert ("masks in JPEG", False) in [(finding.kind, finding.fatal) for finding in find(dataset, num_classes=256)]
    dataset = write(tmp_path / "palette", [palette(mask) for mask in GOOD])
    (finding,) = find(dataset | dict(pipeline=[dict(type="LoadAnnotations", imdecode_backend="cv2")]))
    assert finding.fatal and "take 'pillow'" in finding.message


def test_two_settings_of_the_zero_label(tmp_path):
    (finding,) = find(write(tmp_path, GOOD) | dict(pipeline=[dict(type="LoadAnnotations", reduce_zero_label=True)]))
    assert finding.fatal and "the dataset has False, its LoadAnnotations True" in finding.message


def test_links_that_lead_back(tmp_path):
    dataset = write(tmp_path, GOOD)
    (tmp_path / "images/loop").symlink_to(".")
    (finding,) = find(dataset)
    assert finding.fatal and f"{tmp_path}/images/loop is a link that leads back" in finding.message


def test_labels_that_are_odd_are_told(tmp_path):
    (finding,) = find(write(tmp_path, [labels(1), labels(1)]))
    assert not finding.fatal and "no label but 1" in finding.message


def test_labels_follow_the_config(tmp_path):
    dataset = write(tmp_path, [labels(0, 1, 2)])
    assert find(dataset)[0].kind == "labels out of range"
    assert (
        find(dataset | dict(reduce_zero_label=True, pipeline=[dict(type="LoadAnnotations", reduce_zero_label=True)]))
        == []
    )
    assert find(dataset, ignore_index=2) == []


def test_a_run_is_refused_before_it_starts(tmp_path):
    dataset = write(tmp_path, [labels(0, 255)] * 2)
    loader = dict(dataset=dataset)
    config = Config(dict(default_scope="mmseg", model=dict(decode_head=[dict(), dict(num_classes=2)]),
                         train_dataloader=loader, val_dataloader=loader))  # fmt: skip
    with pytest.raises(UserError, match="train, val: .*Write 1"):
        check_data(config, "train", "val")


@pytest.mark.parametrize("name", ["upernet_eyetoy-demo_sample", "upernet_nat-demo_sample"])
def test_the_samples_are_fine(name):
    config = load_config(package_file("configs") / "sample" / f"{name}.py", data_root=str(package_file("data/sample")))
    check_data(config, "train", "val")
