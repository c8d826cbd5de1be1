"""The help reads like the pipeline, and text from data is printed as it is."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from helpers import bundles
from helpers.commands import ok, run
from helpers.paths import ROOT
from helpers.scripts import load_script
from tlrec_edge.cli import COMMANDS, SECTIONS, main
from tlrec_edge.cli.format import any_value, figure, gain, interval, print_table, with_error


def test_the_help_lists_every_command_under_a_heading_of_the_pipeline() -> None:
    shown = ok("--help").output
    places = [shown.index(f"{heading}:") for heading in SECTIONS]
    assert places == sorted(places)
    for name in COMMANDS:
        assert f"\n  {name} " in shown


@pytest.mark.parametrize("name", ["bench", "prepare"])
def test_sections_show_every_visible_option_once(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    shown = ok(name, "--help").output
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            rows = shown.count(f"\n  {'/'.join(parameter.opts[:1])} ")
            rows += shown.count(f"\n  {parameter.opts[0]},")
            rows += shown.count(f"\n  {parameter.opts[0]} /")
            assert bool(rows) != parameter.hidden, parameter.opts
    for heading in command.sections:  # type: ignore[attr-defined]  # a SectionedCommand
        assert f"\n{heading}:" in shown


def test_the_page_in_the_docs_is_current() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == load_script(ROOT / "docs" / "make_cli.py").render(), (
        "run: python docs/make_cli.py"
    )


def test_markup_in_the_data_is_printed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "[red]shop[/red]"
    bundles.build(path, ids=["[bold]a[/bold]", *(f"i{row}" for row in range(1, 80))])
    bundles.edit_manifest(path, lambda manifest: manifest["quality"].update({"[i]note[/i]": "[b]"}))
    shown = ok("inspect", path).output.replace("\n", "")
    assert "[i]note[/i]" in shown
    assert "shop[/red]" in shown
    users = tmp_path / "users.csv"
    users.write_text("user\n[green]ann[/green]\n", "utf-8")
    assert "user [green]ann[/green]" in ok("recommend", path, "--users", users).output


def test_a_table_keeps_markup_in_title_head_and_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["[b]head[/b]", "n"], [["[i]cell[/i]", "1"]], "[u]title[/u]")
    shown = capsys.readouterr().out
    for text in ("[b]head[/b]", "[i]cell[/i]", "[u]title[/u]"):
        assert text in shown


def test_figures_without_a_value_are_a_dash() -> None:
    assert figure(None) == "-"
    assert figure(0.25) == "0.2500"
    assert figure(0.25, signed=True) == "+0.2500"
    assert with_error({"ndcg@10": None, "ndcg@10.se": None}, "ndcg@10") == "-"
    assert with_error({"ndcg@10": 0.5, "ndcg@10.se": None}, "ndcg@10") == "0.5000 (-)"
    lift = {"ndcg@10": -0.01, "se": 0.002, "low": -0.014, "high": -0.006}
    assert gain(lift) == "-0.0100 (0.0020)"
    assert interval(lift) == "-0.0140 .. -0.0060"
    assert interval({"low": None, "high": None}) == "-"
    assert any_value([True, None, 1234567, 0.123456, "x"]) == "yes, -, 1,234,567, 0.1235, x"


def test_an_old_option_name_works_and_warns(tmp_path: Path) -> None:
    sizes = ("synth", "--items", 100, "--dim", 8)
    old = run(*sizes, "--lists-beyond", 50, "--out", tmp_path / "old")
    new = run(*sizes, "--ivf-beyond", 50, "--out", tmp_path / "new")
    assert old.exit_code == new.exit_code == 0
    assert "--lists-beyond is now --ivf-beyond" in old.stderr
    assert "is now" not in new.stderr
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert "list_starts.npy" in names
    assert names == {path.name for path in (tmp_path / "old").iterdir()}
