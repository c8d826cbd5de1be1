"""The command line: parse, one library call, echo. Commands are imported when they are called."""

from __future__ import annotations

import importlib

import click

from tlrec_edge.errors import MissingExtraError, TlrecError
from tlrec_edge.version import VERSION

COMMANDS = {
    "prepare": "prepare",
    "pretrain": "train",
    "adapt": "train",
    "evaluate": "measure",
    "crossval": "measure",
    "study": "study",
    "curve": "study",
    "compress": "build",
    "export": "build",
    "inspect": "use",
    "verify": "use",
    "score": "use",
    "recommend": "use",
    "similar": "use",
    "bench": "bench",
    "plan": "plan",
    "synth": "synth",
    "demo": "demo",
}
"""Command -> module of this package, in the order of the pipeline."""


class Commands(click.Group):
    """Load a command's module when it is needed, and turn the package's errors into one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f"tlrec_edge.cli.{COMMANDS[name]}")
        except ModuleNotFoundError as error:
            raise _one_line(MissingExtraError(f"`{name}` ({error.name})", "build")) from error
        command: click.Command = getattr(module, name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TlrecError as error:
            raise _one_line(error) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(
                f"{name}{error.strerror or error}; check the path and the space left"
            ) from error
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] == "tlrec_edge":
                raise
            raise _one_line(MissingExtraError(f"this command ({error.name})", "build")) from error


def _one_line(error: TlrecError) -> click.ClickException:
    return click.ClickException(" ".join(str(error).split()))


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(VERSION, prog_name="tlrec-edge")
def main() -> None:
    """Transfer a recommender to a market with little data, compress it, and serve it on a CPU.

    \b
    prepare -> pretrain -> adapt -> evaluate -> compress -> export -> verify -> score, recommend, bench
    """
