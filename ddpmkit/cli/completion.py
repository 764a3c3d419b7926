"""``completion``: what a shell needs to know of the command line, as a script that asks nobody while one types."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from ddpmkit.cli.streams import data

Shell = Literal["bash", "zsh", "fish"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog='Example: eval "$(ddpmkit completion bash)"')(completion)


def completion(
    shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish", show_default=False)],
) -> None:
    """Print a script that completes what one types in a shell.

    It knows the commands, their flags, the built-in components and their parameters, and runs no ddpmkit when a key is
    pressed. Put it where your shell reads it at its start:

    bash: ddpmkit completion bash > ~/.local/share/bash-completion/completions/ddpmkit

    zsh: ddpmkit completion zsh > ~/.zfunc/_ddpmkit, with ~/.zfunc in fpath before compinit

    fish: ddpmkit completion fish > ~/.config/fish/completions/ddpmkit.fish
    """
    print(SCRIPTS[shell](commands()), file=data())


@dataclass(frozen=True)
class Flag:
    """A flag, or an argument, which has no names: what may follow it; ``many``: as a list with commas."""

    names: tuple[str, ...]
    help: str
    takes: bool
    values: tuple[str, ...] = ()
    many: bool = False


@dataclass(frozen=True)
class Command:
    """A command with its flags; that of the empty name is ddpmkit itself."""

    name: str
    help: str
    flags: tuple[Flag, ...]


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


# The question that both bash and zsh ask: what may stand here? An answer is a list of words, none with a blank in it.


def _table(found: tuple[Command, ...]) -> Iterator[str]:
    """The lines of a shell function: of $command and $flag it sets $list, and $many to 1 for a list with commas."""
    yield "_ddpmkit_words() {"
    yield "    list= many="
    yield '    case "$command $flag" in'
    for command in found:
        for flag in command.flags:
            if flag.takes and flag.names:
                where = " | ".join(shlex.quote(f"{command.name} {name}") for name in flag.names)
                many = "; many=1" if flag.many else ""
                yield f"    {where}) list={shlex.quote(' '.join(flag.values))}{many}; return 0 ;;"
    yield "    esac"
    yield '    case "$command" in'
    for command in found:
        words = [name for flag in command.flags for name in flag.names]
        own = [value for flag in command.flags if not flag.names for value in flag.values]
        first = [c.name for c in found if c.name] if not command.name else []
        yield f"    {shlex.quote(command.name)}) list={shlex.quote(' '.join((*first, *own, *words)))} ;;"
    yield "    esac"
    yield "}"
    yield "# $flag is the flag before the word, where it takes a value; $command the first word that is no flag's."
    yield "_ddpmkit_look() {"
    yield "    command= flag="
    yield "    local word"
    yield '    for word in "$@"; do'
    yield '        if [ -n "$flag" ]; then flag='
    yield '        elif [ "${word#-}" != "$word" ]; then'
    yield "            flag=$word; _ddpmkit_takes || flag="
    yield '        elif [ -z "$command" ]; then command=$word; fi'
    yield "    done"
    yield "}"
    yield "_ddpmkit_takes() {"
    yield '    case "$command $flag" in'
    takes = [f"{c.name} {name}" for c in found for flag in c.flags if flag.takes for name in flag.names]
    yield f"    {' | '.join(map(shlex.quote, takes))}) return 0 ;;"
    yield "    esac"
    yield "    return 1"
    yield "}"


def _said(shell: str) -> str:
    from ddpmkit import __version__

    return f"# Completion of ddpmkit {__version__} for {shell}. Written by: ddpmkit completion {shell}"


def _bash(found: tuple[Command, ...]) -> str:
    return "\n".join((_said("bash"), *_table(found), _BASH))


# All three offer the parameters of a component once the colon behind its name is typed.
# Bash cuts words at = and : and hands the pieces out; here the line is read itself, and of an answer only the
# part behind the last cut is given back.
_BASH = r"""_ddpmkit() {
    local line=${COMP_LINE:0:COMP_POINT} command flag list many before word IFS=$' \t\n'
    local cur=${line##*[[:space:]]}
    local -a words
    read -ra words <<< "${line%"$cur"}"
    _ddpmkit_look "${words[@]:1}"
    case "$cur" in -*=*) flag=${cur%%=*}; cur=${cur#*=} ;; esac
    _ddpmkit_words
    before=
    if [ -n "$many" ]; then case "$cur" in *,*) before=${cur%,*}, ;; esac; fi
    COMPREPLY=()
    for word in $list; do
        case "$word" in *:*) case "${cur#"$before"}" in *:*) ;; *) continue ;; esac ;; esac
        case "$before$word" in "$cur"*) COMPREPLY+=("$before$word") ;; esac
    done
    if [ "${#COMPREPLY[@]}" = 1 ]; then case "${COMPREPLY[0]}" in *=) compopt -o nospace 2> /dev/null ;; esac; fi
    case "$COMP_WORDBREAKS" in
    *[:=]*)
        local cut=${cur%"${cur##*[:=]}"} i
        for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$cut"}; done ;;
    esac
}
complete -o default -F _ddpmkit ddpmkit"""


def _zsh(found: tuple[Command, ...]) -> str:
    return "\n".join(("#compdef ddpmkit", _said("zsh"), *_table(found), _ZSH))


_ZSH = r"""_ddpmkit() {
    local command flag list many
    local -a answers open
    _ddpmkit_look "${(@)words[2,CURRENT-1]}"
    if [[ ${words[CURRENT]} == -*=* ]]; then flag=${words[CURRENT]%%=*}; compset -P 1 '*='; fi
    _ddpmkit_words
    if [[ -z $list ]]; then _files; return; fi
    if [[ -n $many ]]; then compset -P '*,'; fi
    answers=(${=list})
    if [[ $PREFIX != *:* ]]; then answers=(${answers:#*:*}); fi
    open=(${(M)answers:#*=})
    answers=(${answers:#*=})
    compadd -S '' -a open
    if [[ -n $many ]]; then compadd -q -S ',' -a answers; else compadd -a answers; fi
}
if [[ $funcstack[1] == _ddpmkit ]]; then _ddpmkit "$@"; else compdef _ddpmkit ddpmkit; fi"""


def _fish(found: tuple[Command, ...]) -> str:
    lines = [_said("fish"), _FISH]
    for command in found:
        there = f"__fish_seen_subcommand_from {command.name}" if command.name else "__fish_use_subcommand"
        if command.name:
            lines.append(
                f"complete -c ddpmkit -n __fish_use_subcommand -f -a {command.name} -d {_fish_quote(command.help)}"
            )
        for flag in command.flags:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names)
            parts = ["complete -c ddpmkit", f"-n {_fish_quote(there)}", names]
            if flag.names:
                parts.append(f"-d {_fish_quote(flag.help[:120])}")
            if flag.takes and flag.names:
                parts.append("-r")
            if flag.values:
                words = " ".join(map(_fish_quote, flag.values))
                parts.append(
                    f"-f -a {_fish_quote(f'(__ddpmkit_list {words})' if flag.many else ' '.join(flag.values))}"
                )
            if flag.names or flag.values:
                lines.append(" ".join(part for part in parts if part))
    return "\n".join(lines)


_FISH = """function __ddpmkit_list
    set -l before (string match -r '.*,' -- (commandline -ct))
    for word in $argv
        if string match -q '*:*' -- $word; and not string match -q -r ':[^,]*$' -- (commandline -ct)
            continue
        end
        printf '%s%s\\n' "$before" $word
    end
end"""


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[tuple[Command, ...]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
