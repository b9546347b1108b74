"""Checks of the secret that the nodes share."""

from collections.abc import Iterator

from bootstrap import munge, timeouts
from bootstrap.files.secret import FIX_MUNGE, FIX_OPEN, Channel
from bootstrap.munge import MungeError
from bootstrap.node.inspection import Node
from bootstrap.preflight.finding import Finding
from bootstrap.process.bounded import TimedOut, run_bounded

_SAFE_LENGTH = 16
"""Bytes; a shorter secret may be found by trying all against what a false head, or who listens, has recorded."""
_FIX_POD = (
    'kubectl create secret generic ray-bootstrap --from-literal=secret="$(openssl rand -hex 32)", which the base reads'
)


def secret(node: Node) -> Iterator[Finding]:
    """Check that the nodes share a secret, and that nobody can guess it."""
    found = node.secret
    if found.channel is Channel.NONE and node.settings.auth != "off" and node.multi_node:
        message = "the nodes share no secret: whoever reaches the head's ports can run code as you"
        remedy = _FIX_POD if node.in_pod else FIX_OPEN
        yield Finding("secret", message, f"{remedy}; --auth=off if that is wanted", fatal=False)
    if found.value is not None and len(found.value) < _SAFE_LENGTH:
        message = f"the secret ({found.source}) has {len(found.value)} bytes: who records a handshake can guess it"
        yield Finding("secret", message, "openssl rand -hex 32 makes one", fatal=False)
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
