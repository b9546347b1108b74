"""Another user of the same machine, with a uid of his own and no rights but his."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import traceback
from collections.abc import Callable

UID = 54321
_CLONE_NEWNET, _PR_SET_PDEATHSIG = 0x40000000, 1


def does(script: str, *arguments: object) -> str:
    """What a shell script prints that he runs; what he may not do, he is told, and goes on."""
    him = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    argv = [*him, "sh", "-c", script, "neighbour", *map(str, arguments)]
    return subprocess.run(argv, cwd="/", stdout=subprocess.PIPE, text=True, timeout=30, check=False).stdout


def finds(*arguments: object) -> list[str]:
    """The paths that ``find`` finds for him."""
    return does('find "$@" 2>/dev/null', *arguments).splitlines()


def becomes() -> None:
    """This process is his from now on, and ends with its parent."""
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of the uid would clear it


def forked(function: Callable[[], None], *, network: bool = False) -> int:
    """The process id of a child that calls ``function``; ``network``: in a network namespace of its own."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if network and ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        function()
        status = 0
    except BaseException:  # noqa: BLE001 (shown, and told by the status)
        traceback.print_exc()
    finally:
        os._exit(status)
