"""The ``ddpmkit`` command. Commands parse, call one public function, and render; heavy imports live in their bodies."""

from __future__ import annotations

import os
import select
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ddpmkit.cli.ending import dont_wait_for_ever
from ddpmkit.cli.streams import data, open_closed_ones, take_stdout
from ddpmkit.errors import DdpmkitError, Diverged, Exit
from ddpmkit.places import unwritten
from ddpmkit.text import one_line
from ddpmkit.text.plain import speakable

if TYPE_CHECKING:
    from ddpmkit.cli.given import Global


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; errors are two plain lines on stderr."""
    give_back = take_stdout()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    finally:
        give_back()


def entry() -> None:
    """The console script."""
    try:
        open_closed_ones()
        take_stdout()  # and never give it back: what a plugin prints while the interpreter ends is no data either
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:  # before there was a command that could take it
        code = _interrupted()
    sys.stdout = sys.stderr
    dont_wait_for_ever(code)
    sys.exit(code)


def _run(args: list[str]) -> int:
    import typer

    from ddpmkit.cli.app import application
    from ddpmkit.cli.given import Global

    # Whatever a terminal or pipe can't show goes out as something plainer, never as an error.
    speakable(data(), sys.stdout, sys.stderr)
    options = Global(argv=tuple(args))
    try:
        app = application(args)
        code = app(args or ["--help"], standalone_mode=False, obj=options, prog_name="ddpmkit")
        if data() is not None:  # None where it was closed before we were started
            data().flush()
        return int(code or 0)
    except DdpmkitError as err:
        return _fail(err.message + _place(err, options), err.hint, err.code, options.verbose)
    except Diverged as err:
        hint = "the network has no sample and no bound there; train it anew, as with a smaller --axis learning_rate"
        return _fail(f"diverged: {err}", hint, Exit.FAILED, options.verbose)
    except typer.Exit as err:
        return int(err.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except typer.TyperException as err:  # Typer's own usage errors
        text = err.format_message() if hasattr(err, "format_message") else str(err)
        return _fail(" ".join(text.split()), "ddpmkit --help, or ddpmkit COMMAND --help", Exit.USAGE, False)
    except (BrokenPipeError, SystemExit) as err:
        # Who reads our output has had enough of it. Typer, where that happens under its own help, exits by itself.
        left = isinstance(err, BrokenPipeError) or isinstance(err.__context__, BrokenPipeError)
        if left and _has_left(data()):
            return int(Exit.READER_LEFT)
        return _unforeseen(err, options)
    except BaseException as err:  # the last line of defence: a plugin's failure, or a defect with its traceback
        return _unforeseen(err, options)


def _has_left(stream: TextIO) -> bool:
    """Whether nobody is there any more to read a stream; what is left to be written to it is then dropped."""
    poll = select.poll()
    try:
        descriptor = stream.fileno()
        poll.register(descriptor, select.POLLOUT)
        left = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # a stand-in of a test or a notebook
        return False
    if left:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), descriptor)  # the interpreter flushes once more at its end
    return left


def _interrupted() -> int:
    return _fail("interrupted", "the same command goes on from here", Exit.SIGINT, False)


def _place(err: DdpmkitError, options: Global) -> str:
    """Where in a plugin's code an error began, unless the message says so."""
    from ddpmkit.plugin.culprit import culprit

    if err.__cause__ is None or options.made is None:
        return ""
    where = culprit(err.__cause__, options.made)
    return "" if where is None or where.place in err.message else f" [{where.brief}]"


def _unforeseen(err: BaseException, options: Global) -> int:
    from ddpmkit.plugin.culprit import culprit

    told = f"{type(err).__name__}: {err}"
    where = culprit(err, options.made) if options.made is not None else None
    if where is not None:
        hint = "ddpmkit -v COMMAND shows the traceback; it is for the plugin's author"
        return _fail(f"{where} failed: {told}", hint, Exit.FAILED, options.verbose)
    if isinstance(err, OSError):
        disk = unwritten(err)
        return _fail(disk.message, disk.hint, Exit.FAILED, options.verbose)
    traceback.print_exc()
    return _fail(f"internal error: {told}", "please report it", Exit.INTERNAL, False)


def _fail(message: str, hint: str | None, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"error: {one_line(message)}", file=sys.stderr)
    print(f"hint: {one_line(hint or 'ddpmkit --help')}", file=sys.stderr)
    return int(code)
