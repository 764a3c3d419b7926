"""The ``ddpmkit-tensorboard`` command; errors are two plain lines on stderr, as ddpmkit's are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.text import one_line

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def export(
    study: Annotated[str, typer.Argument(help="A study's name, or its folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The results folder.")] = Path("results"),
    logdir: Annotated[
        Path | None, typer.Option(help="Where the runs go; OUT/tensorboard by default.", show_default=False)
    ] = None,
) -> None:
    """Write a ddpmkit study as TensorBoard event files, from its records alone."""
    from ddpmkit.study.store import find_study

    from ddpmkit_tensorboard.exporting import export

    place = logdir or out / "tensorboard"
    print(f"{export(find_study(study, out), place)}\ntensorboard --logdir {place}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        code = app(list(sys.argv[1:] if argv is None else argv), standalone_mode=False, prog_name="ddpmkit-tensorboard")
        return int(code or 0)
    except DdpmkitError as err:
        return _fail(err.message, err.hint, err.code)
    except typer.Exit as err:
        return int(err.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", "nothing was written; type the same again", Exit.SIGINT)
    except OSError as err:
        return _fail(f"can't read or write: {err}", "check the disk and the permissions", Exit.FAILED)
    except typer.TyperException as err:
        return _fail(err.format_message(), "ddpmkit-tensorboard --help", Exit.USAGE)


def entry() -> None:
    """The console script."""
    sys.exit(main())


def _fail(message: str, hint: str | None, code: int) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    print(f"hint: {one_line(hint or 'ddpmkit-tensorboard --help')}", file=sys.stderr)
    return int(code)
