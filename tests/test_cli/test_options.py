"""Every option of every verb is run, in each toolbox that the verb is for, on mmengine's pure Python configs.

Those have classes where others have names, and bases that are imported. Half of the verbs take the config that the
Runner leaves beside the checkpoint.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import pytest

from eyetoy_mm.cli import VERBS, main
from eyetoy_mm.engine import dry_run
from eyetoy_mm.tables import markdown_table
from tests.toolbox_runs import PHOTOS, ROOT, SAMPLE, TOOLBOXES, own_mmengine, write_config, write_pure_python

RUN = "--work-dir {out} --data-root {sample} --amp --launcher none --local-rank 0 --cfg-options randomness.seed=3"
# Arguments by verb, then the files that are written, with how many of them there are.
TRAIN = f"{{config}} --auto-scale-lr {RUN}", {"epoch_1.pth": 1, "epoch_2.pth": 0}
ANY_TOOLBOX = {
    "train": [
        (
            f"{{config}} --resume {{checkpoint}} --force --dist-timeout 60 {RUN} train_cfg.max_epochs=2",
            {"epoch_1.pth": 0, "epoch_2.pth": 1},
        )
    ],
    "test": [
        (f"{{config}} {{checkpoint}} --tta --show-dir {{out}}/shown --show-interval 2 {RUN}", {"shown/**/*.png": 1}),
        (
            f"{{config}} {{checkpoint}} --show-dir {{out}}/shown --dist-timeout 60 --out {{out}}/found"
            f" --report {{out}}/report --json {{out}}/metrics.json {RUN}",
            {"shown/**/*.png": 2, "found/predictions.json": 1, "report/*.csv": 2, "metrics.json": 1},
        ),
    ],
    "infer": [
        (
            "{dumped} {checkpoint} {photo} {photo} --out {out} --score 0 --classes 1 0 --tta --batch 2 --save-json"
            " --frames 1 --frames-as-images --device cpu --cfg-options randomness.seed=3",
            {"*.png": 2, "predictions.json": 1},
        )
    ],
    "attention": [
        (
            "{dumped} {checkpoint} {photo} --position 9,9 --block 1 --tokens 2 --out {out}/a.png --device cpu"
            " --cfg-options randomness.seed=3",
            {"a.png": 1},
        )
    ],
    "check": [
        (
            "{config} --split val --jobs 1 --strict --json {out}/found.json --plot {out}/classes.png"
            " --data-root {sample} --cfg-options randomness.seed=3",
            {"found.json": 1, "classes.png": 1},
        )
    ],
    "show-config": [("{config} --run --cfg-options randomness.seed=3", {})],
    "dry-run": [("{config} --own-data --into {page}", {"page.md": 1})],
}
ONCE = {
    "mmseg": {
        "flops": [("--configs {dumped} --into {page}", {"page.md": 1})],
        "infer": [
            (
                "{dumped} {checkpoint} {photo} --out {out} --tile 96 --overlap 32 --save-masks --save-json --save-txt"
                " --no-pictures --device cpu",
                {"masks/{stem}.png": 1, "labels/{stem}.txt": 1, "*.png": 0},
            )
        ],
    },
    "mmdet": {
        "flops": [("--configs {dumped} --into {page}", {"page.md": 1})],
        "infer": [
            (
                "{dumped} {checkpoint} {photo} --out {out} --score-thr 0 --save-crops --save-txt --device cpu",
                {"{stem}.png": 1, "labels/{stem}.txt": 1, "crops/*/*.png": 5},
            ),
            ("{dumped} {checkpoint} {photo} --out {out} --score 0 --tile 320 --device cpu", {"{stem}.png": 1}),
        ],
    },
    "mmpretrain": {"flops": [("--models demo --sizes 32 64 --into {page}", {"page.md": 1})]},
}
WITHOUT_TOOLBOX = {
    "split": [
        (
            "{folders} --train 2 --val 1 --exclude c --seed 1 --out {out}/meta",
            {"meta/classes.txt": 1, "meta/train.txt": 1, "meta/val.txt": 1},
        )
    ],
    "pack": [
        ("{folders} {out}/pack --shard-size 2K --jobs 2", {"pack/pack.json": 1, "pack/*.tar": 3}),
        ("--verify {out}/pack", {}),
        ("--index {out}/pack", {"pack/pack.json": 1}),
    ],
}
# What a page has before a table is written into it: a place, for rows with the columns that they go below.
PLACES = {
    "dry-run": ("tools/dry_run.py", markdown_table(["config", *dry_run.STAGES], [])),
    "flops": ("tools/model_table.py", ""),
}
# Options that another file runs, which has them as they are.
ELSEWHERE = {
    "analyze-logs": "tests/test_engine/test_curves.py",
    "benchmark": "tests/test_export/test_benchmark.py",
    "compare": "tests/test_cli/test_compare.py",
    "convert": "tests/test_cli/test_convert.py",
    "demo": "tests/test_cli/test_demo.py",
    "doctor": "tests/test_cli/test_doctor.py",
    "export": "tests/test_export/test_files.py",
    "models": "tests/test_cli/test_models.py",
    "init": "tests/test_cli/test_init.py",
    "app": "tests/test_cli/test_app.py",
    "publish": "tests/test_engine/test_publishing.py",
}
NEEDS_A_PACKAGE = {"--log": "tests/test_engine/test_progress.py"}  # which is not among those of the tests


def runs(toolbox: str) -> dict[str, list]:
    """Runs of each verb: those that are the same in all toolboxes, then those of one."""
    return {verb: [*ANY_TOOLBOX.get(verb, []), *ONCE[toolbox].get(verb, [])] for verb in (*ANY_TOOLBOX, *ONCE[toolbox])}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Config and checkpoint of a toolbox, trained for one epoch of a batch or two."""
    made: dict[str, tuple[Path, Path]] = {}

    def train(toolbox: str) -> tuple[Path, Path]:
        pytest.importorskip(toolbox)
        if toolbox not in made:
            folder = tmp_path_factory.mktemp(toolbox)
            config, out = write_pure_python(write_config(folder, toolbox)), folder / "run"
            out.mkdir()
            call("train", *TRAIN, config=config, out=out)
            made[toolbox] = config, out / "epoch_1.pth"
        return made[toolbox]

    return train


def call(verb: str, arguments: str, files: dict[str, int], out: Path, **values: object) -> None:
    page, photo = out / "page.md", PHOTOS[0]
    if verb in PLACES:
        page.write_text("<!-- {0}: begin -->\n\n{1}\n\n<!-- {0}: end -->\n".format(*PLACES[verb]))
    values |= dict(out=out, page=page, photo=photo, sample=SAMPLE)
    with own_mmengine():
        main([verb, *(part.format_map(values) for part in arguments.split())])
    for pattern, count in files.items():
        assert len(list(out.glob(pattern.format(stem=photo.stem)))) == count, (pattern, sorted(out.rglob("*")))
    if verb in PLACES:
        assert page.read_text().count("\n| ") > PLACES[verb][1].count("\n| "), page.read_text()


@pytest.mark.parametrize("verb", [*ANY_TOOLBOX, "flops"])
@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_verbs_with_all_their_options(toolbox, verb, trained, tmp_path, monkeypatch):
    config, checkpoint = trained(toolbox)
    monkeypatch.setattr(dry_run, "dry_run_apart", dry_run.dry_run)  # in this process
    for index, (arguments, files) in enumerate(runs(toolbox)[verb]):
        (out := tmp_path / str(index)).mkdir()
        call(verb, arguments, files, out, config=config, checkpoint=checkpoint, dumped=checkpoint.with_name("pure.py"))


@pytest.mark.parametrize("verb", WITHOUT_TOOLBOX)
def test_verbs_without_a_model(verb, tmp_path):
    for name in "abc":
        (tmp_path / "folders" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "folders" / name / f"{number}.jpg").touch()
    for arguments, files in WITHOUT_TOOLBOX[verb]:
        call(verb, arguments, files, tmp_path, folders=tmp_path / "folders")


class _Recorder(argparse.ArgumentParser):
    """Keeps the names of options that are added."""

    def __init__(self) -> None:
        self.options: list[tuple[str, ...]] = []
        self.settings: dict[str, dict] = {}
        super().__init__(add_help=False)

    def add_argument(self, *names, **kwargs):
        if names[0].startswith("-"):
            self.options.append(names)
            self.settings[names[0]] = {
                key: kwargs.get(key) for key in ("action", "metavar", "nargs", "type", "choices")
            }
        return super().add_argument(*names, **kwargs)


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_is_left_out(verb):
    recorder = _Recorder()
    import_module(f"eyetoy_mm.cli.{verb.replace('-', '_')}").add_arguments(recorder)
    if verb in ELSEWHERE:
        texts = [(ROOT / ELSEWHERE[verb]).read_text()]
    elif verb in ANY_TOOLBOX:
        once = [ONCE[toolbox].get(verb) for toolbox in TOOLBOXES]
        texts = [f"{TRAIN[0] if verb == 'train' else ''} {ANY_TOOLBOX[verb]} {once}"]
    else:
        texts = [str([ONCE[toolbox].get(verb) for toolbox in TOOLBOXES] + WITHOUT_TOOLBOX.get(verb, []))]
    texts = [text + "".join((ROOT / path).read_text() for path in NEEDS_A_PACKAGE.values()) for text in texts]
    for text in texts:
        left_out = [names for names in recorder.options if not any(name in text for name in names)]
        assert not left_out, f"no run of {verb} has {left_out}"


def test_options_of_one_name_are_one_option():
    """But for --out, a file or a folder, as the verb has one or many, and --format, of weights or of programs."""
    seen: dict[str, tuple[str, dict]] = {}
    differ = []
    for verb in VERBS:
        recorder = _Recorder()
        import_module(f"eyetoy_mm.cli.{verb.replace('-', '_')}").add_arguments(recorder)
        for name, settings in recorder.settings.items():
            first = seen.setdefault(name, (verb, settings))
            if name not in ("--out", "--format") and settings != first[1]:
                differ.append(f"{name} of {verb} and of {first[0]}: {settings} {first[1]}")
    assert not differ, "\n".join(differ)
