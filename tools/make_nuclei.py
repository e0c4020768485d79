"""Make the small sample of cell nuclei in ``data/nuclei`` from the 2018 Data Science Bowl's images in COCO's format.

The source folder holds ``{train,val}/*.png``, ``annotations/{train,val}.json`` (one category, masks as RLE) and
``images.tsv`` (kind, size, source id of each image). The first images of each kind and size by their names are taken,
so that the same source gives the same sample; larger images give their central 256 x 256 pixels. With ``--whole`` all
images are taken, as large as they are.

With ``--stage1`` the source is the Data Science Bowl's own folder, ``ID/images/ID.png`` and ``ID/masks/*.png``, and
what is made is that source folder: of the images whose longer side is at most 700 pixels those of training and
validation, which the CRC-32 of the id tells apart. Grey ones are fluorescence, those in color stained tissue.

Example::

    python tools/make_nuclei.py path/to/stage1_train data/nuclei-all --stage1
    python tools/make_nuclei.py data/nuclei-all data/nuclei
    python tools/make_nuclei.py data/nuclei-all data/nuclei-whole --whole

The program adds to the output folder and never deletes: remove ``images/`` and ``annotations/`` there to remake them.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

SIDE = 256  # pixels
SMALLEST = 12  # pixels of a nucleus that a crop cuts; less is no object

# (kind, height, width) -> images of training and of validation
TAKEN = {
    ("fluorescence", 256, 256): (44, 14),
    ("fluorescence", 360, 360): (14, 5),
    ("fluorescence", 520, 696): (16, 5),
    ("other", 256, 320): (11, 3),
}
SPLITS = (("train", "training", 0), ("val", "validation", 1))
LONGEST = 700  # pixels of a side, of what is taken of stage 1
# By the CRC-32 of the id in hundredths; the first 14 are for a test.
SHARES = {"val": range(14, 28), "train": range(28, 100)}


def central(height: int, width: int) -> tuple[slice, slice]:
    """The central square of an image."""
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return slice(top, top + SIDE), slice(left, left + SIDE)


def instance(mask: Any, image_id: int, number: int) -> dict[str, Any]:
    """COCO's record of a mask ``(height, width)``."""
    rle = mask_utils.encode(np.asfortranarray(mask))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": mask_utils.toBbox(rle).tolist(),
        "area": int(mask_utils.area(rle)),
        "iscrowd": 0,
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }


def make_split(source: Path, out: Path, split: str, folder: str, names: list[str], whole: bool = False) -> None:
    """Write images, semantic masks (0 background, 1 nucleus) and the COCO file of a split, cropped unless ``whole``."""
    coco = json.loads((source / "annotations" / f"{split}.json").read_text())
    ids = {image["file_name"]: image for image in coco["images"]}
    masks = defaultdict(list)
    for annotation in coco["annotations"]:
        masks[annotation["image_id"]].append(mask_utils.decode(annotation["segmentation"]))
    for kind in ("images", "annotations"):
        (out / kind / folder).mkdir(parents=True, exist_ok=True)

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, name in enumerate(names, 1):
        record = ids[name]
        region = np.s_[:, :] if whole else central(record["height"], record["width"])
        pixels = np.asarray(Image.open(source / split / name))[region]
        Image.fromarray(pixels).save(out / "images" / folder / name, optimize=True)
        height, width = pixels.shape[:2]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        semantic = np.zeros((height, width), np.uint8)
        for mask in masks[record["id"]]:
            part = mask[region]
            if part.sum() >= min(SMALLEST, mask.sum()):
                annotations.append(instance(part, image_id, len(annotations) + 1))
                semantic |= part
        Image.fromarray(semantic).save(out / "annotations" / folder / name, optimize=True)
    content = {
        "info": {"description": f"Cell nuclei, {'all' if whole else 'a sample'} of the 2018 Data Science Bowl (CC0)"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "nucleus"}],
    }
    (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{folder}: {len(images)} images, {len(annotations)} nuclei")


def split_of(image_id: str) -> str | None:
    """The split of an image of stage 1 by its id, None for those that are left for a test."""
    share = zlib.crc32(image_id.encode()) % 100
    return next((split for split, shares in SHARES.items() if share in shares), None)


def collect(stage1: Path, out: Path) -> None:
    """Write images, COCO files and ``images.tsv`` of the Data Science Bowl's folder."""
    rows = ["split\tfile\tkind\theight\twidth\tnuclei\tsource image id"]
    images: dict[str, list[dict[str, Any]]] = {split: [] for split in SHARES}
    annotations: dict[str, list[dict[str, Any]]] = {split: [] for split in SHARES}
    for path in sorted(stage1.glob("*/images/*.png")):
        picture, split = Image.open(path).convert("RGB"), split_of(path.stem)
        if split is None or max(picture.size) > LONGEST:
            continue
        pixels = np.asarray(picture)
        grey = bool((pixels == pixels[..., :1]).all())
        name, number = f"{path.stem[:16]}.png", len(images[split]) + 1
        (out / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0] if grey else pixels).save(out / split / name, optimize=True)
        height, width = pixels.shape[:2]
        images[split].append({"id": number, "file_name": name, "height": height, "width": width})
        masks = [np.asarray(Image.open(file).convert("L")) > 0 for file in sorted(path.parents[1].glob("masks/*.png"))]
        for mask in masks:
            record = instance(mask.astype(np.uint8), number, len(annotations[split]) + 1)
            annotations[split].append(record)
        kind = "fluorescence" if grey else "other"
        rows.append(f"{split}\t{name}\t{kind}\t{height}\t{width}\t{len(masks)}\t{path.stem}")
    if len(rows) == 1:
        sys.exit(f"{stage1} has no ID/images/ID.png: it is not the folder stage1_train of the Data Science Bowl.")
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split in SHARES:
        content = {
            "images": images[split],
            "annotations": annotations[split],
            "categories": [{"id": 1, "name": "nucleus"}],
        }
        (out / "annotations" / f"{split}.json").write_text(json.dumps(content) + "\n")
        print(f"{split}: {len(images[split])} images, {len(annotations[split])} nuclei")
    (out / "images.tsv").write_text("\n".join(rows) + "\n")


def sample(rows: list[dict[str, str]], split: str, column: int) -> list[dict[str, str]]:
    """The rows of ``images.tsv`` that the sample has of a split."""
    taken: list[dict[str, str]] = []
    for (kind, height, width), counts in TAKEN.items():
        size = (str(height), str(width))
        alike = [r for r in rows if (r["split"], r["kind"], r["height"], r["width"]) == (split, kind, *size)]
        taken += sorted(alike, key=lambda row: row["file"])[: counts[column]]
    return taken


def main() -> None:
    """Make the sample, or the whole set in the sample's form, or what both are made of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder with images.tsv")
    parser.add_argument("out", type=Path, help="the folder to make")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--whole", action="store_true", help="take all images, uncropped")
    what.add_argument("--stage1", action="store_true", help="the source is the Data Science Bowl's folder stage1_train")
    args = parser.parse_args()
    if args.stage1:
        collect(args.source, args.out)
        return
    if not (args.source / "images.tsv").is_file():
        sys.exit(f"{args.source} has no images.tsv: it is not the folder of the nuclei in COCO's format.")

    with (args.source / "images.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for split, folder, column in SPLITS:
        taken = [row for row in rows if row["split"] == split] if args.whole else sample(rows, split, column)
        make_split(args.source, args.out, split, folder, sorted(row["file"] for row in taken), args.whole)
        with (args.out / "ATTRIBUTION.tsv").open("w" if column == 0 else "a") as file:
            if column == 0:
                file.write("split\tfile\tkind\theight\twidth\tsource image id\n")
            for row in sorted(taken, key=lambda row: row["file"]):
                fields = (folder, row["file"], row["kind"], row["height"], row["width"], row["source image id"])
                file.write("\t".join(fields) + "\n")


if __name__ == "__main__":
    main()
