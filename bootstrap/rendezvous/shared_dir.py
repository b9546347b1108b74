"""The head leaves a record in a folder that all nodes see, such as NFS, Lustre or a shared volume.

A record is one small JSON file, written whole or not at all (temporary name, fsync, rename), named after a hash of
the run id, since a run id is free text. Several runs and several users may share the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrap.errors import UsageError
from bootstrap.files import ownership
from bootstrap.files.manifest import FileDigests, digest, remove_owned_files
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.settings import Settings

RECORD_MAX = 64 * 1024
"""Bytes; a record has some 300."""
_TRIES = 3


class SharedFolder:
    """The record of one run and attempt below ``shared_dir``."""

    def __init__(self, shared_dir: str, run_id: str, attempt: int, hostname: str) -> None:
        run = digest(run_id.encode("utf-8", "surrogateescape"))[:16]
        self.shared_dir = Path(shared_dir)
        # One folder per user, since it is closed to the others.
        self.folder = self.shared_dir / f"ray-bootstrap-{os.geteuid()}"
        self.name = f"head-{run}-{attempt}.json"
        self.place = f"the folder {self.shared_dir}"
        self.ignored: list[str] = []
        self.secret_path = self.folder / f"secret-{run}-{attempt}"
        self._key = {"run_id": run_id, "attempt": attempt}
        self._hostname = hostname
        self._nonce = secrets.token_hex(16)
        self._temporary = f".{self.name}.{self._nonce}"
        self._time = time.time()
        self._seen = False
        self._written: FileDigests = {}

    def owned_files(self, head: HeadAddress) -> FileDigests:
        """The record, under its name and the one that it has until it is whole."""
        content = digest(self._text(head))
        return {str(self.folder / name): content for name in (self.name, self._temporary)}

    def announce(self, head: HeadAddress) -> None:
        """Write the record; that of an earlier head of this run gives way.

        :raises UsageError: if the folder cannot be written.
        """
        self._written = self.owned_files(head)
        try:
            self._store(self._text(head))
        except OSError as error:
            raise self._unusable(error) from error

    def _text(self, head: HeadAddress) -> bytes:
        where = {"host": head.host, "port": head.port, "hostname": self._hostname}
        return json.dumps({**self._key, **where, "time": self._time, "nonce": self._nonce}).encode()

    def lookup(self) -> Sequence[HeadAddress]:
        """The address in this run's record, if there is one that can be believed.

        :raises UsageError: if the folder is somebody else's; at the first look also if it is missing or closed to us.
        """
        self.ignored.clear()
        try:
            with self._open() as folder:
                self._seen = True
                # Listing makes an NFS client ask its server. Opening a name that was missing a moment ago would
                # be answered from the client's cache of negative look-ups for up to a minute.
                with os.scandir(folder) as entries:
                    listed = any(entry.name == self.name for entry in entries)
                found = self._read(folder) if listed else None
        except OSError as error:
            closed = isinstance(error, NotADirectoryError | PermissionError) or not self.shared_dir.is_dir()
            if closed and not self._seen:
                raise self._unusable(error) from error
            # A stale NFS handle, an I/O error, a folder that another run's ``withdraw`` removed or that is being
            # mounted anew: all may pass.
            self.ignored.append(f"{self.folder}: {error.strerror}")
            return []
        return [HeadAddress(found["host"], found["port"], str(self.folder / self.name))] if found else []

    def withdraw(self) -> None:
        """Remove the record if it is still the one that this node announced, and the folder if it is empty."""
        with contextlib.suppress(OSError):
            remove_owned_files(self._written)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # a worker has made it, too

    def _store(self, text: bytes) -> None:
        # Another run's ``withdraw`` may remove the empty folder before the record is in it.
        for _ in range(_TRIES - 1):
            with contextlib.suppress(FileNotFoundError), self._open() as folder:
                return _replace(folder, self.name, text, self._temporary)
        with self._open() as folder:
            return _replace(folder, self.name, text, self._temporary)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        """A descriptor of our folder, which is made if it is missing.

        Workers make it too: mkdir goes to the file server, while looking for a missing folder would be answered
        from the client's cache.
        """
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            uid = os.fstat(folder).st_uid
            if not ownership.trusted(folder, uid):
                raise UsageError(
                    [f"{self.folder} belongs to uid {uid}, not to {os.geteuid()}"],
                    hint="remove it, or give --shared-dir=DIR with a folder that others cannot write",
                )
            yield folder
        finally:
            os.close(folder)

    def _read(self, folder: int) -> Mapping[str, Any] | None:
        """This run's record; None where it is gone, or not to be believed (then ``ignored`` says why)."""
        try:
            # O_NONBLOCK: opening a FIFO would wait for its writer.
            record = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.ignored.append(f"{self.folder / self.name}: {error.strerror}")
            return None
        try:
            content, fault = self._content(folder, record)
        finally:
            os.close(record)
        if fault:
            self.ignored.append(f"{self.folder / self.name}: {fault}")
        return content

    def _content(self, folder: int, record: int) -> tuple[Mapping[str, Any] | None, str]:
        status = os.fstat(record)
        if not stat.S_ISREG(status.st_mode):
            return None, "is no regular file"
        if not ownership.trusted(folder, status.st_uid):
            return None, f"belongs to uid {status.st_uid}, not to {os.geteuid()}"
        text = os.read(record, RECORD_MAX + 1)
        if len(text) > RECORD_MAX:
            return None, f"has {status.st_size} bytes, more than {RECORD_MAX}"
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None, "is no JSON"
        fault = _fault(content, self._key)
        return (None, fault) if fault else (content, "")

    def _unusable(self, error: OSError) -> UsageError:
        missing = not self.shared_dir.is_dir()
        path = self.shared_dir if missing else self.folder
        if isinstance(error, IsADirectoryError):
            path = self.folder / self.name  # the rename found a folder in the record's place
        return UsageError(
            [f"--shared-dir={self.shared_dir}: {path}: {'no such folder' if missing else error.strerror}"],
            hint="it must be mounted on every node, and this user must be able to write there",
        )


def _fault(content: Any, key: Mapping[str, Any]) -> str:
    """What is wrong with a record; empty if nothing is."""
    if not isinstance(content, dict):
        return "is no JSON object"
    for name, value in key.items():
        if content.get(name) != value or isinstance(content.get(name), bool):
            return f"{name} is {content.get(name)!r}, not {value!r}"
    host, port = content.get("host"), content.get("port")
    if not isinstance(host, str) or not host or not host.isprintable() or " " in host:
        return f"host {host!r} is no name or address"
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        return f"port {port!r} is not in 1-65535"
    return ""


def _replace(folder: int, name: str, text: bytes, temporary: str) -> None:
    """Write a file whole or not at all."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    # The rename is on the server before the workers are told; file systems without a sync of folders say EINVAL.
    with contextlib.suppress(OSError):
        os.fsync(folder)


def make(settings: Settings, identity: NodeIdentity, host: Host, _ports: Sequence[int]) -> SharedFolder:
    """From ``--shared-dir``.

    :raises UsageError: without one.
    """
    if settings.shared_dir is None:
        raise UsageError(
            [f"launcher {identity.launcher}: nothing says where the head is"],
            hint="--shared-dir=DIR with a folder that all nodes see, or --head-address=HOST",
        )
    return SharedFolder(settings.shared_dir, identity.run_id, identity.attempt, host.hostname)
