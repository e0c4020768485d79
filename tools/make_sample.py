"""Make the small ADE20K-style sample in ``data/sample`` from a COCO 2017 folder.

The source folder is laid out as COCO publishes it (``train2017/``, ``val2017/``, ``annotations/instances_*2017.json``).
The photos to take are listed below, so the full data set and any subset that holds them give the same sample.

Example::

    python tools/make_sample.py path/to/coco data/sample

The program adds to the output folder and never deletes: remove ``images/`` and ``annotations/`` there to remake them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils

# Class name -> COCO supercategories. The label is 1 + the position here; 0 is ignored (ADE20K's convention).
CLASSES: dict[str, tuple[str, ...]] = {
    "background": (),
    "person": ("person",),
    "animal": ("animal",),
    "vehicle": ("vehicle",),
    "food and tableware": ("food", "kitchen"),
    "furniture and appliance": ("furniture", "appliance", "electronic"),
    "other object": ("indoor", "accessory", "sports", "outdoor"),
}
LABELS = {supercategory: i for i, group in enumerate(CLASSES.values(), 1) for supercategory in group}

# COCO's licence ids that allow copies and adaptations to be passed on, also for commercial use.
LICENCES = {4: "CC BY 2.0", 5: "CC BY-SA 2.0", 7: "No known copyright restrictions (Flickr Commons)"}

# The COCO ids of the photos. The sample's README.md says how they were chosen.
# fmt: off
TRAIN_IDS = (
    30, 71, 72, 86, 89, 92, 127, 194, 208, 257, 294, 308, 370, 436, 450, 459, 471, 491, 542, 599, 636, 790, 24577,
    78499, 116740, 125870, 159269, 177977, 196393, 204805, 213148, 234748, 252639, 253955, 294920, 319492, 352257,
    358083, 425988, 442450, 458756, 475546, 491525, 501760, 516008, 525891, 547503, 565248,
)
VAL_IDS = (
    5001, 30213, 119828, 126107, 160012, 168974, 175364, 183709, 205401, 208901, 229997, 311303, 377575, 403353,
    416256, 460229, 475678, 519208, 551780, 577539,
)
# fmt: on

# (COCO split, ADE20K split, image ids)
SPLITS = (("train", "training", TRAIN_IDS), ("val", "validation", VAL_IDS))

Mask = NDArray[np.uint8]


def rasterise(segmentation: Any, height: int, width: int) -> Mask:
    """Draw a COCO segmentation (polygons or RLE) as a 0/1 mask."""
    if isinstance(segmentation, list):
        rle = mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = mask_utils.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return np.asarray(mask_utils.decode(rle), np.uint8)


def shrink(mask: Mask, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the share of each new pixel that a 0/1 mask covers; ``size`` is (width, height)."""
    return np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))


def column_counts(mask: Mask) -> list[int]:
    """Encode a mask as COCO's uncompressed run lengths (column by column, zeros first)."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts: list[int] = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *counts] if flat[0] else counts


def scale_annotation(annotation: dict[str, Any], old: tuple[int, int], new: tuple[int, int]) -> dict[str, Any] | None:
    """Scale one COCO annotation to a new image size.

    Args:
        annotation: The annotation at the original size.
        old: Original (width, height).
        new: New (width, height).

    Returns:
        The annotation with area and box measured on the mask at the new size; None where no pixel is left of it.
    """
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        factors = np.array([new[0] / old[0], new[1] / old[1]])
        scaled: Any = [(np.reshape(p, (-1, 2)) * factors).ravel().round(2).tolist() for p in segmentation]
    else:
        mask = (shrink(rasterise(segmentation, old[1], old[0]), new) >= 0.5).astype(np.uint8)
        scaled = dict(size=[new[1], new[0]], counts=column_counts(mask))
    mask = rasterise(scaled, new[1], new[0])
    if not mask.any():
        return None
    ys, xs = np.nonzero(mask)
    left, top, right, bottom = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
    box = [left, top, right - left, bottom - top]
    return {**annotation, "segmentation": scaled, "area": int(mask.sum()), "bbox": box}


def semantic_mask(
    pairs: list[tuple[dict[str, Any], dict[str, Any]]],
    labels: dict[int, int],
    old: tuple[int, int],
    new: tuple[int, int],
) -> Mask:
    """Paint instances into one label map, from the largest to the smallest, then shrink it by majority.

    Args:
        pairs: (original annotation, scaled annotation) of one image; the scaled area sets the order.
        labels: Label of each category id.
        old: Original (width, height).
        new: New (width, height).

    Returns:
        The label map at the new size: 0 in crowd regions, 1 where there is no object, 2.. the object classes.
    """
    full = np.ones((old[1], old[0]), np.uint8)
    for annotation, _ in sorted(pairs, key=lambda p: (-p[1]["iscrowd"], -p[1]["area"], p[1]["id"])):
        label = 0 if annotation["iscrowd"] else labels[annotation["category_id"]]
        full[rasterise(annotation["segmentation"], old[1], old[0]) > 0] = label
    # From the highest label down, so that a tie goes to the object and not to the background.
    shares = np.stack([shrink((full == i).astype(np.uint8), new) for i in range(len(CLASSES), -1, -1)])
    return np.asarray(len(CLASSES) - shares.argmax(0), np.uint8)


def make_split(
    source: Path, output: Path, split: tuple[str, str, tuple[int, ...]], long_side: int, quality: int
) -> tuple[list[str], NDArray[np.float64]]:
    """Write the images, masks and COCO json of one split.

    Args:
        source: COCO folder.
        output: Sample folder.
        split: One entry of ``SPLITS``.
        long_side: Long side of the images in pixels; smaller photos keep their size.
        quality: JPEG quality.

    Returns:
        The rows of the attribution table, and the share of each label (0 first) in each image.

    Raises:
        ValueError: An image is absent from the json, has another size, or a licence that is not allowed.
    """
    coco_split, ade_split, ids = split
    data = json.loads((source / "annotations" / f"instances_{coco_split}2017.json").read_text(encoding="utf-8"))
    images = {image["id"]: image for image in data["images"]}
    licences = {licence["id"]: licence for licence in data["licenses"]}
    labels = {category["id"]: LABELS[category["supercategory"]] for category in data["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = {i: [] for i in ids}
    for annotation in sorted(data["annotations"], key=lambda a: a["id"]):
        if annotation["image_id"] in by_image:
            by_image[annotation["image_id"]].append(annotation)
    if missing := [i for i in ids if i not in images]:
        raise ValueError(f"instances_{coco_split}2017.json has no image {', '.join(map(str, missing))}")

    folders = [output / content / ade_split for content in ("images", "annotations")]
    for folder in folders:
        folder.mkdir(parents=True)
    new_images, new_annotations, rows, shares = [], [], [], []
    for i in ids:
        image, licence = images[i], licences[images[i]["license"]]
        if licence["id"] not in LICENCES:
            raise ValueError(f"image {i} has licence {licence['id']}; only {list(LICENCES)} may be copied")
        photo = Image.open(source / f"{coco_split}2017" / image["file_name"]).convert("RGB")
        old = (image["width"], image["height"])
        if photo.size != old:
            raise ValueError(f"{image['file_name']} is {photo.size}, but the json says {old}")
        factor = min(1.0, long_side / max(old))
        new = (round(old[0] * factor), round(old[1] * factor))

        pairs = [(a, s) for a in by_image[i] if (s := scale_annotation(a, old, new)) is not None]
        mask = semantic_mask(pairs, labels, old, new)
        resized = photo.resize(new, Image.Resampling.LANCZOS)
        resized.save(folders[0] / image["file_name"], quality=quality, optimize=True)
        Image.fromarray(mask).save(folders[1] / f"{Path(image['file_name']).stem}.png", optimize=True)

        new_images.append({**image, "width": new[0], "height": new[1]})
        new_annotations += [s for _, s in pairs]
        shares.append(np.bincount(mask.ravel(), minlength=len(CLASSES) + 1) / mask.size)
        rows.append(
            "\t".join(
                [
                    f"images/{ade_split}/{image['file_name']}",
                    ade_split,
                    str(i),
                    str(licence["id"]),
                    LICENCES[licence["id"]],
                    licence["url"],
                    image["flickr_url"],
                ]
            )
        )
    info = {**data["info"], "description": f"{data['info']['description']}: a resized sample of {coco_split}2017"}
    sample = dict(
        info=info,
        licenses=data["licenses"],
        images=new_images,
        annotations=new_annotations,
        categories=data["categories"],
    )
    text = json.dumps(sample, separators=(",", ":"))
    (output / "annotations" / f"instances_{coco_split}.json").write_text(text + "\n", encoding="utf-8")
    dropped = sum(map(len, by_image.values())) - len(new_annotations)
    print(f"{ade_split}: {len(ids)} images, {len(new_annotations)} instances ({dropped} left out: no pixel left)")
    return rows, np.array(shares)


def main() -> None:
    """Read the arguments, make both splits and print the table of class shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="COCO folder: train2017/, val2017/, annotations/instances_*2017.json")
    parser.add_argument("output", type=Path, help="folder to write; must not hold images/ or annotations/ yet")
    parser.add_argument("--long-side", type=int, default=320, help="long side of the images in pixels")
    parser.add_argument("--quality", type=int, default=87, help="JPEG quality")
    args = parser.parse_args()

    needed = [args.source / "annotations" / f"instances_{coco}2017.json" for coco, _, _ in SPLITS]
    needed += [args.source / f"{coco}2017" / f"{i:012d}.jpg" for coco, _, ids in SPLITS for i in ids]
    if missing := [str(path) for path in needed if not path.is_file()]:
        sys.exit(f"{len(missing)} of {len(needed)} files needed are missing, first {missing[0]}")
    if present := [name for name in ("images", "annotations") if (args.output / name).exists()]:
        sys.exit(f"{args.output} already holds {' and '.join(present)}; remove that first, or name another folder")

    rows = ["file\tsplit\tcoco_id\tlicence_id\tlicence\tlicence_url\tflickr_url"]
    shares = []
    try:
        for split in SPLITS:
            split_rows, split_shares = make_split(args.source, args.output, split, args.long_side, args.quality)
            rows += split_rows
            shares.append(split_shares)
    except ValueError as error:
        sys.exit(f"error: {error}")
    (args.output / "ATTRIBUTION.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (args.output / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")

    print("\n| label | class | training pixels | training images | validation pixels | validation images |")
    print("|---|---|---|---|---|---|")
    for i, name in enumerate(("(ignored)", *CLASSES)):
        cells = [f"{100 * s[:, i].mean():.1f} % | {(s[:, i] > 0).sum()}" for s in shares]
        print(f"| {i} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
