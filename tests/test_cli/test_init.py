"""`eyetoy init` on folders of every format: what it writes is trained as it stands, what it decides is said."""

import re
from pathlib import Path

import pytest

from eyetoy_mm.cli import init, main
from eyetoy_mm.engine.config import read_config
from eyetoy_mm.engine.dry_run import STAGES, dry_run
from eyetoy_mm.engine.own_config import Data, Source, write_config
from eyetoy_mm.engine.own_data import OURS, Request, start
from eyetoy_mm.engine.recipes import TASKS, DataSize, Machine, choose_recipe
from tests.own_folders import FOLDERS
from tests.toolbox_runs import own_mmengine

for _toolbox in ("mmdet", "mmseg", "mmpretrain"):
    pytest.importorskip(_toolbox)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and OURS not in p.parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "yolo", "voc", "cvat", "labelme", "masks-binary", "class-folders"])
def test_what_it_writes_passes_a_dry_run_as_it_stands(name, tmp_path, monkeypatch, capsys):
    make, format, unparted = FOLDERS[name]
    make(tmp_path / "my data")
    before = files_of(tmp_path / "my data")
    monkeypatch.chdir(tmp_path)
    with own_mmengine():
        main(["init", "my data", *(["--val-share", "0.3", "--seed", "1"] if unparted else [])])
        told = capsys.readouterr().out
        cells, error = dry_run(tmp_path / "my_data.py", own_data=True)
    assert not error and len(cells) == len(STAGES)
    assert files_of(tmp_path / "my data") == before
    assert f"found     {format}: 6 images" in told and "\nerror " not in told
    assert "eyetoy train my_data.py" in told and all(len(line) <= 120 for line in told.splitlines() if "/" not in line)


@pytest.mark.slow
def test_few_classes_and_other_suffixes_pass_a_dry_run_on_the_sample(tmp_path):
    FOLDERS["masks-binary"][0](tmp_path / "data")
    with own_mmengine():
        start(Request(tmp_path / "data", tmp_path / "c.py", val_share=0.3))
        cells, error = dry_run(tmp_path / "c.py")
    assert not error and len(cells) == len(STAGES)


PICTURES = {"class-folders-in-parts": set(), "masks": {"iou.png"}, "coco": {"precision_recall.png"}}


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_what_it_writes_is_trained_and_the_run_is_drawn(name, tmp_path, monkeypatch, capfd):
    """The first lines say what runs, hundreds of others are in the file, pictures are in the work dir."""
    FOLDERS[name][0](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    with own_mmengine():
        main(["init", "data"])
        options = "train_cfg.max_epochs=3 train_cfg.val_interval=3 default_hooks.checkpoint.interval=3"
        workers = " ".join(
            f"{s}_dataloader.{w}" for s in ("train", "val") for w in ("num_workers=0", "persistent_workers=0")
        )
        main(["train", "data.py", "--work-dir", "run", "--cfg-options", *options.split(), *workers.split()])
    told = capfd.readouterr().out
    drawn = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert {"labels.png", "train_batch.png", "confusion.png", "results.png"} | PICTURES[name] <= drawn, told
    assert "worst.png" in drawn or name.startswith("class")  # of which both may be right
    assert not list((tmp_path / "run").glob(".*part*"))
    first = [told.index(text) for text in ("Model: ", "Training data: 4 samples of", "Evaluation data: 2", "Device: ")]
    assert first == sorted(first) and "were not drawn" not in told and "was not drawn" not in told
    assert "Hooks will be executed" not in told and "System environment" not in told
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert "Hooks will be executed" in log.read_text() and "System environment" in log.read_text()
    assert told.rindex("Next:") > max(first) and "eyetoy test data.py run/" in told


def test_all_options(tmp_path, monkeypatch, capsys):
    FOLDERS["yolo"][0](tmp_path / "data")
    FOLDERS["masks"][0](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    command = (
        "init data --data-format yolo --classes round angular --val-share 0.5 --seed 3 --config configs/c.py --out made"
    )
    for _ in range(2):
        main([*command.split(), "--overwrite"])
    told = capsys.readouterr().out
    assert "classes   2, from --classes: round (3), angular (3)" in told
    assert "3 of 6 images are drawn for validation (--val-share 0.5 --seed 3)" in told
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"train.json", "val.json"}
    assert not (tmp_path / "data" / OURS).exists() and (tmp_path / "configs/c.py").is_file()
    with pytest.raises(SystemExit, match="c.py is there already"):
        main(command.split())


def test_problems_of_the_data_are_told_and_the_exit_code_says_it(tmp_path, capsys):
    FOLDERS["class-folders-in-parts"][0](tmp_path / "data")
    (tmp_path / "data/train/disc/a.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(SystemExit, match="1 finding with which a run would be wrong.*c.py is written"):
        main(["init", str(tmp_path / "data"), "--config", str(tmp_path / "c.py")])
    assert "a web page, such as a failed download leaves" in " ".join(capsys.readouterr().out.split())


def test_places_that_cannot_be_are_told_before_or_after_the_data(tmp_path):
    FOLDERS["class-folders-in-parts"][0](tmp_path / "data")
    (tmp_path / "data.zip").touch()
    with pytest.raises(SystemExit, match="data.zip is an archive: unpack it"):
        main(["init", str(tmp_path / "data.zip"), "--config", str(tmp_path / "c.py")])
    with pytest.raises(SystemExit, match="cannot write the config .*c.py: .*choose another place: --config FILE"):
        main(["init", str(tmp_path / "data"), "--config", str(tmp_path / "data.zip" / "c.py")])


def test_help_has_every_format():
    from eyetoy_mm.datasets.layouts import FORMATS

    assert tuple(FORMATS) == init._FORMATS


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("machine", [Machine(cores=2), Machine("cuda", 24.0, 8)], ids=str)
def test_configs_are_for_the_task_and_the_machine(machine, task, tmp_path):
    classes = ['a "b"', "c\\d\r\x00ü"] + [f"class {number}" for number in range(40)]
    data = Data(tmp_path / "my data", classes, {"train": Source("a", ("b", "c")), "val": Source("d", ("e", "f"))})
    recipe = choose_recipe(task, DataSize(100, (640, 480)), machine)
    (tmp_path / "c.py").write_text(write_config(task, data, recipe, "eyetoy init\nx"))
    config = read_config(tmp_path / "c.py")
    assert config.classes == tuple(classes) and config.train_dataloader.batch_size == recipe.batch
    assert config.optim_wrapper.type == ("AmpOptimWrapper" if machine.accelerator else "OptimWrapper")
    assert config.train_cfg.max_epochs == recipe.epochs and config.optim_wrapper.optimizer.lr == recipe.lr
    heads = str(config.model).count("'num_classes': 42")
    assert (
        heads
        == {"classification": 1, "detection": 1, "instances": 2, "segmentation": 1 + bool(machine.accelerator)}[task]
    )
    assert config.train_dataloader.dataset.ann_file == "a" and config.test_dataloader.dataset.ann_file == "d"
    assert len((tmp_path / "c.py").read_text().splitlines()) < 70


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "pets"], "--config pets should be a file that ends in .py: --config pets.py"),
        (["--out", "pets.py"], "--out pets.py is the folder of what is made of the data; the config is --config FILE"),
    ],
)
def test_files_and_folders_are_not_taken_for_each_other(words, message, tmp_path, monkeypatch):
    FOLDERS["masks"][0](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"^error: {re.escape(message)}$"):
        main(["init", "data", *words])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
