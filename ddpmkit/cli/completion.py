"""``completion``: what a shell needs to know of the command line, as a script that asks nobody while one types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from ddpmkit.cli.shells import SCRIPTS, Command, Flag
from ddpmkit.cli.streams import data

Shell = Literal["bash", "zsh", "fish"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog='Example: eval "$(ddpmkit completion bash)"')(completion)


def completion(
    shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish", show_default=False)],
) -> None:
    """Print a script that completes commands in a shell.

    It knows the commands, their flags, the built-in components and their parameters, and runs no ddpmkit when a key is
    pressed. Put it where your shell reads it at its start:

    bash: ddpmkit completion bash > ~/.local/share/bash-completion/completions/ddpmkit

    zsh: ddpmkit completion zsh > ~/.zfunc/_ddpmkit, with ~/.zfunc in fpath before compinit

    fish: ddpmkit completion fish > ~/.config/fish/completions/ddpmkit.fish
    """
    print(SCRIPTS[shell](commands()), file=data())


def commands() -> tuple[Command, ...]:
    """Read all commands off the application."""
    from ddpmkit.cli.app import COMMANDS, application, options

    top: Any = typer.main.get_command(application(tuple(COMMANDS)))
    found = [Command("", "", _flags("", top.params, get_type_hints(options)))]
    for name, (_, summary) in COMMANDS.items():
        parts = getattr(top.commands[name], "commands", {})  # studies rename, studies rm, ..
        flags = [Flag((), "", True, tuple(parts))] if parts else []
        for part in (top.commands[name], *parts.values()):
            if part.callback is not None:
                kinds = get_type_hints(part.callback.__wrapped__)
                flags += [flag for flag in _flags(name, part.params, kinds) if flag not in flags]
        found.append(Command(name, summary, tuple(flags)))
    return tuple(found)


def _flags(command: str, params: Any, kinds: Mapping[str, Any]) -> tuple[Flag, ...]:
    settings, own = _of_settings(), _of_commands()
    out = []
    for p in params:
        names = tuple(p.opts) if p.param_type_name == "option" else ()
        many = names[:1] in settings
        asked = ((command, names[0]), names[:1]) if names else ((command, p.name),)
        known = next((values[key] for key in asked for values in (own, settings) if key in values), ())
        takes, text = not getattr(p, "is_flag", False), " ".join((getattr(p, "help", None) or "").split())
        out.append(Flag(names, text, takes, known or _literal(kinds.get(p.name)) if takes else (), many))
        if names and p.secondary_opts:
            out.append(Flag(tuple(p.secondary_opts), text, False))
    return (*out, Flag(("--help",), "Show what the command does and all its flags.", False))


Values = dict[tuple[str, ...], tuple[str, ...]]


def _of_settings() -> Values:
    """Flag -> what may follow it: of settings, and of lists of components; all of these take several."""
    from ddpmkit.study.settings import DEFAULT_METRICS, FIELDS, NLL, PLURALS

    found: Values = {}
    plural = {field: name for name, field in PLURALS.items()}
    for name, field in FIELDS.items():
        values = _specs(name) if name in _kinds() else _literal(field.type)
        for spelt in (name, plural.get(name, name)):
            found[(f"--{spelt.replace('_', '-')}",)] = values
    found[("--axis",)] = tuple(f"{name}=" for name in FIELDS)
    found[("--metrics",)] = tuple(dict.fromkeys((*DEFAULT_METRICS, *_specs("metric"), NLL)))
    found[("--features",)] = _specs("features")
    return found


def _of_commands() -> Values:
    """What a command's own argument or flag may be."""
    from ddpmkit.cli.app import COMMANDS
    from ddpmkit.study.settings import FIELDS, PRESETS

    every = tuple(dict.fromkeys(name for kind in _kinds() for name in _names(kind)))
    return {
        ("show", "name"): (*every, *FIELDS),
        ("ls", "kind"): _kinds(),
        ("ablate", "--executor"): _specs("executor"),
        ("new-plugin", "--kind"): _kinds(),
        ("ablate", "--preset"): tuple(PRESETS),
        ("completion", "shell"): get_args(Shell),
        ("", "command"): tuple(COMMANDS),
    }


def _kinds() -> tuple[str, ...]:
    from ddpmkit.plugin.interfaces import KINDS

    return tuple(KINDS)


def _names(kind: str) -> tuple[str, ...]:
    from ddpmkit.plugin.registry import Registry

    return tuple(entry.name for entry in Registry(installed=False).entries(kind))


def _specs(kind: str) -> tuple[str, ...]:
    """The names of a kind, and each with one of its parameters."""
    from ddpmkit.plugin.parameters import parameters
    from ddpmkit.plugin.registry import Registry

    out: list[str] = []
    for entry in Registry(installed=False).entries(kind):
        out.append(entry.name)
        for p in parameters(entry.cls):
            out += [f"{entry.name}:{p.name}={value}" for value in _literal(p.type) or ("",)]
    return tuple(out)


def _literal(kind: Any) -> tuple[str, ...]:
    """The values of a closed set; nothing of an open one."""
    if kind is bool:
        return ("true", "false")
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()
