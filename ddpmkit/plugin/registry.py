"""Look components up by name, build them from text, and write down exactly what was built."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, UnknownComponentError, did_you_mean
from ddpmkit.plugin import changes, spec
from ddpmkit.plugin.interfaces import KINDS, kind_of
from ddpmkit.plugin.loader import BUILTIN, Entry, Issue, Loaded, load_builtin, load_installed, load_named
from ddpmkit.plugin.parameters import Spelled
from ddpmkit.plugin.sources import Sources

# A part enters ids with all that identifies it. But ids of zero-snr are older than parts with parameters, and hold the
# name of its base alone; this is what the names stood for then, and they stand for it whatever becomes of defaults.
BY_NAME: dict[str, dict[str, Any]] = {
    "linear": {"beta_1": 1e-4, "beta_T": 0.02, "scaled": True},
    "cosine": {"s": 0.008, "max_beta": 0.999},
    "sigmoid": {"beta_1": 1e-4, "beta_T": 0.02, "span": 6.0},
    "quadratic": {"beta_1": 1e-4, "beta_T": 0.02},
}


class Registry:
    """The components that this process knows.

    ``options`` are the words that followed ``-p``: modules, files, and ``no:NAME``. Built-in names resolve without
    any other plugin being imported; installed plugins are loaded when a name is not built in, or for a listing.
    """

    def __init__(
        self, options: Iterable[str] = (), *, installed: bool = True, strict: bool = False, quiet: bool = False
    ) -> None:
        self.options = tuple(str(files.home(o)) if o.startswith("~") else o for o in options)
        self.installed = installed
        self.strict = strict
        self.quiet = quiet
        self._plugins: list[Loaded] = [load_builtin()]
        targets = {_place(o): o for o in reversed(self.options) if not o.startswith("no:")}
        self._plugins += [load_named(o) for o in reversed(targets.values())]
        self._complete = not installed
        self._told: set[str] = set()
        self.warn()

    @property
    def issues(self) -> list[Issue]:
        """What was wrong with the plugins that were loaded so far."""
        found = [issue for plugin in self._plugins for issue in plugin.issues]
        builtin = {(e.kind, e.name) for e in self._plugins[0].entries}
        for entry in self._entries():
            if entry.plugin != BUILTIN and (entry.kind, entry.name) in builtin:
                text = f"{entry.kind} '{entry.name}' is a built-in name; yours is reachable as {entry.qualified} only"
                found.append(Issue(entry.plugin, entry.plugin_version, "component", text))
        return found

    def plugins(self) -> list[Loaded]:
        """Every plugin, the built-ins first; loads the installed ones."""
        self._load_installed()
        return list(self._plugins)

    def named(self, name: str) -> list[Entry]:
        """Every component of that name, bare or qualified; installed plugins are loaded only if it is not built in."""
        found = [e for e in self._plugins[0].entries if name in (e.name, e.qualified)]
        return found or [e for e in self.entries() if name in (e.name, e.qualified)]

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Every component, or those of one kind; loads the installed plugins."""
        self._load_installed()
        return [e for e in self._entries() if kind in (None, e.kind)]

    def builtin(self, kind: str) -> list[Entry]:
        """The built-in components of one kind; loads no plugin."""
        return [e for e in self._plugins[0].entries if e.kind == kind]

    def foreign(self) -> list[Entry]:
        """The components of plugins, as far as they were loaded."""
        return [e for e in self._entries() if e.plugin != BUILTIN]

    def find(self, kind: str, name: str) -> Entry:
        """Return the one component of that kind and name, bare or as ``plugin/name``.

        Raises:
            DdpmkitError: when there is none, or two plugins bring it.
        """
        matches = self._match(kind, name)
        if not (len(matches) == 1 and ("/" in name or matches[0].plugin == BUILTIN)):
            self._load_installed()  # a name that is not built in may be brought by more than one
            matches = self._match(kind, name)
        if len(matches) == 1:
            return matches[0]
        if matches:
            both = " and ".join(sorted(e.qualified for e in matches))
            apart = len({e.qualified for e in matches}) > 1
            raise DdpmkitError(
                f"{kind} '{name}' is provided by {len(matches)} plugins: {both}",
                "write the full name, plugin/name" if apart else "rename one of the two files",
            )
        known = [e.name for e in self._entries() if e.kind == kind]
        message = f"unknown {kind} '{name}'{did_you_mean(name, known)}"
        broken = sorted({issue.plugin for plugin in self._plugins for issue in plugin.issues})
        if broken:
            message += f" (plugin {', '.join(broken)} did not load whole and may have provided it)"
        raise UnknownComponentError(message, f"ddpmkit ls {kind}", kind=kind, name=name)

    def build(self, kind: str, text: str) -> Any:
        """Build a component from spec text, such as ``cosine:s=0.01``.

        Raises:
            DdpmkitError: for an unknown kind, name or parameter, or a bad value.
        """
        if kind not in KINDS:
            raise DdpmkitError(f"unknown kind '{kind}'{did_you_mean(kind, KINDS)}", f"kinds: {', '.join(KINDS)}")
        name, raw = spec.parse(text)
        return spec.construct(self.find(kind, name).cls, raw, kind=kind, build=self._part)

    def called(self, obj: Any) -> str:
        """Return the name by which a component is found: its own, or plugin/name where that is not enough."""
        entry = self._entry(obj)
        if entry.plugin == BUILTIN:
            return entry.name
        try:
            return entry.name if self.find(entry.kind, entry.name) is entry else entry.qualified
        except DdpmkitError:  # two plugins have it
            return entry.qualified

    def record(self, obj: Any) -> dict[str, Any]:
        """Write down a component so that it can be built again: every parameter, defaults included."""
        entry = self._entry(obj)
        record = {
            "kind": entry.kind,
            "name": entry.name,
            "params": spec.values(obj, called=self.called),
            "plugin": entry.plugin,
            "plugin_version": entry.plugin_version,
            "version": entry.identity,
        }
        parts, sources = spec.parts(obj), self._sources(obj)
        if parts:
            record["parts"] = {key: self.record(part) for key, part in parts.items()}
        return record if sources is None else {**record, "sources": asdict(sources)}

    def identity(self, obj: Any) -> dict[str, Any]:
        """Return what of a component enters ids: who makes it, its parameters, and its version.

        Of a plugin's also the version of its distribution and a hash of what its import brought: the modules outside
        site-packages and the files that were read. Parts enter with their own identities.
        """
        entry, params = self._entry(obj), spec.hashed_values(obj)
        params |= {key: self._identity_of_part(part) for key, part in spec.parts(obj).items() if key in params}
        out: dict[str, Any] = {"name": entry.qualified, "params": params, "version": entry.identity}
        sources = self._sources(obj)
        if sources is not None:
            out |= {"sources": sources.digest()}
        if entry.sources is not None and not isinstance(entry.identity, str):  # a file or module is its own hash
            out |= {"distribution": entry.plugin_version}
        return out

    def is_builtin(self, obj: Any) -> bool:
        """Whether a component comes with ddpmkit, its parts too, and nothing of it from a plugin."""
        return all(self._entry(part).plugin == BUILTIN for part in spec.whole(obj))

    def changed_by(self) -> dict[str, str]:
        """Return the plugins that have replaced something in torch, numpy or scipy, each with what it was made of.

        Such a change reaches every cell, and so enters every id.

        Raises:
            DdpmkitError: when a plugin did so that is not one of this registry's: nothing here can undo it.
        """
        loaded = {p.name: p for p in self._plugins}
        out = {}
        for plugin, names in changes.made().items():
            if plugin not in loaded:
                raise DdpmkitError(
                    f"plugin '{plugin}', loaded earlier in this process, replaced {', '.join(names[:3])}",
                    "start Python again, or pass that plugin too",
                )
            sources = loaded[plugin].sources
            out[plugin] = f"{loaded[plugin].version} {sources.digest() if sources else ''}".strip()
        return out

    def _part(self, cls: type[Spelled], text: str) -> Any:
        kind = kind_of(cls)
        if kind is None:
            raise TypeError(f"{cls.__name__} is no kind of component")
        return self.build(kind.name, text)

    def _identity_of_part(self, part: Any) -> Any:
        found, name = self.identity(part), part.name
        before = {"name": f"{BUILTIN}/{name}", "params": BY_NAME.get(name), "version": 1}
        return name if found == before else found

    def _sources(self, obj: Any) -> Sources | None:
        """What the imports of a component and of its parts brought; None for built-ins."""
        found = [s for part in spec.whole(obj) if (s := self._entry(part).sources) is not None]
        return functools.reduce(operator.or_, found) if found else None

    def _entry(self, obj: Any) -> Entry:
        entry = next((e for e in self._entries() if e.cls is type(obj)), None)
        if entry is None:
            raise DdpmkitError(f"'{obj.name}' is a component that no plugin registered", "build it by its name")
        return entry

    def rebuild(self, record: dict[str, Any]) -> Any:
        """Build the component that a record describes.

        Raises:
            DdpmkitError: when its plugin is not here any more, or brings another version of it.
        """
        parts = {key: self.rebuild(part) for key, part in record.get("parts", {}).items()}
        qualified = f"{record['plugin']}/{record['name']}"
        try:
            entry = self.find(record["kind"], qualified)
        except DdpmkitError as err:
            raise DdpmkitError(
                f"the stage was planned with {record['kind']} '{record['name']}' from {record['plugin']} "
                f"{record['plugin_version']}, which is not here",
                "install that plugin, or pass the same -p again",
            ) from err
        changed = "" if entry.identity != record["version"] else Sources(**record.get("sources", {})).changed()
        if changed is not None:
            where = f" ({changed})" if changed else ""
            raise DdpmkitError(
                f"{record['kind']} '{record['name']}' of {record['plugin']} has changed since the stage was "
                f"planned{where}",
                "run the study again: its stages get new ids",
            )
        try:
            return spec.from_values(entry.cls, {**record["params"], **parts}, self._part)
        except (TypeError, ValueError) as err:
            raise DdpmkitError(
                f"{record['kind']} '{record['name']}' does not take the stored parameters any more: {err}",
                "run the study again, under another --name",
            ) from None

    def warn(self) -> None:
        """Print one line on stderr for each issue.

        Raises:
            DdpmkitError: for the first issue when the registry is strict.
        """
        for issue in self.issues:
            text = str(issue)
            if self.strict:
                raise DdpmkitError(text, "ddpmkit plugins -v shows the traceback") from issue.error
            if text not in self._told and not self.quiet:
                self._told.add(text)
                print(f"warning: {text}", file=sys.stderr)

    def _load_installed(self) -> None:
        if not self._complete:
            self._complete = True
            blocked = [o.removeprefix("no:") for o in self.options if o.startswith("no:")]
            self._plugins += load_installed(blocked)
            self.warn()

    def _entries(self) -> list[Entry]:
        return [e for plugin in self._plugins for e in plugin.entries]

    def _match(self, kind: str, name: str) -> list[Entry]:
        of_kind = [e for e in self._entries() if e.kind == kind]
        if "/" in name:
            return [e for e in of_kind if e.qualified == name]
        builtin = [e for e in of_kind if e.name == name and e.plugin == BUILTIN]
        return builtin or [e for e in of_kind if e.name == name]


def _place(option: str) -> str:
    """The same file written in two ways is one plugin."""
    return str(Path(option).resolve()) if option.endswith(".py") else option
