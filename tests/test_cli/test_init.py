"""`eyetoy init` on folders of every format: what it writes is trained as it stands, what it decides is said."""

from pathlib import Path

import pytest

from eyetoy_mm.cli import init, main
from eyetoy_mm.engine.dry_run import STAGES, dry_run
from eyetoy_mm.engine.own_data import OURS, Request, start
from eyetoy_mm.engine.recipes import Machine
from tests.own_folders import FOLDERS
from tests.toolbox_runs import own_mmengine

for _toolbox in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(_toolbox)
TASK = {"masks": "mmseg", "class-folders": "mmpretrain"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and OURS not in p.parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_what_it_writes_passes_a_dry_run_as_it_stands(name, tmp_path, monkeypatch, capsys):
    make, format, unparted = FOLDERS[name]
    make(tmp_path / "my data")
    before = files_of(tmp_path / "my data")
    monkeypatch.chdir(tmp_path)
    with own_mmengine():
        main(["init", "my data", *(["--split", "0.3", "--seed", "1"] if unparted else [])])
        told = capsys.readouterr().out
        cells, error = dry_run(tmp_path / "my_data.py", own_data=True)
    assert not error and len(cells) == len(STAGES)
    assert files_of(tmp_path / "my data") == before
    assert f"found     {format}: 6 images" in told and "error" not in told
    assert "eyetoy train my_data.py" in told and all(len(line) <= 120 for line in told.splitlines() if "/" not in line)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masks-binary", "yolo", "class-folders-in-parts"])
def test_it_passes_a_dry_run_on_the_sample(name, tmp_path):
    make, _, unparted = FOLDERS[name]
    make(tmp_path / "data")
    with own_mmengine():
        start(Request(tmp_path / "data", tmp_path / "c.py", split=0.3 if unparted else None))
        cells, error = dry_run(tmp_path / "c.py")
    assert not error and len(cells) == len(STAGES)


def test_all_options(tmp_path, monkeypatch, capsys):
    FOLDERS["yolo"][0](tmp_path / "data")
    FOLDERS["masks"][0](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    command = "init data --format yolo --classes round angular --split 0.5 --seed 3 --config configs/c.py --out made"
    for _ in range(2):
        main([*command.split(), "--overwrite"])
    told = capsys.readouterr().out
    assert "classes   2, from --classes: round (3), angular (3)" in told
    assert "3 of 6 images are drawn for validation (--split 0.5 --seed 3)" in told
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"train.json", "val.json"}
    assert not (tmp_path / "data" / OURS).exists() and (tmp_path / "configs/c.py").is_file()
    with pytest.raises(SystemExit, match="c.py is there already"):
        main(command.split())


def test_problems_of_the_data_are_told_and_the_exit_code_says_it(tmp_path, capsys):
    FOLDERS["class-folders-in-parts"][0](tmp_path / "data")
    (tmp_path / "data/train/disc/a.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(SystemExit, match="findings with which a run would be wrong.*c.py is written"):
        main(["init", str(tmp_path / "data"), "--config", str(tmp_path / "c.py")])
    assert "a web page, such as a failed download leaves" in " ".join(capsys.readouterr().out.split())


def test_help_has_every_format():
    from eyetoy_mm.datasets.layouts import FORMATS

    assert tuple(FORMATS) == init._FORMATS


@pytest.mark.parametrize(
    ("machine", "model"), [(Machine(cores=2), "demo"), (Machine("cuda", 24.0, 8), "mask-rcnn_eyetoy.py")]
)
def test_the_config_is_for_the_machine(machine, model, tmp_path):
    from eyetoy_mm.engine.config import read_config

    FOLDERS["coco"][0](tmp_path / "data")
    start(Request(tmp_path / "data", tmp_path / "c.py"), machine)
    text = (tmp_path / "c.py").read_text()
    assert model in text and ("AmpOptimWrapper" in text) == bool(machine.accelerator)
    config = read_config(tmp_path / "c.py")
    assert config.model.roi_head.mask_head.num_classes == 2 and config.train_dataloader.batch_size == 4
