"""The secret that the nodes share: where it comes from, who could have written it, and what Ray is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bootstrap.errors import PreflightFailed, UsageError
from bootstrap.files import ownership, secret
from bootstrap.files.secret import Secret
from bootstrap.host import Host
from bootstrap.settings import Settings


def host(**env: str) -> Host:
    return Host(env=env, hostname="node")


def drawn(path: Path) -> Secret:
    """A secret for this run, in its file."""
    made = secret.generate(path)
    made.save()
    return made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """``a``, ``b`` and ``home/.ray/auth_token``, each with its own name in it."""
    (tmp_path / "home" / ".ray").mkdir(parents=True)
    for path in (tmp_path / "a", tmp_path / "b", tmp_path / "home" / ".ray" / "auth_token"):
        path.write_text(f" {path.name}\n")
        path.chmod(0o600)
    return tmp_path


@pytest.mark.parametrize(
    ("env", "secret_file", "value", "source"),
    [
        ({}, None, None, "none given"),
        ({"RAY_AUTH_TOKEN": " t "}, None, b"t", "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": ""}, None, None, "none given"),
        ({"RAY_AUTH_TOKEN_PATH": "a"}, None, b"a", "RAY_AUTH_TOKEN_PATH"),
        ({"HOME": "home"}, None, b"auth_token", "home/.ray/auth_token"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": "a", "HOME": "home"}, None, b"t", "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN_PATH": "a", "HOME": "home"}, None, b"a", "RAY_AUTH_TOKEN_PATH"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": "a"}, "b", b"b", "--secret-file"),
    ],
)
def test_the_order_is_rays_own(
    files: Path, env: dict[str, str], secret_file: str | None, value: bytes | None, source: str
) -> None:
    env = {name: text if name == "RAY_AUTH_TOKEN" else str(files / text) for name, text in env.items()}
    found = secret.load(Settings(secret_file=secret_file and str(files / secret_file)), host(**env))
    assert found.value == value
    assert found.source in (source, str(files / source))
    assert (found.path is None) == (value is None or source == "RAY_AUTH_TOKEN")


def test_off_is_off(files: Path) -> None:
    found = secret.load(Settings(auth="off"), host(RAY_AUTH_TOKEN="t"))
    assert found.value is None
    assert found.env() == {"RAY_AUTH_MODE": "disabled"}


def _group_writable(path: Path) -> None:
    path.chmod(0o620)


def _empty(path: Path) -> None:
    path.write_text(" \n")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (Path.unlink, "No such file"),
        (_group_writable, "others may write it (mode 620)"),
        (_empty, "it is empty"),
        (_folder, "Is a directory"),
        (_fifo, "not a regular file"),
    ],
)
def test_a_file_that_was_named_and_cannot_be_used(files: Path, spoil: object, told: str) -> None:
    spoil(files / "a")  # type: ignore[operator]
    for settings, env in ((Settings(secret_file=str(files / "a")), {}), (Settings(), {"RAY_AUTH_TOKEN_PATH": "a"})):
        with pytest.raises(UsageError) as error:
            secret.load(settings, host(**{name: str(files / text) for name, text in env.items()}))
        assert told in error.value.message
        assert str(files / "a") in error.value.message


def test_a_file_of_ones_own_that_ray_would_use_and_we_cannot(files: Path) -> None:
    token = files / "home" / ".ray" / "auth_token"
    token.chmod(0o666)
    with pytest.raises(UsageError, match=f"^{token}: others may write it") as error:
        secret.load(Settings(), host(HOME=str(files / "home")))
    assert "chmod 600" in error.value.hint
    assert secret.load(Settings(auth="off"), host(HOME=str(files / "home"))).value is None


@pytest.mark.requires("root")
def test_a_made_secret_on_a_file_system_that_shows_another_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = drawn(tmp_path / "folder" / "secret"), os.fstat
    os.chown(tmp_path / "folder" / "secret", 65534, 65534)
    with pytest.raises(ValueError, match="it belongs to uid 65534"):
        secret.load_generated(tmp_path / "folder" / "secret")

    def squashed(fd: int) -> os.stat_result:
        fields = list(real(fd))
        fields[4] = 65534
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", squashed)
    monkeypatch.setattr(ownership, "_shown", {})
    assert secret.load_generated(tmp_path / "folder" / "secret") == made


def test_a_mounted_secret_is_a_link_and_may_be_read_by_others(files: Path) -> None:
    (files / "a").chmod(0o444)
    (files / "link").symlink_to(files / "a")
    assert secret.load(Settings(secret_file=str(files / "link")), host()).value == b"a"


def test_a_required_secret() -> None:
    with pytest.raises(UsageError, match="--auth=required, but the nodes share no secret"):
        secret.required(Secret(None, "none given"), Settings(auth="required"))
    secret.required(Secret(b"x", "a file"), Settings(auth="required"))
    secret.required(Secret(None, "none given"), Settings())


def test_what_ray_is_told() -> None:
    assert Secret(None, "none given").env() == {}
    assert Secret(b"x", "RAY_AUTH_TOKEN").env() == {"RAY_AUTH_MODE": "token"}
    assert Secret(b"x", "f", Path("/f")).env() == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/f"}


def test_it_is_never_shown() -> None:
    assert "hunter2" not in repr(Secret(b"hunter2", "a file"))


def test_a_blank_token_is_no_secret() -> None:
    with pytest.raises(UsageError, match="RAY_AUTH_TOKEN='  ' is blank"):
        secret.load(Settings(auth="required"), host(RAY_AUTH_TOKEN="  "))


def test_a_token_may_be_any_bytes() -> None:
    assert secret.load(Settings(), host(RAY_AUTH_TOKEN="t\udcff")).value == b"t\xff"


def _in_the_way(path: Path) -> None:
    path.mkdir()


def _no_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize("spoil", [_in_the_way, _no_folder])
def test_a_place_where_none_can_be_made_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "folder" / "secret"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(PreflightFailed, match=f"^{path}: ") as error:
        drawn(path)
    assert "--auth=off" in error.value.hint
    assert list(tmp_path.rglob(".*")) == []


def test_a_file_system_that_keeps_no_modes_cannot_hold_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([real(fd).st_mode | 0o777, *real(fd)[1:10]]))
    with pytest.raises(PreflightFailed, match="secret would be no use: others may write it") as error:
        drawn(tmp_path / "folder" / "secret")
    assert "--auth=off" in error.value.hint


def test_one_that_is_made_is_found_and_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    assert secret.load_generated(path) is None
    old_mask = os.umask(0)
    try:
        made = drawn(path)
        again = drawn(path)
    finally:
        os.umask(old_mask)
    assert secret.load_generated(path) == again
    assert made.value != again.value
    assert len(made.value or b"") == 64
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]


def test_a_link_where_the_made_secret_should_be_is_not_followed(files: Path) -> None:
    (files / "secret").symlink_to(files / "a")
    with pytest.raises(OSError, match="symbolic links"):
        secret.load_generated(files / "secret")
    drawn(files / "secret")
    assert (files / "a").read_text() == " a\n"
    assert secret.load_generated(files / "secret") is not None


@pytest.mark.requires("root")
def test_somebody_elses_file_where_the_made_secret_should_be(files: Path) -> None:
    os.chown(files / "a", 1234, 1234)
    with pytest.raises(ValueError, match="it belongs to uid 1234"):
        secret.load_generated(files / "a")
