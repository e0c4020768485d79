"""Folders of data as people have them, a few pictures of two classes in each format, two parts where it has any."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64, 48
CLASSES = ("disc", "square")
# Of each picture: the class of its object, and its box as left, top, width, height.
PICTURES = {
    "train": {
        "a": (0, (8, 8, 24, 16)), "b": (1, (20, 10, 30, 30)), "c": (0, (30, 4, 20, 40)), "d": (1, (4, 20, 24, 20)),
    },
    "val": {"e": (0, (10, 12, 24, 20)), "f": (1, (32, 16, 24, 24))},
}  # fmt: skip


def picture(path: Path, label: int, box: tuple[int, ...]) -> None:
    """A bright patch on noise that is nowhere the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(map(ord, path.stem))).integers(0, 90, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    x, y, w, h = box
    pixels[y : y + h, x : x + w] = (200, 60, 60) if label else (60, 200, 60)
    Image.fromarray(pixels).save(path)


def corners(box: tuple[int, ...]) -> list[list[int]]:
    x, y, w, h = box
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def coco_of_roboflow(root: Path) -> None:
    """A file in the folder of each part, and a category that no object has."""
    categories = [dict(id=0, name="shapes", supercategory="none")]
    categories += [dict(id=i + 1, name=name, supercategory="shapes") for i, name in enumerate(CLASSES)]
    for split, folder in (("train", "train"), ("val", "valid")):
        images, annotations = [], []
        for number, (stem, (label, box)) in enumerate(PICTURES[split].items()):
            picture(root / folder / f"{stem}.jpg", label, box)
            images.append(dict(id=number, file_name=f"{stem}.jpg", width=SIZE[0], height=SIZE[1]))
            outline = [[coordinate for point in corners(box) for coordinate in point]]
            annotations.append(
                dict(id=number, image_id=number, category_id=label + 1, bbox=list(box), area=box[2] * box[3],
                     segmentation=outline, iscrowd=0)
            )  # fmt: skip
        content = dict(images=images, annotations=annotations, categories=categories)
        write(root / folder / "_annotations.coco.json", json.dumps(content))


def yolo(root: Path, outlines: bool = False) -> None:
    """As Roboflow writes it, with paths that lead out of the folder."""
    for split, folder in (("train", "train"), ("val", "valid")):
        for stem, (label, box) in PICTURES[split].items():
            picture(root / folder / "images" / f"{stem}.jpg", label, box)
            x, y, w, h = box[0] / SIZE[0], box[1] / SIZE[1], box[2] / SIZE[0], box[3] / SIZE[1]
            line = (x, y, x + w, y, x + w, y + h, x, y + h) if outlines else (x + w / 2, y + h / 2, w, h)
            write(root / folder / "labels" / f"{stem}.txt", f"{label} {' '.join(map(str, line))}\n")
    write(root / "data.yaml", f"train: ../train/images\nval: ../valid/images\nnc: 2\nnames: {list(CLASSES)}\n")


def yolo_of_cvat(root: Path) -> None:
    """Version 1.1: labels beside images, names and a list."""
    lines = []
    for stem, (label, box) in (PICTURES["train"] | PICTURES["val"]).items():
        picture(root / "obj_train_data" / f"{stem}.png", label, box)
        x, y, w, h = box[0] / SIZE[0], box[1] / SIZE[1], box[2] / SIZE[0], box[3] / SIZE[1]
        write(root / "obj_train_data" / f"{stem}.txt", f"{label} {x + w / 2} {y + h / 2} {w} {h}\n")
        lines.append(f"data/obj_train_data/{stem}.png\n")
    write(root / "train.txt", "".join(lines))
    write(root / "obj.names", "".join(f"{name}\n" for name in CLASSES))
    write(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


def voc(root: Path) -> None:
    for split, pictures in PICTURES.items():
        write(root / "ImageSets/Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in pictures))
        for stem, (label, (x, y, w, h)) in pictures.items():
            picture(root / "JPEGImages" / f"{stem}.jpg", label, (x, y, w, h))
            box = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            write(
                root / "Annotations" / f"{stem}.xml",
                f"<annotation><filename>{stem}.jpg</filename><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height>"
                f"<depth>3</depth></size><object><name>{CLASSES[label]}</name><bndbox>{box}</bndbox></object></annotation>",
            )


def cvat(root: Path) -> None:
    """CVAT for images 1.1, with subsets."""
    images = []
    for split, pictures in PICTURES.items():
        for stem, (label, box) in pictures.items():
            picture(root / "images" / f"{stem}.png", label, box)
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box))
            images.append(
                f'<image id="{len(images)}" name="{stem}.png" subset="{split.title()}" width="{SIZE[0]}" '
                f'height="{SIZE[1]}">'
                f'<polygon label="{CLASSES[label]}" points="{points}"></polygon></image>'
            )
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    write(root / "annotations.xml", f"<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>")


def labelme(root: Path) -> None:
    """A JSON file beside each picture, and no parts."""
    for stem, (label, box) in (PICTURES["train"] | PICTURES["val"]).items():
        picture(root / f"{stem}.jpg", label, box)
        shape = dict(label=CLASSES[label], shape_type="polygon", points=corners(box), group_id=None, flags={})
        content = dict(version="5.5.0", flags={}, shapes=[shape], imagePath=f"..\\some\\{stem}.jpg", imageData=None,
                       imageWidth=SIZE[0], imageHeight=SIZE[1])  # fmt: skip
        write(root / f"{stem}.json", json.dumps(content))


def labels_of(label: int, box: tuple[int, ...]) -> np.ndarray:
    """The mask of a picture: 0, and 1 or 2 in the box."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = label + 1
    return mask


def masks(root: Path) -> None:
    """Numbers from 0 on, with folders of the parts."""
    for split, pictures in PICTURES.items():
        (root / "masks" / split).mkdir(parents=True)
        for stem, (label, box) in pictures.items():
            picture(root / "images" / split / f"{stem}.jpg", label, box)
            Image.fromarray(labels_of(label, box)).save(root / "masks" / split / f"{stem}.png")
    write(root / "classes.txt", "ground\ndisc\nsquare\n")


def masks_of_roboflow(root: Path) -> None:
    """Masks beside the images, and a table of names."""
    for split, folder in (("train", "train"), ("val", "valid")):
        for stem, (label, box) in PICTURES[split].items():
            picture(root / folder / f"{stem}.jpg", label, box)
            Image.fromarray(labels_of(label, box)).save(root / folder / f"{stem}_mask.png")
        write(root / folder / "_classes.csv", "Pixel Value, Class\n0, ground\n1, disc\n2, square\n")


def masks_of_cvat(root: Path) -> None:
    """Colours, whose names are in a file; parts in lists."""
    (root / "SegmentationClass").mkdir(parents=True)
    colours = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)
    for split, pictures in PICTURES.items():
        for stem, (label, box) in pictures.items():
            picture(root / "JPEGImages" / f"{stem}.jpg", label, box)
            Image.fromarray(colours[labels_of(label, box)]).save(root / "SegmentationClass" / f"{stem}.png")
        write(root / "ImageSets/Segmentation" / f"{split}.txt", "".join(f"{stem}\n" for stem in pictures))
    names = ("background", *CLASSES)
    lines = [f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in zip(names, colours.tolist(), strict=True)]
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "".join(lines))


def binary_masks(root: Path) -> None:
    """0 and 255, images of two kinds, no parts."""
    (root / "masks").mkdir(parents=True)
    for index, (stem, (label, box)) in enumerate((PICTURES["train"] | PICTURES["val"]).items()):
        picture(root / "images" / f"{stem}.{('jpg', 'png')[index % 2]}", label, box)
        Image.fromarray(((labels_of(label, box) > 0) * 255).astype(np.uint8)).save(root / "masks" / f"{stem}_mask.png")


def class_folders(root: Path) -> None:
    for stem, (label, box) in (PICTURES["train"] | PICTURES["val"]).items():
        picture(root / CLASSES[label] / f"{stem}.jpg", label, box)


def class_folders_in_parts(root: Path) -> None:
    for split, pictures in PICTURES.items():
        for stem, (label, box) in pictures.items():
            picture(root / split / CLASSES[label] / f"{stem}.jpg", label, box)


# What makes each, the format that it is, and whether nothing parts it.
FOLDERS: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "coco": (coco_of_roboflow, "coco", False),
    "yolo": (yolo, "yolo", False),
    "yolo-outlines": (lambda root: yolo(root, outlines=True), "yolo", False),
    "yolo-cvat": (yolo_of_cvat, "yolo", True),
    "voc": (voc, "voc", False),
    "cvat": (cvat, "cvat", False),
    "labelme": (labelme, "labelme", True),
    "masks": (masks, "masks", False),
    "masks-roboflow": (masks_of_roboflow, "masks", False),
    "masks-cvat": (masks_of_cvat, "masks", False),
    "masks-binary": (binary_masks, "masks", True),
    "class-folders": (class_folders, "class-folders", True),
    "class-folders-in-parts": (class_folders_in_parts, "class-folders", False),
}
