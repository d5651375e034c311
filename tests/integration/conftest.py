"""Commands draw no pictures here: those of one run take more CPU than all else that it does.

A run, a Locust run, the two without a standard input and the examples of the pages draw theirs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parent.parent / "without_pictures"


@pytest.fixture(scope="module", autouse=True)
def _without_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(_FOLDER))
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands of a test draw pictures."""
    monkeypatch.delenv("PYTHONPATH")
