"""What of a store the studies need: every stage of every plan, and the decoded data that these were made with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.sharing import results_folders
from ddpmkit.study.store import Store, plans

Key = tuple[str, str]  # kind and id of a stage


@dataclass(frozen=True)
class Needs:
    """The studies that rest on a store.

    Attributes:
        by_study: folder of a study -> its plan.
        damaged: folders of studies whose plan can't be read.
    """

    by_study: dict[Path, dict[str, Any]]
    damaged: tuple[Path, ...] = ()

    def stages(self) -> dict[Key, dict[str, Any]]:
        """Every stage that some study needs, with its record."""
        return {(s["kind"], s["id"]): s for plan in self.by_study.values() for s in plan["stages"]}

    def data(self) -> set[str]:
        """The hashes of the data that they were made with."""
        return {str(s["how"]["data"]) for s in self.stages().values() if "data" in s.get("how", {})}


def needs_of(store: Store) -> Needs:
    """Read the plans of all studies that rest on a store."""
    found: dict[Path, dict[str, Any]] = {}
    damaged = []
    for out in results_folders(store)[0]:
        for name, plan in plans(out).items():
            if plan is None:
                damaged.append(out / "studies" / name)
            else:
                found[out / "studies" / name] = plan
    return Needs(found, tuple(damaged))


def all_needs(store: Store) -> Needs:
    """Return what the studies need, or refuse where that can't be known.

    Raises:
        DdpmkitError: when a plan is damaged, or a results folder that shares the store is not there.
    """
    gone = results_folders(store)[1]
    if gone:
        raise DdpmkitError(
            f"the studies of '{gone[0]}' rest on this store too, and that folder is not there now",
            f"make it reachable; if it is gone for good, ddpmkit gc --forget {gone[0]}",
        )
    found = needs_of(store)
    if found.damaged:
        folder = found.damaged[0]
        raise DdpmkitError(
            f"the plan of study '{folder.name}' is damaged, so that nobody knows what it needs",
            f"run the study again, or ddpmkit studies rm {folder.name}",
        )
    return found
