"""The entry point `coeval`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from typer.exceptions import TyperException

from coeval.cli import backup, repo, volume
from coeval.cli.session import emit, failure

app = typer.Typer(
    name="coeval",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Every disk of a virtual machine, from the same moment.",
)
app.add_typer(repo.app, name="repo")
app.add_typer(volume.app, name="volume")
app.command()(backup.commit)
app.command()(backup.verify)


@app.command()
def operator() -> None:
    """Run the operator. Its settings come from the environment."""
    from coeval.runtime.main import run  # noqa: PLC0415  (the data plane must not load the operator)

    run()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; wrong usage, too, ends in the JSON document that callers read."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        sys.exit(app(arguments, standalone_mode=False))
    except TyperException as error:
        # Without a command, the help was just shown and the message is empty.
        message = f"{error.format_message() or 'a command is needed'} (see --help)"
        sys.stderr.write(f"coeval: {message}\n")
        emit(failure("InvalidArgument", message), _result_option(arguments))
        sys.exit(2)
    except typer.Abort:
        sys.exit(1)


def _result_option(arguments: list[str]) -> Path | None:
    """Find --result in arguments that could not be parsed."""
    for at, argument in enumerate(arguments):
        if argument.startswith("--result="):
            return Path(argument.removeprefix("--result="))
        if argument == "--result" and at + 1 < len(arguments):
            return Path(arguments[at + 1])
    return None


if __name__ == "__main__":
    main()
