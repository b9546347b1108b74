"""The secret that the nodes share: where it comes from, who could have written it, and what Ray is given.

One that the head made is in its record (test_rendezvous.py, test_discovery.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bootstrap.errors import UsageError
from bootstrap.files.runtime_dir import TOKEN, RuntimeDir
from bootstrap.files.secret import Secret, check_required, generate, keep_local, load_secret
from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node.inspection import Node
from bootstrap.raynode.environment import for_node, token
from bootstrap.settings import Settings


def host(**env: str) -> Host:
    return Host(env=env, hostname="node")


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
    found = load_secret(Settings(secret_file=secret_file and str(files / secret_file)), host(**env))
    assert found.value == value
    assert found.source in (source, str(files / source))
    assert (found.path is None) == (value is None or source == "RAY_AUTH_TOKEN")
    assert not found.generated


def test_off_is_off(files: Path) -> None:
    found = load_secret(Settings(auth="off"), host(RAY_AUTH_TOKEN="t"))
    assert found.value is None
    assert token(found) == {"RAY_AUTH_MODE": "disabled"}


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
    ("spoil", "reason"),
    [
        (Path.unlink, "No such file"),
        (_group_writable, "other users can write it (mode 620)"),
        (_empty, "it is empty"),
        (_folder, "Is a directory"),
        (_fifo, "not a regular file"),
    ],
)
def test_a_file_that_was_named_and_cannot_be_used(files: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(files / "a")
    for settings, env in ((Settings(secret_file=str(files / "a")), {}), (Settings(), {"RAY_AUTH_TOKEN_PATH": "a"})):
        with pytest.raises(UsageError) as error:
            load_secret(settings, host(**{name: str(files / text) for name, text in env.items()}))
        assert reason in error.value.message
        assert str(files / "a") in error.value.message


def test_a_token_in_the_home_folder_that_ray_would_use_and_we_cannot(files: Path) -> None:
    token = files / "home" / ".ray" / "auth_token"
    token.chmod(0o666)
    with pytest.raises(UsageError, match=f"^{token}: other users can write it") as error:
        load_secret(Settings(), host(HOME=str(files / "home")))
    assert "chmod 600" in error.value.hint
    assert load_secret(Settings(auth="off"), host(HOME=str(files / "home"))).value is None


def test_a_mounted_secret_is_a_link_and_may_be_read_by_others(files: Path) -> None:
    (files / "a").chmod(0o444)
    (files / "link").symlink_to(files / "a")
    assert load_secret(Settings(secret_file=str(files / "link")), host()).value == b"a"


def test_a_required_secret() -> None:
    with pytest.raises(UsageError, match="--auth=required, but the nodes share no secret"):
        check_required(Secret(None, "none given"), Settings(auth="required"))
    check_required(Secret(b"x", "a file"), Settings(auth="required"))
    check_required(Secret(None, "none given"), Settings())


def test_what_ray_is_told() -> None:
    assert token(Secret(None, "none given")) == {}
    assert token(Secret(b"x", "RAY_AUTH_TOKEN")) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}
    assert token(Secret(b"x", "f", Path("/f"))) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/f"}


def test_ray_is_told_of_the_secret_that_the_nodes_share_and_of_no_other(files: Path) -> None:
    own = {"RAY_AUTH_TOKEN": " t ", "RAY_AUTH_TOKEN_PATH": str(files / "b")}
    for settings, expected in (
        (Settings(), {"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": str(files / "b")}),  # Ray prefers the first
        (Settings(secret_file=str(files / "a")), {"RAY_AUTH_TOKEN_PATH": str(files / "a")}),
    ):
        secret, who = load_secret(settings, host(**own)), NodeIdentity("local", Role.HEAD, 0, 1, "run")
        address = NodeAddress("10.0.0.1", None, "host")
        node = Node(settings, host(**own), who, address, Resources(cpus=1, memory=1), Path("/tmp/ray"), secret)
        assert for_node(node, secret, {}) == {"RAY_AUTH_MODE": "token", **expected}


def test_a_secret_is_never_shown() -> None:
    assert "hunter2" not in repr(Secret(b"hunter2", "a file"))
    made = generate()
    assert (made.value or b"").decode() not in repr(made)


def test_a_blank_token_is_no_secret() -> None:
    with pytest.raises(UsageError, match="RAY_AUTH_TOKEN='  ' is blank"):
        load_secret(Settings(auth="required"), host(RAY_AUTH_TOKEN="  "))


def test_a_token_may_be_any_bytes() -> None:
    found = load_secret(Settings(), host(RAY_AUTH_TOKEN="t\udcff"))
    assert found.value == b"t\xff"
    assert token(found)["RAY_AUTH_TOKEN"] == "t\udcff"


def test_every_generated_secret_is_new() -> None:
    made, again = generate(), generate()
    assert made.generated
    assert made.path is None
    assert made.value != again.value
    assert len(made.value or b"") == 64
    assert (made.value or b"").isalnum()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_generated_secret_is_kept_where_rays_processes_read_it(files: Path, umask: int) -> None:
    runtime, made = RuntimeDir(files), generate()
    (files / TOKEN).symlink_to(files / "a")
    before = os.umask(umask)
    try:
        kept = keep_local(made, runtime)
    finally:
        os.umask(before)
    assert (kept.value, kept.source, kept.path) == (made.value, made.source, files / TOKEN)
    assert (files / TOKEN).read_bytes() == made.value
    assert (files / TOKEN).lstat().st_mode & 0o7777 == 0o600
    assert (files / "a").read_text() == " a\n"
    assert token(kept) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(files / TOKEN)}
    assert load_secret(Settings(secret_file=str(files / TOKEN)), host()).value == made.value


def test_a_secret_that_was_given_is_not_copied(tmp_path: Path) -> None:
    for given in (Secret(b"x", "RAY_AUTH_TOKEN"), Secret(b"x", "f", Path("/f")), Secret(None, "none given")):
        assert keep_local(given, RuntimeDir(tmp_path)) == given
    assert list(tmp_path.iterdir()) == []


def _no_folder(tmp_path: Path) -> RuntimeDir:
    return RuntimeDir(tmp_path / "missing")


def _in_the_way(tmp_path: Path) -> RuntimeDir:
    (tmp_path / TOKEN).mkdir()
    return RuntimeDir(tmp_path)


def _faulty(tmp_path: Path) -> RuntimeDir:
    return RuntimeDir(tmp_path, "No space left on device")


@pytest.mark.parametrize("make", [_no_folder, _in_the_way, _faulty])
def test_a_generated_secret_that_cannot_be_kept_still_reaches_rays_processes(
    tmp_path: Path, make: Callable[[Path], RuntimeDir]
) -> None:
    made = generate()
    kept = keep_local(made, make(tmp_path))
    assert kept == made
    assert token(kept) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": (made.value or b"").decode()}
