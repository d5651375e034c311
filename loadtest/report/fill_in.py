"""Parts of the document inside a text of somebody's own, as this project's README (no I/O).

A part stands between two comments, which Markdown does not show::

    <!-- report: verdict -->
    ...
    <!-- end of report -->

``verdict`` is what the page opens with, a table of six lines at most and one picture; ``machine``
is where it was measured. Every table has its key, and every chart has its key with ``.svg``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from capnp_rig.loadtest.report.chart import Chart
from capnp_rig.loadtest.report.document import Document, Notes, Part, Table
from capnp_rig.loadtest.report.markdown import bullets, image, table

_PLACE = re.compile(r"(<!-- report: (?P<key>\S+) -->\n).*?(<!-- end of report -->)", re.DOTALL)


class NoSuchPart(Exception):
    """A place wants what the document lacks, or there is no place; the message says which."""


def filled(text: str, document: Document, pictures: str) -> str:
    """Return `text` with every place filled anew.

    `pictures` is the folder of the charts' pictures, as a link from the text.

    Raises:
        NoSuchPart: A place has an unknown key, or the text has no place.
    """
    blocks = dict(_blocks(document, pictures))

    def fill(place: re.Match[str]) -> str:
        return f"{place[1]}{_block(blocks, place['key'])}\n{place[3]}"

    result, count = _PLACE.subn(fill, text)
    if not count:
        raise NoSuchPart(
            "no place to fill: write <!-- report: verdict --> and <!-- end of report -->"
        )
    return result


def _block(blocks: Mapping[str, str], key: str) -> str:
    if key not in blocks:
        raise NoSuchPart(f"nothing is called {key!r}: there are {', '.join(sorted(blocks))}")
    return blocks[key]


def _blocks(document: Document, pictures: str) -> Iterator[tuple[str, str]]:
    answers = [part for part in document.verdict if not isinstance(part, Notes)]
    yield "verdict", "\n\n".join(block for _, block in _parts(answers, pictures))
    yield from _parts(document.parts, pictures)


def _parts(parts: Iterable[Part], pictures: str) -> Iterator[tuple[str, str]]:
    for part in parts:
        if isinstance(part, Table):
            yield part.key, table(part)
        elif isinstance(part, Notes) and part.key:
            yield part.key, bullets(part.texts)
        elif isinstance(part, Chart):
            # A chart may share its key with the table of its numbers.
            yield f"{part.key}.svg", image(part, pictures)
