"""Draw the graph of stages as it stands in the code: ``python docs/stage_graph.py`` writes docs/stages.svg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

BOX, GAP, ROW = (148, 44), 64, 58  # a box's width and height, the gutter between columns, a row's height
REPORT = "report"  # no stage: it reads records


def graph() -> dict[str, tuple[str, ...]]:
    """Return what each kind of stage reads, and the report; a kind stands below those whose output it reads."""
    from dataclasses import fields

    from ddpmkit.study.stages import STAGE_KINDS

    found = {
        name: tuple(f.metadata["upstream"] for f in fields(kind) if "upstream" in f.metadata)
        for name, kind in STAGE_KINDS.items()
    }
    read = {r for reads in found.values() for r in reads}
    return {**found, REPORT: tuple(name for name in found if name not in read)}


def svg(reads: Mapping[str, tuple[str, ...]], often: Mapping[str, str]) -> str:
    """Return the picture: a row a kind, as far to the right as what it reads asks; lines go down in the gutters."""
    columns: dict[str, int] = {}
    for name, sources in reads.items():
        columns[name] = 1 + max((columns[s] for s in sources), default=-1)
    rows = {name: i for i, name in enumerate(reads)}
    width = 20 + (max(columns.values()) + 1) * (BOX[0] + GAP) - GAP
    lines = [*_edges(reads, columns, rows), *_boxes(often, columns, rows)]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {20 + len(rows) * ROW - (ROW - BOX[1])}" '
            f'width="{width}" font-family="sans-serif" role="img">',
            "<title>What each kind of stage reads</title>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0 0 8 4 0 8z" fill="#666"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            *lines,
            "</svg>\n",
        )
    )


def _edges(reads: Mapping[str, tuple[str, ...]], columns: Mapping[str, int], rows: Mapping[str, int]) -> Iterator[str]:
    for name, sources in reads.items():
        for i, source in enumerate(sources):
            x, y = _corner(columns[source], rows[source])
            to_x, to_y = _corner(columns[name], rows[name])
            down = x + BOX[0] + 14 + 12 * (rows[source] % 3)  # lines of a gutter stand apart
            end = to_y + BOX[1] * (i + 1) // (len(sources) + 1)
            yield (
                f'<path d="M{x + BOX[0]} {y + BOX[1] // 2}H{down}V{end}H{to_x}" fill="none" stroke="#666" '
                'stroke-width="1.5" marker-end="url(#arrow)"/>'
            )


def _boxes(often: Mapping[str, str], columns: Mapping[str, int], rows: Mapping[str, int]) -> Iterator[str]:
    for name, row in rows.items():
        x, y = _corner(columns[name], row)
        dashed = "" if name in often else ' stroke-dasharray="4 3"'
        yield (
            f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef3fb" stroke="#3b5b92"{dashed}/>'
        )
        middle, told = x + BOX[0] // 2, often.get(name, "of the whole study")
        yield f'<text x="{middle}" y="{y + 19}" text-anchor="middle" font-size="15" fill="#111">{name}</text>'
        yield f'<text x="{middle}" y="{y + 35}" text-anchor="middle" font-size="11" fill="#555">{told}</text>'


def _corner(column: int, row: int) -> tuple[int, int]:
    return 10 + column * (BOX[0] + GAP), 10 + row * ROW


def picture() -> str:
    """Return the picture of the code as it is."""
    from ddpmkit.study.stages import STAGE_KINDS

    return svg(graph(), {name: f"once a {kind.per}" for name, kind in STAGE_KINDS.items()})


if __name__ == "__main__":
    Path(__file__).with_name("stages.svg").write_text(picture(), encoding="utf-8")
