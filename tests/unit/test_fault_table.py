"""``docs/faults.md`` against the tests: what it says is met is tested, and each gap is an xfail."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
PAGE = TESTS.parent / "docs" / "faults.md"
GAPS = TESTS / "faults" / "test_gaps.py"
ROWS = {"A": 19, "B": 17, "C": 15, "D": 12, "E": 5, "F": 10, "G": 7, "H": 7}
# As test functions carry them, and the cases of a table: test_b3_f9_what, Case("d2_what".
_NAMES = re.compile(r"""(?:def test_|Case\(\s*["'])((?:[a-h]\d+_)+)""")


def rows_of(page: str) -> dict[str, str]:
    """Return what the page says of each row's state, by id."""
    found: dict[str, str] = {}
    for line in page.splitlines():
        cells = line.split(" | ")
        if re.fullmatch(r"[A-H]\d+", cells[0]):
            assert cells[0] not in found, f"{cells[0]} stands there twice"
            found[cells[0]] = " | ".join(cells[2:])
    return found


def ids_in(source: str) -> set[str]:
    """Return the ids of rows that the names of tests in a file carry."""
    return {row.upper() for names in _NAMES.findall(source) for row in names.strip("_").split("_")}


def expected_failures(source: str) -> Iterator[str]:
    """Yield the ids of the tests in a file that are marked as expected failures, or end so."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = "".join(ast.unparse(mark) for mark in node.decorator_list)
            if "mark.xfail" in marks or "pytest.xfail(" in ast.unparse(node):
                yield from ids_in(f"def {node.name}")


ROWS_OF_PAGE = rows_of(PAGE.read_text())
TESTED = {
    row
    for path in TESTS.rglob("*.py")
    if path not in {GAPS, Path(__file__)}
    for row in ids_in(path.read_text())
}
EXPECTED = set(expected_failures(GAPS.read_text()))


def test_the_page_has_every_row_once() -> None:
    assert list(ROWS_OF_PAGE) == [
        f"{section}{number}" for section, count in ROWS.items() for number in range(1, count + 1)
    ]


@pytest.mark.parametrize("row", ROWS_OF_PAGE)
def test_a_row_that_is_met_has_a_test_and_a_gap_an_expected_failure(row: str) -> None:
    state = ROWS_OF_PAGE[row]
    words = set(re.findall(r"\bmet\b|\bgap\b", state))
    assert words, f"{row} says neither met nor gap"
    assert ("met" not in words) or row in TESTED, f"no test is named test_{row.lower()}_"
    assert ("gap" in words) == (row in EXPECTED), f"{row}: {state}"


def test_ids_are_found_in_names() -> None:
    source = 'def test_b3_f9_errors(): ...\nCase(\n    "d2_bad_export", [])\ndef test_other(): ...'
    assert ids_in(source) == {"B3", "F9", "D2"}
    assert ids_in("def test_c_is_no_row(): ...") == set()


def test_expected_failures_are_found_by_mark_and_by_call() -> None:
    source = (
        '@pytest.mark.xfail(reason="x")\ndef test_a1_x(): ...\n'
        'def test_a2_x():\n    pytest.xfail("y")\n'
        "def test_a3_x():\n    assert True\n"
    )
    assert set(expected_failures(source)) == {"A1", "A2"}
