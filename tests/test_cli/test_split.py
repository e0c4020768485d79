"""Splits of a folder of images per class, from the function and from the command line."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eyetoy_mm.cli import main
from eyetoy_mm.datasets.splits import split_classes
from eyetoy_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def make(root: Path, **counts: int) -> Path:
    """A folder with so many images of each class; a split looks at their names alone."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03}.jpg").touch()
    return root


def test_lists_divide_every_class(tmp_path):
    root = make(tmp_path, bee=10, ant=12)
    train, val = split_classes(root, 7)
    assert list(train) == list(val) == ["ant", "bee"]
    for name, count in (("ant", 12), ("bee", 10)):
        assert len(train[name]) == 7 and len(val[name]) == count - 7
        assert sorted(train[name] + val[name]) == [f"{name}/{number:03}.jpg" for number in range(count)]
        assert train[name] == sorted(train[name]) and val[name] == sorted(val[name])


def test_a_link_that_leads_back_counts_no_image_twice(tmp_path):
    root = make(tmp_path, ant=3, bee=3)
    (root / "ant/loop").symlink_to(root)
    (root / "itself").symlink_to("itself")
    train, val = split_classes(root, 2)
    assert sorted(train["ant"] + val["ant"]) == ["ant/000.jpg", "ant/001.jpg", "ant/002.jpg"]


@pytest.mark.parametrize("name", ["new\nline", "\udce9"])
def test_names_that_no_list_can_have(tmp_path, name):
    root = make(tmp_path, ant=3, bee=3)
    (root / "bee/000.jpg").rename(root / f"bee/{name}.jpg")
    with pytest.raises(UserError, match="cannot stand in a list"):
        split_classes(root, 2)
    (root / "bee").rename(root / name)
    with pytest.raises(UserError, match="cannot stand in a list"):
        split_classes(root, 2)


def test_seeds(tmp_path):
    root = make(tmp_path, ant=20, bee=20, cat=20)
    drawn = split_classes(root, 10, seed=3)
    assert split_classes(root, 10, seed=3) == drawn
    assert split_classes(root, 10, seed=4) != drawn
    train = drawn[0]
    numbers = {name: [path.split("/")[1] for path in paths] for name, paths in train.items()}
    assert numbers["ant"] != numbers["bee"]  # classes are drawn apart from each other,
    assert split_classes(root, 10, exclude=["ant"], seed=3)[0] == {name: train[name] for name in ("bee", "cat")}
    assert all(set(paths) < set(split_classes(root, 11, seed=3)[0][name]) for name, paths in train.items())


def test_a_known_draw(tmp_path):
    """The lists of a seed are those of every machine and version."""
    train, _ = split_classes(make(tmp_path, ant=10, bee=10), 3)
    assert train == {
        "ant": ["ant/007.jpg", "ant/008.jpg", "ant/009.jpg"],
        "bee": ["bee/002.jpg", "bee/004.jpg", "bee/006.jpg"],
    }


@pytest.mark.parametrize(
    ("train", "expected"), [(0.8, (1, 4, 8)), (0.5, (1, 2, 5)), (0.01, (1, 1, 1)), (0.99, (1, 4, 9)), (1, (1, 1, 1))]
)
def test_fractions_leave_an_image_for_either_list(tmp_path, train, expected):
    root = make(tmp_path, a=2, b=5, c=10)
    lists, others = split_classes(root, train)
    assert tuple(map(len, lists.values())) == expected
    assert tuple(map(len, others.values())) == tuple(c - e for c, e in zip((2, 5, 10), expected))


def test_validation_images_at_most(tmp_path):
    _, val = split_classes(make(tmp_path, a=5, b=9), 4, val=3)
    assert [len(paths) for paths in val.values()] == [1, 3]


def test_what_is_no_image_is_left_out(tmp_path):
    root = make(tmp_path, a=2, b=2)
    (root / "a/deep/er").mkdir(parents=True)
    for name in ("a/deep/er/UPPER.JPEG", "a/notes.txt", "a/.hidden.jpg", "a/jpg", "a/annotation.mat", "beside.jpg"):
        (root / name).touch()
    make(root / "b/.ipynb_checkpoints", copies=3)
    make(root, **{".hidden": 3})
    train, val = split_classes(root, 1)
    assert {name: sorted(train[name] + val[name]) for name in train} == {
        "a": ["a/000.jpg", "a/001.jpg", "a/deep/er/UPPER.JPEG"],
        "b": ["b/000.jpg", "b/001.jpg"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(train=0), "must be a whole number or a fraction between 0 and 1, got 0"),
        (dict(train=1.5), "fraction between 0 and 1, got 1.5"),
        (dict(train=float("nan")), "got nan"),
        (dict(train=float("inf")), "got inf"),
        (dict(train=1, val=0), "validation images of a class must be at least 1, got 0"),
        (dict(train=1, exclude=["fox"]), "cannot exclude fox: no such class in .*, which has a, b, c"),
        (dict(train=1, exclude=["a", "b"]), "needs two classes, but .* leaves c"),
        (dict(train=1, exclude=["a", "b", "c"]), "needs two classes, but .* leaves none"),
        (dict(train=4), r"needs 5 images, one of them for validation; too few: a \(1\), b \(4\)"),
        (dict(train=0.5), r"needs 2 images, one of them for validation; too few: a \(1\)$"),
    ],
)
def test_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        split_classes(make(tmp_path, a=1, b=4, c=9), **arguments)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(UserError, match=f"there is no folder {re.escape(str(tmp_path / 'none'))}"):
        split_classes(tmp_path / "none", 1)
    with pytest.raises(UserError, match="has no class folders"):
        split_classes(tmp_path, 1)
    make(tmp_path, a=2, b=2, empty=0)
    with pytest.raises(UserError, match="the class 'empty' has no image"):
        split_classes(tmp_path, 1)
    assert list(split_classes(tmp_path, 1, exclude=["empty"])[0]) == ["a", "b"]
    make(tmp_path, **{f"class{number}": 1 for number in range(10, 30)})
    with pytest.raises(UserError, match=r"cannot exclude fox: .* has a, b, class10, .* and 15 more"):
        split_classes(tmp_path, 1, exclude=["fox"])


def tool(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/split_classes.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_command_line(tmp_path):
    make(tmp_path / "disk/images", **{"ant": 5, "big cat": 8, "clutter": 3})
    (tmp_path / "data").mkdir()
    images = tmp_path / "data/images"
    images.symlink_to(tmp_path / "disk/images")
    done = tool(images, "--train", 3, "--exclude", "clutter")
    assert done.returncode == 0, done.stderr
    assert re.search(r"train.txt: 6 images, 3 of each class\n.*val.txt: 7 images, 2 to 5 of each class\n", done.stdout)
    assert "2 classes, without clutter; seed 0" in done.stdout and "num_classes=2" in done.stdout
    meta = tmp_path / "data/meta"  # beside the link
    assert (meta / "classes.txt").read_text() == "ant\nbig cat\n"
    train, val = split_classes(images, 3, exclude=["clutter"])
    for name, split in (("train", train), ("val", val)):
        expected = [f"{path} {label}" for label, paths in enumerate(split.values()) for path in paths]
        assert (meta / f"{name}.txt").read_text().splitlines() == expected


def test_images_of_other_formats_are_told(tmp_path, capsys):
    make(tmp_path / "images", a=3, b=3)
    (tmp_path / "images/b/phone.HEIC").touch()
    main(["split", str(tmp_path / "images")])
    assert "Left out: 1 image in formats that are not read (1 of .heic): convert to JPEG" in capsys.readouterr().out
    for path in (tmp_path / "images/a").iterdir():
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(SystemExit, match="the class 'a' has no image .*: it has 3 images in .*3 of .gif"):
        main(["split", str(tmp_path / "images")])


def test_of_other_formats_are_told_those_of_links_and_none_that_is_hidden(tmp_path, capsys):
    make(tmp_path / "images", a=3, b=3)
    make(tmp_path / "disk", phone=0)
    (tmp_path / "disk/phone/1.heic").touch()
    (tmp_path / "images/a/phone").symlink_to(tmp_path / "disk/phone")
    (tmp_path / "images/a/.trash").mkdir()
    (tmp_path / "images/a/.trash/2.heic").touch()
    (tmp_path / "images/b/._3.heic").touch()
    main(["split", str(tmp_path / "images")])
    assert "Left out: 1 image in formats that are not read (1 of .heic)" in capsys.readouterr().out


def test_names_that_the_output_has_no_letters_for_are_escaped(tmp_path, monkeypatch):
    make(tmp_path / "Bilder ä 数", a=3, b=3)
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    main(["split", str(tmp_path / "Bilder ä 数"), "--out", str(tmp_path / "Listen ä")])
    assert rb"Listen \xe4/train.txt: 4 images" in written.getvalue()


def test_mistakes_are_told_in_a_message(tmp_path):
    make(tmp_path / "images", a=3, b=3)
    (tmp_path / "file").touch()
    done = tool(tmp_path / "images", "--out", tmp_path / "file")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: cannot write the lists into {tmp_path / 'file'}" in done.stderr
