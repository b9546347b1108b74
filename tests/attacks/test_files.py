"""A neighbour who saw a name of ours that has become free, or plants a file where we read or write one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import neighbour
import pytest

from bootstrap import cleanup
from bootstrap.errors import UsageError
from bootstrap.files import claim, output, result, runtime_dir
from bootstrap.files.manifest import Manifest
from bootstrap.files.result import Result
from bootstrap.files.secret import load_secret
from bootstrap.host import Host
from bootstrap.launch import background
from bootstrap.model import NodeIdentity, Role
from bootstrap.process.table import is_own, pid_namespace, read_process
from bootstrap.raynode.session import Held, copy_logs
from bootstrap.settings import Settings

pytestmark = pytest.mark.requires("linux", "root", "setpriv")
HERE = Host({}, "here")


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like /tmp, in which the runtime directories are."""
    with tempfile.TemporaryDirectory(prefix="p-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o1777)
        monkeypatch.setattr(runtime_dir, "PARENT", folder)
        yield folder


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Something of ours that has a folder called ``ray``, such as site-packages."""
    file = tmp_path / "precious" / "ray" / "session_2" / "data"
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    return tmp_path / "precious"


def test_our_clean_up_follows_no_link_in_the_place_of_our_folder(public: Path, precious: Path) -> None:
    closed = public / "12345678"
    neighbour.does('ln -s "$1" "$2"', precious, closed)
    cleanup.remove_sessions(Manifest(closed_dir=str(closed), ray_dir=str(closed / "ray")), Held())
    assert (precious / "ray" / "session_2" / "data").read_text() == "precious"


def test_his_manifest_is_not_believed_where_ours_was(public: Path, precious: Path) -> None:
    folder = public / "ray-bootstrap.12345678"
    neighbour.does('mkdir "$1"; printf %s "$2" >"$1/manifest.json"', folder, f'{{"session": "{precious}"}}')
    assert (folder / "manifest.json").exists()
    assert Manifest.load(folder / "manifest.json") == Manifest()


PLANTED = {
    "file": 'mkdir "$1"; printf %s "$2" >"$1/state.json"',
    "link": 'mkdir "$1.his"; printf %s "$2" >"$1.his/state.json"; ln -s "$1.his" "$1"',
    "fifo": 'mkdir "$1"; mkfifo "$1/state.json"',
}


@pytest.mark.parametrize("planted", PLANTED)
def test_his_state_is_not_believed_where_ours_was(
    public: Path, tmp_path: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eval "$(ray-bootstrap env)"` runs what the state file says; the run ends just as we look."""
    made = runtime_dir.make()
    assert made.path.parent == public
    made.set_state(pid=os.getpid(), pid_namespace=pid_namespace(), since=0.0, use="RAY_ADDRESS=mine")
    his = (made.path / "state.json").read_text().replace("mine", "$(his)")
    locked = runtime_dir.locked

    def then_gone() -> list[Path]:
        found = locked()
        made.path.rename(tmp_path / "gone")
        neighbour.does(PLANTED[planted], made.path, his)
        return found

    assert [state["use"] for state in runtime_dir.running()] == ["RAY_ADDRESS=mine"]
    monkeypatch.setattr(runtime_dir, "locked", then_gone)
    assert runtime_dir.running() == []
    assert made.path.lstat().st_uid == neighbour.UID
    os.close(made.lock)


@pytest.mark.parametrize("to", ["his folder", "his link to ours"])
def test_no_token_is_written_where_our_folder_was(public: Path, tmp_path: Path, to: str) -> None:
    made = runtime_dir.make()
    made.path.rename(tmp_path / "a cleaner of tmp took it")
    (tmp_path / "other").mkdir()
    his = 'mkdir -m 777 "$1"; umask 0; : >"$1/.token"' if to == "his folder" else 'ln -s "$2" "$1"'
    neighbour.does(his, made.path, tmp_path / "other")
    assert made.write_private(runtime_dir.TOKEN, b"t0ken") is None
    assert not any(b"t0ken" in file.read_bytes() for file in public.rglob("*") if file.is_file())
    assert list((tmp_path / "other").iterdir()) == []
    os.close(made.lock)


def test_his_secret_is_not_ours(public: Path) -> None:
    """A user without a home of his own, whose HOME is /tmp."""
    neighbour.does('mkdir -p "$1/.ray"; echo his >"$1/.ray/auth_token"; chmod 644 "$1/.ray/auth_token"', public)
    token = public / ".ray" / "auth_token"
    who = NodeIdentity("static", Role.WORKER, 1, 2, "run")
    for settings, env in ((Settings(), {"HOME": str(public)}), (Settings(secret_file=str(token)), {})):
        with pytest.raises(UsageError, match=f"it belongs to uid {neighbour.UID}, not to {os.geteuid()}"):
            load_secret(settings, Host(env, "here"), who)


def test_neither_result_nor_logs_go_through_his_link(public: Path, tmp_path: Path) -> None:
    mine, logs = tmp_path / "mine", tmp_path / "logs"
    mine.write_text("mine")
    logs.mkdir()
    neighbour.does('ln -s "$1" "$3"; ln -s "$2" "$4"', mine, tmp_path, public / "result", public / "copy")
    result.clear(str(public / "result"), HERE)
    fault = result.write(str(public / "result"), HERE, Result(0, "workload", "", "", False, "here"))
    assert f"a link that belongs to uid {neighbour.UID}" in fault
    assert mine.read_text() == "mine"
    with pytest.raises(OSError, match=f"a link that belongs to uid {neighbour.UID}"):
        copy_logs(logs, public / "copy", "run")
    assert not (tmp_path / "run").exists()


def test_a_process_that_he_calls_raylet_is_not_ours() -> None:
    ours, his = read_process(os.getpid()), neighbour.does("sleep 30 >/dev/null & echo $!")
    process = read_process(int(his))
    assert ours is not None
    assert process is not None
    assert (is_own(ours), is_own(process)) == (True, False)
    os.kill(process.pid, 9)


@pytest.mark.parametrize("script", ['mkdir -m 777 "$1"', 'ln -s "$2" "$1"', 'mkfifo "$1"'])
def test_who_takes_the_name_of_a_claim_holds_no_run_up(public: Path, precious: Path, script: str) -> None:
    """There is no lock then, which is said; what has the name stays as it is."""
    folder = claim.path("0123456789abcdef", 0, "here")
    assert folder.parent == public
    neighbour.does(script, folder, precious)
    with pytest.raises(OSError, match="Errno") as caught:
        claim.take(folder)
    assert not isinstance(caught.value, BlockingIOError)
    claim.remove_left(folder)
    assert folder.lstat().st_uid == neighbour.UID
    assert precious.exists()


def test_no_other_user_can_hold_or_remove_our_claim(public: Path) -> None:
    folder = claim.path("0123456789abcdef", 0, "here")
    claim.take(folder)
    try:
        assert neighbour.does('flock --nonblock "$1" echo held; rmdir "$1"; ls "$2"', folder, public).split() == [
            folder.name
        ]
    finally:
        claim.release()
    assert not folder.exists()


@pytest.mark.parametrize("planted", ["mkfifo", "ln -s /etc/passwd"])
def test_up_follows_no_log_of_his(public: Path, planted: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A cleaner of /tmp has removed ours; a FIFO would hold ``up`` up."""

    def agent(_settings: object, _host: object, runtime: runtime_dir.RuntimeDir, caller: object) -> int:
        os.write(2, b"mine\n")
        runtime.path.rename(public / "gone")
        neighbour.does(f'mkdir -m 755 "$1"; {planted} "$1/agent.log"', runtime.path)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "supervise_agent", agent)
        up = background._Start(Settings(), HERE, detach=True)
        os.waitpid(up._supervisor, 0)
        up._follow()
    assert capfd.readouterr().err == "mine\n"


def test_his_link_in_the_place_of_a_trace_or_of_metrics_is_not_followed(public: Path, precious: Path) -> None:
    file = precious / "ray" / "session_2" / "data"
    neighbour.does('ln -s "$1" "$2"; : >"$3"', file, public / "trace", public / "his")
    assert (public / "trace").is_symlink()
    assert output.fault(public / "trace").endswith(f"a link that belongs to uid {neighbour.UID}")
    with pytest.raises(PermissionError):
        output.write(public / "trace", b"new")
    output.write(public / "his", b"new")  # replaced, as root may: he cannot write to ours
    assert (file.read_text(), (public / "his").stat().st_uid) == ("precious", os.geteuid())


def test_a_link_that_he_makes_in_the_last_moment_is_replaced(
    public: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = precious / "ray" / "session_2" / "data"
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        neighbour.does('ln -s "$1" "$2"', file, target)
        assert target.is_symlink()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    output.write(public / "trace", b"new")
    assert (file.read_text(), (public / "trace").is_symlink()) == ("precious", False)
    assert (public / "trace").read_text() == "new"
