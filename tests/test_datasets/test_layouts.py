"""What is read out of folders of every format, what is refused, and how parts are drawn."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyetoy_mm.datasets.coco_format import read_json
from eyetoy_mm.datasets.layouts import look_at
from eyetoy_mm.datasets.layouts.common import check_parts, split_of
from eyetoy_mm.datasets.layouts.parts import draw_parts
from eyetoy_mm.datasets.layouts.written import needs_masks, write_coco, write_labels, write_masks
from eyetoy_mm.errors import UserError
from tests import own_folders
from tests.own_folders import CLASSES, FOLDERS, PICTURES, SIZE

TASKS = dict.fromkeys(FOLDERS, "segmentation") | {
    "coco": "instances", "yolo": "detection", "yolo-outlines": "instances", "yolo-cvat": "detection",
    "voc": "detection", "cvat": "instances", "labelme": "instances", "class-folders": "classification",
    "class-folders-in-parts": "classification",
}  # fmt: skip


def made(name: str, root: Path) -> Path:
    FOLDERS[name][0](root)
    return root


@pytest.mark.parametrize("name", FOLDERS)
def test_every_format_says_what_was_put_into_it(name, tmp_path):
    found = look_at(made(name, tmp_path / "data"))
    assert (found.format, found.task) == (FOLDERS[name][1], TASKS[name])
    if FOLDERS[name][2]:
        assert {item.split for item in found.items} == {
            "train" if name == "yolo-cvat" else ""
        }  # which lists all as such
        with pytest.raises(UserError, match="(nothing parts the 6 images|no images for validation).* --val-share 0.1"):
            check_parts(found)
    else:
        check_parts(found)
        parts = {split: {Path(item.image).stem for item in found.of(split)} for split in PICTURES}
        assert parts == {split: set(pictures) for split, pictures in PICTURES.items()}
    truth = PICTURES["train"] | PICTURES["val"]
    for item in found.items:
        label, box = truth[Path(item.image).stem]
        if found.task in ("instances", "detection"):
            assert found.classes == list(CLASSES) and item.size == SIZE
            assert [thing.label for thing in item.things] == [CLASSES[label]]
            assert np.allclose(item.things[0].box, box, atol=0.01)
        elif found.task == "classification":
            assert found.classes == list(CLASSES) and item.label == CLASSES[label]
        else:
            assert Path(item.mask).stem.removesuffix("_mask") == Path(item.image).stem


@pytest.mark.parametrize("name", ["masks", "masks-roboflow", "masks-cvat", "masks-binary"])
def test_masks_become_the_labels_that_were_painted(name, tmp_path):
    found = look_at(made(name, tmp_path / "data"))
    write_masks(found, tmp_path / "out")
    for stem, (label, box) in (PICTURES["train"] | PICTURES["val"]).items():
        (path,) = (tmp_path / "out").rglob(f"{stem}.*.png")
        painted = own_folders.labels_of(label, box)
        assert np.array_equal(np.asarray(Image.open(path)), painted > 0 if name == "masks-binary" else painted)
    assert len(found.classes) == (2 if name == "masks-binary" else 3)


def test_masks_in_folders_called_as_camvids_are_found(tmp_path):
    """``train`` and ``trainannot``, with the same names in both."""
    for split, pictures in PICTURES.items():
        (tmp_path / f"{split}annot").mkdir()
        for stem, (label, box) in pictures.items():
            own_folders.picture(tmp_path / split / f"{stem}.png", label, box)
            Image.fromarray(own_folders.labels_of(label, box)).save(tmp_path / f"{split}annot" / f"{stem}.png")
    found = look_at(tmp_path)
    assert {(item.image, item.mask) for item in found.items} == {
        (f"{split}/{stem}.png", f"{split}annot/{stem}.png") for split in PICTURES for stem in PICTURES[split]
    }
    check_parts(found)


def test_masks_of_one_channel_are_made_of_grey_ones_in_three(tmp_path):
    """mmseg reads numbers from one channel alone."""
    assert not needs_masks(look_at(made("masks", tmp_path / "data")))
    for path in (tmp_path / "data/masks").rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    found = look_at(tmp_path / "data")
    assert found.values == {0: 0, 1: 1, 2: 2} and needs_masks(found)
    write_masks(found, tmp_path / "out")
    written = np.asarray(Image.open(tmp_path / "out/images/train/a.jpg.png"))
    assert np.array_equal(written, own_folders.labels_of(*PICTURES["train"]["a"]))


def test_a_name_for_each_number_but_0_ignores_it(tmp_path):
    made("masks", tmp_path)
    found = look_at(tmp_path, classes=["disc", "square"])
    assert found.classes == ["disc", "square"] and found.values == {0: 255, 1: 0, 2: 1}
    assert any("0 is ignored" in decision for decision in found.decided)


def test_coco_files_are_read_by_pycocotools_as_they_were_written(tmp_path):
    from pycocotools.coco import COCO

    found = look_at(made("yolo-outlines", tmp_path / "data"))
    write_coco(found, "train", tmp_path / "train.json")
    coco = COCO(tmp_path / "train.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for image in coco.imgs.values():
        label, box = PICTURES["train"][Path(image["file_name"]).stem]
        (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert np.allclose(annotation["bbox"], box, atol=0.01) and annotation["category_id"] == label + 1
        x, y, w, h = box
        assert coco.annToMask(annotation)[y : y + h, x : x + w].all() and annotation["area"] == w * h


def test_annotation_files_are_looked_for_once(tmp_path, monkeypatch):
    """Those of COCO are hundreds of megabytes: one reading finds what they are, another what they say."""
    made("coco", tmp_path)
    read = []
    monkeypatch.setattr("eyetoy_mm.datasets.layouts.coco.read_json", lambda path: read.append(path) or read_json(path))
    look_at(tmp_path)
    assert sorted(path.parent.name for path in read) == ["train", "train", "valid", "valid"]


def test_of_coco_those_categories_are_learnt_that_are_asked_for(tmp_path):
    made("coco", tmp_path)
    found = look_at(tmp_path, classes=["square"])
    assert found.classes == ["square"] and found.counts() == {"square": 3}
    with pytest.raises(UserError, match="circle is no category of .*, which has disc, square"):
        look_at(tmp_path, classes=["circle"])


def test_images_of_cvat_may_be_in_a_folder_of_their_subset(tmp_path):
    made("cvat", tmp_path)
    for split, pictures in PICTURES.items():
        (tmp_path / "images" / split).mkdir()
        for stem in pictures:
            (tmp_path / "images" / f"{stem}.png").rename(tmp_path / "images" / split / f"{stem}.png")
    images = {f"images/{split}/{stem}.png" for split, pictures in PICTURES.items() for stem in pictures}
    assert {item.image for item in look_at(tmp_path).items} == images
    shutil.copytree(tmp_path / "images/train", tmp_path / "copies")
    with pytest.raises(UserError, match="the image a.png, which is there 2 times: copies/a.png, images/train/a.png"):
        look_at(tmp_path)


def test_shapes_of_labelme(tmp_path):
    """A group is one object, a circle has its outline, a painted mask its pixels, a line is left out and told."""
    import base64
    import io

    file = io.BytesIO()
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(file, format="PNG")
    mask = base64.b64encode(file.getvalue()).decode()
    shapes = [
        dict(label="disc", shape_type="polygon", points=[[0, 0], [4, 0], [4, 4]], group_id=7),
        dict(label="disc", shape_type="polygon", points=[[10, 10], [14, 10], [14, 14]], group_id=7),
        dict(label="disc", shape_type="circle", points=[[30, 20], [30, 30]]),
        dict(label="square", shape_type="mask", points=[[40, 8], [46, 12]], mask=mask),
        dict(label="square", shape_type="line", points=[[0, 0], [9, 9]]),
    ]
    own_folders.picture(tmp_path / "a.jpg", 0, (8, 8, 24, 16))
    content = dict(shapes=shapes, imagePath="a.jpg", imageWidth=SIZE[0], imageHeight=SIZE[1])
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = look_at(tmp_path)
    group, circle, painted = found.items[0].things
    assert group.box == (0, 0, 14, 14) and len(group.outline) == 2
    assert np.allclose(circle.box, (20, 10, 20, 20)) and found.task == "instances"
    assert painted.box == (40, 8, 6, 4)
    assert found.decided == ["1 shapes of kind line have no area: left out"]


CVAT = "<annotations><image name='a.png' width='64' height='48'>{}</image></annotations>"

# --- What is refused --------------------------------------------------------------------------------------------------


def test_several_formats_are_refused_until_one_is_named(tmp_path):
    made("masks", tmp_path)
    made("yolo", tmp_path)
    with pytest.raises(UserError, match=r"several formats.*\n  --data-format yolo: .*\n  --data-format masks: images/"):
        look_at(tmp_path)
    assert look_at(tmp_path, "masks").task == "segmentation"
    found = look_at(tmp_path, "yolo")
    assert len(found.items) == 6 and "12 images are in folders without a label file: left out" in found.decided


@pytest.mark.parametrize("name", ["voc", "cvat", "labelme"])
def test_names_that_leave_classes_out_are_refused(name, tmp_path):
    made(name, tmp_path)
    assert look_at(tmp_path, classes=["square", "disc"]).names_from == "--classes"
    with pytest.raises(UserError, match="are of 'square', which is none of the classes from --classes: disc, circle"):
        look_at(tmp_path, classes=["disc", "circle"])


@pytest.mark.parametrize("name", ["yolo", "masks-binary", "class-folders"])
def test_images_that_are_not_read_are_told_with_what_to_do(name, tmp_path):
    """HEIC as phones write it, GIF as the web has it: a person counts on them."""
    made(name, tmp_path)
    first, second, *_ = sorted(
        p for p in tmp_path.rglob("*.*") if p.suffix in (".jpg", ".png") and "mask" not in str(p)
    )
    first.rename(first.with_suffix(".HEIC"))
    second.rename(second.with_suffix(".gif"))
    found = look_at(tmp_path)
    assert len(found.items) == 4
    (told,) = (decision for decision in found.decided if "not read" in decision)
    assert told.startswith("left out: 2 images in formats that are not read (1 of .")
    assert "1 of .heic" in told and "1 of .gif" in told and "convert to JPEG or PNG" in told


def test_images_that_are_not_read_are_told_with_what_is_refused(tmp_path):
    made("voc", tmp_path)
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/a.gif")
    with pytest.raises(UserError, match=r"no such image is there\nBesides there: 1 image in .* \(1 of .gif\)"):
        look_at(tmp_path)
    made("class-folders", tmp_path / "all")
    for path in (tmp_path / "all").rglob("*.jpg"):
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(UserError, match="has no image .*These are 6 images in .*6 of .heic.*mogrify"):
        look_at(tmp_path / "all")


def test_an_image_that_annotations_list_is_none_of_those(tmp_path):
    """OpenCV may read it, and whether it does is seen when it is opened."""
    made("coco", tmp_path)
    (tmp_path / "train/a.jpg").rename(tmp_path / "train/a.gif")
    file = tmp_path / "train/_annotations.coco.json"
    file.write_text(file.read_text().replace("a.jpg", "a.gif"))
    found = look_at(tmp_path)
    assert len(found.items) == 6 and not any("not read" in decision for decision in found.decided)


def test_archives_are_to_be_unpacked(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="data.zip is an archive: unpack it"):
        look_at(tmp_path / "data.zip")
    with pytest.raises(UserError, match="has no image .*Unpack data.zip"):
        look_at(tmp_path)


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_links_to_themselves_and_pipes_end_in_no_traceback(kind, tmp_path):
    """A file of each suffix is one of them; a pipe would be waited for."""
    make, _, _ = FOLDERS[kind]
    make(tmp_path)
    files = {path.suffix: path for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for number, path in enumerate(files.values()):
        path.unlink()
        path.symlink_to(path.name) if number % 2 else os.mkfifo(path)
    with contextlib.suppress(UserError):
        draw_parts(look_at(tmp_path), 0.3, 0)


def test_folders_may_be_links_and_lead_back(tmp_path):
    made("class-folders", tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    for name in CLASSES:
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "data/again").symlink_to(tmp_path / "data")
    assert len(look_at(tmp_path / "data").items) == 6


def test_class_folders_may_lie_deeper(tmp_path):
    made("class-folders-in-parts", tmp_path / "images" / "v1")
    found = look_at(tmp_path)
    assert found.classes == list(CLASSES)
    assert found.prefixes == {split: (f"images/v1/{split}",) for split in PICTURES}


def test_masks_of_cityscapes_are_found_by_what_names_begin_with(tmp_path):
    """Images end in a word, too, and of the masks those of labels are meant."""
    for split, pictures in PICTURES.items():
        for stem, (label, box) in pictures.items():
            own_folders.picture(tmp_path / f"leftImg8bit/{split}/ulm/{stem}_000_leftImg8bit.png", label, box)
            for kind in ("color", "labelIds"):
                mask = tmp_path / f"gtFine/{split}/ulm/{stem}_000_gtFine_{kind}.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(own_folders.labels_of(label, box)).save(mask)
    found = look_at(tmp_path)
    assert (found.format, len(found.items)) == ("masks", 6)
    ends = ("_leftImg8bit.png", "_gtFine_labelIds.png")
    assert all(Path(i.image).name.removesuffix(ends[0]) == Path(i.mask).name.removesuffix(ends[1]) for i in found.items)
    write_masks(found, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6


def test_what_is_near_a_format_is_told(tmp_path):
    own_folders.picture(tmp_path / "one/train/cat/a.jpg", 0, (8, 8, 24, 16))
    with pytest.raises(UserError, match="All images are of one class, cat: a classifier"):
        look_at(tmp_path / "one")
    made("masks-binary", tmp_path / "masks")
    for path in (tmp_path / "masks/masks").glob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(UserError, match="masks/ may hold masks, but as .jpg: save them as PNG"):
        look_at(tmp_path / "masks")


def test_unknown_folders_are_refused_with_what_is_in_them(tmp_path):
    own_folders.picture(tmp_path / "x" / "a.jpg", 0, (8, 8, 24, 16))
    (tmp_path / "x" / "a.dat").touch()
    with pytest.raises(UserError, match=r"of no format that is known.*1 of .dat, 1 of .jpg; folders: x"):
        look_at(tmp_path)
    with pytest.raises(UserError, match="no image"):
        look_at(Path(__file__).parent)
    with pytest.raises(UserError, match="nothing of the format coco"):
        look_at(tmp_path, "coco")


@pytest.mark.parametrize("where", ["{name}/{split}", "{split}{number}/{name}"])
def test_parts_without_a_folder_of_their_own_are_listed(where, tmp_path):
    """Folders of parts in those of classes, or several of one part: a folder of classes would be of other images."""
    for split, pictures in PICTURES.items():
        for number, (stem, (label, box)) in enumerate(pictures.items()):
            folder = where.format(name=CLASSES[label], split=split, number=number // 2)
            own_folders.picture(tmp_path / folder / f"{stem}.jpg", label, box)
    found = look_at(tmp_path)
    assert found.prefixes == {}
    for split, pictures in PICTURES.items():
        write_labels(found, split, tmp_path / f"{split}.txt")
        lines = map(str.split, (tmp_path / f"{split}.txt").read_text().splitlines())
        assert {(Path(image).stem, int(label)) for image, label in lines} == {(s, n) for s, (n, _) in pictures.items()}


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("yolo", "train/labels/a.txt", "5 0.5 0.5 0.1 0.1\n", "class 5, and there are 2 names"),
        ("yolo", "train/labels/a.txt", "0 0.5 0.5 0.1 0.1 0.9\n", "neither a box .4. nor an outline"),
        ("yolo", "train/labels/a.txt", "0 0.5 0.5 0.1 0.1\ncat 1 2 3 4\n", "line 2: 'cat 1 2 3 4' is not"),
        ("yolo", "data.yaml", "names: [a\n", "is no YAML"),
        ("yolo", "data.yaml", "names: [disc, square]\nkpt_shape: [17, 3]\n", "0 numbers after the class are neither"),
        ("yolo", "data.yaml", "names: {1: disc, 2: square}\n", "has names for 1, 2: number them from 0 on"),
        ("yolo", "data.yaml", "names: {disc: 0, square: 1}\n", "has names for disc, square: number them from 0 on"),
        ("yolo", "train/labels/a.txt", "0 0.5 .. 0.1 0.1\n", "line 1: '0 0.5 .. 0.1 0.1' is not"),
        ("cvat", "annotations.xml", CVAT.format("").replace("width", "x"), "width of <image> is None, no number"),
        ("cvat", "annotations.xml", CVAT.format("<box xtl='1' ytl='b'/>"), "ytl of <box> is 'b', no number"),
        ("cvat", "annotations.xml", CVAT.format("<polygon points='1,x'/>"), "points of <polygon> is 'x', no number"),
        ("cvat", "annotations.xml", CVAT.format("<polygon points='1,2;3'/>"), "points of <polygon> are 3 numbers"),
        ("coco", "train/_annotations.coco.json", '{"images": [], "annotations": [3], "categories": []}', "COCO format"),
        ("labelme", "a.json", '[{"shapes": []}]', "is not as labelme writes it"),
        ("coco", "train/_annotations.coco.json", '{"images": [', "is not JSON"),
        ("voc", "Annotations/a.xml", "<annotation><object>", "XML that cannot be read"),
        ("labelme", "a.json", '{"shapes": [{"points": 1}], "imagePath": "a.jpg"}', "is not as labelme writes it"),
        ("masks-cvat", "labelmap.txt", "background:0,0,0::\n", "colours that labelmap.txt does not name"),
        ("masks", "classes.txt", "a\n", "hold 3 numbers .0, 1, 2., and there are 1 names"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(name, file, text, message, tmp_path):
    made(name, tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        look_at(tmp_path)


def test_one_name_for_masks_of_two_numbers_is_refused(tmp_path):
    """It was given to 0, and what is painted with 255 was ignored: the reverse of what is meant."""
    made("masks-binary", tmp_path)
    with pytest.raises(UserError, match="hold 0, 255, and --classes names one class: .*--classes background nucleus"):
        look_at(tmp_path, None, ["nucleus"])


def test_more_classes_than_a_mask_of_8_bits_tells_apart_are_refused(tmp_path):
    """As masks whose numbers are objects have them; it was an OverflowError where the labels are written."""
    made("masks", tmp_path)
    (tmp_path / "classes.txt").unlink()
    (path,) = tmp_path.rglob("a.png")
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) // 10).save(path)
    with pytest.raises(UserError, match="would be of 308 classes.* 255 classes at most"):
        look_at(tmp_path)


@pytest.mark.parametrize("name", ["masks", "masks-cvat"])
def test_masks_that_end_too_early_are_named(name, tmp_path):
    made(name, tmp_path)
    (path,) = tmp_path.rglob("a.png")
    noise = np.random.default_rng(0).integers(0, 3, (48, 64)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"the mask .*a\.png cannot be read: .*truncated"):
        look_at(tmp_path)


def test_photos_that_nobody_has_labelled_and_tables_are_told_what_to_do(tmp_path):
    own_folders.picture(tmp_path / "a.jpg", 0, (8, 8, 24, 16))
    with pytest.raises(UserError, match="Nothing says what is in these images: label them"):
        look_at(tmp_path)
    (tmp_path / "_annotations.csv").write_text("filename,class\na.jpg,disc\n")
    with pytest.raises(
        UserError, match="_annotations.csv is a table, which is not read: export the annotations as COCO"
    ):
        look_at(tmp_path)


def test_colours_without_names_are_shown(tmp_path):
    made("masks-cvat", tmp_path)
    (tmp_path / "labelmap.txt").unlink()
    with pytest.raises(UserError, match="labelmap.txt: NAME:0,0,0::, NAME:250,50,83::, NAME:51,221,255::"):
        look_at(tmp_path)


# --- Parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [False, True], ids=["two classes", "masks"])
def test_folders_with_the_same_names_are_classes_unless_they_hold_masks(tmp_path, masks):
    rng = np.random.default_rng(0)
    for folder in ("Äpfel rot", "Birnen"):
        for number in range(4):
            pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            if masks and folder == "Birnen":
                pixels = np.where(pixels[..., 0] > 128, 255, 0).astype(np.uint8)
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    if masks:
        with pytest.raises(UserError, match="is of no format that is known"):
            look_at(tmp_path)
    else:
        found = look_at(tmp_path)
        assert found.classes == ["Birnen", "Äpfel rot"] and "same names are classes" in found.decided[0]


def test_copies_are_never_on_both_sides(tmp_path):
    """Byte for byte, and variants of one photo that Roboflow made."""
    made("class-folders", tmp_path)
    for number in range(6):
        shutil.copy(tmp_path / "disc/a.jpg", tmp_path / f"disc/copy{number}.jpg")
        letter = "abcdef"[number]
        own_folders.picture(tmp_path / f"square/photo_jpg.rf.{letter * 16}.jpg", 1, (1, 1, 5 + number, 9))
    for seed in range(8):
        found = look_at(tmp_path)
        draw_parts(found, 0.3, seed)
        sides = {stem: {i.split for i in found.items if stem(i.image)} for stem in (_is_copy, _is_variant)}
        assert all(len(side) == 1 for side in sides.values())
        assert {item.label for item in found.of("val")} == set(CLASSES) == {item.label for item in found.of("train")}
    again = look_at(tmp_path)
    draw_parts(again, 0.3, seed)
    assert [item.split for item in again.items] == [item.split for item in found.items]


def _is_copy(image: str) -> bool:
    return "copy" in image or image == "disc/a.jpg"


def _is_variant(image: str) -> bool:
    return ".rf." in image


def test_test_images_are_not_drawn(tmp_path):
    made("yolo", tmp_path)
    own_folders.picture(tmp_path / "test/images/z.jpg", 0, (8, 8, 24, 16))
    own_folders.write(tmp_path / "test/labels/z.txt", "0 0.5 0.5 0.2 0.2\n")
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("test: test/images\n")
    found = look_at(tmp_path)
    draw_parts(found, 0.5, 0)
    assert [item.image for item in found.of("test")] == ["test/images/z.jpg"]
    assert len(found.of("val")) == len(found.of("train")) == 3


def test_shares_that_are_none_are_refused(tmp_path):
    found = look_at(made("class-folders", tmp_path))
    with pytest.raises(UserError, match="--val-share 10 should be a fraction"):
        draw_parts(found, 10, 0)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("images/train2017/a.jpg", "train"), ("annotations/instances_val2017.json", "val"), ("valid/x", "val"),
        ("annotations/instances_default.json", ""), ("trains/a", ""), ("Testing/a", "test"), ("retrain/contest/a", ""),
    ],
)  # fmt: skip
def test_words_that_say_a_part(name, split):
    assert split_of(name) == split
