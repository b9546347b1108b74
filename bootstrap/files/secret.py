"""The secret that the nodes of a run share, and where it comes from.

Ray calls it a token. Ray looks for it in RAY_AUTH_TOKEN, then RAY_AUTH_TOKEN_PATH, then ~/.ray/auth_token. A head that
finds one turns token authentication on by itself; a worker needs RAY_AUTH_MODE=token (docs/ray.md). The roll call uses
the token that Ray would find, so that the two cannot disagree.
"""

import os
import secrets
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from bootstrap.errors import UsageError
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.host import Host
from bootstrap.settings import Settings

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A shared secret, or its absence; never printed."""

    value: bytes | None = field(repr=False)
    source: str
    path: Path | None = None
    """The file that holds it, if any."""
    generated: bool = False
    """Whether the head generated it for this run."""


def load_secret(settings: Settings, host: Host) -> Secret:
    """Return the secret that this node was given.

    :raises UsageError: if a named file cannot be used, or RAY_AUTH_TOKEN is blank.
    """
    if settings.auth == "off":
        return Secret(None, "--auth=off")
    if not settings.secret_file and (token := host.get("RAY_AUTH_TOKEN")):
        if not token.strip():
            raise UsageError([f"RAY_AUTH_TOKEN={token!r} is blank"], hint="unset it, set a token, or --auth=off")
        return Secret(token.strip().encode("utf-8", "surrogateescape"), "RAY_AUTH_TOKEN")
    named = {"--secret-file": settings.secret_file, "RAY_AUTH_TOKEN_PATH": host.get("RAY_AUTH_TOKEN_PATH")}
    for source, name in named.items():
        if name:
            return _named(source, name)
    home = Path(host.get("HOME") or "/nonexistent") / ".ray" / "auth_token"
    try:
        return Secret(_read(home), str(home), home)
    except OSError:
        return Secret(None, "none given")
    except ValueError as error:  # Ray would use it
        raise UsageError([f"{home}: {error}"], hint="chmod 600 it, remove it, or use --auth=off") from None


def check_required(secret: Secret, settings: Settings) -> None:
    """Raise if ``--auth=required`` but the node has no secret.

    :raises UsageError: saying how to give the nodes one.
    """
    if secret.value is None and settings.auth == "required":
        raise UsageError(
            ["--auth=required, but the nodes share no secret"],
            hint='export RAY_AUTH_TOKEN="$(openssl rand -hex 32)" once for all nodes; or --secret-file, --shared-dir',
        )


def generate() -> Secret:
    """Return a new secret for this run."""
    return Secret(secrets.token_hex(32).encode(), "made for this run", generated=True)


def keep_local(secret: Secret, runtime: RuntimeDir) -> Secret:
    """Return the secret; if it was generated for this run, first copy it to a local file for Ray's processes."""
    return replace(secret, path=runtime.write_token(secret.value)) if secret.generated and secret.value else secret


def _named(source: str, name: str) -> Secret:
    path = Path(name).expanduser()
    try:
        return Secret(_read(path), source, path)
    except FileNotFoundError as error:
        hint = f"create it, with the same content on all nodes: openssl rand -hex 32 > {name}; chmod 600 {name}"
        raise UsageError([f"{source}={name}: {error.strerror}"], hint=hint) from None
    except (OSError, ValueError) as error:
        raise UsageError([f"{source}={name}: {error}"], hint="chmod 600 it, or use --auth=off") from None


def _read(path: Path) -> bytes:
    """Return the stripped content of a regular file that only its owner can write.

    ``path`` may be a symbolic link, since Kubernetes mounts a Secret as one.

    :raises OSError, ValueError: saying what is wrong with the file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_mode & 0o022:
            raise ValueError(f"other users can write it (mode {status.st_mode & 0o777:o})")
        content = file.read(_MAX_BYTES).strip()
    if not content:
        raise ValueError("it is empty")
    return content
