import asyncio
from pathlib import Path

import pytest

from capnp_rig.server.supervision import watch as module
from capnp_rig.server.supervision.watch import changed, names_of, snapshot, watch


def write(path: Path, text: str = "x = 1") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_sources_below_a_folder_are_found(tmp_path: Path) -> None:
    wanted = [write(tmp_path / name) for name in ("a.py", "deep/er/b.py", "deep/c.capnp")]
    for name in (
        *("notes.txt", "__pycache__/a.py", ".git/hook.py", "node_modules/x.py"),
        *("venv/pyvenv.cfg", "venv/lib/site.py"),
    ):
        write(tmp_path / name)
    (tmp_path / "nowhere.py").symlink_to("gone")
    assert sorted(snapshot([str(tmp_path)])) == sorted(wanted)
    assert snapshot([str(tmp_path / "missing")]) == {}


def test_a_file_that_is_added_removed_or_written_has_changed() -> None:
    before = {"same": (1, 1), "written": (1, 1), "longer": (1, 1), "removed": (1, 1)}
    after = {"same": (1, 1), "written": (2, 1), "longer": (1, 2), "added": (1, 1)}
    assert changed(before, after) == ["added", "longer", "removed", "written"]


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["/a/shop.py"], "shop.py"),
        (["/a/b.py", "/a/c.py", "/a/d.py"], "b.py, c.py, d.py"),
        ([f"/a/{name}.py" for name in "bcdef"], "b.py, c.py, d.py and 2 more"),
    ],
)
def test_a_few_files_are_named(paths: list[str], text: str) -> None:
    assert names_of(paths) == text


def test_files_are_told_once_they_change_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = [{"a": (1, 1)}, {"a": (2, 1)}, {"a": (2, 1), "b": (2, 1)}, {"a": (3, 1)}]
    looks = [saved[number] for number in (0, 1, 2, 2, 2, 3, 3, 3)]
    monkeypatch.setattr(module, "_POLL_S", 0)
    monkeypatch.setattr(module, "snapshot", lambda _folders: looks.pop(0))
    told: list[list[str]] = []
    with pytest.raises(IndexError):
        asyncio.run(watch([], saved[0], told.append))
    assert told == [["a", "b"], ["a", "b"]]
