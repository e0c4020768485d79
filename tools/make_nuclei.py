"""Make the small sample of cell nuclei in ``data/nuclei`` from the 2018 Data Science Bowl's images in COCO's format.

The source folder holds ``{train,val}/*.png``, ``annotations/{train,val}.json`` (one category, masks as RLE) and
``images.tsv`` (kind, size, source id of each image). The first images of each kind and size by their names are taken,
so that the same source gives the same sample; larger images give their central 256 x 256 pixels. With ``--whole`` all
images are taken, as large as they are.

Example::

    python tools/make_nuclei.py path/to/nuclei data/nuclei
    python tools/make_nuclei.py path/to/nuclei data/nuclei-whole --whole

The program adds to the output folder and never deletes: remove ``images/`` and ``annotations/`` there to remake them.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
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


def sample(rows: list[dict[str, str]], split: str, column: int) -> list[dict[str, str]]:
    """The rows of ``images.tsv`` that the sample has of a split."""
    taken: list[dict[str, str]] = []
    for (kind, height, width), counts in TAKEN.items():
        size = (str(height), str(width))
        alike = [r for r in rows if (r["split"], r["kind"], r["height"], r["width"]) == (split, kind, *size)]
        taken += sorted(alike, key=lambda row: row["file"])[: counts[column]]
    return taken


def main() -> None:
    """Make the sample, or the whole set in the sample's form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder with images.tsv")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--whole", action="store_true", help="take all images, uncropped")
    args = parser.parse_args()
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
