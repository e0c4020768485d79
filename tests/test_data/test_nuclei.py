"""``data/nuclei`` and the program that makes it: masks and instances agree, and the README counts right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

ROOT = Path(__file__).resolve().parents[2]
NUCLEI = ROOT / "data" / "nuclei"
FOLDERS = {"train": "training", "val": "validation"}


def drawn(folder: Path, split: str) -> dict[str, np.ndarray]:
    """For each image, the union of its instances."""
    coco = json.loads((folder / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
    masks = {image["id"]: np.zeros((image["height"], image["width"]), np.uint8) for image in coco["images"]}
    for annotation in coco["annotations"]:
        masks[annotation["image_id"]] |= mask_utils.decode(annotation["segmentation"])
    return {image["file_name"]: masks[image["id"]] for image in coco["images"]}


def assert_agree(folder: Path, split: str) -> None:
    for name, mask in drawn(folder, split).items():
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "annotations" / FOLDERS[split] / name)), mask)
        assert np.asarray(Image.open(folder / "images" / FOLDERS[split] / name)).shape[:2] == mask.shape


@pytest.mark.parametrize("split", FOLDERS)
def test_pixels_are_labelled_as_the_instances_are(split: str) -> None:
    assert_agree(NUCLEI, split)


def test_the_readme_counts_what_is_there() -> None:
    counts = [len(list((NUCLEI / "images" / folder).iterdir())) for folder in FOLDERS.values()]
    nuclei = [
        len(json.loads((NUCLEI / "annotations" / f"instances_{split}.json").read_text())["annotations"])
        for split in FOLDERS
    ]
    kinds = [line.split("\t")[2] for line in (NUCLEI / "ATTRIBUTION.tsv").read_text().splitlines()[1:]]
    text = (NUCLEI / "README.md").read_text(encoding="utf-8")
    said = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?= images of 256| for [tv])", text)]
    assert said == [sum(counts), *counts]
    assert f"with {sum(nuclei):,} nuclei" in text and f"{nuclei[0]:,} and {nuclei[1]:,} nuclei" in text
    assert f"fluorescence ({kinds.count('fluorescence')})" in text and f"in color ({kinds.count('other')})" in text


@pytest.mark.parametrize("whole", [False, True])
def test_the_program_makes_sample_and_whole_set(tmp_path: Path, whole: bool) -> None:
    source = tmp_path / "source"
    rows = ["split\tfile\tkind\theight\twidth\tsource image id"]
    for split in FOLDERS:
        (source / split).mkdir(parents=True)
        mask = np.zeros((360, 360), np.uint8, order="F")
        mask[:150, 170:300] = 1  # in the central 256 x 256 in part
        Image.fromarray(np.arange(360 * 360, dtype=np.uint32).astype(np.uint8).reshape(360, 360)).save(
            source / split / "a.png"
        )
        rle = mask_utils.encode(mask)
        record = {"image_id": 7, "segmentation": {"size": [360, 360], "counts": rle["counts"].decode()}}
        image = {"id": 7, "file_name": "a.png", "height": 360, "width": 360}
        (source / "annotations").mkdir(exist_ok=True)
        (source / "annotations" / f"{split}.json").write_text(json.dumps({"images": [image], "annotations": [record]}))
        rows.append(f"{split}\ta.png\tfluorescence\t360\t360\tx")
    (source / "images.tsv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    command = [sys.executable, ROOT / "tools" / "make_nuclei.py", source, out, *(["--whole"] if whole else [])]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    for split in FOLDERS:
        mask = drawn(out, split)["a.png"]
        assert mask.shape == ((360, 360) if whole else (256, 256))
        assert mask.sum() == (150 * 130 if whole else 98 * 130)
        assert_agree(out, split)


def test_the_whole_set_is_made_of_what_the_data_science_bowl_gives(tmp_path: Path) -> None:
    """Of images with known splits, the first two of which are in the sample."""
    known = [line.split("\t") for line in (NUCLEI / "ATTRIBUTION.tsv").read_text().splitlines()[1:]]
    ids = {split: next(row[5] for row in known if row[0] == folder) for split, folder in FOLDERS.items()}
    for split, image_id in ids.items():
        for name, size in ((image_id, (40, 30)), (f"{image_id}-large", (701, 30))):
            (tmp_path / "stage1" / name / "images").mkdir(parents=True)
            (tmp_path / "stage1" / name / "masks").mkdir()
            picture = Image.new("RGBA", size, (9, 9, 9, 255) if split == "train" else (9, 8, 7, 255))
            picture.save(tmp_path / "stage1" / name / "images" / f"{name}.png")
            for left in (5, 20):
                mask = np.zeros(size[::-1], np.uint8)
                mask[10:20, left : left + 10] = 255
                Image.fromarray(mask).save(tmp_path / "stage1" / name / "masks" / f"{left}.png")
    command = [sys.executable, ROOT / "tools" / "make_nuclei.py", tmp_path / "stage1", tmp_path / "all", "--stage1"]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    rows = [line.split("\t") for line in (tmp_path / "all/images.tsv").read_text().splitlines()[1:]]
    assert sorted(rows) == [
        ["train", f"{ids['train'][:16]}.png", "fluorescence", "30", "40", "2", ids["train"]],
        ["val", f"{ids['val'][:16]}.png", "other", "30", "40", "2", ids["val"]],
    ]
    command = [sys.executable, ROOT / "tools" / "make_nuclei.py", tmp_path / "all", tmp_path / "whole", "--whole"]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    for split in FOLDERS:
        (mask,) = drawn(tmp_path / "whole", split).values()
        assert mask.sum() == 200
        assert_agree(tmp_path / "whole", split)


def test_the_split_is_by_the_id() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from make_nuclei import split_of
    finally:
        sys.path.remove(str(ROOT / "tools"))
    rows = [line.split("\t") for line in (NUCLEI / "ATTRIBUTION.tsv").read_text().splitlines()[1:]]
    assert all(FOLDERS[split_of(row[5])] == row[0] for row in rows) and len(rows) == 112
