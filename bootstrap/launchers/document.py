"""The JSON documents in which some platforms describe a run."""

import json
from typing import Any

from bootstrap.errors import IdentityError


def read_json(text: str | None, source: str) -> dict[str, Any]:
    """Return the JSON object in a text. :raises IdentityError: naming the source, if it is none."""
    if text is None:
        raise IdentityError(f"{source}: not there, or it cannot be read", hint="--rank=N and --nodes=N on each node")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise unexpected(source, repr(text[:60]), "a JSON object")
    return content


def unexpected(source: str, what: str, expected: str) -> IdentityError:
    """Return the error for a document that does not have what its platform documents."""
    return IdentityError(f"{source}: {what}: expected {expected}", hint="--rank=N and --nodes=N on each node")
