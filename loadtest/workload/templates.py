"""The template language of params: ``{{i}}`` and its like inside a JSON string.

==============  ====================================================================
``{{i}}``       number of the request, unique over the run
``{{user}}``    number of the connection
``{{uuid}}``    random UUID4, the same ones in each run with the same seed
``{{time_ns}}``  wall clock when the request was made, ns since 1970
``{{{{``        a literal ``{{``; ``}}`` needs no escape
==============  ====================================================================

Each of them has one value per request, wherever it stands in the params and in what is
expected of the results. A string is compiled once; per request it costs a format, 0.2 µs.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, repeat
from operator import itemgetter
from typing import Any

# The values of one request, in the order of `NAMES`. A plain tuple: `zip` makes it in 0.05 µs.
Values = tuple[int, int, str, int]
NAMES = ("i", "user", "uuid", "time_ns")
_NUMBERS = frozenset(NAMES) - {"uuid"}
# As long as they can get: what packs with them packs with all.
WIDEST: Values = (2**63 - 1, 2**63 - 1, "00000000-0000-4000-8000-000000000000", 2**63 - 1)

# The escape, a template, or an opening without its end. A third brace stands for itself.
_TOKEN = re.compile(r"(?P<escape>\{\{\{\{)|\{\{(?P<name>[^{}]*)\}\}|(?P<open>\{\{(?!\{))")

# Variant and version of a random UUID (RFC 9562, sections 4.1 and 5.4).
_UUID_CLEAR = ~(0xC000 << 48 | 0xF000 << 64)
_UUID_SET = 0x8000 << 48 | 4 << 76


class TemplateError(ValueError):
    """A string has a template that is none; the message says what there is."""


@dataclass(frozen=True, slots=True)
class Template:
    """A string with templates: `render` fills them in.

    `sole` is the name of the template where the string is nothing else, so that it may be a
    number.
    """

    names: frozenset[str]
    sole: str | None
    render: Callable[[Values], str]

    @property
    def is_number(self) -> bool:
        """Whether `number` may be called."""
        return self.sole in _NUMBERS

    def number(self, bits: int) -> Callable[[Values], int]:
        """Return what gives the template's number, modulo 2 ** `bits`."""
        assert self.sole is not None
        at, mask = NAMES.index(self.sole), (1 << bits) - 1
        return lambda values: values[at] & mask  # type: ignore[operator] # a number, see above


def parse_template(text: str) -> str | Template:
    """Return the template that `text` is, or what it says where it has none.

    Raises:
        TemplateError: It names an unknown template, or one has no end.
    """
    if "{{" not in text:
        return text
    literals, names, end = [""], [], 0
    for token in _TOKEN.finditer(text):
        literals[-1] += text[end : token.start()]
        end = token.end()
        if token["open"]:
            raise TemplateError("'{{' has no '}}' (a literal one is written '{{{{')")
        if token["escape"]:
            literals[-1] += "{{"
            continue
        names.append(_known(token["name"].strip()))
        literals.append("")
    literals[-1] += text[end:]
    return _compile(literals, names) if names else literals[0]


def _known(name: str) -> str:
    if name not in NAMES:
        raise TemplateError(f"no template {name!r}: there is {', '.join(NAMES)}")
    return name


def _compile(literals: list[str], names: list[str]) -> Template:
    """Return the template with `names` between the `literals`, of which there is one more."""
    form = "%s".join(literal.replace("%", "%%") for literal in literals)
    # One index gives a value, several a tuple: a % b takes either.
    pick: itemgetter[Any] = itemgetter(*map(NAMES.index, names))
    sole = names[0] if literals == ["", ""] else None
    return Template(frozenset(names), sole, lambda values: form % pick(values))


class Source:
    """Gives each request its values; one per process, which its connections share."""

    def __init__(
        self,
        names: frozenset[str],
        *,
        first: int,
        step: int,
        seed: int,
        clock: Callable[[], int],
    ) -> None:
        """Only `names` are drawn; ``{{i}}`` counts `first`, `first + step` and so on."""
        self._names = names
        self._numbers = count(first, step)
        self._seed = seed
        self._clock = clock

    def values(self, user: int) -> Iterator[Values]:
        """Yield the values of one connection's requests, without end."""
        uuids = _uuids(f"{self._seed} {user}") if "uuid" in self._names else repeat("")
        # A clock never says -1.
        times = iter(self._clock, -1) if "time_ns" in self._names else repeat(0)
        return zip(self._numbers, repeat(user), uuids, times, strict=False)


# Makes the source of the values of some names.
MakeSource = Callable[[frozenset[str]], Source]


def _uuids(seed: str) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
        # `uuid.UUID` takes 2 µs for the same.
        digits = f"{rng.getrandbits(128) & _UUID_CLEAR | _UUID_SET:032x}"
        yield f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
