"""The command demo: the whole pipeline on the data set complete-journey."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlrec_edge.cli.common import PathType, json_option, out_folder, seed_option
from tlrec_edge.cli.format import figure, print_table, with_error
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option, show_progress

if TYPE_CHECKING:
    from tlrec_edge.demo import DemoResult


@click.command(short_help="Run the whole pipeline on public data.")
@click.option(
    "--out",
    type=PathType(file_okay=False),
    default="demo-out",
    show_default=True,
    callback=out_folder,
    help="Folder to write.",
)
@click.option(
    "--target", default="NUTRITION", show_default=True, help="Department (domain) to transfer to."
)
@seed_option
@quiet_option
@json_option
def demo(out: Path, target: str, seed: int, as_json: bool) -> None:
    """Run the whole pipeline on the data set complete-journey, and write a report.

    It prepares, pretrains, adapts, compresses, exports, scores and measures; no download is needed.
    """
    from tlrec_edge.demo import DemoConfig, run_demo

    with show_progress("demo") as progress:
        result = run_demo(out, DemoConfig(target=target, seed=seed), progress.note)
    if as_json:
        report = json.loads(result.report.with_suffix(".json").read_text(encoding="utf-8"))
        say_json(report)
        return
    show(result, target)


def show(result: DemoResult, target: str) -> None:
    """Print the results as a table, ten recommendations, a summary, and the path of the report."""
    from tlrec_edge.demo.report_data import plain_words, shopper

    new = {row["name"]: row for row in result.new_users.rows()}
    warm = {row["name"]: row for row in result.warm.rows()}
    over = result.new_users.comparisons("compressed")["transfer"].over
    rows = []
    for name, row in new.items():
        lift = result.new_users.lift(name, over)
        gain = "" if name == over else f"{lift.mean:+.4f} ({lift.se:.4f})"
        other = warm[name]
        rows.append(
            [
                name,
                with_error(row, "ndcg@10"),
                figure(row["hr@10"]),
                gain,
                with_error(other, "ndcg@10"),
                figure(other["hr@10"]),
                *_cost(result, name),
            ]
        )
    head = [
        *("", "new: NDCG@10 (SE)", "HR@10", f"lift over {over} (SE)"),
        *("warm: NDCG@10 (SE)", "HR@10", "bytes", "p50 100 items", "p50 top-10"),
    ]
    sizes = [f"{e.tests:,} tests of {e.users:,}" for e in (result.new_users, result.warm)]
    title = f"{target}: {sizes[0]} new shoppers, {sizes[1]} warm ones; SE clustered by user"
    print_table(head, rows, title)
    best = [
        [str(i), name, item, f"{buyers:,}", f"{score:.3f}"]
        for i, (item, score, name, buyers) in enumerate(
            zip(*result.best, result.buyers, strict=True), 1
        )
    ]
    title = f"For {shopper(result, target)}; last bought: {', '.join(result.bought[-3:])}"
    print_table(["", "product", "id", "bought by", "score"], best, title)
    if len(set(result.best.names)) < len(result.best.names):
        say("Products of one name differ in what the data lack, such as the flavour.")
    for line in plain_words(result, target):
        say(line)
    seconds = ", ".join(f"{stage} {spent:.0f}" for stage, spent in result.seconds.items())
    say(f"seconds: {seconds}")
    say(f"report: {result.report}")


def _cost(result: DemoResult, name: str) -> list[str]:
    bundle = {"compressed": "bundle", "finetune": "bundle-float32"}.get(name)
    if bundle is None:
        return ["", "", ""]
    rows = {
        (row["scenario"], row["state"], row["scored"]): row["latency_us"]["p50"]
        for row in result.bench[bundle]["rows"]
    }
    top = next(
        value
        for (scenario, state, _), value in rows.items()
        if scenario == "top-k" and state == "encoded"
    )
    return [
        f"{result.sizes[bundle]:,}",
        f"{rows['single-stream', 'encoded', 100]:.0f} us",
        f"{top:.0f} us",
    ]
