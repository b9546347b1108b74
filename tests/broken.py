"""Clusters that are broken on purpose, by real faults: what the head must say of each, and how every node ends.

The rows of docs/diagnosis.md. ``test_diagnosis.py`` breaks each cluster; with ``DIAGNOSIS=FILE`` it writes what it
measured to that file, from which ``python tests/broken.py FILE`` makes the document.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import Lab, Special
from requirements import MEMORY_LIMITS, memory_group

DOCUMENT = Path(__file__).parent.parent / "docs" / "diagnosis.md"
BEGIN, END = (
    "<!-- table: DIAGNOSIS=FILE pytest tests/test_diagnosis.py; python tests/broken.py FILE -->",
    "<!-- end -->",
)
BAR_S = 15.0
"""Seconds from the later of the fault and the last node's start to the head's line."""


@dataclass(frozen=True)
class Broken:
    """One of them."""

    what: str
    """The fault, in words."""
    names: str
    """Matches the rank and the cause in the head's last lines."""
    statuses: tuple[int, ...]
    """Of the agents, the head first."""
    break_it: Callable[[Lab], None]
    nodes: int = 2
    at_timeout: bool = False
    """Whether the rank never reaches the head, so that only ``--quorum-timeout`` (here 10 s) names it."""
    why: str = ""
    """Why the statuses differ, if they do."""
    finish: bool = False
    """Whether the cluster works all the same, so that the workload's end ends the run."""
    needs: tuple[str, ...] = ()
    """Of tests/requirements.py, besides what all of them need."""


BROKEN: dict[str, Broken] = {}


def broken(
    what: str, names: str, statuses: Sequence[int], **more: object
) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Make a row of the function, which starts the nodes and breaks them."""

    def add(break_it: Callable[[Lab], None]) -> Callable[[Lab], None]:
        name = break_it.__name__.replace("_", "-")
        BROKEN[name] = Broken(what, names, tuple(statuses), break_it, **more)  # type: ignore[arg-type]
        return break_it

    return add


TIMEOUT = "--quorum-timeout=10s"


# ------------------------------------------------------------------------------------------------ between the nodes


@broken(
    "rank 1's firewall drops new connections from the other nodes",
    r"cannot reach rank 1 .{0,200}?10\.77\.\d+\.11\b|does not reach rank 1 .{0,200}?10\.77\.\d+\.11\b",
    (0, 0),
    finish=True,
)
def worker_behind_a_firewall(lab: Lab) -> None:
    lab.drop(1, 'iifname "eth0" tcp flags & (syn | ack) == syn')
    lab.start()


@broken(
    "the head's firewall drops GCS's port",
    r"rank 1 .{0,400}?not GCS 10\.77\.\d+\.10:6399",
    (69, 69),
)
def gcs_port_dropped(lab: Lab) -> None:
    lab.drop(0, 'iifname "eth0" tcp dport 6399')
    lab.start("--gcs-port=6399", "--quorum-timeout=15s")


@broken(
    "the head's firewall resets connections to GCS's port",
    r"rank 1 .{0,400}?not GCS 10\.77\.\d+\.10:6399.{0,200}?refused",
    (69, 69),
)
def gcs_port_reset(lab: Lab) -> None:
    lab.drop(0, 'iifname "eth0" tcp dport 6399 reject with tcp reset')
    lab.start("--gcs-port=6399", "--quorum-timeout=15s")


@broken(
    "rank 1's firewall lets in new connections to the probe port, and to no other",
    r"does not reach rank 1 .{0,200}?(node manager|object manager|worker)",
    (0, 0),
    finish=True,
)
def only_the_probe_port_is_open(lab: Lab) -> None:
    lab.drop(1, 'iifname "eth0" tcp dport != 20777 tcp flags & (syn | ack) == syn')
    lab.start("--probe-port=20777")


@broken(
    "rank 2's firewall drops all that comes from rank 1",
    r"rank 1 \(node-1\) does not reach rank 2 ",
    (0, 0, 0),
    nodes=3,
    finish=True,
)
def two_workers_apart(lab: Lab) -> None:
    lab.drop(2, f"ip saddr {lab.hosts[1].ip} tcp flags & (syn | ack) == syn")
    lab.start()


@broken(
    "packets of more than 1 000 bytes to rank 1 are lost, without an ICMP message (a wrong MTU on the way)",
    r"rank 1 .{0,400}?MTU",
    (0, 0),
    finish=True,
    needs=("ethtool",),
)
def mtu_black_hole(lab: Lab) -> None:
    for rank in (0, 1):  # or the kernel makes large packets of small ones before nft sees them
        lab.fault(rank, "ethtool", "-K", "eth0", "gro", "off", "gso", "off", "tso", "off")
    lab.drop(1, 'iifname "eth0" meta length > 1000')
    lab.start()


@broken(
    "the head's firewall drops the port of the roll call",
    r"rank 1: never seen",
    (75, 68),
    at_timeout=True,
    why="no connection to the head, and no verdict through the shared folder, as the worker gives up first",
)
def roll_call_port_dropped(lab: Lab) -> None:
    lab.drop(0, 'iifname "eth0" tcp dport 20555')
    lab.start("--rollcall-port=20555", TIMEOUT, "--head-timeout=8s")


@broken(
    "rank 1 was given an address that no interface of it has",
    r"rank 1 .{0,100}?192\.168\.50\.2.{0,200}?10\.77\.\d+\.11",
    (0, 76),
    finish=True,
    why="Ray registers any address, so the workload starts; then rank 1's raylet ends: its own agents do not reach it",
)
def wrong_node_ip(lab: Lab) -> None:
    node = Special(["--node-ip=192.168.50.2", "--ignore-check=node-address"])
    lab.start(special={1: node})
    lab.mend = lambda: lab.says(0, r"rank 1 \(node-1\) failed: Ray's raylet")  # which is not always before the warning


@broken(
    "every node claims the address of its own container bridge",
    r"rank 1 .{0,60}?172\.17\.0\.1.{0,100}?own address",
    (69, 69),
)
def everyone_claims_the_bridge(lab: Lab) -> None:
    bridge = "ip link add br9 type veth peer name br8; ip addr add 172.17.0.1/16 dev br9"
    bridge += "; ip link set br9 up; ip link set br8 up"
    for rank in (0, 1):
        lab.fault(rank, "sh", "-c", bridge)
    lab.start(
        "--interface=br9", "--quorum-timeout=15s", meeting=[f"--head-address={lab.hosts[0].ip}", "--rendezvous=static"]
    )


@broken(
    "the head announces an address of an interface that the workers have no route to",
    r"rank 1 .{0,100}?reaches the head only at 10\.77\.\d+\.10, not at its node address 10\.99\.0\.1",
    (69, 69),
)
def head_announces_another_network(lab: Lab) -> None:
    other = "ip link add ib9 type veth peer name ib8; ip addr add 10.99.0.1/24 dev ib9"
    lab.fault(0, "sh", "-c", f"{other}; ip link set ib9 up; ip link set ib8 up")
    lab.fault(1, "ip", "route", "add", "unreachable", "10.99.0.0/24")
    lab.start("--quorum-timeout=15s", special={0: Special(["--interface=ib9"])})


@broken(
    "rank 1 has no route to the head",
    r"rank 1: never seen",
    (75, 68),
    at_timeout=True,
    why="as above",
)
def no_route(lab: Lab) -> None:
    lab.fault(1, "ip", "route", "add", "unreachable", f"{lab.hosts[0].ip}/32")
    lab.start(TIMEOUT, "--head-timeout=8s")


@broken(
    "rank 1's cable is pulled before rank 2 has come",
    r"rank 1 \(node-1\) lost: silent for 3 s",
    (75, 76),
    nodes=3,
    why="rank 1 hears nothing any more",
)
def cable_pulled(lab: Lab) -> None:
    lab.start("--heartbeat-timeout=3s", "--quorum-timeout=12s", ranks=(0, 1))
    lab.says(1, "leads this run")
    lab.hosts[1].drop()
    lab.broken_now()


# --------------------------------------------------------------------------------------------------- GPUs and limits


@broken(
    "NVML fails on rank 1 (GPU is lost), without a device file",
    r"rank 1 .{0,400}?GPU is lost",
    (0, 0),
    finish=True,
    needs=("cc",),
)
def gpu_is_lost(lab: Lab) -> None:
    lab.start(special={1: Special(env=lab.nvml("init 15\n"))})


@broken(
    "driver and library of rank 1 differ, without a device file",
    r"rank 1 .{0,400}?[Dd]river/library version mismatch",
    (0, 0),
    finish=True,
    needs=("cc",),
)
def driver_mismatch(lab: Lab) -> None:
    lab.start(special={1: Special(env=lab.nvml("init 18\n"))})


@broken(
    "NVML fails on rank 1, which was given a GPU",
    r"rank 1 .{0,400}?GPU is lost",
    (78, 78),
    needs=("cc",),
)
def gpu_is_lost_that_was_given(lab: Lab) -> None:
    lab.start(special={1: Special(env={**lab.nvml("init 15\n"), "CUDA_VISIBLE_DEVICES": "0"})})


@broken(
    "rank 1 has 1 GPU, 2 are expected", r"rank 1 .{0,400}?2 GPUs are expected .{0,30}?1 found", (78, 78), needs=("cc",)
)
def too_few_gpus(lab: Lab) -> None:
    import nvml

    two = dict(lab.nvml(nvml.gpus(2)))
    (lab.hosts.shared / "one.txt").write_text(nvml.gpus(1))
    lab.start("--expect-gpus=2", special={0: Special(env=two), 1: Special(env={**two, "NVML_STUB": "/shared/one.txt"})})


@broken("/dev/shm of rank 1 has 32 MiB", r"rank 1 .{0,400}?/dev/shm", (78, 78))
def small_shm(lab: Lab) -> None:
    lab.fault(1, "mount", "-o", "remount,size=32m", "/dev/shm")
    lab.start()


@broken("rank 1 may open 100 files", r"rank 1 .{0,400}?open files", (78, 78))
def few_files(lab: Lab) -> None:
    lab.start(special={1: Special(before=["prlimit", "--nofile=100:100"])})


@broken("the address space of rank 1's processes is limited to 1.2 GB", r"rank 1 .{0,400}?address", (78, 78))
def little_address_space(lab: Lab) -> None:
    lab.start(special={1: Special(before=["prlimit", "--as=1200000000:1200000000"])})


@broken("the disk with rank 1's /tmp is full", r"rank 1 .{0,400}?(full|[Nn]o space|free)", (78, 78))
def full_disk(lab: Lab) -> None:
    lab.fault(1, "sh", "-c", "mount -t tmpfs -o size=1m,mode=1777 full /tmp; cat /dev/zero >/tmp/big 2>/dev/null; true")
    lab.start()


@broken("the host name of rank 1 has 64 characters", r"rank 1 .{0,400}?64", (78, 78))
def long_host_name(lab: Lab) -> None:
    lab.fault(1, "hostname", "n" * 64)
    lab.start()


@broken("Ray cannot be imported on rank 1", r"rank 1 .{0,100}?Ray cannot be imported: ImportError", (69, 69))
def no_ray(lab: Lab) -> None:
    path = lab.hosts.shared / "broken"
    (path / "ray").mkdir(parents=True)
    (path / "ray" / "__init__.py").write_text("raise ImportError('libray.so: cannot open shared object file')\n")
    lab.start(special={1: Special(env={"PYTHONPATH": "/shared/broken"})})


@broken("the import of Ray takes a minute on rank 1 (a cold image)", r"rank 1 .{0,400}?importing Ray for 8 s", (69, 69))
def cold_image(lab: Lab) -> None:
    path = lab.hosts.shared / "cold"
    path.mkdir()
    text = (
        "import sys, time\nif '-c' in sys.orig_argv and any('child_main' in a for a in sys.orig_argv): time.sleep(60)\n"
    )
    (path / "sitecustomize.py").write_text(text)
    lab.start("--quorum-timeout=15s", special={1: Special(env={"PYTHONPATH": "/shared/cold"})})


@broken("rank 1 has another version of Ray", r"rank 1 .{0,400}?Ray 1\.0", (77, 77))
def other_ray(lab: Lab) -> None:
    info = lab.hosts.shared / "other" / "ray-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 1.0\n")
    lab.start("--ignore-check=ray", special={1: Special(env={"PYTHONPATH": "/shared/other"})})


# -------------------------------------------------------------------------------------------------- who is who, secrets


@broken(
    "two nodes have rank 1",
    r"rank 1 is claimed by two nodes: node-1 .{0,200}? node-2 ",
    (65, 65, 65),
    nodes=3,
)
def rank_given_twice(lab: Lab) -> None:
    lab.start(special={2: Special(rank=1)}, ranks=(0, 1))
    lab.says(0, "node-1 .*connected")
    lab.start(special={2: Special(rank=1)}, ranks=(2,))


@broken("rank 1 was started for 5 nodes", r"node-1 .{0,200}?5 nodes.{0,200}? 2", (65, 65))
def other_size(lab: Lab) -> None:
    lab.start(special={1: Special(size=5)})


@broken(
    "rank 1's secret is another one; the node list names its host (Slurm)", r"10\.77\.\d+\.11.{0,200}?secret", (77, 77)
)
def other_secret(lab: Lab) -> None:
    given = {rank: Special(env={"RAY_BOOTSTRAP_SECRET": f"{rank}" * 32}) for rank in (0, 1)}
    lab.start(slurm=True, special=given, meeting=())


@broken(
    "rank 1's secret is another one; the launcher names no hosts",
    r"10\.77\.\d+\.11.{0,200}?secret",
    (75, 77),
    why="a stranger could have sent it: the head waits for rank 1 until the time-out",
)
def other_secret_by_hand(lab: Lab) -> None:
    given = {rank: Special(env={"RAY_BOOTSTRAP_SECRET": f"{rank}" * 32}) for rank in (0, 1)}
    lab.start("--quorum-timeout=10s", special=given, meeting=[f"--head-address={lab.hosts[0].ip}"])


@broken(
    "rank 1 has another run id",
    r"10\.77\.\d+\.11.{0,200}?another run",
    (75, 68),
    at_timeout=True,
    why="to this head, rank 1 is a node of another run",
)
def other_run_id(lab: Lab) -> None:
    by_hand = [f"--head-address={lab.hosts[0].ip}", "--rollcall-port=20555"]
    lab.start(TIMEOUT, "--head-timeout=8s", special={1: Special(run="b-run")}, meeting=by_hand)


@broken("rank 1 has TLS, the head has not", r"rank 1 .{0,400}?TLS", (77, 77))
def tls_on_one_side(lab: Lab) -> None:
    given = {
        rank: Special(["--tls=required"] if rank else [], env={"RAY_BOOTSTRAP_SECRET": "s" * 32}) for rank in (0, 1)
    }
    lab.start(special=given)


@broken(
    "rank 1's clock is 90 s ahead",
    r"rank 1\b.{0,200}?clock .{0,200}?\+(89|90|91) s",
    (0, 0),
    finish=True,
    needs=("faketime",),
)
def clock_ahead(lab: Lab) -> None:
    folder = lab.hosts.shared / "clock"
    folder.mkdir()
    # The agent's clock alone: some calls of Ray's fail with libfaketime.
    (folder / "sitecustomize.py").write_text("import os\nos.environ.pop('LD_PRELOAD', None)\n")
    faked = Special(env={"PYTHONPATH": "/shared/clock"}, before=["faketime", "--exclude-monotonic", "-f", "+90s"])
    lab.start(special={1: faked})


# --------------------------------------------------------------------------------------------- rendezvous and resolvers


@broken(
    "the shared folder is not mounted on rank 1; its launcher names the head",
    r"10\.77\.\d+\.11.{0,200}?shared",
    (75, 78),
    why="the worker cannot prove who it is without the folder: what it says is only shown",
)
def no_shared_folder(lab: Lab) -> None:
    lab.fault(1, "umount", "/shared")
    lab.fault(1, "rmdir", "/shared")
    lab.start("--quorum-timeout=10s", slurm=True)


@broken(
    "rank 1 runs as another user",
    r"rank 1: never seen",
    (75, 68),
    at_timeout=True,
    why="a record of another user's is not believed",
)
def other_user(lab: Lab) -> None:
    see = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]  # root's Python, wherever it is
    as_daemon = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", *see, "env", "HOME=/tmp"]
    lab.start(TIMEOUT, "--head-timeout=8s", special={1: Special(before=as_daemon)})


@broken(
    "the name of the head does not resolve on rank 1",
    r"rank 1: never seen",
    (75, 68),
    at_timeout=True,
    why="it has no address to ask",
)
def no_such_name(lab: Lab) -> None:
    lab.start(TIMEOUT, "--head-timeout=8s", meeting=["--rendezvous=dns", "--head-address=head.ray.test", "--role=auto"])


@broken(
    "the name of the head resolves to a third host on rank 1",
    r"rank 1: never seen",
    (75, 68),
    at_timeout=True,
    why="no agent of this run answers there",
)
def stale_name(lab: Lab) -> None:
    lab.fault(1, "sh", "-c", f"echo {lab.hosts[1].ip} head.ray.test >> /etc/hosts")
    lab.fault(0, "sh", "-c", f"echo {lab.hosts[0].ip} head.ray.test >> /etc/hosts")
    lab.start(TIMEOUT, "--head-timeout=8s", meeting=["--rendezvous=dns", "--head-address=head.ray.test"])


@broken(
    "the name server of rank 1 does not answer",
    r"rank 1: never seen",
    (75, 68),
    at_timeout=True,
    why="it has no address to ask",
)
def name_server_hangs(lab: Lab) -> None:
    lab.fault(1, "sh", "-c", f"echo 'nameserver {lab.hosts[0].ip}' > /etc/resolv.conf")
    lab.drop(0, "udp dport 53")
    lab.start(TIMEOUT, "--head-timeout=8s", meeting=["--rendezvous=dns", "--head-address=node-0"])


@broken(
    "munged is not running on rank 1 (Slurm)",
    r"10\.77\.\d+\.11.{0,200}?secret",
    (77, 77),
    needs=("munge",),
)
def no_munged(lab: Lab) -> None:
    lab.munged(0)
    lab.start(slurm=True, meeting=())


# ----------------------------------------------------------------------------------------------------- killed and lost


@broken(
    "rank 1's raylet is killed before rank 2 has come (Slurm)",
    r"rank 1 .{0,400}?raylet on node-1 was killed by SIGKILL",
    (76, 76),
    nodes=3,
)
def raylet_killed(lab: Lab) -> None:
    lab.start(ranks=(0, 1), slurm=True)
    lab.says(1, "joined ")
    lab.kill(1, "/raylet/raylet", signal.SIGKILL)


@broken("GCS is killed before all nodes have come", r"gcs_server on node-0 was killed by SIGKILL", (76, 76), nodes=3)
def gcs_killed(lab: Lab) -> None:
    lab.start(ranks=(0, 1))
    lab.says(1, "joined ")
    lab.kill(0, "/gcs_server", signal.SIGKILL)


@broken(
    "all of rank 1's agent is stopped before rank 2 has come",
    r"rank 1 \(node-1\) lost: silent for 3 s",
    (75, 76),
    nodes=3,
    why="rank 1, once continued, finds that the head has gone",
)
def agent_stopped(lab: Lab) -> None:
    lab.start("--heartbeat-timeout=3s", "--quorum-timeout=12s", ranks=(0, 1))
    lab.says(1, "joined ")
    stopped = [process.pid for process in lab.hosts[1].pids() if " -m bootstrap " in process.cmdline]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    lab.mend = lambda: [os.kill(pid, signal.SIGCONT) for pid in stopped]
    lab.broken_now()


@broken(
    "the OOM killer ends a process of rank 1's Ray while it starts",
    r"rank 1 .{0,300}?OOM killer",
    (69, 69),
    needs=("memory-controller",),
)
def out_of_memory(lab: Lab) -> None:
    group = memory_group()
    assert group is not None
    lab.at_end.append(group.rmdir)
    limit = next(path for name in MEMORY_LIMITS if (path := group / name).exists())
    limit.write_text(str(90 << 20))
    inside = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    lab.start("--ignore-check=memory", special={1: Special(before=inside)})


@broken("`ray start` fails on rank 1", r"rank 1 .{0,400}?/nonexistent", (69, 69))
def ray_start_fails(lab: Lab) -> None:
    lab.start(special={1: Special(["--ray-start-arg=--plasma-directory=/nonexistent"])})


@broken(
    "the head may open 100 files, and rank 1 comes 3 s later",
    r"open files",
    (78, 78),
)
def head_unfit_worker_late(lab: Lab) -> None:
    lab.start(ranks=(0,), special={0: Special(before=["prlimit", "--nofile=100:100"])})
    lab.says(0, "exit status 78")
    lab.start(ranks=(1,))


@broken(
    "the workload is not found on the head, and rank 1 comes later, without a shared folder",
    r"no-such-program",
    (127, 127),
)
def no_workload_worker_late(lab: Lab) -> None:
    lab.start(ranks=(0,), meeting=[f"--head-address={lab.hosts[0].ip}", "--late-wait=20s", "--", "no-such-program"])
    lab.says(0, "this head stays for up to")
    lab.start(ranks=(1,), meeting=[f"--head-address={lab.hosts[0].ip}"])


def render(measured: dict[str, dict[str, object]]) -> str:
    """Return the table and each head's lines as Markdown."""
    lines = ["| fault | named after | statuses | |", "|---|---:|---|---|"]
    for name, row in BROKEN.items():
        found = measured[name]
        after = "the time-out" if row.at_timeout else f"{found['seconds']:.0f} s"
        statuses = ", ".join(map(str, row.statuses))
        lines.append(f"| [{row.what}](#{name}) | {after} | {statuses} | {row.why} |")
    for name, row in BROKEN.items():
        said = "\n".join(clean(measured[name]["lines"]))  # type: ignore[arg-type]
        lines += ["", f"### {name}", "", f"{row.what[0].upper()}{row.what[1:]}.", "", "```text", said, "```"]
    return "\n".join(lines)


def with_table(text: str, table: str) -> str:
    """Return the document with this table."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


def table_in(text: str) -> str:
    """Return the document's table."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def clean(lines: Sequence[str]) -> list[str]:
    """Return the head's lines without the time of day, and without what differs from run to run or between machines."""
    kept = [line.removeprefix("ray-bootstrap ") for line in lines if not re.search("warning: .*nofile: ", line)]
    for pattern, instead in (
        (r"^\d\d:\d\d:\d\d ", ""),
        (r"ray-bootstrap\.[0-9a-f]{8}", "ray-bootstrap.0a1b2c3d"),
        (r"session_[0-9_-]+", "session_2026-11-22_12-00-00_000000_71"),
        (r"10\.77\.\d+\.", "10.77.0."),
        (r"/\S+/ray-bootstrap-test-\d+", "/job"),
    ):
        kept = [re.sub(pattern, instead, line) for line in kept]
    return kept


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), render(json.loads(Path(sys.argv[1]).read_text()))))
