"""The notebook examples/tour.ipynb, made from the scripts beside it: `.venv/bin/python -m wm_jax.tools.notebook`.

The scripts are what is written and tested. A script becomes a section: its docstrings are the text, each function or
class is a cell, and the body of `main` is cut into cells where it has blank lines. What is printed, and small copies of
the pictures, are kept as outputs.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from PIL import Image

EXAMPLES = Path("examples")
NOTEBOOK = EXAMPLES / "tour.ipynb"
SCRIPTS = ("own_frames", "own_game", "own_memory", "open_an_agent", "look_at_latents", "drive_with_your_policy")
"""In the order of the notebook."""
HEAD = """# A tour of wm_jax

The six scripts of this folder, one after the other. It runs from top to bottom where it lies, in an environment with
`wm_jax` and Jupyter; with `small = True` in about a minute or two, with nothing learned."""
SIDE, QUALITY = 256, 40
"""Pixels of the longer side of a picture's copy, and its quality as JPEG: a few kB."""
LONGEST = 3000
"""Characters of what a cell printed."""


class Cell(NamedTuple):
    """A cell: text in Markdown, or code."""

    source: str
    is_code: bool = True


def cells(examples: Path) -> list[Cell]:
    """The whole notebook, without outputs.

    Args:
      examples: the folder of the scripts.
    """
    found = [Cell(HEAD, is_code=False), Cell("small = False")]
    for name in SCRIPTS:
        found += _section(name, (examples / f"{name}.py").read_text(encoding="utf-8"))
    return found


def _section(name: str, source: str) -> Iterator[Cell]:
    """The cells of a script."""
    tree = ast.parse(source)
    yield Cell(f"## {name}.py\n\n{_text(tree)}", is_code=False)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    yield Cell("\n".join(words for words in map(ast.unparse, imports) if words != "import sys"))
    main = None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            main = node
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield Cell(_lines(source, node))
    if main is None:
        raise ValueError(f"{name}.py has no function main")
    yield Cell(_text(main), is_code=False)
    yield from _body(source, main)
    for picture in _pictures(main):
        yield Cell(f'Image.open("{picture}")')


def _body(source: str, main: ast.FunctionDef) -> Iterator[Cell]:
    """The statements of `main`, and before them its arguments but `small`, with their defaults."""
    given = main.args.args[len(main.args.args) - len(main.args.defaults) :]
    settings = [f"{arg.arg} = {ast.unparse(value)}" for arg, value in zip(given, main.args.defaults, strict=True)]
    statements, group, end = main.body[1:], list(settings), main.body[0].end_lineno or 0
    for node in statements:
        lines = _lines(source, node, indented=4)
        above = _lines_between(source, end, _first_line(node))
        if "" in above and group != settings:
            yield Cell("\n".join(group))
            group = []
        group += [line for line in above if line] + [lines]
        end = node.end_lineno or end
    yield Cell("\n".join(group))


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _lines_between(source: str, end: int, first: int) -> list[str]:
    """What stands between two statements: comments, and blank lines."""
    return [line.strip() for line in source.splitlines()[end : first - 1]]


def _lines(source: str, node: ast.stmt, indented: int = 0) -> str:
    lines = source.splitlines()[_first_line(node) - 1 : node.end_lineno]
    return "\n".join(line[indented:] if line[:indented].isspace() else line for line in lines)


def _text(node: ast.Module | ast.FunctionDef) -> str:
    """A docstring as Markdown, without the line by which the script is called."""
    parts = (ast.get_docstring(node) or "").split("\n\n")
    return "\n\n".join(part for part in parts if not part.strip().startswith(".venv/bin/python examples/"))


def _pictures(main: ast.FunctionDef) -> list[str]:
    """The pictures that `main` writes."""
    written = [
        node.args[0].value
        for node in ast.walk(main)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "save"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]
    return [str(name) for name in written]


def notebook(made: list[Cell], outputs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The notebook as its format has it (nbformat 4.5).

    Args:
      outputs: of each cell.
    """
    written = []
    for i, (cell, out) in enumerate(zip(made, outputs, strict=True)):
        entry: dict[str, Any] = {
            "id": f"cell-{i}",
            "cell_type": "code" if cell.is_code else "markdown",
            "metadata": {},
            "source": cell.source.splitlines(keepends=True),
        }
        if cell.is_code:
            entry |= {"execution_count": None, "outputs": out}
        written.append(entry)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": written}


def run(made: list[Cell], **given: Any) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, run one after the other in one namespace, in the current folder.

    Args:
      given: names whose assignment in a cell of its own is left out, such as small=True for a short run.
    """
    names: dict[str, Any] = {"__name__": "notebook", **given}
    left_out = {f"{name} = " for name in given}
    outputs = []
    # A notebook's users write as NumPy lets them, whatever the tests hold our own code to.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for cell in made:
            skipped = not cell.is_code or any(cell.source.startswith(name) for name in left_out)
            outputs.append([] if skipped else _run_cell(cell.source, names))
    return outputs


def _run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell prints, and the picture that it ends in."""
    tree, shown = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    text, outputs = printed.getvalue()[:LONGEST], []
    if text:
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if isinstance(shown, Image.Image):
        outputs.append({"output_type": "display_data", "metadata": {}, "data": {"image/jpeg": _copy(shown)}})
    return outputs


def _copy(image: Image.Image) -> str:
    small, file = image.convert("RGB"), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main() -> int:
    """Run all cells in a temporary folder, and write the notebook."""
    made = cells(EXAMPLES)
    sys.path.insert(0, str(EXAMPLES.resolve()))  # as Jupyter does: own_game and own_memory are imported by name
    there = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            outputs = run(made)
        finally:
            os.chdir(there)
    NOTEBOOK.write_text(json.dumps(notebook(made, outputs), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
