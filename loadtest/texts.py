"""What `ReverseUser` sends, and the answer it must get.

Every request starts with a nonce, so that a reply which belongs to another request
is noticed. The nonce is ASCII and of fixed length: the payload keeps its size, and
the expected answer is the text, reversed once beforehand, and the nonce, reversed.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Eight characters tell the user, eight more the request.
NONCE_CHARS = 16
_USER_BITS = 32
_REQUESTS = 16**8

# One to four bytes of UTF-8 each: reversal is by code point, and must not cut one.
_ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789äöüéßñøλπжя中文日本語한국어🙂🚀🎉"
_ASCII = "abcdefghijklmnopqrstuvwxyz"


class TextError(ValueError):
    """The texts to send are unusable; the message says why."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text without its nonce, and what its half of the answer must be."""

    content: str
    reversed: bytes


def prepare(contents: Sequence[str]) -> tuple[Text, ...]:
    """Return the texts with their answers.

    Raises:
        TextError: There is none, or one cannot be encoded as UTF-8.
    """
    if not contents:
        raise TextError("no text to send")
    try:
        return tuple(Text(content, content[::-1].encode()) for content in contents)
    except UnicodeEncodeError as error:
        raise TextError(f"a text is not valid Unicode: {error.reason}") from error


def generate(payload_bytes: int, *, seed: int, count: int = 16) -> list[str]:
    """Return random texts that fill `payload_bytes` of UTF-8 together with a nonce.

    Raises:
        TextError: The nonce alone is longer.
    """
    if payload_bytes < NONCE_CHARS:
        raise TextError(f"a payload has at least {NONCE_CHARS} bytes, its nonce")
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    return [_random_text(payload_bytes - NONCE_CHARS, rng) for _ in range(count)]


def _random_text(size_bytes: int, rng: random.Random) -> str:
    chars: list[str] = []
    left = size_bytes
    while left >= 4:
        char = rng.choice(_ALPHABET)
        chars.append(char)
        left -= len(char.encode())
    return "".join(chars + rng.choices(_ASCII, k=left))


def parse_corpus(text: str) -> list[str]:
    """Return the lines of a corpus file, without the empty ones."""
    return [line for line in text.splitlines() if line]


def requests(texts: Sequence[Text], user: int) -> Iterator[tuple[str, bytes]]:
    """Yield contents to send and the answers to expect, without end.

    `user` is a number that no other user of the run has.
    """
    prefix = f"{user % 2**_USER_BITS:08x}"
    number = 0
    while True:
        for text in texts:
            nonce = f"{prefix}{number % _REQUESTS:08x}"
            number += 1
            yield nonce + text.content, text.reversed + nonce[::-1].encode()
