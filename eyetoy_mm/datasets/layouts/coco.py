"""Annotations in COCO's format: as COCO itself, Roboflow (a file in each part's folder) and CVAT have them."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from eyetoy_mm.datasets.coco_format import format_findings, read_json
from eyetoy_mm.datasets.findings import refuse_fatal
from eyetoy_mm.datasets.layouts.common import Found, Item, Thing, Tree, join_names, parent_of, split_of
from eyetoy_mm.datasets.layouts.labelme import SHAPES
from eyetoy_mm.errors import UserError, first_few


def signs(tree: Tree) -> str:
    """What speaks for it: the annotation files."""
    return first_few(tree.once(annotation_files))


def annotation_files(tree: Tree) -> list[str]:
    """JSON files with lists of images, annotations and categories."""
    return [name for name in tree.ending(".json") if _is_coco(tree, name)]


def _is_coco(tree: Tree, name: str) -> bool:
    """Whether a JSON file is one: by its head, where it is not that of another format; then by its whole."""
    head = tree.head(name)
    if not any(key in head for key in (b'"images"', b'"annotations"', b'"categories"')) or SHAPES.search(head):
        return False
    try:
        content = read_json(tree.path(name))
    except ValueError as error:
        raise UserError(f"{tree.path(name)} {error}") from error
    return isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "categories"))


def read(tree: Tree, classes: list[str]) -> Found:
    """Read them; one file for each part. Of all categories those are learnt that are asked for.

    Raises:
        UserError: A file is not in COCO's format, two are of the same part, or their images are not there.
    """
    chosen, decided = _one_of_each_part(tree.once(annotation_files))
    contents = {split: _content(tree, name) for split, name in chosen.items()}
    names = _class_names(contents, chosen, decided)
    if unknown := [name for name in classes if name not in names]:
        raise UserError(
            f"--classes: {first_few(unknown)} is no category of {tree.folder}, which has {first_few(names, 20)}"
        )
    if classes:
        decided.append(
            f"{len(classes)} of {len(names)} categories are learnt, as --classes says; objects of others are not"
        )
        names = [name for name in names if name in classes]
    found = Found(tree.folder, "coco", names, [], decided, f"categories of {first_few(chosen.values())}")
    for split, content in contents.items():
        images = _image_folder(tree, chosen[split], content)
        found.files[split] = chosen[split], images
        found.items += _items(content, images, split, set(names))
    return found


def _content(tree: Tree, name: str) -> dict[str, Any]:
    content = read_json(tree.path(name))
    annotations = content.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    if isinstance(first, dict) and "segments_info" in first:
        raise UserError(
            f"{tree.path(name)} is panoptic: take a config of the package for it, as "
            "eyetoy_mm::eyetoy/mask2former_eyetoy-t_8xb2-lsj-50e_coco-panoptic, and set its paths and classes"
        )
    try:
        refuse_fatal(format_findings(content))
    except UserError as error:
        raise UserError(f"{tree.path(name)}: {error}") from None
    return content


def _one_of_each_part(files: list[str]) -> tuple[dict[str, str], list[str]]:
    """The file of each part; of several, the one of instances."""
    decided: list[str] = []
    by_split: dict[str, list[str]] = {}
    for name in files:
        by_split.setdefault(split_of(name), []).append(name)
    for split, names in by_split.items():
        instances = [name for name in names if "instances" in PurePosixPath(name).name.lower()]
        if len(names) > 1 and len(instances) == 1:
            left = first_few(name for name in names if name != instances[0])
            decided.append(f"{instances[0]} is read, and {left} not; take files away to change it")
            by_split[split] = instances
        elif len(names) > 1:
            raise UserError(
                f"{len(names)} COCO files are of the same part ({split or 'none by their names'}): {first_few(names)}. "
                "Leave one of each, with train, val or test in its name or its folder's"
            )
    return {split: names[0] for split, names in by_split.items()}, decided


def _class_names(contents: dict[str, dict], files: dict[str, str], decided: list[str]) -> list[str]:
    """The categories in their order, without the root that Roboflow writes and no object has."""
    lists = {split: [c["name"] for c in content["categories"]] for split, content in contents.items()}
    first = next(iter(lists))
    for split, names in lists.items():
        if names != lists[first]:
            unlike = first_few(map(repr, sorted(set(names) ^ set(lists[first]))))
            raise UserError(
                f"{files[first]} and {files[split]} have other categories, or in another order"
                f"{f' ({unlike})' if unlike else ''}: write the same into both"
            )
    used = {(split, a["category_id"]) for split, content in contents.items() for a in content["annotations"]}
    parents = {category.get("supercategory") for category in contents[first]["categories"]}
    names = []
    for category in contents[first]["categories"]:
        is_root = category.get("supercategory") == "none" and category["name"] in parents
        if is_root and not any((split, category["id"]) in used for split in contents):
            decided.append(f"category {category['name']!r} is the root of the others and has no object: left out")
        else:
            names.append(category["name"])
    return names


def _image_folder(tree: Tree, file: str, content: dict) -> str:
    """The folder that the names of a file start from: where most of its images are, the nearest one first."""
    names = [image["file_name"] for image in content["images"]]
    parents = {""} | {"/".join(folder.split("/")[:depth]) for folder in tree.folders for depth in range(1, 9) if folder}
    near = parent_of(file)
    hits = Counter({
        folder: sum(join_names(folder, name) in tree.known for name in names[:: max(1, len(names) // 200)])
        for folder in sorted(parents | {near})
    })  # fmt: skip
    split = split_of(file)
    best = max(hits, key=lambda folder: (hits[folder], folder == near, split_of(folder) == split, -len(folder)))
    if not hits[best]:
        raise UserError(
            f"{tree.path(file)} lists images that are nowhere below {tree.folder}: {first_few(names, 3)}. Put them "
            "there, or write their paths from a folder there into file_name"
        )
    return best


def _items(content: dict, folder: str, split: str, classes: set[str]) -> list[Item]:
    names = {c["id"]: c["name"] for c in content["categories"] if c["name"] in classes}
    items = {
        image["id"]: Item(join_names(folder, image["file_name"]), split, size=(image["width"], image["height"]))
        for image in content["images"]
    }
    for entry in content["annotations"]:
        item = items.get(entry["image_id"])
        if item is not None and entry["category_id"] in names:  # else it is told by the check
            crowd = bool(entry.get("iscrowd"))
            outline = entry.get("segmentation") or None
            item.things.append(Thing(names[entry["category_id"]], tuple(entry["bbox"]), outline, crowd))
    return list(items.values())
