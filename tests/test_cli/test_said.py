"""What reaches a person's terminal of what the toolboxes say, verb by verb."""

import argparse
import json
import logging

import pytest

import eyetoy_mm.backbones  # noqa: F401 - hands the package's own log to mmengine's

pytest.importorskip("mmengine", reason="mmengine is not installed")

from mmengine.logging import MMLogger

from eyetoy_mm import cli
from tests.toolbox_runs import SAMPLE, own_mmengine

LOGGED = {"train", "test", "demo", "tool"}  # a log that a person follows


@pytest.fixture(autouse=True)
def _own_mmengine():
    with own_mmengine():
        yield


def speak(_: argparse.Namespace) -> None:
    """As models and optimizers do that are built on the way."""
    for logger in (MMLogger.get_current_instance(), logging.getLogger("eyetoy_mm")):
        logger.info("paramwise_options -- backbone.weight:lr=0.001")
        logger.warning(f"odd in {logger.name}")
    print("answer")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_that_answers_says_nothing_on_the_way_but_warnings(verb, monkeypatch, capsys):
    monkeypatch.setattr(cli, "parse", lambda argv: argparse.Namespace(verb=verb, run=speak))
    cli.main([verb])
    said = capsys.readouterr().out
    assert "WARNING - odd in mmengine" in said and "WARNING - odd in eyetoy_mm" in said and "answer\n" in said
    assert ("paramwise_options" in said) == (verb in LOGGED)
    speak(argparse.Namespace())  # a program that goes on has its log as before
    assert "paramwise_options" in capsys.readouterr().out


def test_what_is_opened_of_coco_prints_nothing(monkeypatch, capsys):
    """Not in the midst of `eyetoy check --json`, which other programs read."""
    coco = pytest.importorskip("pycocotools.coco")
    file = str(SAMPLE / "annotations/instances_val.json")

    def run(_: argparse.Namespace) -> None:
        print(json.dumps(len(coco.COCO(file).imgs)))

    monkeypatch.setitem(vars(coco), "print", print)
    monkeypatch.setattr(cli, "parse", lambda argv: argparse.Namespace(verb="check", run=run))
    cli.main(["check"])
    assert json.loads(capsys.readouterr().out) > 0
