"""Elements of a page, with all text escaped (no I/O)."""

from collections.abc import Iterable
from html import escape


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Return an element; text in it is escaped, `Html` is not.

    ``class_`` is the class; an attribute with an empty value is left out.
    """
    plain = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value
    )
    return Html(f"<{tag}{plain}>{joined(content)}</{tag}>")


def joined(content: Iterable[str]) -> Html:
    """Return content one after the other, escaped where it is text."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))
