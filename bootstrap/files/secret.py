"""The secret that the nodes of a run share: where it comes from, and how Ray is told of it.

Ray looks for a token in RAY_AUTH_TOKEN, then RAY_AUTH_TOKEN_PATH, then ~/.ray/auth_token; a head turns token
authentication on by itself if it finds one, a worker needs RAY_AUTH_MODE=token (docs/ray.md). Whatever Ray would find
is what the roll call uses, so that the two cannot disagree.
"""

from __future__ import annotations

import contextlib
import os
import secrets as random
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.errors import PreflightFailed, UsageError
from bootstrap.files import ownership
from bootstrap.files.manifest import FileDigests, digest
from bootstrap.host import Host
from bootstrap.settings import Settings

_MOST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A shared secret, or the lack of one; never printed."""

    value: bytes | None = field(repr=False)
    source: str
    path: Path | None = None
    """The file that holds it, if it is in one."""

    def env(self) -> Mapping[str, str]:
        """What Ray's processes and the workload need in their environment beside ours."""
        if self.value is None:
            return {"RAY_AUTH_MODE": "disabled"} if self.source == "--auth=off" else {}
        if self.path is not None:
            return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.path)}
        return {"RAY_AUTH_MODE": "token"}

    def save(self) -> None:
        """Write it to its file (mode 0600, replaced whole), which the other nodes read.

        :raises PreflightFailed: if it cannot be written there, or others might have written what is there then.
        """
        if self.path is None or self.value is None:
            return
        temporary = _temporary(self.path)
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            _write(temporary, self.value)
            temporary.replace(self.path)
            _content(self.path, ours=True)
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            what = f"cannot be written: {error.strerror}" if isinstance(error, OSError) else f"would be no use: {error}"
            raise PreflightFailed(
                f"{self.path}: the run's secret {what}",
                hint=f"{self.path.parent.parent} must be a folder that this user can write and that keeps modes;"
                " or --secret-file=FILE, RAY_AUTH_TOKEN, --auth=off",
            ) from error

    def written(self) -> FileDigests:
        """The file that :meth:`save` makes, under its name and the one that it has until it is whole."""
        if self.value is None or self.path is None:
            return {}
        return {str(path): digest(self.value) for path in (self.path, _temporary(self.path))}


def load(settings: Settings, host: Host) -> Secret:
    """The secret that this node was given.

    :raises UsageError: if a file that was named cannot be used, or ``--auth=required`` finds none.
    """
    if settings.auth == "off":
        return Secret(None, "--auth=off")
    named = {"--secret-file": settings.secret_file}
    if not settings.secret_file and (token := host.get("RAY_AUTH_TOKEN")):
        if not token.strip():
            raise UsageError([f"RAY_AUTH_TOKEN={token!r} is blank"], hint="unset it, give it a token, or --auth=off")
        return Secret(token.strip().encode("utf-8", "surrogateescape"), "RAY_AUTH_TOKEN")
    named["RAY_AUTH_TOKEN_PATH"] = host.get("RAY_AUTH_TOKEN_PATH")
    for source, name in named.items():
        if name:
            path = Path(name).expanduser()
            try:
                return Secret(_content(path), source, path)
            except FileNotFoundError as error:
                hint = f"make it, the same on all nodes: openssl rand -hex 32 > {name}; chmod 600 {name}"
                raise UsageError([f"{source}={name}: {error.strerror}"], hint=hint) from None
            except (OSError, ValueError) as error:
                raise UsageError([f"{source}={name}: {error}"], hint="chmod 600 it, or --auth=off") from None
    home = Path(host.get("HOME") or "/nonexistent") / ".ray" / "auth_token"
    try:
        return Secret(_content(home), str(home), home)
    except OSError:
        return Secret(None, "none given")
    except ValueError as error:  # Ray would use it
        raise UsageError([f"{home}: {error}"], hint="chmod 600 it, remove it, or --auth=off") from None


def required(secret: Secret, settings: Settings) -> None:
    """:raises UsageError: if there is no secret and ``--auth=required``."""
    if secret.value is None and settings.auth == "required":
        raise UsageError(
            ["--auth=required, but the nodes share no secret"],
            hint='export RAY_AUTH_TOKEN="$(openssl rand -hex 32)" once for all nodes; or --secret-file, --shared-dir',
        )


def generate(path: Path) -> Secret:
    """A new secret for this run, whose file is to be ``path``; see :meth:`Secret.save`."""
    return Secret(random.token_hex(32).encode(), "made for this run", path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write(path: Path, value: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(value)
        file.flush()
        os.fsync(fd)


def load_generated(path: Path) -> Secret | None:
    """The secret that the head made for this run, or None if there is none yet.

    :raises OSError, ValueError: saying what is wrong with the one that is there.
    """
    try:
        return Secret(_content(path, ours=True), "made for this run", path)
    except FileNotFoundError:
        return None


def _content(path: Path, *, ours: bool = False) -> bytes:
    """The stripped content of a regular file that nobody else could have written; ``ours``: nor put there.

    :raises OSError, ValueError: saying what is wrong with it.
    """
    # A Kubernetes Secret is mounted as a symbolic link, so a file that the user named may be one.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if ours else 0))
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if ours and not _is_ours(path.parent, status.st_uid):
            raise ValueError(f"it belongs to uid {status.st_uid}")
        if status.st_mode & 0o022:
            raise ValueError(f"others may write it (mode {status.st_mode & 0o777:o})")
        content = file.read(_MOST).strip()
    if not content:
        raise ValueError("it is empty")
    return content


def _is_ours(folder: Path, uid: int) -> bool:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return ownership.trusted(fd, uid)
    finally:
        os.close(fd)
