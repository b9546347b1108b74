"""The secret that the nodes share: where it comes from, who could have written it, and what Ray is given.

One that the head made is in its record (test_rendezvous.py, test_discovery.py).
"""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

from bootstrap import munge
from bootstrap.errors import UsageError
from bootstrap.files.runtime_dir import TOKEN, RuntimeDir
from bootstrap.files.secret import (
    NO_SECRET,
    Channel,
    Secret,
    Token,
    check_required,
    derive_token,
    generate,
    load_secret,
    ray_token,
    uses_tls,
)
from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node.inspection import Node
from bootstrap.raynode.environment import authentication, for_node
from bootstrap.settings import Settings

WORKER = NodeIdentity("static", Role.WORKER, 1, 2, "run")
IN_RECORD = Secret(None, "the head's record", Channel.RECORD)


def host(**env: str) -> Host:
    return Host(env=env, hostname="node")


def load(settings: Settings, at: Host, identity: NodeIdentity = WORKER) -> Secret:
    return load_secret(settings, at, identity)


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
        ({"RAY_BOOTSTRAP_SECRET": " s "}, None, b"s", "RAY_BOOTSTRAP_SECRET"),
        ({"RAY_BOOTSTRAP_SECRET": "s", "RAY_AUTH_TOKEN": "t"}, None, b"s", "RAY_BOOTSTRAP_SECRET"),
        ({"RAY_BOOTSTRAP_SECRET": "s"}, "b", b"b", "--secret-file"),
        ({"RAY_AUTH_TOKEN": " t "}, None, b"t", "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": ""}, None, None, "none given"),
        ({"RAY_AUTH_TOKEN_PATH": "a"}, None, b"a", "RAY_AUTH_TOKEN_PATH"),
        ({"HOME": "home"}, None, b"auth_token", "home/.ray/auth_token"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": "a", "HOME": "home"}, None, b"t", "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN_PATH": "a", "HOME": "home"}, None, b"a", "RAY_AUTH_TOKEN_PATH"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": "a"}, "b", b"b", "--secret-file"),
    ],
)
def test_the_order_is_ours_then_rays_own(
    files: Path, env: dict[str, str], secret_file: str | None, value: bytes | None, source: str
) -> None:
    values = ("RAY_AUTH_TOKEN", "RAY_BOOTSTRAP_SECRET")
    env = {name: text if name in values else str(files / text) for name, text in env.items()}
    found = load(Settings(secret_file=secret_file and str(files / secret_file)), host(**env))
    assert found.value == value
    assert found.source in (source, str(files / source))
    assert (found.path is None) == (value is None or source in values)
    assert found.is_token == (value is not None and source not in ("--secret-file", "RAY_BOOTSTRAP_SECRET"))
    assert found.channel is (Channel.NONE if value is None else Channel.GIVEN)
    assert found.kind == ("none" if value is None else "token" if found.is_token else "secret")


def test_off_is_off(files: Path) -> None:
    found = load(Settings(auth="off"), host(RAY_AUTH_TOKEN="t", RAY_BOOTSTRAP_SECRET="s"))
    assert (found.value, found.channel) == (None, Channel.NONE)
    assert authentication(Token(None), off=True) == {"RAY_AUTH_MODE": "disabled"}


# ------------------------------------------------------------------------------------------------- the channel


def _home_on(kind: str, tmp_path: Path) -> Host:
    (tmp_path / "proc/self").mkdir(parents=True)
    line = f"1 1 0:1 / {tmp_path} rw - {kind} server:/home rw\n"
    (tmp_path / "proc/self/mountinfo").write_text(line)
    return Host({"HOME": str(tmp_path)}, "node", tmp_path)


@pytest.mark.parametrize(
    ("identity", "env", "kind", "channel"),
    [
        ({"size": 1}, {"SLURM_JOB_ID": "7"}, "nfs4", Channel.LOCAL),
        ({"rendezvous": "file"}, {"SLURM_JOB_ID": "7"}, "nfs4", Channel.RECORD),
        ({}, {"SLURM_JOB_ID": "7"}, "nfs4", Channel.MUNGE),
        ({}, {}, "nfs4", Channel.HOME),
        ({}, {}, "lustre", Channel.HOME),
        ({}, {}, "ext4", Channel.NONE),
        ({}, {}, "overlay", Channel.NONE),
    ],
)
def test_the_channel_follows_from_what_the_node_sees_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    identity: dict[str, object],
    env: dict[str, str],
    kind: str,
    channel: Channel,
) -> None:
    with socket.socket(socket.AF_UNIX) as munged:
        munged.bind(str(tmp_path / "s"))
        monkeypatch.setattr(munge, "SOCKET", tmp_path / "s")
        at = _home_on(kind, tmp_path)
        who = dataclasses.replace(WORKER, **identity)  # type: ignore[arg-type]
        found = load(Settings(), dataclasses.replace(at, env={**at.env, **env}), who)
        assert (found.value, found.channel) == (None, channel)
        assert load(Settings(auth="off"), at, who).channel is Channel.NONE
        assert load(Settings(), dataclasses.replace(at, env={**at.env, "RAY_BOOTSTRAP_SECRET": "s"}), who).value == b"s"


@pytest.mark.parametrize(
    ("identity", "channel"),
    [({"rendezvous": "file"}, Channel.RECORD), ({"size": 1}, Channel.GIVEN), ({}, Channel.GIVEN)],
)
def test_the_token_that_ray_made_in_the_home_folder_comes_after_a_secret_that_the_nodes_share(
    files: Path, identity: dict[str, object], channel: Channel
) -> None:
    who = dataclasses.replace(WORKER, **identity)  # type: ignore[arg-type]
    found = load(Settings(), host(HOME=str(files / "home")), who)
    assert (found.channel, found.is_token) == (channel, channel is Channel.GIVEN)


def test_a_slurm_node_without_munge_has_no_such_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(munge, "SOCKET", tmp_path / "missing")
    assert load(Settings(), host(SLURM_JOB_ID="7")).channel is Channel.NONE
    (tmp_path / "missing").write_text("no socket")
    assert load(Settings(), host(SLURM_JOB_ID="7")).channel is Channel.NONE


# ------------------------------------------------------------------------------------------------- files


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
            load(settings, host(**{name: str(files / text) for name, text in env.items()}))
        assert reason in error.value.message
        assert str(files / "a") in error.value.message


def test_a_token_in_the_home_folder_that_ray_would_use_and_we_cannot(files: Path) -> None:
    token = files / "home" / ".ray" / "auth_token"
    token.chmod(0o666)
    with pytest.raises(UsageError, match=f"^{token}: other users can write it") as error:
        load(Settings(), host(HOME=str(files / "home")))
    assert "chmod 600" in error.value.hint
    assert load(Settings(auth="off"), host(HOME=str(files / "home"))).value is None


def test_a_mounted_secret_is_a_link_and_may_be_read_by_others(files: Path) -> None:
    (files / "a").chmod(0o444)
    (files / "link").symlink_to(files / "a")
    assert load(Settings(secret_file=str(files / "link")), host()).value == b"a"


def test_a_required_secret() -> None:
    for option in ("auth", "tls"):
        with pytest.raises(UsageError, match=f"--{option}=required, but the nodes share no secret"):
            check_required(NO_SECRET, Settings(**{option: "required"}))
        check_required(IN_RECORD, Settings(**{option: "required"}))
    check_required(Secret(b"x", "a file"), Settings(auth="required"))
    check_required(NO_SECRET, Settings())


@pytest.mark.parametrize(
    ("tls", "secret", "used"),
    [
        ("off", Secret(b"x", "a file"), False),
        ("auto", Secret(b"x", "a file"), True),
        ("auto", IN_RECORD, True),
        ("auto", NO_SECRET, False),
        ("required", IN_RECORD, True),
    ],
)
def test_ray_uses_tls_where_the_nodes_share_a_secret(tls: str, secret: Secret, used: bool) -> None:
    assert uses_tls(secret, Settings(tls=tls)) is used


def test_what_ray_is_told() -> None:
    assert authentication(Token(None), off=False) == {}
    assert authentication(Token("x"), off=False) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}
    path = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/f"}
    assert authentication(Token("x", Path("/f")), off=False) == path


def test_ray_is_told_of_its_token_and_nobody_of_the_secret(files: Path) -> None:
    own = {"RAY_AUTH_TOKEN": " t ", "RAY_AUTH_TOKEN_PATH": str(files / "b")}
    runtime = RuntimeDir(files)
    for settings, env, expected in (
        (Settings(), own, {"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": str(files / "b")}),  # Ray prefers the first
        (Settings(secret_file=str(files / "a")), own, {"RAY_AUTH_TOKEN_PATH": str(files / TOKEN)}),
        (Settings(), {**own, "RAY_BOOTSTRAP_SECRET": "s"}, {"RAY_AUTH_TOKEN_PATH": str(files / TOKEN)}),
        (Settings(), {"RAY_AUTH_TOKEN_PATH": str(files / "b")}, {"RAY_AUTH_TOKEN_PATH": str(files / "b")}),
    ):
        secret = load(settings, host(**env))
        address = NodeAddress("10.0.0.1", None, "host")
        node = Node(settings, host(**env), WORKER, address, Resources(cpus=1, memory=1), Path("/tmp/ray"), secret)
        token = ray_token(secret, "run", runtime)
        assert for_node(node, token, None) == {"RAY_AUTH_MODE": "token", "VLLM_HOST_IP": "10.0.0.1", **expected}


def test_rays_token_is_derived_as_documented_and_differs_for_each_run() -> None:
    """With the very lines that docs/workload.md gives to other shells."""
    text = (REPOSITORY / "docs" / "workload.md").read_text()
    line = text[text.index("python3 -c 'import hashlib") : text.index("hexdigest())'")] + "hexdigest())'"
    env = {**os.environ, "RUN_ID": "job 17/ü", "SECRET": "correct horse battery staple"}
    printed = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert derive_token(b"correct horse battery staple", "job 17/ü") == printed
    assert derive_token(b"correct horse battery staple", "job 18") != printed


def test_a_secret_is_never_shown() -> None:
    assert "hunter2" not in repr(Secret(b"hunter2", "a file"))
    assert "hunter2" not in repr(Token("hunter2"))
    made = generate(IN_RECORD)
    assert (made.value or b"").decode() not in repr(made)


def test_a_blank_token_is_no_secret() -> None:
    with pytest.raises(UsageError, match="RAY_AUTH_TOKEN='  ' is blank"):
        load(Settings(auth="required"), host(RAY_AUTH_TOKEN="  "))
    for blank in ("", " "):  # such as the output of a command that failed
        with pytest.raises(UsageError, match=f"RAY_BOOTSTRAP_SECRET='{blank}' is blank"):
            load(Settings(), host(RAY_BOOTSTRAP_SECRET=blank))


def test_a_token_may_be_any_bytes() -> None:
    found = load(Settings(), host(RAY_AUTH_TOKEN="t\udcff"))
    assert found.value == b"t\xff"
    assert ray_token(found, "run", RuntimeDir(Path("/nonexistent"), "none")).value == "t\udcff"


def test_every_generated_secret_is_new() -> None:
    made, again = generate(IN_RECORD), generate(IN_RECORD)
    assert made.value != again.value
    assert len(made.value or b"") == 64
    assert (made.value or b"").isalnum()
    assert generate(NO_SECRET).value is None
    assert generate(Secret(b"given", "a file")).value == b"given"


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_token_is_kept_where_rays_processes_read_it(files: Path, umask: int) -> None:
    runtime, made = RuntimeDir(files), generate(IN_RECORD)
    (files / TOKEN).symlink_to(files / "a")
    before = os.umask(umask)
    try:
        kept = ray_token(made, "run", runtime)
    finally:
        os.umask(before)
    assert kept == Token(derive_token(made.value or b"", "run"), files / TOKEN)
    assert (files / TOKEN).read_text() == kept.value
    assert (files / TOKEN).lstat().st_mode & 0o7777 == 0o600
    assert (files / "a").read_text() == " a\n"


def test_a_token_that_was_given_is_not_copied(tmp_path: Path) -> None:
    env = Secret(b"x", "RAY_AUTH_TOKEN", is_token=True)
    file = Secret(b"x", "f", is_token=True, path=Path("/f"))
    for given, expected in ((env, Token("x")), (file, Token("x", Path("/f"))), (NO_SECRET, Token(None))):
        assert ray_token(given, "run", RuntimeDir(tmp_path)) == expected
    assert list(tmp_path.iterdir()) == []


def _no_folder(tmp_path: Path) -> RuntimeDir:
    return RuntimeDir(tmp_path / "missing")


def _in_the_way(tmp_path: Path) -> RuntimeDir:
    (tmp_path / TOKEN).mkdir()
    return RuntimeDir(tmp_path)


def _faulty(tmp_path: Path) -> RuntimeDir:
    return RuntimeDir(tmp_path, "No space left on device")


@pytest.mark.parametrize("make", [_no_folder, _in_the_way, _faulty])
def test_a_token_that_cannot_be_kept_still_reaches_rays_processes(
    tmp_path: Path, make: Callable[[Path], RuntimeDir]
) -> None:
    token = ray_token(generate(IN_RECORD), "run", make(tmp_path))
    assert token.path is None
    assert authentication(token, off=False) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token.value}
