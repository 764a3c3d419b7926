"""The command that is typed next where a name is another grid's: one that grows that study, or makes another."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import files

if TYPE_CHECKING:
    import typer

    from ddpmkit.study.study_name import NameTakenError


def next_command(context: typer.Context, taken: NameTakenError, out: Path, of_study: Collection[str]) -> str:
    """Return the command line that grows the study of a name that is taken, else the one that was typed by another.

    Args:
        context: Of the command line that was refused.
        taken: Why.
        out: The results folder.
        of_study: The options that say what is asked for; the others are how it runs, and stay.
    """
    from ddpmkit.study.growing import growing
    from ddpmkit.study.store import Store

    given, asked, there = context.obj, taken.asked, taken.there
    options = None
    if asked is not None and there is not None:
        options = growing(asked, there, Store(files.home(out)), given.made)
    if asked is None or options is None:
        return str(given.again(taken.free))
    before = given.argv[: given.argv.index("ablate")] if "ablate" in given.argv else ()
    return shlex.join(["ddpmkit", *before, "ablate", asked.name, *_words(options), *_kept(context, of_study)])


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            yield from (f"--{name.replace('_', '-')}", str(text))


def _kept(context: typer.Context, of_study: Collection[str]) -> Iterator[str]:
    """The options that were typed and do not say what is asked for."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in of_study or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[option.name or ""]
        for one in value if isinstance(value, (list, tuple)) else [value]:
            yield option.opts[0]
            if one is not True:
                yield str(one)
