"""sshd on the hosts of :mod:`hosts`, for what starts its nodes over ssh, such as ``ray up``.

Keys, configuration and home folders are made for the test: each host has a /etc/passwd of its own in which root lives
in a folder of that host's /run, so nothing reads or writes the ``~/.ssh``, ``~/.bashrc`` or ``known_hosts`` of whoever
runs the tests. /var/log is the host's own, too: sshd keeps its lastlog and wtmp there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hosts import MARK, Host, wait_for

HOME = "/run/root"
"""The home folder of root on each of these hosts."""
_SSHD = """
Port 22
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
PrintMotd no
PrintLastLog no
X11Forwarding no
SetEnv {mark}
"""


def make_keys(folder: Path) -> Path:
    """Make a host key and a user's key in ``folder``; return the path of the latter."""
    for name in ("host", "user"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"the tests' {name}", "-f", str(folder / name)]
        subprocess.run(argv, check=True, timeout=30)
    return folder / "user"


def give_homes(hosts: Sequence[Host], folder: Path) -> None:
    """Give root of each host an empty home folder of its own, in which a shell finds this Python's programs."""
    (folder / "passwd").write_text(f"root:x:0:0:root:{HOME}:/bin/bash\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n")
    path = f"export PATH={Path(sys.executable).parent}:$PATH"
    script = f"mkdir -m 700 {HOME} && echo '{path}' >{HOME}/.bashrc && mkdir -m 755 -p /run/sshd"
    script += f" && mount --bind {folder}/passwd /etc/passwd && mount -t tmpfs none /var/log"
    for host in hosts:
        host.run(["sh", "-euc", script])


def start_sshd(hosts: Sequence[Host], folder: Path, mark: str) -> list[subprocess.Popen[Any]]:
    """Start sshd on these hosts, for the key of :func:`make_keys`; its sessions carry the mark of this test."""
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder, mark=f"{MARK}={mark}"))
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd_config"]
    daemons = [host.popen(argv) for host in hosts]
    for host in hosts:
        wait_for(partial(_listens, host), 20, f"sshd on {host.name}")
    return daemons


def _listens(host: Host) -> bool:
    return 22 in host.sockets()
