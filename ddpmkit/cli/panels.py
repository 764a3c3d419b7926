"""The help of a command with many flags, in sections: what is varied, what it costs, how it runs, what it leaves."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

AXES, BUDGET, SEEDS, RUNNING, OUTPUT = "Axes", "Budget", "Seeds and metrics", "Running", "Output"


class Paneled(TyperCommand):
    """A command whose help shows its options by their panel, in the order in which panels are first met."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section a panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                default = "Arguments" if parameter.param_type_name == "argument" else OUTPUT
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(record)
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records)
