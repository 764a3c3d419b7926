"""A plugin to begin with: a package of one component that works, is tested, and is the author's to change."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin.interfaces import KINDS
from ddpmkit.plugin.loader import load_builtin

TEMPLATES = Path(__file__).with_name("templates")
LONGEST = 40  # characters of a name, which is part of names of files
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

# What holds the new component against what there is already.
COMMANDS = {
    "schedule": "ddpmkit ablate --schedules linear,{}",
    "sigma": "ddpmkit ablate --sigmas beta,{}",
    "weighting": "ddpmkit ablate --weightings simple,{}",
    "backbone": "ddpmkit ablate --backbones unet,{}",
    "prediction": "ddpmkit ablate --predictions eps,{}",
    "sampler": "ddpmkit ablate --samplers ancestral,{}",
    "dataset": "ddpmkit ablate --schedules linear,cosine --dataset {}",
    "features": "ddpmkit ablate --schedules linear,cosine --features digits,{}",
    "metric": "ddpmkit ablate --schedules linear,cosine --metrics fd,{},nll",
    "executor": "ddpmkit ablate --schedules linear,cosine --executor {}",
}


def new_plugin(name: str, kind: str, into: Path) -> list[Path]:
    """Write the package ``ddpmkit-NAME`` with one component NAME of a kind, and return its files.

    Args:
        name: The component's name, lower-case words with dashes between; ``ddpmkit-NAME`` means the same.
        kind: One of the kinds of component.
        into: The folder in which the package gets its own.

    Raises:
        DdpmkitError: for an unknown kind, a bad name or one that is built in, or a folder that is there already.
    """
    if kind not in KINDS:
        raise DdpmkitError(f"unknown kind '{kind}'{did_you_mean(kind, KINDS)}", f"kinds: {', '.join(KINDS)}")
    short = name.removeprefix("ddpmkit-")
    if not NAME.fullmatch(short) or len(short) > LONGEST:
        raise DdpmkitError(
            f"'{name}' is no name for a plugin: at most {LONGEST} lower-case letters and digits, '-' between words",
            f"ddpmkit new-plugin soft-cosine --kind {kind}",
        )
    if (kind, short) in {(e.kind, e.name) for e in load_builtin().entries}:
        raise DdpmkitError(
            f"{kind} '{short}' is built in, and no plugin can take its place",
            f"another name: ddpmkit new-plugin my-{short} --kind {kind}",
        )
    folder = into / f"ddpmkit-{short}"
    try:
        folder.mkdir()
    except FileExistsError:
        raise DdpmkitError(f"'{folder}' is there already", "another name, or move it away") from None
    written = []
    for place, text in package(short, kind).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        written.append(path)
    return written


def package(name: str, kind: str) -> dict[str, str]:
    """Return the text of each file of the package, by its place in it."""
    file = name.replace("-", "_")
    words = {
        "name": name,
        "kind": kind,
        "dist": f"ddpmkit-{name}",
        "file": file,
        "module": f"ddpmkit_{file}",
        # The kind behind it, so that it never is a name that the module imports.
        "cls": "".join(word.capitalize() for word in (*name.split("-"), kind)),
        "command": COMMANDS[kind].format(name),
    }
    places = {
        "pyproject.toml": "common/pyproject.toml.txt",
        "README.md": "common/README.md.txt",
        ".gitignore": "common/gitignore.txt",
        ".github/workflows/test.yml": "common/test.yml.txt",
        f"ddpmkit_{file}.py": f"{kind}/module.py.txt",
        f"tests/test_{file}.py": f"{kind}/test.py.txt",
    }
    return {
        place: Template((TEMPLATES / source).read_text(encoding="utf-8")).substitute(words)
        for place, source in places.items()
    }
