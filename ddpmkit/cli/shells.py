"""The scripts that complete a command line in bash, zsh and fish, written from a table of what may stand where."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass


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
