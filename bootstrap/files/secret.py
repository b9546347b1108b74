"""The secret that the nodes of a run share, where it comes from, and Ray's token, which is derived from it.

The secret authenticates the roll call; Ray's processes never see it. Ray sends its token in clear, unless it runs with
TLS, so an eavesdropper gets the token; as it is derived one way, that is not enough to take part in the roll call.
"""

import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from bootstrap import munge
from bootstrap.errors import UsageError
from bootstrap.files import ownership
from bootstrap.files.mounts import is_networked, mount_of
from bootstrap.files.runtime_dir import TOKEN, RuntimeDir
from bootstrap.host import Host
from bootstrap.model import NodeIdentity
from bootstrap.settings import SECRET, Settings

_MAX_BYTES = 64 * 1024
FIX_OPEN = (
    f'run "openssl rand -hex 32" once and set {SECRET} to its output on every node, or --shared-dir=DIR on every node'
)
FIX_MISMATCH = f"set the same {SECRET}, --secret-file or RAY_AUTH_TOKEN on every node, or --auth=off on every node"
FIX_MUNGE = f"mount {munge.SOCKET.parent} into the container and start munged, on every node; or {FIX_OPEN}"


class Channel(str, Enum):
    """How the nodes of a run come to share a secret.

    Each node derives it from what it sees itself and never from what another node says: there is nothing to downgrade.
    """

    GIVEN = "given"
    """The user gave it to every node."""
    LOCAL = "local"
    """There is one node."""
    RECORD = "record"
    """In the head's record in ``--shared-dir``."""
    MUNGE = "munge"
    """From the head, in a credential that only this user can decode."""
    HOME = "home"
    """In a record of the head in the home directory, which is on a network file system and can be written."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Secret:
    """The shared secret, or its absence; never printed."""

    value: bytes | None = field(repr=False)
    """None also until its channel has delivered it to this node."""
    source: str
    channel: Channel = Channel.GIVEN
    is_token: bool = False
    """Whether the user gave it as Ray's token: then it is both."""
    path: Path | None = None
    """The file that the user named, if any."""

    @property
    def is_in_record(self) -> bool:
        """Return whether the head publishes it in a record."""
        return self.channel in (Channel.RECORD, Channel.HOME)

    @property
    def kind(self) -> str:
        """Return what both sides call it in the roll call: ``token``, ``munge``, ``secret`` or ``none``.

        It does not depend on whether the secret has arrived: a node with a channel never joins a head without one.
        """
        if self.channel in (Channel.NONE, Channel.MUNGE):
            return str(self.channel.value)
        return "token" if self.is_token else "secret"


NO_SECRET = Secret(None, "none given", Channel.NONE)


@dataclass(frozen=True, slots=True)
class Token:
    """Ray's token, or its absence; never printed."""

    value: str | None = field(repr=False)
    path: Path | None = None
    """The file that holds it, if any."""


def load_secret(settings: Settings, host: Host, identity: NodeIdentity) -> Secret:
    """Return the secret that this node was given, or how it will get one.

    Ray looks for a token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, then ~/.ray/auth_token (docs/ray.md). So do we, after
    what was given to us; and several nodes prefer a secret that they share for certain to the last.

    :raises UsageError: if a named file cannot be used, or a variable is blank.
    """
    if settings.auth == "off":
        return Secret(None, "--auth=off", Channel.NONE)
    if settings.secret_file:
        return _named("--secret-file", settings.secret_file, is_token=False)
    # An empty RAY_AUTH_TOKEN may come from a launcher; an empty secret, from a command that failed.
    for name, text in ((SECRET, host.env.get(SECRET)), ("RAY_AUTH_TOKEN", host.get("RAY_AUTH_TOKEN"))):
        if text is not None:
            value = text.encode("utf-8", "surrogateescape").strip()
            if not value:
                raise UsageError([f"{name}={text!r} is blank"], hint="unset it, set a secret, or --auth=off")
            return Secret(value, name, is_token=name != SECRET)
    if path := host.get("RAY_AUTH_TOKEN_PATH"):
        return _named("RAY_AUTH_TOKEN_PATH", path, is_token=True)
    home = Path(host.get("HOME") or "/nonexistent")
    expected = _expected(identity, host, home)
    # Ray makes this file itself, at the first ray.init() that asks for one: no node's need be another's.
    if expected.channel not in (Channel.NONE, Channel.LOCAL):
        return expected
    token = home / ".ray" / "auth_token"
    try:
        return Secret(_read(token), str(token), is_token=True, path=token)
    except OSError:
        return expected
    except ValueError as error:  # Ray would use it
        raise UsageError([f"{token}: {error}"], hint="chmod 600 it, remove it, or use --auth=off") from None


def _expected(identity: NodeIdentity, host: Host, home: Path) -> Secret:
    """Return a secret without a value, naming the channel that will deliver it."""
    if identity.size == 1:
        return Secret(None, "generated for the only node", Channel.LOCAL)
    if identity.rendezvous == "file":
        return Secret(None, "the head's record in --shared-dir", Channel.RECORD)
    if host.get("SLURM_JOB_ID") and munge.is_available():
        return Secret(None, f"the head, through MUNGE ({munge.SOCKET})", Channel.MUNGE)
    fs_type, _ = mount_of(host, home)
    if is_networked(fs_type) and os.access(home, os.W_OK | os.X_OK):  # some sites let jobs only read it
        return Secret(None, f"the head's record in {home} ({fs_type})", Channel.HOME)
    return NO_SECRET


def demanded_by(settings: Settings) -> str:
    """Return the option that demands a secret, as it was given; empty if none does."""
    demands = {"--auth=required": settings.auth, "--tls=required": settings.tls}
    return next((option for option, value in demands.items() if value == "required"), "")


def check_required(secret: Secret, settings: Settings) -> None:
    """Raise if ``--auth=required`` or ``--tls=required``, but the nodes have no way to share a secret.

    :raises UsageError: saying how to give them one.
    """
    if secret.value is None and secret.channel is Channel.NONE and (option := demanded_by(settings)):
        raise UsageError([f"{option}, but the nodes share no secret"], hint=FIX_OPEN)


def uses_tls(secret: Secret, settings: Settings) -> bool:
    """Return whether Ray runs with TLS. Without a secret, a node could not tell the head's certificates from others."""
    return settings.tls != "off" and secret.channel is not Channel.NONE


def generate(given: Secret) -> Secret:
    """Return the secret that this node was given; on the head, a new one if it has a channel to the other nodes."""
    if given.value is not None or given.channel is Channel.NONE:
        return given
    return replace(given, value=secrets.token_hex(32).encode())


def derive_token(secret: bytes, run_id: str) -> str:
    """Return Ray's token for this run, 64 hex digits: an HMAC with the secret as its key, which does not reveal it.

    docs/workload.md shows how another shell computes it.
    """
    return hmac.digest(secret, b"ray-bootstrap/token\n" + run_id.encode("utf-8", "surrogateescape"), "sha256").hex()


def ray_token(secret: Secret, run_id: str, runtime: RuntimeDir) -> Token:
    """Return Ray's token: the user's own, or one derived from the secret, in a file for Ray's processes."""
    if secret.value is None:
        return Token(None)
    if secret.is_token:
        return Token(secret.value.decode("utf-8", "surrogateescape"), secret.path)
    token = derive_token(secret.value, run_id)
    return Token(token, runtime.write_private(TOKEN, token.encode()))


def _named(source: str, name: str, *, is_token: bool) -> Secret:
    path = Path(name).expanduser()
    try:
        return Secret(_read(path), source, is_token=is_token, path=path)
    except OSError as error:
        fault = error.strerror or str(error)
    except ValueError as error:
        fault = str(error)
    hint = f"openssl rand -hex 32 > {name}; chmod 600 {name}; then copy it to all nodes"
    raise UsageError([f"{source}={name}: {fault}"], hint=hint)


def _read(path: Path) -> bytes:
    """Return the stripped content of a regular file that only this user, or root, can write.

    ``path`` may be a symbolic link, since Kubernetes mounts a Secret as one.

    :raises OSError, ValueError: saying what is wrong with the file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if not ownership.is_trusted_file(path, status):
            raise ValueError(f"it belongs to uid {status.st_uid}, not to {os.geteuid()}")
        if status.st_mode & 0o022:
            raise ValueError(f"other users can write it (mode {status.st_mode & 0o777:o})")
        content = file.read(_MAX_BYTES).strip()
    if not content:
        raise ValueError("it is empty")
    return content
