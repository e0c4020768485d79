"""Images and masks of labels: in folders of their own, or beside each other as Roboflow has them."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from eyetoy_mm.datasets.files import check_is_file
from eyetoy_mm.datasets.image_files import read_header
from eyetoy_mm.datasets.layouts.common import (
    Found,
    Item,
    Tree,
    parent_of,
    split_of,
    split_of_folder,
    suffix_of,
)
from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.errors import UserError, first_few

IGNORED = 255
MOST = 2000  # masks that are opened to see which numbers there are
_FEW = 50  # those whose colours are told
_WORDS = ("mask", "label", "annot", "seg", "gt", "ground")
_ENDS = ("_mask", "-mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt")
_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp")
_INSTANCES = ("object", "instance")
_LAST_WORD = re.compile(r"(?<=.)[_.-][^_.-]*[^\W\d_][^_.-]*$")

Colour = tuple[int, int, int]


def signs(tree: Tree) -> str:
    """What speaks for it: folders of images whose names folders of masks have, too."""
    places = Counter((parent_of(image), parent_of(mask)) for image, mask in tree.once(_pairs)[0])
    return first_few(f"{a or '.'}/ with masks in {b or '.'}/" for a, b in places)


def hint(tree: Tree) -> str:
    """What would make it one, where folders of masks have images that are none."""
    others = tree.images + tree.others
    wrong = [name for name in others if _is_called_masks(parent_of(name)) and suffix_of(name) not in _MASK_SUFFIXES]
    if not wrong:
        return ""
    folder, suffix = parent_of(wrong[0]), suffix_of(wrong[0])
    return f"{folder}/ may hold masks, but as {suffix}: save them as PNG, which keeps numbers. "


def read(tree: Tree, classes: list[str]) -> Found:
    """Pair images and masks, and see which numbers the masks hold.

    Raises:
        UserError: Masks are in colours that nobody names, hold other numbers than there are classes, or a part of the
            data is not known.
    """
    pairs, lonely = tree.once(_pairs)
    splits = _listed(tree)
    items = [Item(image, _split(image, splits), mask=mask) for image, mask in pairs]
    found = Found(tree.folder, "masks", [], items, left_out=lonely)
    if lonely:
        found.decided.append(f"{len(lonely)} images have no mask: left out ({first_few(lonely, 3)})")
    _number(tree, found, classes)
    note_places(found)
    return found


# --- Pairs ------------------------------------------------------------------------------------------------------------


def _pairs(tree: Tree) -> tuple[list[tuple[str, str]], list[str]]:
    """Each image with its mask, and the images of the same folders that have none."""
    by_folder = {folder: sorted(names) for folder, names in tree.folders.items()}
    masks = {folder: names for folder, names in by_folder.items() if _may_hold_masks(folder, names)}
    pairs: list[tuple[str, str]] = []
    lonely: list[str] = []
    for folder, names in by_folder.items():
        if folder in masks:
            continue
        beside = _beside(tree, folder, names)
        found = beside or max((_across(folder, names, other, masks[other]) for other in masks), key=_score, default={})
        if found:
            pairs += found.items()
            of_masks = set(found.values())
            whole = (f"{folder}/{name}" if folder else name for name in names)
            lonely += [name for name in whole if name not in found and name not in of_masks]
    return pairs, lonely


def _score(pairs: dict[str, str]) -> tuple[int, bool, int]:
    if not pairs:
        return 0, False, 0
    image, mask = next(iter(pairs.items()))
    same = split_of_folder(image) == split_of_folder(mask)
    common = len(set(PurePosixPath(image).parts[:-1]) & set(PurePosixPath(mask).parts[:-1]))
    return len(pairs), same, common


def _may_hold_masks(folder: str, names: list[str]) -> bool:
    return _is_called_masks(folder) and all(suffix_of(name) in _MASK_SUFFIXES for name in names)


def _is_called_masks(folder: str) -> bool:
    words = folder.lower().replace("jpegimages", "")
    return any(word in words for word in _WORDS) and not any(w in words.rsplit("/", 1)[-1] for w in _INSTANCES)


def _beside(tree: Tree, folder: str, names: list[str]) -> dict[str, str]:
    """Masks in the folder of the images: ``a_mask.png`` of ``a.jpg``, or ``a.png`` where it is one of labels."""
    start = f"{folder}/" if folder else ""
    by_stem = {name[: -len(suffix_of(name))]: name for name in names if suffix_of(name) in _MASK_SUFFIXES}
    pairs = {}
    for name in names:
        stem = name[: -len(suffix_of(name))]
        mask = next((by_stem[stem + end] for end in _ENDS if stem + end in by_stem), "")
        if not mask and by_stem.get(stem, name) != name and suffix_of(name) in (".jpg", ".jpeg"):
            mask = by_stem[stem] if _is_of_labels(tree, start + by_stem[stem]) else ""
        if mask:
            pairs[start + name] = start + mask
    return pairs


def _is_of_labels(tree: Tree, name: str) -> bool:
    header = read_header(str(tree.path(name)))
    return header is not None and (header.mode in ("L", "P", "1") or header.mode.startswith("I"))


def _across(folder: str, names: list[str], other: str, masks: list[str]) -> dict[str, str]:
    """Masks of another folder, by the names that begin alike; what follows is the same for all."""
    first, second = (f"{name}/" if name else "" for name in (folder, other))
    tail = _common_word([name[: -len(suffix_of(name))] for name in names])
    stems = {name[: -len(tail + suffix_of(name))]: name for name in names}
    ends = Counter(
        mask[: -len(suffix_of(mask))][len(stem) :]
        for mask in masks[:50]
        for stem in _beginnings(mask[: -len(suffix_of(mask))])
        if stem in stems
    )
    if not ends:
        return {}
    end = max(ends, key=lambda text: (ends[text], "label" in text.lower(), -len(text)))  # not Cityscapes' _color
    by_stem = {mask[: -len(suffix_of(mask))]: mask for mask in masks}
    return {first + name: second + by_stem[stem + end] for stem, name in stems.items() if stem + end in by_stem}


def _common_word(stems: list[str]) -> str:
    """The word that several names end in, as Cityscapes' ``_leftImg8bit``; empty where there is none."""
    found = {match[0] if (match := _LAST_WORD.search(stem)) else "" for stem in stems}
    return found.pop() if len(found) == 1 and len(stems) > 1 else ""


def _beginnings(stem: str) -> list[str]:
    """A name itself, and what is before each of its words."""
    return [stem] + [stem[:index] for index, letter in enumerate(stem) if letter in "_-."]


def _listed(tree: Tree) -> dict[str, str]:
    """The part of each name in ``ImageSets/Segmentation``."""
    splits = {}
    for split in ("test", "val", "train"):
        for file in (name for name in tree.files if name.endswith(f"ImageSets/Segmentation/{split}.txt")):
            splits.update({line.strip(): split for line in tree.text(file).splitlines() if line.strip()})
    return splits


def _split(image: str, listed: dict[str, str]) -> str:
    return listed.get(PurePosixPath(image).stem, "") if listed else split_of_folder(image) or split_of(image)


def note_places(found: Found) -> None:
    """Write down the folders and suffixes with which mmseg finds the pairs of each part, where it can."""
    found.suffixes, found.prefixes = None, {}
    ends = {(suffix := PurePosixPath(i.image).suffix, _end(i.image, suffix, i.mask)) for i in found.items}
    places: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for item in found.items:
        places[item.split].add((parent_of(item.image), parent_of(item.mask)))
    if len(ends) == 1 and all(len(folders) == 1 for folders in places.values()):
        found.suffixes = next(iter(ends))
        found.prefixes = {split: next(iter(folders)) for split, folders in places.items()}


def _end(image: str, suffix: str, mask: str) -> str:
    return PurePosixPath(mask).name.removeprefix(PurePosixPath(image).name.removesuffix(suffix))


# --- Numbers and names ------------------------------------------------------------------------------------------------


def _number(tree: Tree, found: Found, classes: list[str]) -> None:
    """Give each number, or colour, in the masks a label, and each label a name."""
    masks = [item.mask for item in found.items]
    some = [masks[index] for index in spread(len(masks), MOST)]
    if len(some) < len(masks):
        found.decided.append(f"{len(some):,} of {len(masks):,} masks were opened to see their numbers")
    colours = _labelmap(tree)
    if colours:
        seen = set().union(*(_colours(tree, mask) for mask in some))
        names = list(colours)
        if unknown := sorted(seen - {*colours.values()}):
            raise UserError(f"masks have colours that labelmap.txt does not name: {first_few(map(str, unknown))}")
        found.colours = {colour: label for label, colour in enumerate(colours.values())}
        found.classes, found.names_from = classes or names, "--classes" if classes else "labelmap.txt"
        if len(found.classes) != len(names):
            raise UserError(f"--classes has {len(found.classes)} names, labelmap.txt {len(names)}")
        found.decided.append("masks are in colours: numbers are made of them as labelmap.txt says")
        _check_number_of_classes(tree, found)
        return
    numbers: set[int] = set()
    for mask in some:
        image = read_mask(tree.path(mask))
        numbers |= _numbers(tree, mask, image, some)
        found.in_channels |= len(image.getbands()) > 1
    given, found.names_from = (classes, "--classes") if classes else _names(tree)
    found.classes, found.values = _labels(tree, sorted(numbers), given, found)
    _check_number_of_classes(tree, found)


def _check_number_of_classes(tree: Tree, found: Found) -> None:
    """Refuse more classes than a mask of 8 bits tells apart, which all that reads masks of labels takes them for."""
    if len(found.classes) > IGNORED:
        raise UserError(
            f"masks of {tree.folder} would be of {len(found.classes)} classes, and masks of labels have 8 bits: "
            f"{IGNORED} classes at most. If each number is an object, counted anew in each image, write their outlines "
            "as COCO has them: then they are learnt as objects"
        )


def _numbers(tree: Tree, mask: str, image: Image.Image, masks: list[str]) -> set[int]:
    if len(image.getbands()) > 1:
        pixels = np.asarray(image.convert("RGB"))
        if not (pixels == pixels[..., :1]).all():
            own = _colours(tree, mask)
            seen = set().union(*(_colours(tree, other) for other in masks[:_FEW])) - own
            lines = first_few((f"NAME:{r},{g},{b}::" for r, g, b in (*sorted(own), *sorted(seen))), 20)
            raise UserError(
                f"{tree.path(mask)} is in colours, and nothing says which class each is. Write a line for each "
                f"into {tree.folder / 'labelmap.txt'}: {lines}"
            )
        return set(np.unique(pixels).tolist())
    return {int(number) for number in np.unique(np.asarray(image))}


def _colours(tree: Tree, mask: str) -> set[Colour]:
    pixels = np.asarray(read_mask(tree.path(mask)).convert("RGB")).astype(np.int64)
    codes = np.unique(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2])
    return {(int(code >> 16), int(code >> 8 & 255), int(code & 255)) for code in codes}


def read_mask(path: Path) -> Image.Image:
    """A mask as it is stored, decoded.

    Raises:
        UserError: It cannot be read to its end.
    """
    try:
        check_is_file(path)
        with Image.open(path) as image:
            image.load()
            return image
    except OSError as error:
        raise UserError(f"the mask {path} cannot be read: {error}") from error


def _labelmap(tree: Tree) -> dict[str, Colour]:
    """Names and colours as CVAT writes them: ``name:r,g,b:parts:actions``, a line each."""
    files = [name for name in tree.files if PurePosixPath(name).name == "labelmap.txt"]
    found: dict[str, Colour] = {}
    for line in tree.text(files[0]).splitlines() if files else ():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(":")
            try:
                red, green, blue = (int(number) for number in rest.split(":")[0].split(","))
            except ValueError:
                raise UserError(f"{tree.path(files[0])}: {line!r} should be NAME:red,green,blue::") from None
            found[name.strip()] = red, green, blue
    return found


def _names(tree: Tree) -> tuple[list[str], str]:
    """Names of classes in a file beside the masks, and the file."""
    for name in tree.files:
        if PurePosixPath(name).name == "_classes.csv":
            rows = [
                row for row in csv.reader(tree.text(name).splitlines()) if len(row) >= 2 and row[0].strip().isdecimal()
            ]
            if rows:
                return [row[1].strip() for row in sorted(rows, key=lambda row: int(row[0]))], name
    for name in tree.files:
        if PurePosixPath(name).name == "classes.txt":
            return [line.strip() for line in tree.text(name).splitlines() if line.strip()], name
    return [], "the numbers in the masks"


def _labels(tree: Tree, numbers: list[int], names: list[str], found: Found) -> tuple[list[str], dict[int, int]]:
    """The classes, and the label of each number."""
    top = numbers[-1]
    if len(numbers) == 1:
        raise UserError(f"every mask of {tree.folder} is {numbers[0]} alone: there is nothing to tell apart")
    if len(numbers) == 2 and numbers[0] == 0 and len(names) in (0, 2):
        found.decided.append(f"masks hold 0 and {top}: 0 is the first class, {top} the second")
        return names or ["background", "foreground"], {0: 0, top: 1}
    labels = [number for number in numbers if number != IGNORED]
    ignored = "; 255 is ignored" if IGNORED in numbers else ""
    values = {IGNORED: IGNORED} if ignored else {}
    if len(names) == 1 and labels[-1] <= 1:
        raise UserError(
            f"masks of {tree.folder} hold {first_few(map(str, numbers))}, and {found.names_from} names one class: "
            f"a pixel is of one of two or more. Name what 0 is, too: --classes background {names[0]}"
        )
    if names and labels[-1] == len(names):
        found.decided.append(
            f"{len(names)} names and numbers up to {labels[-1]}: 0 is ignored, 1 is {names[0]!r}{ignored}"
        )
        return names, values | {0: IGNORED} | {number: number - 1 for number in range(1, len(names) + 1)}
    if names and labels[-1] < len(names):
        found.decided.append(f"0 is {names[0]!r}{ignored}")
        return names, values | {number: number for number in range(len(names))}
    if names and len(names) != len(labels):
        raise UserError(
            f"masks of {tree.folder} hold {len(labels)} numbers ({first_few(map(str, labels), 12)}), and there are "
            f"{len(names)} names from {found.names_from}: say one for each, --classes NAME NAME ..."
        )
    if not names and labels[-1] < 2 * len(labels) + 8:  # numbers of classes, of which some may be rare
        names = ["background" if number == 0 else f"class_{number}" for number in range(labels[-1] + 1)]
        found.decided.append(
            f"the masks hold {labels[0]} to {labels[-1]}, and nothing names them: {len(names)} classes, 0 the "
            f"background, a class like any{ignored}. Name them: --classes NAME NAME ...; one name fewer ignores 0"
        )
        return names, values | {number: number for number in range(len(names))}
    found.decided.append(f"the numbers {first_few(map(str, labels), 12)} become 0 to {len(labels) - 1}{ignored}")
    return names or [f"class_{n}" for n in labels], values | {number: label for label, number in enumerate(labels)}
