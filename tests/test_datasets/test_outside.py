"""Names in annotations that lead out of the folder of the data set are told, and read from where they are."""

from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from eyetoy_mm.datasets.outside import find_outside


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("photo.jpg", False),
        ("a/b/photo.jpg", False),
        ("a/../photo.jpg", False),
        ("photo..jpg", False),
        ("..photo.jpg", False),
        ("../photo.jpg", True),
        ("a/../../photo.jpg", True),
        ("../../etc/passwd", True),
        ("/etc/passwd", True),
        ("http://localhost/photo.jpg", True),
        ("{folder}/photo.jpg", False),
        ("{folder}/../photo.jpg", True),
        ("{folder}2/photo.jpg", True),
    ],
)
def test_what_is_outside(name: str, outside: bool, tmp_path: Path) -> None:
    name = name.format(folder=tmp_path)
    found = find_outside("train.json", str(tmp_path), ["in.jpg", name])
    assert (found is not None) == outside
    if found is not None:
        assert not found.fatal and found.where == (name,) and "train.json" in str(found) and name in str(found)


def test_relative_folders_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_outside("train.txt", "data/images", [f"../{i}.jpg" for i in range(7)])
    assert found is not None and found.count == 7 and "and 2 more" in str(found)
    assert find_outside("train.txt", "data/images", [str(tmp_path / "data/images/a.jpg")]) is None
    assert find_outside("train.txt", "s3://bucket", ["../a.jpg"]) is None  # no folder of this machine


def test_lists_and_coco_files_are_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import json
    import shutil

    from eyetoy_mm.datasets.class_folders import ClassFolders
    from eyetoy_mm.datasets.coco_files import check_coco_file

    photo = next((Path(__file__).parents[2] / "data/sample/images/validation").glob("*.jpg"))
    (tmp_path / "in").mkdir()
    shutil.copy(photo, tmp_path / "out.jpg")
    (tmp_path / "train.txt").write_text("../out.jpg 0\n")
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eyetoy_mm.datasets.outside.print_log", lambda message, *args, **kwargs: told.append(message))
        dataset = ClassFolders(
            data_root=str(tmp_path), data_prefix="in", ann_file="train.txt", classes=["a"], lazy_init=True
        )
        assert Path(dataset.load_data_list()[0]["img_path"]).samefile(tmp_path / "out.jpg")
        coco = dict(
            images=[dict(id=1, file_name="../out.jpg", width=640, height=480)],
            annotations=[dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)],
            categories=[dict(id=1, name="a")],
        )
        (tmp_path / "coco.json").write_text(json.dumps(coco))
        check_coco_file(
            tmp_path / "coco.json", "train", ("a",), dict(data_root=str(tmp_path), data_prefix=dict(img="in"))
        )
    assert [name for message in told for name in ("train.txt", "coco.json") if name in message] == [
        "train.txt",
        "coco.json",
    ]
    assert all("outside of the data folder" in message and "../out.jpg" in message for message in told)
