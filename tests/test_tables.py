"""Tables and their places in documents."""

import sys
from pathlib import Path

import pytest

from eyetoy_mm.cli import main
from eyetoy_mm.errors import UserError
from eyetoy_mm.tables import for_terminal, markdown_table, write_into, write_rows_into

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- tools/x.py: begin -->", "<!-- tools/x.py: end -->"


def test_table():
    assert markdown_table(["a", "b"], [["1", "2"], ["3", "4"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"


def test_text_takes_the_place_of_the_old_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_into(page, "tools/x.py", "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["nothing\n", f"{BEGIN} and no end\n", f"{END} alone\n"])
def test_documents_without_a_place_stay_as_they_are(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match="no place for this; it must have the lines <!-- tools/x.py: begin -->"):
        write_into(page, "tools/x.py", "new")
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("command", "work"),
    [
        (["dry-run"], "eyetoy_mm.engine.dry_run.dry_run_table"),
        (["flops"], "eyetoy_mm.engine.model_table.backbone_tables"),
        (["benchmark", "config.py"], "eyetoy_mm.export.benchmark.measure"),
    ],
)
def test_pages_without_a_place_are_refused_before_the_work(tmp_path, monkeypatch, command, work):
    """Which takes half an hour for all configs, and was lost."""
    pytest.importorskip("mmengine", reason="mmengine is not installed")
    monkeypatch.setattr(work, lambda *_: pytest.fail("measured already"))
    with pytest.raises(SystemExit, match="page.md has no place for this"):
        main([*command, "--into", str(tmp_path / "page.md")])


def test_rows_come_among_those_that_are_there(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}{END}\nafter\n")
    write_into(page, "tools/x.py", markdown_table(["name", "n"], [["`a`", "1"], ["`c`", "3"]]))
    write_rows_into(page, "tools/x.py", markdown_table(["name", "n"], [["`c`", "4"], ["`b`", "2"]]))
    table = markdown_table(["name", "n"], [["`a`", "1"], ["`b`", "2"], ["`c`", "4"]])
    assert page.read_text() == f"before\n{BEGIN}\n\n{table}\n\n{END}\nafter\n"


@pytest.mark.parametrize("there", ["", markdown_table(["name", "m"], [["`a`", "1"]])])
def test_rows_do_not_come_into_other_tables(tmp_path, there):
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{there}\n{END}\n")
    with pytest.raises(UserError, match=r"has no table of tools/x.py with the columns \| name \| n \|"):
        write_rows_into(page, "tools/x.py", markdown_table(["name", "n"], [["`b`", "2"]]))
    assert page.read_text() == f"{BEGIN}\n{there}\n{END}\n"


@pytest.mark.parametrize(
    ("page", "program"), [("docs/models.md", "tools/model_table.py"), ("docs/configs.md", "tools/dry_run.py")]
)
def test_pages_of_the_repository_have_places(page, program):
    text = (ROOT / page).read_text()
    assert text.index(f"<!-- {program}: begin -->") < text.index(f"<!-- {program}: end -->")


MODELS = markdown_table(["name", "task", "weights"], [["`a_b`", "Object Detection", "here"], ["c", "-", "download"]])


def test_a_table_on_a_terminal_has_columns_or_is_told_row_by_row(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    text = f"before | it\n\n{MODELS}\n\nafter"
    for width, table in {
        80: ["name  task              weights", "----  ----------------  --------", "a_b   Object Detection  here",
             "c     -                 download"],
        31: ["a_b", "    task Object Detection;", "    weights here", "c", "    weights download"],
    }.items():  # fmt: skip
        monkeypatch.setenv("COLUMNS", str(width))
        assert for_terminal(text).splitlines() == ["before | it", "", *table, "", "after"]
    barred = markdown_table(["class", "IoU"], [["a | b", "1"]])
    assert for_terminal(barred) == barred


def test_a_table_in_a_pipe_stays_markdown_as_it_does_where_nobody_reads(monkeypatch):
    assert for_terminal(MODELS) == MODELS
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it where it is closed: `>&-`
    assert for_terminal(MODELS) == MODELS
