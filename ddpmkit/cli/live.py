"""The live display of a running study, and plain lines where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddpmkit.cli.console import stderr_console
from ddpmkit.study.prepare import Prepared
from ddpmkit.study.progress import Activity, Monitor, PlainLines
from ddpmkit.text import clock, inert
from ddpmkit.text.layout import wrap

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

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
    for no_wrap in (True, False, True, True):  # the bar gives way, a number does not
        bars.add_column(no_wrap=no_wrap)
    for kind in m.kinds:
        part = sum(a.done for a in m.active.values() if a.kind == kind)
        failed = f"  {m.failed[kind]} failed" if m.failed[kind] else ""
        bars.add_row(
            Text(f"{kind:>6}", style="bold"),
            ProgressBar(total=m.total[kind], completed=m.finished[kind] + part, width=BAR),
            Text(f"{m.finished[kind]}/{m.total[kind]}"),
            Text(failed, style="red"),
        )
    eta = m.eta()
    left = f"about {clock(eta)} left" if eta else "estimating" if m.active and eta is None else ""
    head = Text.assemble(("study ", "bold"), (m.prepared.study.name, "bold"), f"   {clock(m.elapsed)}   {left}")
    return Group(head, bars, _Workers(m))


class _Workers:
    """A line a worker; its numbers go below its label where the terminal is too narrow for both."""

    def __init__(self, m: Monitor) -> None:
        self.m = m

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines, none of them cut or broken inside a word."""
        from rich.text import Text

        rows = [(f"{number:>6} ", inert(a.label), _numbers(a)) for number, a in sorted(self.m.active.items())]
        longest = max((len(label) for _, label, _ in rows), default=0)
        beside = all(7 + longest + 1 + len(numbers) <= options.max_width for _, _, numbers in rows)
        for number, label, numbers in rows:
            if beside:
                lines = [f"{label:<{longest}} {numbers}"]
            else:
                lines = [*wrap(label, options.max_width - 7), *wrap(numbers.strip(), options.max_width - 7)]
            for start, line in zip((number, *[" " * 7] * len(lines)), lines, strict=False):
                yield Text.assemble((start, "dim"), line, no_wrap=True, overflow="ignore")


def _numbers(a: Activity) -> str:
    """How far a worker is: per cent, and its step and loss or what it says of itself."""
    detail = f"step {a.step}" if a.step is not None else ""
    detail += f"  loss {a.loss:.4f}" if a.loss is not None else ""
    return f"{100 * a.done:3.0f} % {a.note or detail}".rstrip()
