"""What to do about a check that failed: where to look, how a method is called, or where its kind is explained."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import KINDS

CALLED = re.compile(r"(\w+)\(\) (?:takes|got|missing)")  # what Python says of a call that does not fit


def hint(kind: str, component: object, err: DdpmkitError) -> str:
    """Return what to do about an error of a component's check; ``ddpmkit show`` tells its author nothing new."""
    raised = err.__cause__
    if raised is not None and not isinstance(raised, DdpmkitError):  # the component's own code
        return _place(kind, type(component), raised) or _call(kind, raised) or explained(kind)
    own = f"ddpmkit show {getattr(component, 'name', '')}"
    return err.hint if err.hint and err.hint != own else explained(kind)


def explained(kind: str) -> str:
    """Say where a kind is explained."""
    return f"docs/kinds/{kind}.md says what is wanted; ddpmkit new-plugin NAME --kind {kind} writes one that works"


def _place(kind: str, cls: type, raised: BaseException) -> str:
    """The innermost line of the file of a class that an exception passed through; empty where there is none."""
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:
        file = None
    place, trace = "", raised.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            place = f"look at {Path(file).name} line {trace.tb_lineno}"
        trace = trace.tb_next
    if place and kind == "metric" and "NoneType" in str(raised):
        place += f"; what needs does not name is None in the sets, and it is {getattr(cls, 'needs', ())}"
    return place


def _call(kind: str, raised: BaseException) -> str:
    """How ddpmkit calls the method whose arguments do not fit; empty where it is none of the kind's."""
    named = CALLED.search(str(raised)) if isinstance(raised, TypeError) else None
    if named is None:
        return ""
    if named[1] == "forward":
        return "the network is called as forward(x, t), or forward(x, t, y) where it was built with num_classes"
    method = getattr(KINDS[kind].interface, named[1], None)
    if not inspect.isfunction(method):
        return ""
    args = [p.replace(annotation=p.empty) for p in inspect.signature(method).parameters.values()]
    return f"it is called as {named[1]}{inspect.Signature(args[1:])}"
