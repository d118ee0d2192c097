"""Docstrings begin with a verb or a noun phrase, and name a component as their subject."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: First words that leave a reader to guess what a thing is.
VAGUE = (
    *("What", "Whatever", "Who", "Whoever", "Whose", "Where", "Wherever", "When", "Why", "How"),
    *("Somebody", "Nobody", "Everybody"),
)


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """The name and the docstring of each thing in a file that has one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", "module"), text


@pytest.mark.parametrize("package", ["bench", "backends", "benchmarks"])
def test_a_docstring_says_at_once_what_a_thing_is(package: str) -> None:
    vague = [
        f"{path.relative_to(ROOT)} {name}: {text.splitlines()[0]}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, text in docstrings(path)
        if text.split(maxsplit=1)[0] in VAGUE or text.startswith("The same")
    ]
    assert vague == []
