"""The digest in ``run.json``: of its samples, and of itself (no I/O).

    "digest": {"samples": SHA-256 of all lines, uncompressed, "document": SHA-256 of the rest}

So a result whose parts were mixed up, cut or edited is told from a whole one, packed or not.
Results of earlier versions have no digest.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

_DIGEST, _SAMPLES, _DOCUMENT = "digest", "samples", "document"


def sealed(document: Mapping[str, Any], samples: Iterable[bytes] | None = None) -> dict[str, Any]:
    """Return a document with its digest; without `samples` theirs stays as it is, if there."""
    # As it is read again: tuples are lists there.
    plain: dict[str, Any] = json.loads(json.dumps(document))
    digest = dict(plain.pop(_DIGEST, {}))
    digest.pop(_DOCUMENT, None)
    if samples is not None:
        digest[_SAMPLES] = digest_of(samples)
    return plain | {_DIGEST: {**digest, _DOCUMENT: _of_document(plain, digest)}}


def is_intact(document: Mapping[str, Any]) -> bool:
    """Tell whether a document is as it was sealed, or was never sealed.

    Raises:
        TypeError, AttributeError: Its digest is none.
    """
    rest = dict(document)
    digest = dict(rest.pop(_DIGEST, {}))
    known = digest.pop(_DOCUMENT, None)
    return known is None or known == _of_document(rest, digest)


def samples_digest(document: Mapping[str, Any]) -> str | None:
    """Return the digest that the samples of a document have, None where it does not say."""
    digest: str | None = dict(document.get(_DIGEST, {})).get(_SAMPLES)
    return digest


def digest_of(lines: Iterable[bytes]) -> str:
    """Return the SHA-256 of some lines, one after the other."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def _of_document(rest: Mapping[str, Any], digest: Mapping[str, Any]) -> str:
    text = json.dumps({**rest, _DIGEST: digest}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
