"""Curves from logs as mmengine writes them: of runs resumed, killed and started again, by iteration and by epoch."""

import json
from pathlib import Path

import pytest

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmengine")

from eyetoy_mm.cli import main
from eyetoy_mm.engine.curves import draw_curves, read_curves, shown_keys
from eyetoy_mm.errors import UserError


def train(step: int, loss: float = 1.0, **more: float) -> dict:
    return dict(lr=0.1, loss=loss, time=0.5, iter=step, step=step, **more)


def write(work_dir: Path, start: str, *records: dict, end: str = "") -> Path:
    path = work_dir / start / "vis_data/scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + end)
    return path


def test_a_resumed_run_is_one_curve(tmp_path):
    """Killed at iteration 40 while it wrote a line; went on from 20, where others came out."""
    first = [dict(mIoU=1.0, step=0), train(10, 4.0), train(20, 3.0), dict(mIoU=5.0, step=20), train(30, 9.0)]
    write(tmp_path, "1", *first, dict(mIoU=9.0, step=30), train(40, 9.0), end='{"loss": 1.')
    write(tmp_path, "2", train(30, 2.0), dict(mIoU=6.0, step=30), train(40, float("nan")))
    curves = read_curves(tmp_path)
    assert curves.of("loss") == pytest.approx({10: 4.0, 20: 3.0, 30: 2.0, 40: float("nan")}, nan_ok=True)
    assert curves.of("mIoU") == {0: 1.0, 20: 5.0, 30: 6.0}
    assert (curves.broken, curves.name) == (1, tmp_path.name)
    assert read_curves(tmp_path / "1").of("loss")[40] == 9.0


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_run_that_goes_on_with_an_evaluation(by_epoch, tmp_path):
    """Killed in the third epoch, or after 60 iterations; its checkpoint is from before the evaluation of the second."""
    steps = {20 * epoch: train(20 * epoch, **(dict(epoch=epoch) if by_epoch else {})) for epoch in (1, 2, 3)}
    metric = {at: dict(mIoU=at / 10, step=at // 20 if by_epoch else at) for at in (20, 40, 60)}
    write(tmp_path, "1", steps[20], metric[20], steps[40], metric[40], steps[60])
    write(tmp_path, "2", metric[40] | dict(mIoU=4.5), steps[60] | dict(loss=2.0), metric[60])
    curves = read_curves(tmp_path)
    assert curves.of("mIoU") == {20: 2.0, 40: 4.5, 60: 6.0}
    assert curves.of("loss") == {20: 1.0, 40: 1.0, 60: 2.0}
    write(tmp_path, "3", metric[60])  # of the last step: nothing but the evaluation
    assert read_curves(tmp_path).of("loss").keys() == {20, 40, 60} == read_curves(tmp_path).of("mIoU").keys()


def test_a_run_that_was_started_again_is_the_new_one(tmp_path):
    write(tmp_path, "1", train(10, 4.0, grad_norm=1.0), train(20, 4.0))
    write(tmp_path, "2", train(10, 3.0))
    curves = read_curves(tmp_path)
    assert curves.of("loss") == {10: 3.0} and "grad_norm" not in curves.train


def test_evaluations_by_epoch_are_where_training_was(tmp_path):
    """mmdet and mmpretrain log them by the number of the epoch."""
    records = [
        train(50, epoch=1),
        {"coco/bbox_mAP": 0.1, "step": 1},
        train(100, epoch=2),
        {"coco/bbox_mAP": 0.2, "step": 2},
    ]
    curves = read_curves(write(tmp_path, "1", *records))
    assert curves.of("coco/bbox_mAP") == {50: 0.1, 100: 0.2}
    assert shown_keys([curves]) == ["loss", "lr", "coco/bbox_mAP"]


def test_the_picture_has_a_panel_for_each_key_and_a_line_for_each_run(tmp_path):
    for name in ("a", "b"):
        metrics = {f"m{number}": 0.1 * number for number in range(8)}
        write(tmp_path / name, "1", *(train(step, 10.0 / step) for step in (1, 2, 3)), dict(metrics, step=3))
    runs = [read_curves(tmp_path / name) for name in ("a", "b")]
    figure = draw_curves(runs)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [panel.get_title() for panel in panels] == ["loss", "lr", *(f"m{number}" for number in range(6))]
    for panel in panels:
        assert [line.get_label() for line in panel.lines] == ["a", "b"]
    assert list(panels[0].lines[1].get_ydata()) == pytest.approx([10.0, 5.0, 10 / 3])
    assert [axes.get_title() for axes in draw_curves(runs, ["m7"]).axes] == ["m7"]
    with pytest.raises(UserError, match=r"no run has psnr; logged are loss, lr, m0, .*m7$"):
        draw_curves(runs, ["psnr"])


def test_command_line(tmp_path, capsys):
    for name in ("x/a", "y/a"):
        write(tmp_path / name, "1", train(1, 3.0), train(2, 1.0), dict(mIoU=7.0, step=2), end="{")
    main(["analyze-logs", str(tmp_path / "x/a"), str(tmp_path / "y/a"), "--out", str(tmp_path / "new/c.svg")])
    text = capsys.readouterr().out
    assert f"| {tmp_path / 'y/a'} | loss | 1 at 2 | 1 at 2 | 3 at 1 |" in text and "| mIoU | 7 at 2 |" in text
    assert "1 lines of the logs cannot be read" in text
    assert "<svg" in (tmp_path / "new/c.svg").read_text()
    main(["analyze-logs", str(tmp_path / "x/a"), "--keys", "mIoU", "--out", str(tmp_path / "c.png")])
    assert "loss" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "there are no logs of a run in none; it should be a work dir, which has"),
        (["empty"], "empty has no curves: nothing was logged in it"),
        (["a", "--out", "c.txt"], r"--out c.txt must end in one of .*\.png"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a", "1", train(1))
    write(tmp_path / "empty", "1")
    with pytest.raises(SystemExit, match=message):
        main(["analyze-logs", *arguments])
