"""Where the dashboard keeps its temporary files: in the session's folder, which every clean-up removes.

Its multiprocessing makes ``$TMPDIR/pymp-*/listener-*``. Killed with the agent and the supervisor, as when PID 1 of a
container is, it leaves them where the next run cannot know them from another program's.
"""

import functools
import importlib
import inspect
import os
from typing import Any

_MAX_SOCKET_PATH = 107
"""Bytes of the path of a socket (sockaddr_un, unix(7))."""
_LISTENER = "/pymp-XXXXXXXX/listener-XXXXXXXX"


def patch_dashboard() -> None:
    """Patch Ray in this process so that the dashboard has TMPDIR=SESSION (``start_api_server``, services.py).

    A Ray version with other names, or a ``--temp-dir`` too long for a socket in the session, leaves TMPDIR as it is;
    the end of a run that is not killed removes the socket then (:func:`bootstrap.raynode.session.remove_sockets`).
    """
    try:
        services: Any = importlib.import_module("ray._private.services")
        stock = services.start_api_server
        signature = inspect.signature(stock)
    except (ImportError, AttributeError):
        return

    @functools.wraps(stock)
    def start_api_server(*args: Any, **kwargs: Any) -> Any:
        session = str(signature.bind(*args, **kwargs).arguments.get("session_dir", ""))
        before = os.environ.get("TMPDIR")
        if session and len(os.fsencode(session + _LISTENER)) <= _MAX_SOCKET_PATH:
            os.environ["TMPDIR"] = session
        try:
            return stock(*args, **kwargs)
        finally:  # the raylet, and so every worker, keeps the user's
            os.environ.pop("TMPDIR", None)
            if before is not None:
                os.environ["TMPDIR"] = before

    services.start_api_server = start_api_server
