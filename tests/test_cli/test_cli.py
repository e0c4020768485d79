"""The command line as users call it: a real training, killed and resumed; evaluation, inference, errors."""

import argparse
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from eyetoy_mm.cli import VERBS, main
from eyetoy_mm.errors import report_user_errors
from tests import program
from tests.toolbox_runs import own_mmengine

ROOT = Path(__file__).resolve().parents[2]
DEMO = "configs/sample/upernet_eyetoy-demo_sample.py"
pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

# The demo on the smallest of crops.
TINY = [
    "train_dataloader.dataset.pipeline.3.crop_size=(64,64)", "model.data_preprocessor.size=(64,64)",
    "train_dataloader.batch_size=2", "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False",
    "val_dataloader.dataset.indices=2", "test_dataloader.dataset.indices=2",
    "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False",
    "test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False",
    "default_hooks.logger.interval=1",
]  # fmt: skip


def tool(name: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = program.run(f"tools/{name}.py", *arguments)
    assert not check or done.returncode == 0, done.stderr
    return done


def losses(work_dir: Path) -> dict[int, float]:
    """Step and loss of every training record, over all runs in a work dir."""
    records = {}
    for log in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in log.read_text().splitlines():
            record = json.loads(line)
            if "loss" in record:
                records[record["step"]] = record["loss"]
    return records


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Killed after the checkpoint of iteration 4, resumed to iteration 8."""
    work_dir = tmp_path_factory.mktemp("run")
    options = [*TINY, "train_cfg.max_iters=8", "train_cfg.val_interval=8", "default_hooks.checkpoint.interval=4"]
    arguments = [DEMO, "--work-dir", work_dir, "--cfg-options", *options]
    started = program.start("tools/train.py", *arguments)
    while started.process.is_alive():
        if started.stdout.exists() and re.search(r"Iter\(train\) \[5/8\]", started.stdout.read_text()):
            started.process.kill()
        time.sleep(0.01)
    assert started.process.exitcode == -signal.SIGKILL
    assert (work_dir / "iter_4.pth").is_file() and not (work_dir / "iter_8.pth").exists()
    done = tool("train", DEMO, "--work-dir", work_dir, "--resume", "--cfg-options", *options)
    assert "resumed epoch: 0, iter: 4" in done.stdout
    return work_dir


def test_killed_training_resumes_and_reaches_the_end(trained):
    curve = losses(trained)
    assert set(curve) == set(range(1, 9))
    assert (trained / "iter_8.pth").is_file()
    # the curve goes on where it was: no jump back to the loss of an untrained model
    assert abs(curve[5] - curve[4]) < 0.5 * curve[1]
    state = torch.load(trained / "iter_8.pth", weights_only=False)
    assert state["message_hub"] and state["optimizer"]["state"] and state["meta"]["iter"] == 8


def test_evaluation_before_training_is_in_the_log(trained):
    logs = sorted(trained.glob("*/vis_data/scalars.json"))
    steps = [json.loads(line)["step"] for line in logs[0].read_text().splitlines() if "mIoU" in line]
    assert steps == [0]  # the first run was killed before its next evaluation; the resumed one does not repeat it
    steps = [json.loads(line)["step"] for line in logs[1].read_text().splitlines() if "mIoU" in line]
    assert steps == [8]


def test_evaluation_of_a_checkpoint(trained, tmp_path):
    done = tool("test", DEMO, trained / "iter_8.pth", "--work-dir", tmp_path, "--cfg-options", *TINY)
    assert re.search(r"Iter\(test\) \[2/2\].*aAcc: [\d.]+ +mIoU: [\d.]+", done.stdout)


def test_test_time_augmentation(trained, tmp_path):
    options = [o for o in TINY if "crop_size" not in o] + ["test_dataloader.dataset.indices=1"]
    done = tool("test", DEMO, trained / "iter_8.pth", "--work-dir", tmp_path, "--tta", "--cfg-options", *options)
    assert re.search(r"Iter\(test\) \[1/1\].*mIoU: [\d.]+", done.stdout)


def test_inference_paints_overlays(trained, tmp_path):
    import cv2

    photos = sorted((ROOT / "data/sample/images/validation").glob("*.jpg"))[:2]
    done = tool("infer", DEMO, trained / "iter_8.pth", *photos, "--out", tmp_path)
    for photo in photos:
        painted = cv2.imread(str(tmp_path / f"{photo.stem}.png"))
        original = cv2.imread(str(photo))
        height, width = original.shape[:2]
        assert painted.shape[0] == height and painted.shape[1] > width  # the legend is on the right
        assert (painted[:, :width] != original).any()
        assert f"{photo} -> {tmp_path / photo.stem}.png" in done.stdout


DETECTOR = f"""
_base_ = "{ROOT}/configs/mask_rcnn_eyetoy_coco.py"
model = dict(backbone=dict(arch="demo"), neck=dict(in_channels=[32, 64, 128, 192]),
             test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=5)))
"""
CLASSIFIER = """
default_scope = "mmpretrain"
custom_imports = dict(imports=["eyetoy_mm"])
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=10),
    backbone=dict(type="eyetoy_mm.EyeToy", arch="demo", out_indices=(3,), out_type="context_token"),
    head=dict(type="LinearClsHead", num_classes=10, in_channels=192),
)
test_dataloader = dict(dataset=dict(type="CIFAR10", pipeline=[
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=64), dict(type="PackInputs")]))
"""


@pytest.mark.parametrize(("toolbox", "text"), [("mmdet", DETECTOR), ("mmpretrain", CLASSIFIER)])
def test_inference_of_detectors_and_classifiers(tmp_path, toolbox, text):
    import cv2
    from mmengine.registry import MODELS, init_default_scope

    from eyetoy_mm.engine.config import load_config

    pytest.importorskip(toolbox, reason=f"{toolbox} is not installed")
    config, checkpoint = tmp_path / "config.py", tmp_path / "untrained.pth"
    config.write_text(text)
    loaded = load_config(config)
    init_default_scope(loaded.default_scope)
    model = MODELS.build(loaded.model)
    model.init_weights()
    classes = tuple(f"class {i}" for i in range(80 if toolbox == "mmdet" else 10))
    torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": classes}}}, checkpoint)
    photo = next((ROOT / "data/sample/images/validation").glob("*.jpg"))
    tool("infer", config, checkpoint, photo, "--out", tmp_path / "out", "--score-thr", 0)
    painted, original = cv2.imread(str(tmp_path / "out" / f"{photo.stem}.png")), cv2.imread(str(photo))
    assert painted.shape == original.shape and (painted != original).any()


def assert_refused(done: subprocess.CompletedProcess, *messages: str) -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    for message in messages:
        assert message in done.stderr, done.stderr
    assert done.stderr.rstrip().splitlines()[-1]


def test_an_address_without_its_client(tmp_path):
    done = tool(
        "train",
        "configs/upernet_eyetoy_ade20k.py",
        "--data-root",
        "s3://bucket/ade",
        "--work-dir",
        tmp_path,
        check=False,
    )
    assert_refused(done, "error: these data are not on a disk, and petrel_client")


@pytest.mark.parametrize("name", ["eyetoy_mm::", "::x"])
def test_a_name_that_names_no_config(name, tmp_path):
    done = tool("train", name, "--work-dir", tmp_path, check=False)
    assert_refused(done, f"error: {name} should have a package before :: and a config after it")


def test_missing_dataset(tmp_path):
    done = tool("train", "configs/upernet_eyetoy_ade20k.py", "--work-dir", tmp_path, check=False)
    assert_refused(
        done, "error: the dataset is not there", "data/ade/ADEChallengeData2016/images/training", "--data-root"
    )
    assert not any(tmp_path.iterdir())


def test_missing_config():
    assert_refused(tool("train", "configs/none.py", check=False), "error: there is no config file configs/none.py")


def test_checkpoints_that_are_none(trained, tmp_path):
    photo = next((ROOT / "data/sample/images/validation").glob("*.jpg"))
    missing = tool("test", DEMO, tmp_path / "none.pth", check=False)
    assert_refused(missing, f"error: there is no checkpoint {tmp_path / 'none.pth'}")
    fake = tmp_path / "fake.pth"
    fake.write_text("not a checkpoint")
    assert_refused(
        tool("infer", DEMO, fake, photo, "--out", tmp_path, check=False), str(fake), "not a readable checkpoint"
    )
    assert_refused(tool("train", DEMO, "--work-dir", tmp_path, "--resume", fake, check=False), str(fake))
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"backbone.weight": torch.zeros(2)}}, other)
    assert_refused(tool("test", DEMO, other, "--work-dir", tmp_path, check=False), "does not fit the model", "missing")


def test_images_that_are_none(trained, tmp_path):
    good = next((ROOT / "data/sample/images/validation").glob("*.jpg"))
    bad = tmp_path / "bad.jpg"
    bad.write_text("not an image")
    done = tool(
        "infer", DEMO, trained / "iter_8.pth", bad, tmp_path / "no.jpg", good, "--out", tmp_path / "out", check=False
    )
    assert_refused(done, f"{bad} is not an image", f"there is no image {tmp_path / 'no.jpg'}")
    assert (tmp_path / "out" / f"{good.stem}.png").is_file()  # the good one is painted all the same


def sample_copy(tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(ROOT / "data/sample", tmp_path / "sample"))


def test_corrupt_training_image_is_named(tmp_path):
    root = sample_copy(tmp_path)
    for photo in (root / "images/training").glob("*.jpg"):
        photo.write_bytes(b"broken")
    options = [*TINY, "custom_hooks=[]"]
    done = tool(
        "train", DEMO, "--work-dir", tmp_path / "w", "--data-root", root, "--cfg-options", *options, check=False
    )
    assert_refused(done, str(root / "images/training"), "cannot be loaded: neither OpenCV nor Pillow knows this format")


def test_labels_out_of_range_are_named(tmp_path):
    import cv2

    root = sample_copy(tmp_path)
    for mask in (root / "annotations/training").glob("*.png"):
        labels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        labels[:] = 99
        cv2.imwrite(str(mask), labels)
    arguments = ["--work-dir", tmp_path / "w", "--data-root", root, "--cfg-options", *TINY]
    done = tool("train", DEMO, *arguments, check=False)
    assert_refused(
        done, "labels out of range", "labels 0 to 6 after loading", "(labels 98)", str(root / "annotations/training")
    )


def help_with_the_standard_library_alone(*verb: str) -> str:
    blocked = ["torch", "numpy", "mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "matplotlib"]
    code = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\nfrom eyetoy_mm.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, *verb, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def help_of_all() -> str:
    return help_with_the_standard_library_alone()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_needs_the_standard_library_alone(verb, help_of_all):
    """It says what the verb does and shows an example, and is the same with the package's other files out of reach."""
    shown = help_with_the_standard_library_alone(verb)
    first = import_module(f"eyetoy_mm.cli.{verb.replace('-', '_')}").__doc__.splitlines()[0]
    assert first in " ".join(shown.split()) and f"    eyetoy {verb} " in shown and "::\n" not in shown
    assert re.search(rf"^    {verb}\b", help_of_all, re.MULTILINE), help_of_all


# What the values of options are called in help and messages, in all verbs.
TERMS = {
    *(
        "BYTES",
        "CHECKPOINT",
        "CLASS",
        "CONFIG",
        "DEVICE",
        "FILE",
        "FOLDER",
        "IMAGE",
        "KEY",
        "KEY=VALUE",
        "LICENCE",
        "N",
    ),
    *("NAME", "NAME=VALUE", "PIXELS", "PROGRAM", "SCORE", "SECONDS", "SEED", "SHARE", "H,W", "X,Y"),
}


@pytest.mark.parametrize("width", [50, 100])
def test_help_is_as_wide_as_the_terminal_but_for_examples(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        main(["split", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("    eyetoy split data/caltech256/256_ObjectCategories --train 60 --ex") for line in lines
    )
    assert max(len(line) for line in lines if not line.startswith("    eyetoy ")) <= width


def test_no_verb_lists_them(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and all(f"\n    {verb}" in told for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian", "c.py"], "eyetoy: error: there is no verb 'trian' (is it train?); `eyetoy --help` lists them"),
        (["models", "--weigths"], "eyetoy models: error: unrecognized arguments: --weigths (is it --weights?)"),
        (["test", "c.py", "c.pth", "--workdir=x"], "unrecognized arguments: --workdir=x (is it --work-dir?)"),
        (["doctor", "now"], "eyetoy doctor: error: unrecognized arguments: now"),
    ],
)
def test_what_was_meant_is_told(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and capsys.readouterr().err.endswith(f"{told}\n")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EISDIR])
def test_what_the_file_system_refuses_is_a_message(number):
    def refused():
        raise OSError(number, os.strerror(number), "/data/c.py")

    with pytest.raises(SystemExit, match=f"^error: /data/c.py cannot be used: {os.strerror(number)}$"):
        report_user_errors(refused)()
    with pytest.raises(OSError, match="no file is named"):
        report_user_errors(lambda: (_ for _ in ()).throw(OSError(number, "no file is named")))()


def test_a_disk_that_fills_up_while_a_file_is_written_is_a_message():
    """The system names no file then."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(SystemExit, match="^error: No space left on device, where this was writing: free some, or"):
        report_user_errors(lambda: (_ for _ in ()).throw(full))()


@pytest.mark.parametrize("text", ["short", "long " * 100_000])
def test_a_reader_that_has_seen_enough_ends_a_program_without_a_word(text, monkeypatch, capsys):
    """As `eyetoy models | head` does; a pipe of its own that breaks is a fault of the program."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as broken, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", broken)
        with pytest.raises(SystemExit) as ended:
            report_user_errors(print)(text)
    assert ended.value.code == 141 and capsys.readouterr().err == ""
    with pytest.raises(BrokenPipeError):
        report_user_errors(lambda: (_ for _ in ()).throw(BrokenPipeError))()


def test_ctrl_c_is_a_word_and_no_traceback(capsys):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        report_user_errors(stopped)()
    assert ended.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("saved", [False, True])
def test_ctrl_c_in_a_training_says_how_to_go_on(saved, tmp_path, monkeypatch, capsys):
    from eyetoy_mm.engine import launch

    def stopped(config, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "train", stopped)
    if saved:
        (tmp_path / "last_checkpoint").write_text("iter_2.pth")
    with own_mmengine(), pytest.raises(SystemExit, match="130"):
        main(["train", str(ROOT / DEMO), "--work-dir", str(tmp_path)])
    state = "go on from the last checkpoint with --resume" if saved else "no checkpoint was saved yet"
    assert capsys.readouterr().err == f"{tmp_path}: {state}\ninterrupted\n"


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_several_values_may_be_given_twice(verb):
    """None of the values is lost, and none of the default's is among them."""
    parser = argparse.ArgumentParser()
    import_module(f"eyetoy_mm.cli.{verb.replace('-', '_')}").add_arguments(parser)
    for action in parser._actions:
        if action.option_strings and action.nargs == "+":
            several = argparse.ArgumentParser()
            several._add_action(action)
            first, second = (action.choices or ("1", "2"))[:2]
            option, convert = action.option_strings[0], action.type or str
            given = several.parse_args([option, first, option, second])
            assert getattr(given, action.dest) == [convert(first), convert(second)], option
            assert getattr(several.parse_args([]), action.dest) is action.default


@pytest.mark.parametrize("verb", VERBS)
def test_values_are_called_alike(verb):
    parser = argparse.ArgumentParser()
    import_module(f"eyetoy_mm.cli.{verb.replace('-', '_')}").add_arguments(parser)
    shown = {
        action.option_strings[-1]: action for action in parser._actions if action.option_strings and action.nargs != 0
    }
    named = {name: a.metavar for name, a in shown.items() if not a.choices and a.help != argparse.SUPPRESS}
    assert {name: term for name, term in named.items() if term not in TERMS} == {}


def test_a_notebooks_drawing_is_left_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr("eyetoy_mm.cli.parse", lambda _: SimpleNamespace(run=lambda _: None))
    for backend, kept in (("module://not_here.backend", False), ("module://eyetoy_mm.x", True), ("agg", True)):
        monkeypatch.setenv("MPLBACKEND", backend)
        main(["doctor"])
        assert os.environ.get("MPLBACKEND") == (backend if kept else None)


def test_every_verb_is_a_module_and_has_a_program_in_tools():
    folder = ROOT / "eyetoy_mm/cli"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "options"}
    assert modules == {verb.replace("-", "_") for verb in VERBS}
    tools = [path.read_text() for path in (ROOT / "tools").glob("*.py")]
    called = [found[1] for text in tools if (found := re.search(r'run_tool\("(.+)"\)', text))]
    assert sorted(called) == sorted(set(VERBS) - {"tool"})  # which runs programs of others


def test_without_openmmlab_the_message_says_what_to_install():
    code = "import sys; sys.modules['mmengine'] = None; from eyetoy_mm.cli import main; main(['test', 'a.py', 'b.pth'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert_refused(done, "error: this needs mmengine, which is not installed: pip install 'eyetoy-mm[lite]'")


def test_options_that_are_no_pairs():
    with pytest.raises(SystemExit, match="^error: --cfg-options takes key.of.it=value, got 'model'"):
        main(["train", DEMO, "--cfg-options", "model"])


def test_an_empty_folder_and_the_packages_names(tmp_path):
    """As after `pip install`: a config by its name, on the photos that come with the package."""
    arguments = ["train", "eyetoy_mm::sample/upernet_eyetoy-demo_sample", "--cfg-options", *TINY, "custom_hooks=[]"]
    arguments += ["train_cfg.max_iters=1", "train_cfg.val_interval=1"]
    done = program.run("eyetoy_mm/cli/__main__.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "work_dirs/upernet_eyetoy-demo_sample/iter_1.pth").is_file()
