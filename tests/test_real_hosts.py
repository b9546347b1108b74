"""Real Ray on real hosts: clusters form by every rendezvous, and end everywhere with the right status."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time

import listeners
import pytest
from cluster import AGENT, COUNT, Agents, nothing_left, rendezvous, start
from faults import check
from hosts import wait_for

pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(240)]

RELEASE = 5.0
"""Seconds, generous, from the workload's end to the last node's; benchmarks/ has the precise ones."""
STATUSES = {"0": 0, "3": 3}


@pytest.mark.parametrize(
    ("nodes", "meeting", "status"),
    [
        *[(1, "file", 0), (1, "dns", 3), (1, "static", 0), (2, "file", 3), (2, "dns", 0), (2, "static", 0)],
        *[(4, "file", 0), (4, "static", 3)],
    ],
)
def test_a_cluster_forms_and_ends_with_the_workloads_status(make_hosts, nodes, meeting, status):
    hosts = make_hosts(nodes, dns={} if meeting == "dns" else None)
    if meeting == "dns":
        hosts.set_names({"head.ray.test": hosts[0].ip})
    agents = start(hosts, *rendezvous(meeting, hosts), workload=[sys.executable, "-c", COUNT, str(status)])
    assert agents.wait() == [status] * nodes
    assert agents.out(0).splitlines() == [f"nodes {nodes} address {hosts[0].ip}:6379"]
    assert all(agents.out(rank) == "" for rank in range(1, nodes))
    assert max(agents.ended.values()) - agents.ended[0] < RELEASE
    for rank in range(nodes):
        assert f"exit status {status} (from the workload)" in agents.err(rank).splitlines()[-1]
    nothing_left(hosts)


def test_as_with_ray_symmetric_run(make_hosts):
    """Nobody has a rank: the node with the address is the head, and numbers the others."""
    hosts = make_hosts(2)
    same = ["--address", f"{hosts[0].ip}:6390", "--min-nodes", "2", "--num-cpus=1", "--object-store-memory=100Mi"]
    argv = [*AGENT, *same, "--", sys.executable, "-c", COUNT, "3"]
    agents = Agents(hosts, [host.popen(argv) for host in hosts])
    assert agents.wait() == [3, 3]
    assert agents.out(0).splitlines() == [f"nodes 2 address {hosts[0].ip}:6390"]
    nothing_left(hosts)


OFFERED = """
import os, ray
ray.init(log_to_driver=False, logging_level="error")
for node in sorted(ray.nodes(), key=lambda node: node["Labels"]["ray-bootstrap/rank"]):
    print(*(int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU", "domain")), node["Labels"]["rack"])
print(ray.get(ray.remote(num_gpus=1)(lambda: os.environ["RACK"]).remote()))
"""


def test_names_that_come_late_are_waited_for(make_hosts):
    """The head only leads; what each node writes before its Ray starts is what Ray offers there."""
    hosts = make_hosts(2, dns={})
    write = """r=$RAY_BOOTSTRAP_RANK; printf '%s\n' RACK=r$r RAY_BOOTSTRAP_LABELS=rack=r$r"""
    write += """ 'RAY_BOOTSTRAP_RESOURCES={"domain": '$((5 + r))'}' >> $RAY_BOOTSTRAP_ENV"""
    leads = ["--head-cpus=0", "--head-gpus=0", "--num-gpus=2", f"--setup={write}"]
    agents = start(hosts, *rendezvous("dns", hosts), *leads, workload=[sys.executable, "-c", OFFERED])
    agents.says(0, "1 of 2 nodes")
    assert "leads this run" not in agents.err(1)
    hosts.set_names({"head.ray.test": hosts[0].ip})
    assert agents.wait() == [0, 0]
    assert agents.out(0).splitlines() == ["0 0 5 r0", "1 2 6 r1", "r1"]


def test_the_workload_killed_by_a_signal(make_hosts):
    hosts = make_hosts(2)
    agents = start(hosts, "--shared-dir=/shared", workload=["sh", "-c", "kill -KILL $$"])
    first, *others = agents.wait()
    check("workload-killed", there=first, elsewhere=others, workload=137)
    assert "the workload ended with status 137 (SIGKILL)" in agents.err(1)
    nothing_left(hosts)


def busy(hosts, *options: str, **more: object) -> Agents:
    """A cluster whose workload runs until something happens."""
    agents = start(hosts, "--shared-dir=/shared", *options, workload=["sh", "-c", "echo up; exec sleep 600"], **more)
    agents.prints(0, "up")
    return agents


UNTIL_GO = ["sh", "-c", "echo up; until test -e /shared/go; do sleep 0.1; done; exit 3"]


AT_WORK = """
import time, ray
ray.init(log_to_driver=False, logging_level="error")

@ray.remote(scheduling_strategy="SPREAD")
def where():
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id()

while len({*ray.get([where.remote() for _ in range(4)])}) < 2:
    pass
print("up", flush=True)
time.sleep(600)
"""


ONE_TASK = """
import time, ray
ray.init(log_to_driver=False, logging_level="error")

@ray.remote
def task():
    return "up"

print(ray.get(task.remote()), flush=True)
time.sleep(600)
"""


def test_workers_have_ports_that_the_kernel_does_not_hand_out(make_hosts):
    """As on some GB200 machines, where Ray's default range is in the kernel's."""
    (host,) = hosts = make_hosts(1)
    host.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=9000 65000"])
    agents = start(hosts, workload=[sys.executable, "-c", ONE_TASK])
    agents.prints(0, "up")
    bound = {int(line.split()[3].rpartition(":")[2]) for line in host.run(["ss", "-Hltn"]).stdout.splitlines()}
    assert len([port for port in bound if 1024 <= port < 6379]) >= 2  # the driver's and that of a worker process
    agents.signal(0, signal.SIGTERM)
    assert agents.wait() == [143]
    nothing_left(hosts)


@pytest.mark.parametrize(("signum", "auth"), [(signal.SIGTERM, "required"), (signal.SIGINT, "off")])
def test_the_ports_are_those_of_the_table_and_a_signal_to_the_head_ends_all_nodes(make_hosts, signum, auth):
    """What listens, and what a stranger on another host gets from it: SECURITY.md."""
    *hosts, stranger = make_hosts(3)
    rows = listeners.table()
    for host in hosts:
        listeners.reserve(host, rows)
    options = ["--shared-dir=/shared", f"--auth={auth}", *listeners.options(rows)]
    agents = start(hosts, *options, workload=[sys.executable, "-c", AT_WORK])
    agents.prints(0, "up")
    for host in hosts:
        here = [row for row in rows if row.always and (host is hosts[0] or not row.head_only)]
        bound = {(row.name, row.bound) for row in here}
        with contextlib.suppress(TimeoutError):  # dashboard and agents come up beside the workload
            wait_for(lambda: listeners.listening(host, rows) == bound, timeout=60)  # noqa: B023
        assert listeners.listening(host, rows) == bound
        assert host.run(["ss", "-Hlun"]).stdout == ""
        local = [row for row in here if row.bound == {listeners.LOOPBACK}]
        got = {
            **listeners.answers(stranger, host.ip, host, [row for row in here if row not in local]),
            **listeners.answers(host, "127.0.0.1", host, local),
        }
        assert got == {row.name: row.answers(token=auth != "off") for row in here if row.asked}
    agents.signal(0, signum)
    first, *others = agents.wait()
    check("stop-head", there=first, elsewhere=others, signum=signum)
    nothing_left(hosts)


def test_a_worker_is_told_to_stop_and_the_run_goes_on(make_hosts):
    hosts = make_hosts(3)
    agents = start(hosts, "--shared-dir=/shared", workload=UNTIL_GO)
    agents.prints(0, "up")
    agents.signal(2, signal.SIGTERM)
    (there,) = agents.wait([2])
    agents.says(0, "rank 2 (node-2) left: stopped by SIGTERM")
    nothing_left([hosts[2]], shared=False)
    hosts.shared.joinpath("go").touch()
    check("stop-worker", there=there, elsewhere=agents.wait([0, 1]), signum=signal.SIGTERM, workload=3)
    hosts.shared.joinpath("go").unlink()
    nothing_left(hosts)


PREEMPTED = """
import ray, time
ray.init(log_to_driver=False, logging_level="error")
worker = next(n for n in ray.nodes() if n["Labels"]["ray-bootstrap/rank"] == "1")
affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(worker["NodeID"], soft=False)

@ray.remote(scheduling_strategy=affinity, max_retries=0)
def checkpoint():
    print("working", flush=True)
    time.sleep(4)
    return "saved"

task = checkpoint.remote()
ray.wait([task], timeout=1)
print("up", flush=True)
print(ray.get(task), flush=True)
time.sleep(600)
"""


def test_a_preempted_workers_task_ends_before_its_node_leaves(make_hosts):
    hosts = make_hosts(2)
    agents = start(hosts, "--shared-dir=/shared", workload=[sys.executable, "-c", PREEMPTED])
    agents.prints(0, "up")
    agents.signal(1, signal.SIGTERM)
    assert agents.wait([1], seconds=19) == [143]
    agents.prints(0, "saved", seconds=10)
    agents.says(0, "rank 1 (node-1) leaving: stopped by SIGTERM")
    agents.signal(0, signal.SIGTERM)
    assert agents.wait() == [143, 143]
    nothing_left(hosts)


SAVES_LATE = """
import signal, sys, time, ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
ray.init(log_to_driver=False, logging_level="error")

@ray.remote(num_cpus=1)
def where():
    return ray.get_runtime_context().get_node_id()

def save(signum, frame):
    time.sleep(4)  # as long as a drained node that is idle would be gone
    group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD")
    ray.get(group.ready(), timeout=10)
    parts = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index) for index in range(2)]
    print("saved on", len({*ray.get([where.options(scheduling_strategy=p).remote() for p in parts], timeout=10)}))
    remove_placement_group(group)
    sys.exit(0)

signal.signal(signal.SIGTERM, save)
print("up", flush=True)
while True:
    time.sleep(0.1)
"""


def test_all_are_told_to_stop(make_hosts):
    """What scancel, a time limit and a deleted Job do: the program saves by new work on all nodes, within its grace."""
    hosts = make_hosts(2)
    agents = start(hosts, "--shared-dir=/shared", workload=[sys.executable, "-c", SAVES_LATE])
    agents.prints(0, "up")
    agents.signal(1, signal.SIGTERM)  # first: the head does not know yet that it will be stopped, too
    time.sleep(0.2)
    agents.signal(0, signal.SIGTERM)
    first, *others = agents.wait()
    check("stop-all", there=first, elsewhere=others, signum=signal.SIGTERM)
    assert agents.out(0).splitlines() == ["up", "saved on 2"]
    assert "leaving" not in agents.err(0)
    nothing_left(hosts)


TO_ALL = """
import os, signal, subprocess, time, ray

def heard(signum, frame):
    os.write(1, b"heard\\n")  # it comes more than once, also while it runs

signal.signal(signal.SIGUSR1, heard)
ray.init(log_to_driver=False, logging_level="error")

@ray.remote
def ignored():
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    of_python = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
    return [n for n in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2) if n in of_python or mask >> n - 1 & 1]

@ray.remote
def endless():
    while True:
        time.sleep(0.1)

print("ignored by tasks:", *ray.get(ignored.remote()), flush=True)
while not os.path.exists("/shared/go"):
    time.sleep(0.1)
print("ignored by tasks:", *ray.get(ignored.remote()), flush=True)
ray.wait([task := endless.remote()], timeout=1)
ray.cancel(task)
try:
    ray.get(task, timeout=20)
except ray.exceptions.TaskCancelledError:
    print("cancelled", flush=True)
"""


def running(host, *names: str) -> list[int]:
    """The process ids of these programs of Ray's, as soon as all of them run."""

    def found() -> list[int]:
        words = [(p.pid, word) for p in host.pids() for word in p.cmdline.split(" ")[:3]]
        pids = [next((pid for pid, word in words if word.endswith(name)), 0) for name in names]
        return pids if all(pids) else []

    pids: list[int] = wait_for(found, timeout=60, what=" and ".join(names))
    return pids


def test_a_signal_for_the_program_to_every_process_ends_no_daemon(make_hosts):
    """As from Slurm with ProctrackType=proctrack/linuxproc or pgid; and a task finds the signals as without us."""
    hosts = make_hosts(2)
    agents = start(hosts, "--shared-dir=/shared", workload=[sys.executable, "-c", TO_ALL])
    agents.prints(0, "ignored by tasks:")
    everywhere = ("/raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
    daemons = [*running(hosts[0], *everywhere, "/gcs_server", "/dashboard.py", "/log_monitor.py")]
    daemons += running(hosts[1], *everywhere)
    for process in [process for host in hosts for process in host.leftovers()]:
        os.kill(process.pid, signal.SIGUSR1)
    for pid in daemons:
        os.kill(pid, signal.SIGUSR2)
    agents.prints(0, "heard")
    time.sleep(1)  # what would end has ended
    assert {p.pid for host in hosts for p in host.pids()}.issuperset(daemons)
    hosts.shared.joinpath("go").touch()
    first, *others = agents.wait()
    check("user-signal-to-all", there=first, elsewhere=others, workload=0)
    hosts.shared.joinpath("go").unlink()
    assert [line for line in agents.out(0).splitlines() if line != "heard"] == [*["ignored by tasks:"] * 2, "cancelled"]
    nothing_left(hosts)


@pytest.mark.parametrize("rank", [0, 1])
def test_ray_that_cannot_start_tells_its_own_cause_on_every_node(make_hosts, rank):
    hosts = make_hosts(2)
    bad = ["--ray-start-arg=--plasma-directory=/nonexistent"]
    agents = start(hosts, "--shared-dir=/shared", workload=["true"], extra={rank: bad})
    statuses = agents.wait()
    check("ray-start", there=statuses[rank], elsewhere=[statuses[1 - rank]])
    for said in map(agents.err, (0, 1)):
        assert "/nonexistent" in said
        assert "(from ray-bootstrap: ray-start)" in said.splitlines()[-1]
    nothing_left(hosts)


def test_the_heads_supervisor_and_agent_are_killed_at_once(make_hosts):
    """The standby ends Ray and the workload."""
    hosts = make_hosts(3)
    agents = busy(hosts)
    killed = agents.kill_at_once(0, "supervisor", "agent")
    first, *others = agents.wait()
    check("head-any-two", there=first, elsewhere=others)
    assert max(agents.ended[1], agents.ended[2]) - killed < 10
    wait_for(lambda: not hosts[0].leftovers(), timeout=10)
    nothing_left(hosts)


def test_the_heads_machine_is_switched_off(make_hosts):
    hosts = make_hosts(2)
    agents = busy(hosts, "--heartbeat-timeout=3s")
    hosts[0].drop()
    off = time.monotonic()
    hosts[0].kill()
    check("head-off", elsewhere=agents.wait([1]))
    assert agents.ended[1] - off < 15
    nothing_left([hosts[1]], shared=False)


def test_a_workers_machine_is_switched_off(make_hosts):
    hosts = make_hosts(3)
    agents = start(hosts, "--shared-dir=/shared", "--heartbeat-timeout=3s", workload=UNTIL_GO)
    agents.prints(0, "up")
    hosts[2].drop()
    hosts[2].kill()
    agents.says(0, "rank 2 (node-2) lost: silent for 3 s")
    hosts.shared.joinpath("go").touch()
    check("worker-off", elsewhere=agents.wait([0, 1]), workload=3)
    hosts.shared.joinpath("go").unlink()
    nothing_left(hosts[:2])


def test_a_worker_is_killed_after_the_quorum(make_hosts):
    hosts = make_hosts(2)
    agents = busy(hosts, "--on-node-loss=fail")
    agents.kill_at_once(1, "supervisor", "standby", "agent")
    head, worker = agents.wait()
    check("worker-all-three-fail", there=worker, elsewhere=[head])
    assert "rank 1 (node-1) was lost" in "".join(agents.err(0).splitlines()[-3:])
    left = hosts[1].leftovers()
    assert [p for p in left if "raylet" in p.cmdline]
    again = start(hosts[1:], workload=["true"], run="next")
    assert again.wait() == [0]
    said = re.search(r"ended ([0-9]+) processes \((.*)\) of an earlier run whose agent was killed", again.err(0))
    assert said is not None
    assert int(said[1]) >= len(left)
    assert "raylet" in said[2]
    nothing_left(hosts)


def test_a_worker_is_killed_before_the_quorum_and_named(make_hosts):
    hosts = make_hosts(2)
    agents = start(hosts, "--shared-dir=/shared", "--quorum-timeout=12s", workload=["true"], size=3)
    agents.says(1, "joined")
    agents.signal(1, signal.SIGKILL)
    head, worker = agents.wait()
    check("early-loss", there=worker, elsewhere=[head])
    said = agents.err(0)
    assert "rank 1: node-1" in said
    assert "was killed" in said
    assert "rank 2: never seen" in said
    nothing_left([hosts[0]], end=True)


def test_control_c_before_the_quorum_tells_how_far_everybody_got(make_hosts):
    hosts = make_hosts(2)
    agents = start(hosts, "--shared-dir=/shared", workload=["true"], size=3)
    agents.says(0, "waiting for rank 2 (not seen)")
    agents.signal(0, signal.SIGINT)
    first, *others = agents.wait()
    check("stop-head", there=first, elsewhere=others, signum=signal.SIGINT)
    assert "rank 1: node-1" in agents.err(0).partition("so far:")[2]
    assert "rank 2: never seen" in agents.err(0).partition("so far:")[2]
    nothing_left(hosts, end=True)


def test_a_rank_that_never_comes_is_named_on_every_node(make_hosts):
    hosts = make_hosts(2)
    agents = start(hosts, "--shared-dir=/shared", "--quorum-timeout=10s", workload=["true"], size=3)
    check("missing-rank", elsewhere=agents.wait())
    assert "rank 2: never seen" in agents.err(0)
    assert "joined: rank 0, 1" in agents.err(0)
    nothing_left(hosts, end=True)


def test_stale_records_are_not_believed(make_hosts):
    """A head that was switched off left its record; its address answers nobody, then belongs to another program."""
    hosts = make_hosts(3)
    old = start([hosts[2]], "--shared-dir=/shared", workload=["true"], size=2)
    old.says(0, "the roll call is open")
    hosts[2].drop()
    hosts[2].kill()
    assert list(hosts.shared.glob("*/head-*.json"))
    agents = start(hosts[:2], "--shared-dir=/shared", workload=[sys.executable, "-c", COUNT, "3"])
    check("stale-record", elsewhere=agents.wait(), workload=3)
    assert agents.out(0).startswith("nodes 2 ")
    nothing_left(hosts[:2])


def test_two_runs_share_the_folder_and_the_nodes(make_hosts):
    hosts = make_hosts(2)
    workload = [sys.executable, "-c", COUNT]
    one = start(hosts, "--shared-dir=/shared", workload=[*workload, "0"], run="one")
    two = start(hosts, "--shared-dir=/shared", workload=[*workload, "3"], run="two")
    assert one.wait() == [0, 0]
    assert two.wait() == [3, 3]
    assert one.out(0).startswith("nodes 2 ")
    assert two.out(0).startswith("nodes 2 ")
    nothing_left(hosts)


@pytest.mark.parametrize(
    ("fault", "nodes", "rank", "how", "option"),
    [
        ("worker-silent-fail", 2, 1, "drop", "--on-node-loss=fail"),
        ("head-cut-off", 3, 0, "disconnect", "--isolation-timeout=2s"),
    ],
)
def test_a_partition_is_noticed_on_both_sides(make_hosts, fault, nodes, rank, how, option):
    """A worker that is needed, or the head itself: it must not work on while the scheduler starts the job anew."""
    hosts = make_hosts(nodes)
    agents = busy(hosts, "--heartbeat-timeout=2s", option)
    getattr(hosts[rank], how)()
    statuses = agents.wait()
    check(fault, there=statuses.pop(rank), elsewhere=statuses)
    assert "silent for 2 s" in agents.err(0)
    assert ("seems to be cut off: all 2 workers fell silent" in agents.err(0)) is (rank == 0)
    nothing_left(hosts)


AFTER_A_STOP = """
import os, time, ray
ray.init(log_to_driver=False, logging_level="error")

@ray.remote(scheduling_strategy="SPREAD")
def where():
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id()

print("up", flush=True)
while not os.path.exists("/shared/go"):
    time.sleep(0.1)
while len({*ray.get([where.remote() for _ in range(4)])}) < 2:
    pass
"""


def test_a_stop_of_all_processes_is_no_loss(make_hosts):
    """As by `scontrol suspend`: neither for the agents nor for Ray, which works on every node afterwards."""
    hosts = make_hosts(2)
    options = ["--shared-dir=/shared", "--heartbeat-timeout=2s", "--on-node-loss=fail"]
    agents = start(hosts, *options, workload=[sys.executable, "-c", AFTER_A_STOP])
    agents.prints(0, "up")
    processes = [process.pid for host in hosts for process in host.leftovers()]
    for signum, seconds in ((signal.SIGSTOP, 6), (signal.SIGCONT, 2)):
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        time.sleep(seconds)
    hosts.shared.joinpath("go").touch()
    first, *others = agents.wait()
    check("all-stopped", there=first, elsewhere=others, workload=0)
    hosts.shared.joinpath("go").unlink()
    nothing_left(hosts)


def attached(host, *env: str) -> tuple[int, str, str]:
    """Status, output and lines of a second run on this node, which attaches to the first one's Ray."""
    inside = [*AGENT, "exec", "--run-id=a-run", "--", "env", *env]
    outcome = host.popen([*inside, *AGENT, "--nodes=2", "--", sys.executable, "-c", COUNT, "3"])
    return outcome.wait(timeout=90), host.out(outcome), host.err(outcome)


def test_another_run_attaches_and_a_raylet_that_leaves_by_itself_is_noticed(make_hosts):
    hosts = make_hosts(2)
    agents = busy(hosts)
    agents.says(1, "joined ")
    status, out, err = attached(hosts[1])
    assert (status, out) == (3, f"nodes 2 address {hosts[0].ip}:6379\n"), err
    assert "ray.init() fails here" not in err
    refused, _, err = attached(hosts[1], "-u", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN=another-one-of-sufficient-length")
    check("attach-token", there=refused)
    assert "InvalidAuthToken: Authentication token is missing or incorrect\n" in err
    missing, _, err = attached(hosts[1], "-u", "RAY_AUTH_TOKEN_PATH")
    check("attach-token", there=missing)
    assert "fix: RAY_AUTH_MODE=token with that Ray's token" in err
    raylet = next(p for p in hosts[0].pids() if p.cmdline.split(" ")[0].endswith("/raylet"))
    os.kill(raylet.pid, signal.SIGTERM)
    first, *others = agents.wait()
    check("head-daemon", there=first, elsewhere=others)
    assert "Ray's raylet on node-0 exited with status 0\n" in agents.err(0)
    nothing_left(hosts)


def test_as_pid_1(make_hosts):
    """As a container's entrypoint: SIGTERM works, strangers' zombies are reaped, statuses pass through."""
    hosts = make_hosts(1)
    orphans = "for i in 1 2 3; do (sleep 0.1 & exec true); done; echo up; read line; exit 7"
    agent = [sys.executable, "-m", "bootstrap", "--num-cpus=1", "--", "sh", "-c", orphans]
    read, write = os.pipe()
    process = hosts[0].popen_as_pid1(agent, stdin=read)
    os.close(read)
    wait_for(lambda: "up" in hosts[0].out(process), timeout=60)
    wait_for(lambda: all(p.state != "Z" for p in hosts[0].pids()), timeout=10)
    os.write(write, b"go on\n")
    os.close(write)
    assert process.wait(timeout=60) == 7
    nothing_left(hosts)


def test_a_cluster_without_a_workload_stays_until_it_is_stopped_as_pid_1(make_hosts):
    hosts = make_hosts(1)
    process = hosts[0].popen_as_pid1([sys.executable, "-m", "bootstrap", "--num-cpus=1"])
    wait_for(lambda: "stays until it is stopped" in hosts[0].err(process), timeout=60)
    process.terminate()
    assert process.wait(timeout=60) == 143
    nothing_left(hosts)


def test_pid_1_is_killed(make_hosts):
    """All processes end with it (pid_namespaces(7)), and the next run removes the files."""
    hosts = make_hosts(1)
    process = hosts[0].popen_as_pid1([sys.executable, "-m", "bootstrap", "--num-cpus=1"])
    # Its socket, of Python's multiprocessing, has a folder that only the dashboard itself would remove.
    wait_for(lambda: "listener-" in hosts[0].run(["find", "/tmp", "-name", "listener-*"]).stdout, timeout=60)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert hosts[0].leftovers() == []
    assert hosts[0].sockets() == frozenset()
    again = start(hosts, workload=["true"])
    assert again.wait() == [0]
    nothing_left(hosts)


@pytest.mark.requires("oldest-ray")
def test_the_oldest_supported_ray(make_hosts):
    hosts = make_hosts(2)
    python = os.environ["OLDEST_RAY_PYTHON"]
    workload = [python, "-c", COUNT, "3"]
    agents = start(hosts, "--shared-dir=/shared", workload=workload, agent=[python, "-m", "bootstrap"])
    assert agents.wait() == [3, 3]
    assert agents.out(0).startswith("nodes 2 ")
    nothing_left(hosts)


def test_a_worker_that_reaches_only_another_address_of_the_head_says_so(make_hosts):
    hosts = make_hosts(2)
    # An interface of the head that no other node reaches, such as that of a management network.
    hosts[0].run(["ip", "link", "add", "dum0", "type", "veth", "peer", "name", "dum1"])
    hosts[0].run(["ip", "addr", "add", "192.168.50.2/24", "dev", "dum0"])
    hosts[0].run(["ip", "link", "set", "dum0", "up"])
    hosts[0].run(["ip", "link", "set", "dum1", "up"])
    agents = start(hosts, "--shared-dir=/shared", extra={0: ["--interface=dum0"]})
    agents.says(1, f"this node reaches the head only at {hosts[0].ip}, not at its node address 192.168.50.2")
    agents.says(1, f"fix: --node-ip={hosts[0].ip}, or --interface= with its name, on the head")
    for rank in range(2):
        agents.signal(rank, signal.SIGINT)
    agents.wait()
    nothing_left(hosts)
