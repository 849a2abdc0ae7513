"""`report.md`: what was measured, for people."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from wm_jax.tools.benchmark.accelerator.measurement import Figures, Part
from wm_jax.tools.benchmark.accelerator.records import Records

WIDE = 8
"""Figures beside each other in a table; more are listed below each other."""


def render(records: Records, parts: Sequence[Part]) -> str:
    """The page, in Markdown."""
    lines = [f"# {records.about['device']}", ""]
    if records.about["small"]:
        lines += ["Tiny sizes, to see that everything runs: the figures say nothing of the machine.", ""]
    for part in parts:
        found = records.last(part.name)
        if found:
            lines += [f"## {part.title}", "", *_part(found)]
    return "\n".join(lines)


def _part(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Its tables, then what was not measured."""
    done = {name: line for name, line in found.items() if line["state"] == "done"}
    for _, group in groupby(done, key=lambda name: tuple(_plain(done[name]["figures"]))):
        names = list(group)
        yield from _figures({name: _plain(done[name]["figures"]) for name in names})
        for name in names:
            for title, rows in _tables(done[name]["figures"]).items():
                yield from (f"{name}, {title}:", "", *_table(list(rows[0]), rows))
    others = [f"- {name}: {line['state']}" + (f" ({line['error']})" if "error" in line else "")
              for name, line in found.items() if line["state"] != "done"]  # fmt: skip
    if others:
        yield from (*others, "")


def _figures(rows: Mapping[str, Figures]) -> Iterator[str]:
    """Measurements that found figures of the same names."""
    names = list(next(iter(rows.values())))
    if not names:
        return
    words = any(isinstance(value, str) for figures in rows.values() for value in figures.values())
    if len(names) > WIDE or (len(rows) == 1 and words):
        for name, figures in rows.items():
            yield from (f"{name}:", "", *(f"- {each}: {shown(value)}" for each, value in figures.items()), "")
        return
    yield from _table(["", *names], [{"": name, **figures} for name, figures in rows.items()])


def _table(names: Sequence[str], rows: Sequence[Figures]) -> Iterator[str]:
    """With numbers to the right."""
    yield f"| {' | '.join(names)} |"
    yield "|" + "|".join("---" if isinstance(rows[0].get(name), str) else "---:" for name in names) + "|"
    for row in rows:
        yield f"| {' | '.join(shown(row.get(name)) for name in names)} |"
    yield ""


def shown(value: Any) -> str:
    """A figure as people read it: four digits of small numbers, all of large ones."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _plain(figures: Figures) -> Figures:
    return {name: value for name, value in figures.items() if not isinstance(value, list)}


def _tables(figures: Figures) -> dict[str, list[Figures]]:
    return {name: value for name, value in figures.items() if isinstance(value, list) and value}
