"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """A table, a line for each row; numbers with four digits that count, None as an empty cell."""
    lines = [list(header), ["---"] * len(header), *(list(map(_shown, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
