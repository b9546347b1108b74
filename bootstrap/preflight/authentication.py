"""Checks of the secret that the nodes share."""

from collections.abc import Iterator

from bootstrap import munge, timeouts
from bootstrap.files.secret import FIX_MUNGE, FIX_OPEN, Channel, demanded_by
from bootstrap.munge import MungeError
from bootstrap.node.inspection import Node
from bootstrap.preflight.finding import Finding
from bootstrap.process.bounded import TimedOut, run_bounded

_MIN_BYTES = 16
"""A shorter secret may be brute-forced from a handshake that a false head or an eavesdropper has recorded."""
_LONGER = "openssl rand -hex 32"
_FIX_POD = f"{_LONGER} | kubectl create secret generic ray-bootstrap --from-file=secret=/dev/stdin (k8s/base reads it)"


def secret(node: Node) -> Iterator[Finding]:
    """Check that the nodes share a secret, and that a given one is long enough."""
    found = node.secret
    if found.channel is Channel.NONE and node.multi_node and not demanded_by(node.settings):  # then it is an error
        message = "this run is open: the nodes share no secret; anyone who reaches the head's ports can run code as you"
        remedy = _FIX_POD if node.in_pod else FIX_OPEN
        yield Finding("secret", message, f"{remedy}; or --auth=off if it is meant to be open", fatal=False)
    if found.value is not None and len(found.value) < _MIN_BYTES:
        message = (
            f"the secret ({found.source}) has {len(found.value)} of at least {_MIN_BYTES} bytes: it can be guessed"
        )
        yield Finding("secret", message, f"{_LONGER}, and give it to every node", fatal=False)
    if found.channel is Channel.MUNGE:
        try:
            run_bounded(timeouts.MUNGE_S, lambda: munge.encode(b""))
        except (MungeError, TimedOut) as error:
            message = f"MUNGE does not work: {error or 'no answer'}"
            yield Finding("secret", message, FIX_MUNGE, fatal=False)


def token_file(node: Node) -> Iterator[Finding]:
    """Check that no other user may read the file with the secret; loading it checked who may write it."""
    path = node.secret.path
    if path is None:
        return
    mode = path.stat().st_mode & 0o777
    if mode & 0o044:
        remedy = f"chmod 600 {path}"
        if node.in_pod:
            remedy += "; a Secret's volume: secret: {secretName: NAME, defaultMode: 0400}"
        message = f"others can read the secret in {path} (mode {mode:o}), and with it run code on every node"
        yield Finding("token-file", message, remedy, fatal=False)
