"""The page docs/api.md, made from the docstrings of the public names: `.venv/bin/python -m wm_jax.tools.api`."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flax import nnx
from pydantic import BaseModel

import wm_jax

PAGE = Path("docs/api.md")
SECTIONS = ("Args", "Returns", "Raises", "Attributes", "Yields")
"""Where a docstring turns into a list."""
FIELD = re.compile(r"^\w+(, \w+)*: ")
"""The first line of a list of fields, as the docstrings of records have it."""
HEAD = """# The library

`import wm_jax` gives these names; each is imported when it is first used. Made from the docstrings by
`.venv/bin/python -m wm_jax.tools.api`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *(section for name in wm_jax.__all__ for section in _sections(name, getattr(wm_jax, name)))]
    return "\n".join(parts)


def _sections(name: str, thing: Any) -> Iterator[str]:
    yield f"## {name}\n"
    yield _entry(name, thing)
    if not inspect.isclass(thing):
        return
    for member, value in vars(thing).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property) and value.fget is not None and value.fget.__doc__:
            yield f"### {name}.{member}\n"
            yield _text(value.fget)
        elif callable(function := getattr(thing, member)) and getattr(function, "__doc__", None):
            yield f"### {name}.{member}\n"
            yield _entry(f"{name}.{member}", function)


def _entry(name: str, thing: Any) -> str:
    """How it is called, where that is for users to do, and its docstring."""
    try:
        parameters = [] if _lists_fields(thing) else list(inspect.signature(_called(thing)).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    if any(each.name.startswith("_") for each in parameters):  # `load` makes it
        parameters = []
    code = f"```python\n{name}({_arguments(parameters)})\n```\n\n" if callable(thing) and parameters else ""
    return f"{code}{_text(thing)}"


def _called(thing: Any) -> Any:
    """What takes the arguments: modules of NNX hide theirs behind a metaclass."""
    return thing.__init__ if inspect.isclass(thing) and issubclass(thing, nnx.Module) else thing


def _lists_fields(thing: Any) -> bool:
    """Does its docstring, or a page of its own, say what it holds?"""
    return inspect.isclass(thing) and issubclass(thing, tuple | BaseModel)


def _arguments(parameters: Sequence[inspect.Parameter]) -> str:
    shown, by_name = [], False
    for each in parameters:
        if each.kind is inspect.Parameter.KEYWORD_ONLY and not by_name:
            by_name = True
            shown.append("*")
        star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(each.kind, "")
        default = "" if each.default is inspect.Parameter.empty else f"={each.default!r}"
        if each.name != "self":
            shown.append(f"{star}{each.name}{default}")
    return ", ".join(shown)


def _text(thing: Any) -> str:
    """The docstring; its lists of arguments and fields as they stand."""
    lines = inspect.cleandoc(thing.__doc__ or "").splitlines()
    starts = (i for i, line in enumerate(lines) if line.rstrip(":") in SECTIONS or (i and FIELD.match(line)))
    head = next(starts, len(lines))
    text = "\n".join(lines[:head]).strip()
    rest = "\n".join(lines[head:]).strip()
    return f"{text}\n" + (f"\n```text\n{rest}\n```\n" if rest else "")


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
