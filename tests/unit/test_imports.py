"""Imports run one way, those under TYPE_CHECKING included.

A unit is a folder of modules; a module that stands in one of the top packages is a unit of its own.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What each package may import of the others.
MAY_IMPORT: dict[str, set[str]] = {
    "wire": set(),
    "rigcli": set(),
    "schema": set(),
    "objects": {"wire"},
    "client": {"wire", "rigcli", "schema", "objects"},
    "server": {"wire", "rigcli", "schema", "objects"},
    "loadtest": {"wire", "rigcli", "schema", "objects", "client"},
}

Graph = dict[str, set[str]]


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(file): file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")}


def imports_of(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names.add(name if name.removeprefix("capnp_rig.") in FILES else str(node.module))
    ours = {name.removeprefix("capnp_rig.") for name in names if name.startswith("capnp_rig.")}
    return ours & FILES.keys() - {module}


@cache
def modules() -> Graph:
    return {module: imports_of(module) for module in FILES}


def unit_of(module: str) -> str:
    folder = module.rpartition(".")[0]
    is_folder = FILES[module].name == "__init__.py"
    return module if is_folder or "." not in folder else folder


def units() -> Graph:
    graph: Graph = {}
    for module, names in modules().items():
        unit = unit_of(module)
        graph.setdefault(unit, set()).update({unit_of(name) for name in names} - {unit})
    return graph


def circles(graph: Graph) -> list[set[str]]:
    """Return the groups of those that import each other, directly or by way of others."""
    reached = {name: reach(name, graph) for name in graph}
    groups = [
        {other for other in reached[name] if name in reached[other]}
        for name in sorted(graph)
        if name in reached[name]
    ]
    return [group for at, group in enumerate(groups) if group not in groups[:at]]


def reach(name: str, graph: Graph) -> set[str]:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]


def test_no_modules_import_each_other() -> None:
    assert circles(modules()) == []


def test_no_packages_import_each_other() -> None:
    assert circles(units()) == []


def test_no_package_imports_what_stands_above_or_beside_it() -> None:
    trespassers = {
        module
        for module, names in modules().items()
        for name in names
        if (theirs := name.partition(".")[0]) != (ours := module.partition(".")[0])
        and theirs not in MAY_IMPORT[ours]
    }
    assert trespassers == set()


# A run, its page and a comparison load none of these: their extras may be missing, and each
# process that starts would pay for them.
RIVALS = "numpy orjson msgpack msgspec flatbuffers google pyarrow grpc h2 uvicorn hypercorn locust"


def test_a_run_its_page_and_a_comparison_need_no_library_of_a_rival() -> None:
    script = f"import sys; sys.modules.update(dict.fromkeys({RIVALS.split()}))\n"
    script += "\n".join(
        f"import capnp_rig.loadtest.{name}" for name in ("engine.run", "report.write", "compare")
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
