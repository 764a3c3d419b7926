"""The ``ddpmkit`` command. Commands parse, call one public function, and render; heavy imports live in their bodies."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.text import one_line
from ddpmkit.text.plain import speakable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; errors are two plain lines on stderr."""
    import typer

    from ddpmkit.cli.app import app
    from ddpmkit.cli.options import Global

    # Whatever a terminal or pipe can't show goes out as something plainer, never as an error.
    speakable(sys.stdout, sys.stderr)
    args = list(sys.argv[1:] if argv is None else argv)
    if not args:
        args = ["--help"]
    options = Global(argv=tuple(args))
    try:
        code = app(args, standalone_mode=False, obj=options, prog_name="ddpmkit")
        return int(code or 0)
    except DdpmkitError as err:
        return _fail(err.message, err.hint, err.code, options.verbose)
    except typer.Exit as err:
        return int(err.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", "the same command goes on from here", Exit.SIGINT, False)
    except OSError as err:
        return _fail(f"can't read or write: {err}", "check the disk and the permissions", Exit.FAILED, options.verbose)
    except typer.TyperException as err:  # Typer's own usage errors
        text = err.format_message() if hasattr(err, "format_message") else str(err)
        return _fail(" ".join(text.split()), "ddpmkit --help, or ddpmkit COMMAND --help", Exit.USAGE, False)
    except Exception as err:  # the last line of defence: a defect, reported with its traceback
        traceback.print_exc()
        return _fail(f"internal error: {type(err).__name__}: {err}", "please report it", Exit.INTERNAL, False)


def entry() -> None:
    """The console script."""
    sys.exit(main())


def _fail(message: str, hint: str | None, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"error: {one_line(message)}", file=sys.stderr)
    print(f"hint: {one_line(hint or 'ddpmkit --help')}", file=sys.stderr)
    return int(code)
