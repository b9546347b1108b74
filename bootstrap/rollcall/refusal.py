"""Why a worker does not join a head: what an answer means, as an error with its remedy."""

from bootstrap.errors import BootstrapError, IdentityError, Refused
from bootstrap.files.secret import FIX_MISMATCH, FIX_MUNGE, FIX_OPEN, Secret
from bootstrap.rollcall import wire
from bootstrap.rollcall.admission import FIX_IDENTITY, FIX_TLS
from bootstrap.rollcall.wire import Message

OPEN_RUN = "open-run"
"""The kind of the refusal to end an open run."""
_FIX_OPEN_RUN = f"`ray-bootstrap down` on the head's node; a run with a secret ends from anywhere: {FIX_OPEN}"
_KINDS = {
    "none": "no secret",
    "secret": "a secret",
    "token": "Ray's token",
    "munge": "a secret through MUNGE",
}


class NotThisHead(Exception):
    """The head of this run and attempt is not at that address; the search goes on."""


def mismatch(mine: Secret, theirs: str) -> Refused:
    """Return the error of a node whose secret is of another kind than the head's."""
    here = _KINDS[mine.kind] if mine.value is None else f"{_KINDS[mine.kind]} ({mine.source})"
    if mine.is_in_record and mine.value is None:
        here = f"none yet: it was to come from {mine.source}"
    what = f"the head has {_KINDS.get(theirs, repr(theirs[:20]))}, this node has {here}"
    return Refused(what, hint=FIX_MUNGE if "munge" in (mine.kind, theirs) else FIX_MISMATCH)


def refusal(message: Message, more: str = "") -> Exception:
    """Return the error that a head's ``refuse`` means; ``more`` is added to the reason."""
    kind, reason = wire.text(message, "kind"), wire.text(message, "reason")
    if kind == "other-run":
        return NotThisHead(reason)
    error: type[BootstrapError] = IdentityError if kind == "identity" else Refused
    hints = {"secret": FIX_MISMATCH, "tls": FIX_TLS, "identity": FIX_IDENTITY, OPEN_RUN: _FIX_OPEN_RUN}
    return error(f"refused by the head {wire.text(message, 'head')}: {reason}{more}", hint=hints.get(kind, ""))
