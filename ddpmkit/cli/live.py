"""The live display of a running study, and plain lines where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddpmkit.cli.console import stderr_console
from ddpmkit.study.progress import KINDS, Monitor, PlainLines, clock
from ddpmkit.study.runner import Prepared
from ddpmkit.text import inert

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR = 24


@contextmanager
def watch(prepared: Prepared) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what to call with every event of a run; while the context is open the terminal shows how far it is."""
    monitor, console = Monitor(prepared), stderr_console()
    if not console.is_interactive:
        yield PlainLines(monitor)
        return
    from rich.live import Live

    with Live(get_renderable=lambda: render(monitor), console=console, refresh_per_second=4, transient=False) as live:

        def tell(event: dict[str, Any]) -> None:
            monitor.take(event)
            if event["event"] == "log":
                live.console.print(inert(event["text"]), markup=False, highlight=False)

        yield tell


def render(m: Monitor) -> RenderableType:
    """Draw the state: a bar a kind of stage, a line a worker, the time gone and left."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bars = Table.grid(padding=(0, 1))
    for kind in KINDS:
        if not m.total[kind]:
            continue
        part = sum(a.done for a in m.active.values() if a.kind == kind)
        failed = f"  {m.failed[kind]} failed" if m.failed[kind] else ""
        bars.add_row(
            Text(f"{kind:>6}", style="bold"),
            ProgressBar(total=m.total[kind], completed=m.finished[kind] + part, width=BAR),
            Text(f"{m.finished[kind]}/{m.total[kind]}"),
            Text(failed, style="red"),
        )
    workers = Table.grid(padding=(0, 1))
    for number in sorted(m.active):
        a = m.active[number]
        detail = f"step {a.step}" if a.step is not None else ""
        detail += f"  loss {a.loss:.4f}" if a.loss is not None else ""
        workers.add_row(
            Text(f"{number:>6}", style="dim"),
            Text(inert(a.label)),
            Text(f"{100 * a.done:3.0f} %"),
            Text(a.note or detail),
        )
    eta = m.eta()
    left = f"about {clock(eta)} left" if eta else "estimating" if m.active and eta is None else ""
    head = Text.assemble(("study ", "bold"), (m.prepared.study.name, "bold"), f"   {clock(m.elapsed)}   {left}")
    return Group(head, bars, workers)
