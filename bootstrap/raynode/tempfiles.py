"""Where the dashboard keeps its temporary files: in the session's folder, which every clean-up removes.

Its multiprocessing makes ``$TMPDIR/pymp-*/listener-*``. Killed with the agent and the supervisor, as when PID 1 of a
container is, it leaves them where the next run cannot know them from another program's.
"""

import contextlib
import os
from collections.abc import Iterator

from bootstrap.raynode.patches import Arguments

_MAX_SOCKET_PATH = 107
"""Bytes of the path of a socket (sockaddr_un, unix(7))."""
_LISTENER = "/pymp-XXXXXXXX/listener-XXXXXXXX"


@contextlib.contextmanager
def in_session(given: Arguments) -> Iterator[None]:
    """Set TMPDIR to the session meanwhile; the raylet, and so every worker, keeps the user's.

    It stays as it is where a ``--temp-dir`` is too long for a socket in the session. The end of a run that is not
    killed removes the socket then (:func:`bootstrap.raynode.session.remove_sockets`).
    """
    session, before = str(given["session_dir"]), os.environ.get("TMPDIR")
    if len(os.fsencode(session + _LISTENER)) <= _MAX_SOCKET_PATH:
        os.environ["TMPDIR"] = session
    try:
        yield
    finally:
        os.environ.pop("TMPDIR", None)
        if before is not None:
            os.environ["TMPDIR"] = before
