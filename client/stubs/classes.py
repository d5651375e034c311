"""The classes of stubs as text: which stand in which, and what is in them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword

from capnp_rig.client.stubs.names import Path


@dataclass(slots=True)
class Class:
    """A class, or the module: lines before the classes in it, these, and other lines."""

    bases: str = ""
    head: list[str] = field(default_factory=list)
    inner: "dict[str, Class]" = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def at(self, path: Sequence[str]) -> "Class":
        """Return the class at a path from here, which is made if there is none."""
        place = self
        for name in path:
            place = place.inner.setdefault(name, Class())
        return place

    def text(self) -> Iterator[str]:
        """Yield the lines of what is in it."""
        yield from self.head
        for name, each in self.inner.items():
            head = f"class {name}({each.bases}):" if each.bases else f"class {name}:"
            body = [f"    {line}" for line in each.text()]
            is_empty = all(line.lstrip().startswith("#") for line in body)
            yield from (f"{head} ..." if is_empty else head, *body)
        yield from self.lines


def put_bases_first(module: Class, bases: Mapping[Path, Iterable[Path]]) -> None:
    """Order classes by what they, and those in them, extend: mypy does not look ahead for that."""
    before: dict[Path, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, others in bases.items():
        for other in others:
            shared = sum(1 for _ in _shared(path, other))
            if shared < min(len(path), len(other)):
                before[path[:shared]][path[shared]].append(other[shared])
    for path, order in before.items():
        container = module.at(path)
        names: dict[str, None] = {}
        for name in container.inner:
            _visit(name, order, names, set())
        container.inner = {name: container.inner[name] for name in names}


def _shared(path: Path, other: Path) -> Iterator[str]:
    for mine, theirs in zip(path, other, strict=False):
        if mine != theirs:
            return
        yield mine


def _visit(
    name: str, before: Mapping[str, list[str]], visited: dict[str, None], above: set[str]
) -> None:
    if name not in visited and name not in above:
        for other in before.get(name, ()):
            _visit(other, before, visited, above | {name})
        visited[name] = None


def attribute(name: str, type_: str) -> str:
    """Return the line of an attribute that cannot be set."""
    return f'# getattr(self, "{name}"): {type_}' if iskeyword(name) else f"{name}: _Final[{type_}]"


def literal(names: Iterable[str]) -> str:
    """Return the type of these texts."""
    texts = ", ".join(f'"{name}"' for name in names)
    return f"_Literal[{texts}]" if texts else "_Never"
