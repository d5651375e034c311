"""Logic decides on codes, never on the words that are made for people."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_rig import ROOT

# Attributes that hold words: of a figure, a reason, a row, a comparison.
_WORDS = {"reason", "void_text", "note", "problem", "doubt"}
_SEARCHES = {
    "startswith",
    "endswith",
    "partition",
    "rpartition",
    "split",
    "replace",
}
_PACKAGES = ("client", "loadtest", "rigcli", "schema", "server", "wire")


def decisions(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that look into words: a search in them, or a comparison with a text.

    The name of a figure counts as words too, where it is cut: its labels say what it is.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            # Whether there are any words at all is no reading of them.
            texts = [each for each in sides if isinstance(each, ast.Constant) and each.value]
            if texts and any(_is_words(each) for each in sides):
                yield node.lineno
        elif (
            isinstance(node, ast.Attribute)
            and node.attr in _SEARCHES
            and _is_words(node.value, and_names=True)
        ):
            yield node.lineno


def _is_words(node: ast.AST, *, and_names: bool = False) -> bool:
    if not isinstance(node, ast.Attribute):
        return False
    is_figure = isinstance(node.value, ast.Name) and node.value.id == "figure"
    return node.attr in _WORDS or (and_names and node.attr == "name" and is_figure)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('any("drifted" in figure.reason for figure in figures)', 1),
        ('figure.reason.startswith("a lower bound")', 1),
        ('row.reason.replace(doubt, "see below")', 1),
        ('figure.name.partition(": ")[0]', 1),
        ('if point.note == "late": pass', 1),
        ("if figure.reason: pass", 0),
        ('if figure.reason != "": pass', 0),
        ("ReasonCode.DRIFTED in codes_of(figure.reasons)", 0),
    ],
)
def test_a_decision_on_words_is_found(source: str, count: int) -> None:
    assert len(list(decisions(ast.parse(source)))) == count


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_code_decides_on_words(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert [f"{_short(file)}:{line}" for file in files for line in decisions(_parsed(file))] == []


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _short(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()
