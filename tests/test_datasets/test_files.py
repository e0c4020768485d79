"""Files that are looked for, and lists that are read."""

import os
from pathlib import Path

import pytest

from eyetoy_mm.datasets.files import absent, check_is_file, files_below, names_in, odd_line, why_not_listed
from eyetoy_mm.errors import UserError


def test_what_is_no_file_is_absent(tmp_path):
    (tmp_path / "there.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("there.jpg")
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    names = ["there.jpg", "folder.jpg", "link.jpg", "nowhere.jpg", "itself.jpg", "gone.jpg", "no/where.jpg"]
    missing = [Path(path).name for path in absent([tmp_path / name for name in names])]
    assert missing == ["folder.jpg", "nowhere.jpg", "itself.jpg", "gone.jpg", "where.jpg"]
    assert absent([f"{tmp_path}//there.jpg", f"{tmp_path}/folder.jpg/../there.jpg"]) == []
    assert names_in(tmp_path)[0] == "folder.jpg" and names_in(tmp_path / "none") == []


def test_a_link_that_leads_back_is_named(tmp_path):
    (tmp_path / "loop").symlink_to(".")
    with pytest.raises(OSError, match="symbolic links") as caught:
        os.listdir(tmp_path / "/".join(["loop"] * 50))
    assert why_not_listed(caught.value) == f"{tmp_path}/loop is a link that leads back to where it is; take it out"
    with pytest.raises(OSError, match="No such file") as caught:
        os.listdir(tmp_path / "none")
    assert why_not_listed(caught.value) == f"{tmp_path}/none cannot be read: No such file or directory"


def test_links_are_followed_once(tmp_path, monkeypatch):
    """Folders on other disks are looked into; what leads back, be it by way of two links, is not."""
    for name in ("data/a/1.jpg", "data/.hidden/2.jpg", "disk/3.jpg", "data/left/4.jpg", "data/b/5.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in {
        "data/linked": "disk", "data/a/up": "data", "data/a/to_b": "data/b", "data/b/to_a": "data/a",
        "data/gone.jpg": "none", "data/itself.jpg": "data/itself.jpg",
    }.items():  # fmt: skip
        (tmp_path / link).symlink_to(tmp_path / target)
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "data", Path("data")):
        found = [str(path.relative_to(folder)) for path in files_below(folder, lambda below: below.name != "left")]
        assert found == [
            "gone.jpg", "itself.jpg", "a/1.jpg", "a/to_b/5.jpg", "b/5.jpg", "b/to_a/1.jpg", "linked/3.jpg",
        ]  # fmt: skip
    with pytest.raises(UserError, match="none cannot be read: No such file"):
        list(files_below(tmp_path / "none"))


def test_what_has_no_end_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(OSError, match="a device or a pipe"):
            check_is_file(path)
    for path in (tmp_path, tmp_path / "none", "a\0b", __file__):
        check_is_file(path)


def test_odd_lines():
    assert odd_line(["a", "b"]) is None
    assert "empty line, 2" in str(odd_line(["a", " ", "b"]))
    assert "byte order mark" in str(odd_line(["\ufeffa"]))
