"""Where the package's own files are, in a checkout and where `.mim` has them."""

import pytest

from eyetoy_mm import paths
from eyetoy_mm.errors import UserError


@pytest.mark.parametrize("home", ["package/.mim", "."])
def test_files_of_a_wheel_and_of_a_checkout(tmp_path, monkeypatch, home):
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "package")
    (tmp_path / home / "data/sample").mkdir(parents=True)
    assert paths.package_file("data/sample") == (tmp_path / home / "data/sample").resolve()
    with pytest.raises(UserError, match="eyetoy_mm comes without configs; looked in .*package/.mim"):
        paths.package_file("configs")


def test_an_installed_copy_comes_before_what_lies_beside_it(tmp_path, monkeypatch):
    """In site-packages that may be another package's."""
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "package")
    for folder in (tmp_path / "configs", tmp_path / "package/.mim/configs"):
        folder.mkdir(parents=True)
    assert paths.package_file("configs") == (tmp_path / "package/.mim/configs").resolve()


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("data", "a/b.json", "data/a/b.json"),
        ("data", "/whole/b.json", "/whole/b.json"),
        ("s3://bucket/data/", "a/b.json", "s3://bucket/data/a/b.json"),
        ("s3://bucket/data", "/whole/b.json", "/whole/b.json"),
        ("s3://bucket/data", "s3://other/b.json", "s3://other/b.json"),
        ("data", "s3://other/b.json", "s3://other/b.json"),
        ("s3://bucket/data", "", "s3://bucket/data"),
    ],
)
def test_what_is_whole_by_itself_stays_as_it_is(root, path, expected):
    assert paths.join(root, path) == expected


def test_results_have_names_of_their_own(tmp_path):
    used = set()
    names = [paths.take_name(tmp_path / name, used).name for name in ("a", "b.1", "a", "a", "b.1")]
    assert names == ["a", "b.1", "a_", "a__", "b.1_"] and len(used) == 5


def test_folders_that_cannot_be_written_in_are_told(tmp_path, monkeypatch):
    paths.check_folder("--out", tmp_path / "new/folder")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out .*file/new should be a folder, and .*file is a file"):
        paths.check_folder("--out", tmp_path / "file/new")
    monkeypatch.setattr(paths.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=f"--out .*new cannot be written: {tmp_path} is read-only"):
        paths.check_folder("--out", tmp_path / "new")
