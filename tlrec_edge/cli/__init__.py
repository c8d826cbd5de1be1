"""The command line. Commands are imported when they are called, so that `--help` is fast."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tlrec_edge.cli.output import escape_what_cannot_be_encoded, printable, say
from tlrec_edge.errors import MissingExtraError, TlrecError
from tlrec_edge.version import VERSION

SECTIONS = {
    "Prepare data": {"prepare": "prepare"},
    "Train": {"pretrain": "train", "adapt": "train"},
    "Evaluate": {
        "evaluate": "measure",
        "crossval": "measure",
        "study": "study",
        "curve": "study",
    },
    "Compress and export": {"compress": "build", "export": "build"},
    "Use a bundle": {
        "inspect": "inspection",
        "verify": "inspection",
        "score": "use",
        "recommend": "use",
        "similar": "use",
    },
    "Measure speed, plan capacity": {"bench": "bench", "plan": "plan", "synth": "synth"},
    "Run the whole pipeline": {"demo": "demo"},
}
"""Heading -> command -> module of this package, in the order of the pipeline."""
CHECKPOINT = "tlrec_edge.checkpoint"
"""Key of a command's checkpoint folder in ``Context.meta``."""
_INTERRUPTED = 130
"""The exit code of a program that SIGINT ended, as shells have it."""
_MAX_MESSAGE = 1000
"""Characters of an error that are shown: it may quote a header of a hundred thousand columns."""
COMMANDS = {name: module for commands in SECTIONS.values() for name, module in commands.items()}


class Commands(click.Group):
    """Import a command's module when it is needed, and print the package's errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in the order of the pipeline."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command. Exits with one line if a package that it needs is missing."""
        if name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f"tlrec_edge.cli.{COMMANDS[name]}")
        except ModuleNotFoundError as error:
            raise _one_line(MissingExtraError(f"`{name}` ({error.name})", "build")) from error
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under the headings of the pipeline."""
        width = max(map(len, COMMANDS))
        for heading, names in SECTIONS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [
                (name.ljust(width), command.get_short_help_str(formatter.width))
                for name, command in found
                if command is not None
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the program; text that stdout or stderr cannot encode is escaped."""
        escape_what_cannot_be_encoded()
        return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Parse the arguments before the command's name."""
        try:
            return super().make_context(*args, **options)
        except click.ClickException as error:
            raise _printable(error) from error.__cause__

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; an error of this package or the system exits with 1 and one line."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _printable(error) from error.__cause__
        except TlrecError as error:
            raise _one_line(error) from error
        except BrokenPipeError:
            raise
        except KeyboardInterrupt as error:
            say(f"interrupted{_after_interrupt(ctx)}", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from error
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            reason = error.strerror or error
            raise _one_line(f"{name}{reason}; check the path and the free disk space") from error
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] == "tlrec_edge":
                raise
            raise _one_line(MissingExtraError(f"this command ({error.name})", "build")) from error


def _after_interrupt(ctx: click.Context) -> str:
    """Return what an interrupted command leaves. The demo leaves what its steps have written."""
    if checkpoint := ctx.meta.get(CHECKPOINT):
        return f"; the same command resumes from {checkpoint}"
    return "" if ctx.invoked_subcommand == "demo" else "; nothing was written"


def _printable(error: click.ClickException) -> click.ClickException:
    """Escape what the arguments of the user put into a message of click."""
    lines = error.message.expandtabs(4).split("\n")
    message = "\n".join(map(printable, lines))
    error.message = message  # type: ignore[misc]  # a copy would lose the class and its context
    return error


def _one_line(error: TlrecError | str) -> click.ClickException:
    message = printable(" ".join(str(error).split()))
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]} ..."
    return click.ClickException(message)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(VERSION, prog_name="tlrec-edge")
def main() -> None:
    """Transfer a recommender to a market with little data, compress it, and serve it on a CPU.

    \b
    prepare -> pretrain -> adapt -> evaluate -> compress -> export -> recommend
    """
