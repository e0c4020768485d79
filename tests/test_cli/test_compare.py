"""`eyetoy compare`: a study is planned, trained in turns, goes on where it was killed, and is told."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

from eyetoy_mm.cli import main
from eyetoy_mm.engine import study as study_module
from eyetoy_mm.engine import study_runs
from eyetoy_mm.engine.config import find_config, load_config, read_config
from eyetoy_mm.engine.study import (
    Cost,
    Length,
    check_equal_cost,
    deviations,
    measure_costs,
    plan,
    read_study,
    slug,
    time_steps,
)
from eyetoy_mm.engine.study_report import as_json, picture, table, write_report
from eyetoy_mm.engine.study_runs import (
    Elsewhere,
    Result,
    check_unchanged,
    machines,
    read_result,
    results,
    this_machine,
    train_missing,
    work_dir,
    write_configs,
)
from eyetoy_mm.errors import UserError
from tests import program
from tests.toolbox_runs import ROOT, SAMPLE, TOOLBOXES, own_mmengine, write_config

ITERATIONS = """
train_dataloader.update(sampler=dict(type="InfiniteSampler", shuffle=True))  # mmengine waits 2 s at the end of an epoch
train_cfg = dict(type="IterBasedTrainLoop", max_iters=4, val_interval=4)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False))
"""
STUDY = '''"""Do registers help?"""

base = "config.py"
metric = "mIoU"
image = (64, 96)
seeds = [0, 1]
variants = {
    "8 registers": {},
    "None at all": {"model.backbone.arch": dict(_delete_=True, type="demo", register_tokens=0)},
}
'''


@pytest.fixture
def study_file(tmp_path):
    write_config(tmp_path, "mmseg", ITERATIONS)
    path = tmp_path / "registers.py"
    path.write_text(STUDY.replace("{}", '{"model.backbone.arch": dict(_delete_=True, type="demo")}', 1))
    return path


@pytest.fixture(autouse=True)
def _own_mmengine():
    with own_mmengine():
        yield


def apart(command, output):
    """Run the program of a command in a process that starts in a moment."""
    done = program.run("tools/train.py", *command[4:], cwd=output.parents[2])
    output.write_text(done.stdout + done.stderr)
    return done.returncode


def killed_at_its_first_checkpoint(command, output):
    process, _, stderr = program.start("tools/train.py", *command[4:], cwd=output.parents[2])
    end = time.monotonic() + 200
    while not (output.parent / "iter_2.pth").is_file():
        assert process.is_alive() and time.monotonic() < end, stderr.read_text()
        time.sleep(0.01)
    process.kill()
    process.join(60)
    output.write_text("killed")
    return process.exitcode


# --- Read and planned -------------------------------------------------------------------------------------------------


def test_a_study_is_read_and_planned(study_file, capsys):
    study = read_study(study_file, str(SAMPLE))
    assert study.question == "Do registers help?" and study.length == Length(4, False, 2)
    assert study.runs() == [("8 registers", 0), ("None at all", 0), ("8 registers", 1), ("None at all", 1)]
    assert study.variants["None at all"].model.backbone.arch == dict(type="demo", register_tokens=0)
    main(["compare", str(study_file), "--plan", "--timed-steps", "1", "--data-root", str(SAMPLE)])
    said = capsys.readouterr().out
    costs = measure_costs(study)
    assert costs["8 registers"].parameters - costs["None at all"].parameters == 8 * 192  # the tokens themselves
    assert f"| {costs['8 registers'].flops / 1e9:.3f} G | +0.0% |" in said
    assert "4 runs (2 variants, seeds [0, 1]) of 4 iterations of 2 images; 0 are finished." in said
    assert "hours of training steps here" in said and not (study_file.parent / "work_dirs").exists()


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_steps_of_every_toolbox_are_timed(toolbox, tmp_path):
    pytest.importorskip(toolbox)
    assert time_steps(load_config(write_config(tmp_path, toolbox)), 1) > 0


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("seeds = [0, 1]", "seeds = [0, 0]", "variants and seeds should differ"),
        ("seeds = [0, 1]", "", "needs seeds"),
        ("seeds = [0, 1]", "seeds = [0]; sedes = 1", "has sedes (is it seeds?), which a study does not read"),
        ('base = "config.py"\n', "", "neither the study nor 8 registers has a base"),
        ('"None at all": {', '"None at all": {"train_cfg.max_iters": 5, ', "None at all: 5 iterations of 2 images"),
        ('"None at all": {', '"None at all": {"trian_cfg.max_iters": 5, ', "None at all: "),
        ("seeds = [0, 1]", "seeds = 3", "seeds should be a list of whole numbers, as [0, 1, 2], and is 3"),
        ("seeds = [0, 1]", "seeds = [0.5]", "seeds should be a list of whole numbers"),
        ("image = (64, 96)", "image = 224", "image should be a height and a width, as (224, 224), and is 224"),
        ('metric = "mIoU"', 'metric = ["mIoU"]', "metric should be the key of one, and is ['mIoU']"),
        ("seeds = [0, 1]", "seeds = [0]; tolerance = '5 %'", "tolerance should be a share of the FLOPs"),
        ("seeds = [0, 1]", "seeds = [0]; recipe = []", "recipe should be a dict, and is []"),
        ('"None at all": {', "0: {", "variants should be named by letters or digits, in quotes, and one is 0"),
        ('"None at all": {', '"..": {', "named by letters or digits, in quotes, and one is '..'"),
        ('"None at all": {', '"8 Registers!": {', "'8 registers' and '8 Registers!' would have the same folder"),
        ('"None at all": {', '"None at all": 3, "other": {', "settings by the name of each"),
        (
            '"None at all": {',
            '"None at all": {"base": 3, ',
            "base of None at all should be the name or file of a config",
        ),
        (
            '"None at all": {',
            '"None at all": {"val_evaluator": None, ',
            "None at all: nothing is evaluated, for its config",
        ),
        ('"None at all": {', '"None at all": {"train_cfg.val_begin": 5, ', "has val_begin=5 and ends at 4"),
    ],
)
def test_a_study_that_is_none(study_file, before, after, message):
    study_file.write_text(study_file.read_text().replace(before, after))
    with pytest.raises(UserError, match=re.escape(message)):
        read_study(study_file)


def test_a_study_is_a_python_file(tmp_path):
    (tmp_path / "study.yaml").write_text("seeds: [0]")
    with pytest.raises(UserError, match=r"a study is a Python file, and .*study\.yaml is none"):
        read_study(tmp_path / "study.yaml")


def test_a_variant_that_cannot_be_measured_is_named(study_file, monkeypatch):
    def fails(config, *size):
        if config.model.backbone.arch.get("register_tokens") == 0:
            raise RuntimeError("shapes cannot be multiplied")
        return 1, 1

    monkeypatch.setattr(study_module, "complexity", fails)
    with pytest.raises(UserError, match=r"registers, None at all: .* an image of 96x64\. RuntimeError: shapes cannot"):
        measure_costs(read_study(study_file))


def test_steps_are_timed_of_loaders_with_settings_for_workers(study_file):
    config = next(iter(read_study(study_file, str(SAMPLE)).variants.values()))
    init_default_scope(config.default_scope)
    config.train_dataloader.update(num_workers=2, persistent_workers=True, prefetch_factor=4)
    assert len(study_module._loader(config)) > 0


def test_unequal_costs_are_refused(study_file):
    study = read_study(study_file)
    costs = {"8 registers": Cost(1, 100, 3.6), "None at all": Cost(1, 94, 7.2)}
    assert deviations(costs) == {"8 registers": 0.0, "None at all": pytest.approx(-0.06)}
    with pytest.raises(UserError, match=r"within 5% of 8 registers, and these are off: None at all -6\.0%"):
        check_equal_cost(study, costs)
    check_equal_cost(study, {**costs, "None at all": Cost(1, 96)})
    study_file.write_text(study_file.read_text() + "tolerance = None\n")
    check_equal_cost(read_study(study_file), costs)
    assert "All of them: 0.0 hours" in plan(study, costs, 0)


def test_evaluations_are_logged_by_what_is_counted(study_file):
    study_file.write_text(study_file.read_text() + 'recipe = {"default_hooks.logger.log_metric_by_epoch": True}\n')
    for config in read_study(study_file).variants.values():
        assert config.default_hooks.logger == dict(type="LoggerHook", interval=1, log_metric_by_epoch=False)
        assert config.default_hooks.checkpoint.interval == 2


def test_runs_are_logged_where_they_are_read_from(study_file):
    """Also where a config names other programs alone, or switches mmengine's log of numbers off."""
    tensorboard = 'visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="TensorboardVisBackend")])\n'
    config = study_file.parent / "config.py"
    config.write_text(config.read_text() + tensorboard + "default_hooks.update(logger=None)\n")
    for variant in read_study(study_file).variants.values():
        kinds = [backend.type for backend in variant.visualizer.vis_backends]
        assert kinds == ["TensorboardVisBackend", "mmengine.LocalVisBackend"]
        assert variant.default_hooks.logger == dict(type="LoggerHook", log_metric_by_epoch=False)


# --- Trained ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_and_repeats_nothing(study_file, tmp_path, capsys):
    study_file.write_text(study_file.read_text() + "\ntolerance = None\n")  # registers cost 9 % of so small a model
    study, folder = read_study(study_file, str(SAMPLE)), tmp_path / "runs"
    write_configs(study, folder)
    turns = train_missing(study, folder, killed_at_its_first_checkpoint)
    assert next(turns) == ("8 registers", 0, "killed")
    turns.close()
    assert results(study, folder) == {}

    done = list(train_missing(study, folder, apart))
    assert done == [(*run, None) for run in study.runs()], done
    first = work_dir(folder, "8 registers", 0)
    assert "resume from" in (first / "output.txt").read_text() + "".join(p.read_text() for p in first.glob("*/*.log"))
    found = results(study, folder)
    assert list(found) == study.runs()
    assert all(0 <= run.metric <= 100 and run.images_per_second > 0 and run.memory > 100 for run in found.values())
    assert found["8 registers", 0] != found["8 registers", 1]
    assert list(train_missing(study, folder, apart)) == []

    out = tmp_path / "out"
    arguments = ["compare", str(study_file), "--data-root", str(SAMPLE), "--work-dir", str(folder), "--out", str(out)]
    main([*arguments, "--report"])
    assert f"{found['8 registers', 0].metric:.2f}, {found['8 registers', 1].metric:.2f}" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["registers.json", "registers.md", "registers.png"]

    study_file.write_text(study_file.read_text().replace("register_tokens=0", "register_tokens=1"))
    with pytest.raises(UserError, match="None at all of registers has changed since its runs in .* began"):
        write_configs(read_study(study_file, str(SAMPLE)), folder)


def test_a_run_that_fails_is_told(study_file, tmp_path):
    study = read_study(study_file)

    def fails(command, output):
        output.write_text("one\nthe reason\n")
        return 1

    turns = list(train_missing(study, tmp_path, fails))
    assert turns == [(*run, "one\nthe reason") for run in study.runs()]


def test_a_run_that_another_process_trains_is_left_to_it(study_file, tmp_path):
    """Of a second `eyetoy compare`, or of one that was killed and left its run behind."""
    study = read_study(study_file)
    taken = work_dir(tmp_path, "None at all", 0)
    taken.mkdir(parents=True)
    code = "import fcntl, sys\nfile = open(sys.argv[1], 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\n"
    code += "print('process 7 on elsewhere', file=file, flush=True)\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, str(taken / ".lock")]
    started = []

    def fails(command, output):
        started.append(output.parent)
        output.write_text("the reason")
        return 1

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        turns = list(train_missing(study, tmp_path, fails))
        other.stdin.close()
        other.wait(60)
    left = [run for run, told in zip(study.runs(), turns) if isinstance(told[2], Elsewhere)]
    assert left == [("None at all", 0)] and turns[1][2] == "process 7 on elsewhere"
    assert started == [work_dir(tmp_path, *run) for run in study.runs() if run not in left]
    assert machines(tmp_path, study.runs()) == [this_machine(), "others that were not noted"]
    assert machines(tmp_path, left) == [] and machines(tmp_path, study.runs()[:1]) == [this_machine()]
    assert not isinstance(list(train_missing(study, tmp_path, fails))[1][2], Elsewhere)


def test_what_has_changed_since_is_told_and_data_may_move(study_file, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    folder = tmp_path / "runs"
    write_configs(read_study(study_file, str(before)), folder)
    write_log(work_dir(folder, "None at all", 0), dict(mIoU=1.0, step=4))
    moved = read_study(study_file, str(after))
    with pytest.raises(UserError, match=r"None at all .* train_dataloader\.dataset\.data_root='.*before'"):
        write_configs(moved, folder)
    check_unchanged(moved, folder, only_report=True)
    before.rename(after)
    write_configs(moved, folder)

    study_file.write_text(study_file.read_text().replace("register_tokens=0", "register_tokens=1"))
    changed = read_study(study_file, str(after))
    with pytest.raises(UserError, match=r"config\.py, has model\.backbone\.arch\.register_tokens=0\. Undo that"):
        check_unchanged(changed, folder, only_report=True)


def test_what_a_study_started_ends_with_it(tmp_path):
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(print('saved', flush=True)))\n"
    code += "print('here', flush=True)\ntime.sleep(60)"
    output, script = tmp_path / "output.txt", tmp_path / "starter.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom eyetoy_mm.engine.children import run_child\n"
        "run_child([sys.executable, '-c', sys.argv[1]], Path(sys.argv[2]))\n"
    )
    process, _, stderr = program.start(str(script), code, output)
    try:
        end = time.monotonic() + 200
        while not output.is_file() or "here" not in output.read_text():
            assert process.is_alive() and time.monotonic() < end, stderr.read_text()
            time.sleep(0.02)
        process.terminate()
        process.join(100)
        assert process.exitcode == 128 + signal.SIGTERM, stderr.read_text()
    finally:
        process.kill()
    assert output.read_text() == "here\nsaved\n"


# --- Told -------------------------------------------------------------------------------------------------------------


def write_log(run: Path, *records: dict) -> None:
    (run / "20260101_000000/vis_data").mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run / "20260101_000000/vis_data/scalars.json").write_text(lines + '{"half')


def test_a_run_is_finished_when_it_was_evaluated_after_its_last_step(study_file, tmp_path):
    study = read_study(study_file)
    steps = [
        dict(iter=i, step=i, loss=4.0 / i, time=[9.0, 0.5, 0.5, 0.4][i - 1], host_memory=100.0 + i)
        for i in (1, 2, 3, 4)
    ]
    assert read_result(study, tmp_path) is None
    write_log(tmp_path, *steps[:2], dict(mIoU=3.0, step=2), *steps[2:])
    assert read_result(study, tmp_path) is None
    write_log(tmp_path, *steps, dict(mIoU=30.0, step=4))
    assert read_result(study, tmp_path) == Result(metric=30.0, loss=1.0, images_per_second=2 / 0.5, memory=104.0)
    write_log(tmp_path, *steps, dict(aAcc=30.0, step=4))
    with pytest.raises(UserError, match="has no metric 'mIoU'; its evaluations have aAcc"):
        read_result(study, tmp_path)


def test_the_report_has_finished_runs_and_says_what_is_missing(study_file, tmp_path):
    study = read_study(study_file)
    costs = {"8 registers": Cost(2_000_000, 10**9), "None at all": Cost(1_000_000, 98 * 10**7)}
    there = {
        ("8 registers", 0): Result(30.0, 0.5, 8.0, 300.0),
        ("8 registers", 1): Result(34.0, 0.75, 10.0, 320.0),
        ("None at all", 0): Result(20.0, 1.0, 12.0, float("nan")),
    }
    rows = table(study, costs, there).splitlines()[2:]
    assert rows == [
        "| 8 registers | 32.00 ± 2.83 (n=2) | 30.00, 34.00 | 0.625 ± 0.177 (n=2) | 2.00 M | 1.000 G (+0.0%) | 9.0 "
        "| 310 MB |",
        "| None at all | 20.00 (n=1) | 20.00, missing | 1.000 (n=1) | 1.00 M | 0.980 G (-2.0%) | 12.0 | - |",
    ]
    assert table(study, costs, {}).count("missing") == 2 + 4 + 2
    files = write_report(study, costs, there, tmp_path / "out", "eyetoy compare registers.py")
    text = files[0].read_text()
    assert (
        text.startswith("# registers\n\nDo registers help?\n\n| variant |") and "**1 of 4 runs are missing.**" in text
    )
    numbers = json.loads(files[1].read_text())
    assert numbers == json.loads(json.dumps(as_json(study, costs, there, "eyetoy compare registers.py")))
    assert numbers["variants"]["None at all"]["runs"] == {
        "0": dict(metric=20.0, loss=1.0, images_per_second=12.0, memory=None),
        "1": None,
    }
    assert files[2].read_bytes().startswith(b"\x89PNG")
    assert len(picture(study, {}).axes[0].get_yticklabels()) == 2


def test_names_may_have_any_letters_and_shares_have_four_digits(study_file, tmp_path):
    text = study_file.read_text().replace('"8 registers"', '"a|b $x $\\\\frac β"').replace('"mIoU"', '"coco/$AP_50"')
    study_file.write_text(text)
    study = read_study(study_file)
    names = list(study.variants)
    assert names == ["a|b $x $\\frac β", "None at all"]
    costs = dict.fromkeys(names, Cost(1, 1))
    nan = float("nan")
    there = {(names[0], 0): Result(0.7312, nan, nan, nan), (names[0], 1): Result(0.7412, nan, nan, nan)}
    files = write_report(study, costs, there, tmp_path / "out", "eyetoy compare", ["a GPU", "another"])
    first = table(study, costs, there).splitlines()[2]
    assert first.startswith("| a\\|b $x $\\frac β | 0.7362 ± 0.0071 (n=2) | 0.7312, 0.7412 | - | ")
    assert (
        "On a GPU; another. " in files[0].read_text()
        and json.loads(files[1].read_text())["machine"] == "a GPU; another"
    )


def test_the_evaluation_is_that_with_the_metric(study_file, tmp_path):
    """Not what a hook of somebody's logs at a step of the same number."""
    write_log(tmp_path, dict(mIoU=30.0, step=4), dict(pruned=0.5, step=4))
    assert read_result(read_study(study_file), tmp_path).metric == 30.0


def test_names_of_folders():
    assert slug("β = 0_5 (größer).") == "β-0-5-größer" and slug("../..") == "" == slug("(?)")
    assert slug("No merging, at all (32)") == "no-merging-at-all-32"
    assert study_runs.config_file(Path("a"), "B c") == Path("a/b-c/config.py")


# --- The studies of the project ---------------------------------------------------------------------------------------

STUDIES = sorted((ROOT / "studies").glob("*.py"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_our_studies_are_whole(path):
    """Whether their variants load and cost the same is checked before anything is trained; one is here, below."""
    given = read_config(path).to_dict()
    seeds = 1 if path.stem.endswith("_rates") else 3  # of which one is chosen for the study that compares
    assert len(given["seeds"]) == seeds and len(given["variants"]) > 2 and "tolerance" not in given
    assert (path.parent / given["base"]).is_file() or find_config(given["base"])
    assert f"| `{path.name}` |" in (path.parent / "README.md").read_text()


def test_one_of_our_studies_compares_at_equal_cost():
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    study = read_study(ROOT / "studies/cifar10_architecture.py")
    assert study.length == Length(1000, False, 64) and study.question.count("\n\n")
    check_equal_cost(study, measure_costs(study))
