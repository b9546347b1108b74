"""examples/launchers: what users copy parses, is documented, starts one agent on each host, and returns their status.

The launchers themselves are stubs here, which set what the real ones are documented to set; so is the agent, which only
records how it was started. What the variables then mean, the launchers' table says.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from namespaces import wait_for

from bootstrap import settings
from bootstrap.host import Host
from bootstrap.launchers import identify

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "examples" / "launchers"
REAL = {"gridengine.sh"}
"""Those that tests/test_grid_engine.py submits to the real scheduler instead."""
EXAMPLES = sorted({str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()} - REAL)
CALLS = [name for name in EXAMPLES if not name.endswith("Dockerfile")]
STATUS = 3
"""The recording agent's."""
OPTION = r"""--[a-z][a-z-]+=(?:"[^"]*"|'[^']*'|[^\s"']+)"""


def test_each_is_linked_from_the_page_on_launchers() -> None:
    page = (REPOSITORY / "docs" / "launchers.md").read_text()
    assert {*re.findall(r"\]\(\.\./examples/launchers/([^)]+)\)", page)} - REAL == {*EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_is_short_and_says_at_its_top_where_its_launcher_is_documented(name: str) -> None:
    lines = (FOLDER / name).read_text().splitlines()
    assert len(lines) <= 26
    assert "https://" in "\n".join(lines[:7])
    is_a_command = any(f"examples/launchers/{name}" in line for line in lines[:4])
    assert is_a_command or name == "torch-env.sh"  # which the platform starts
    assert os.access(FOLDER / name, os.X_OK) == name.endswith(".sh")


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_parses(name: str) -> None:
    text = (FOLDER / name).read_text()
    if name.endswith(".sh"):
        subprocess.run(["bash", "-n", FOLDER / name], check=True)
    elif name.endswith(".py"):
        ast.parse(text)
    elif name.endswith((".yaml", ".yml")):
        assert isinstance(yaml.safe_load(text), dict)
    else:
        assert re.search(r"^FROM ray-bootstrap:", text, re.MULTILINE)


@pytest.mark.parametrize("name", CALLS)
def test_each_runs_the_same_program_with_options_that_exist(name: str) -> None:
    text = (FOLDER / name).read_text()
    if name.endswith(".py"):  # a list of words, some of which are made at run time
        assert '"--", "python", "train.py"]' in text
        names = re.findall(r'"--([a-z][a-z-]+)=', text)
        assert {word.replace("-", "_") for word in names} <= {option.name for option in settings.options()}
        return
    text = text if name.endswith(".sh") else re.sub(r"[\[\],]", " ", text)
    calls = re.findall(rf"(?:ray-bootstrap|command:|args:)((?:\s+{OPTION})*)\s+--\s+python\s+train\.py", text)
    assert calls
    for options in calls:
        given = [option.partition("=") for option in re.findall(OPTION, options)]
        settings.load({flag.removeprefix("--").replace("-", "_"): [value] for flag, _, value in given}, {})


RECORDER = """\
#!{python}
import json, os, sys
with open({record!r}, "a") as file:
    print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]), file=file)
sys.exit({status})
"""
STUB = """\
#!/bin/bash
# A task that begins as a login does: at home, with nothing of its parent's but what a launcher sets ...
bare() {{ host=$1; shift; (cd "$HOME" && exec env -i HOME="$HOME" PATH=/usr/bin:/bin STUB_HOST="$host" "$@"); }}
# ... and one that inherits both.
task() {{ host=$1; shift; env STUB_HOST="$host" "$@"; }}
{body}
"""


@dataclass(frozen=True)
class Case:
    """An example and its launcher, which starts node-0 and node-1."""

    launcher: str
    run_id: str
    stubs: Mapping[str, str]
    """Name of a command, and what it does."""
    env: Mapping[str, str]
    """The environment in which the scheduler starts the script."""
    options: Sequence[str] = ()
    """The agent's; {given} is any run id, the same on both."""
    argv: Sequence[str] = ()


LSF = {"LSB_JOBID": "7", "LSB_JOBINDEX": "0", "LSB_MCPU_HOSTS": "node-0 32 node-1 32"}
CASES = {
    "pbs.sh": Case(
        "pbs",
        "pbs-7.server",
        {
            # The first host's task lacks PBS_NODEFILE: start_process in start_exec.c of OpenPBS.
            "pbs_tmrsh": """host=$1; shift; n=${host#node-}
[[ $n == 0 ]] || list=PBS_NODEFILE=$PBS_NODEFILE
bare "$host" PBS_JOBID="$PBS_JOBID" PBS_NODENUM="$n" PBS_TASKNUM="0000000$((n + 2))" $list "$@" """
        },
        {"PBS_JOBID": "7.server", "PBS_O_WORKDIR": "{work}", "PBS_NODEFILE": "{root}/var/spool/pbs/aux/7.server"},
        options=["--grace=8s"],
    ),
    "pals.sh": Case(
        "pals",
        "pals-app-1",
        {
            "mpiexec": """[[ "$1 $2 $3 $4 $5 $6 $7" == "-n 2 --ppn 1 --cpu-bind none --line-buffer" ]] || exit 99
shift 7
for n in 0 1; do
    task "node-$n" PALS_NODEID="$n" PALS_RANKID="$n" PALS_LOCAL_RANKID=0 PALS_LOCAL_SIZE=1 PALS_APID=app-1 "$@"
done"""
        },
        {"PBS_JOBID": "7.server", "PBS_O_WORKDIR": "{work}", "PBS_NODEFILE": "{root}/var/spool/pbs/aux/7.server"},
        options=["--interface=hsn0", "--grace=8s"],
    ),
    "lsf.sh": Case(
        "lsf",
        "lsf-7.0",
        {
            "blaunch": """[[ $1 == -z ]] || exit 99
hosts=$2; shift 2; n=0
for host in ${hosts// /$'\\n'}; do task "$host" LSF_PM_TASKID=$((++n)) "$@"; done"""
        },
        LSF,
        options=["--grace=8s"],
    ),
    "jsrun.sh": Case(
        "jsrun",
        "lsf-7.0",
        {
            "jsrun": """[[ "$1 $2 $3 $4 $5 $6 $7 $8" == "-r1 -a1 -c ALL_CPUS -g ALL_GPUS -b none" ]] || exit 99
shift 8
for n in 0 1; do
    task "node-$n" JSM_NAMESPACE_RANK="$n" JSM_NAMESPACE_SIZE=2 JSM_NAMESPACE_LOCAL_RANK=0 "$@"
done"""
        },
        LSF | {"LSB_MCPU_HOSTS": "launch-0 1 node-0 42 node-1 42"},
    ),
    "flux.sh": Case(
        "flux",
        "flux-/fA/fB",
        {
            "flux": """case "$1 $2" in
"getattr size") echo 2 ;;
"run --nodes=2")
    [[ "$3 $4 $5 $6" == "-o exit-timeout=none -o pmi=off" ]] || exit 99
    shift 6
    for n in 0 1; do
        task "node-$n" FLUX_JOB_ID=fB FLUX_JOB_ID_PATH=/fA/fB FLUX_JOB_NNODES=2 FLUX_JOB_SIZE=2 \\
            FLUX_TASK_RANK="$n" FLUX_TASK_LOCAL_ID=0 "$@"
    done ;;
"job info") [[ "$3 $4" == "fB R" ]] && echo '{{"version":1,"execution":{{"nodelist":["node-[0-1]"]}}}}' ;;
*) exit 99 ;;
esac"""
        },
        {},
        options=["--grace=4s"],
    ),
    "oar.sh": Case(
        "oar",
        "oar-7",
        {
            "oarsh": """[[ $1 == -tt ]] || exit 99
bare "$2" OAR_JOB_ID="$OAR_JOB_ID" OAR_NODEFILE="$OAR_NODEFILE" sh -c "$3" """
        },
        {"OAR_JOB_ID": "7", "OAR_NODEFILE": "{root}/hosts"},
    ),
    "ssh-hostfile.sh": Case(
        "hostfile",
        "{given}",
        {"ssh": '[[ $1 == -tt ]] || exit 99; bare "$2" sh -c "$3"'},
        {"USER": "me"},
        argv=["{root}/hosts"],
        options=["--hostfile={root}/hosts", "--run-id={given}"],
    ),
    "openmpi.sh": Case(
        "openmpi",
        "{given}",
        {
            "mpirun": """[[ "$1 $3 $4 $5 $6 $7" == "--hostfile --map-by ppr:1:node --bind-to none -x" ]] || exit 99
hosts=$(cut -d' ' -f1 "$2" | uniq); run=$8; shift 8; n=0
for host in $hosts; do
    task "$host" "$run" OMPI_COMM_WORLD_RANK=$((n++)) OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0 \\
        OMPI_COMM_WORLD_LOCAL_SIZE=1 PMIX_NAMESPACE=prterun-1 "$@"
done"""
        },
        {"USER": "me"},
        argv=["{root}/hosts"],
        options=["--shared-dir={work}"],
    ),
    "mpich.sh": Case(
        "hydra",
        "{given}",
        {
            "mpiexec": """[[ "$1 $3 $4 $5 $6" == "-f -ppn 1 -genv RAY_BOOTSTRAP_RUN_ID" ]] || exit 99
hosts=$(uniq "$2"); run=$7; shift 7; n=0
for host in $hosts; do
    task "$host" RAY_BOOTSTRAP_RUN_ID="$run" PMI_RANK=$((n++)) PMI_SIZE=2 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=1 "$@"
done"""
        },
        {"USER": "me"},
        argv=["{root}/hosts"],
        options=["--shared-dir={work}"],
    ),
    "beaker.sh": Case(
        "beaker",
        "beaker-job-1",
        {
            "gantry": """until [[ $1 == -- ]]; do shift; done; shift
for n in 0 1; do
    task "node-$n" BEAKER_REPLICA_RANK="$n" BEAKER_REPLICA_COUNT=2 BEAKER_LEADER_REPLICA_HOSTNAME=node-0 \\
        BEAKER_LEADER_REPLICA_JOB_ID=job-1 "$@"
done"""
        },
        {},
    ),
    "lepton.sh": Case(
        "lepton",
        "lepton-ray-98bw",
        {
            "lep": """command=${@: -1}
for n in 0 1; do
    task "node-$n" LEPTON_JOB_WORKER_INDEX="$n" LEPTON_JOB_TOTAL_WORKERS=2 LEPTON_JOB_NAME=ray-98bw \\
        LEPTON_JOB_SERVICE_PREFIX=ray-98bw LEPTON_SUBDOMAIN=ray-98bw-job-svc sh -c "${command/app/}"
done"""
        },
        {},
    ),
}


class Site:
    """A folder with the stubs, and one of the user's."""

    def __init__(self, folder: Path, case: Case, agent: str = RECORDER) -> None:
        self.folder, self.case = folder, case
        self.work, self.bin = folder / "work", folder / "bin"
        for made in (self.work, self.bin, folder / "home", folder / "var/spool/pbs/aux"):
            made.mkdir(parents=True)
        for path in ("hosts", "var/spool/pbs/aux/7.server"):
            (folder / path).write_text("node-0\nnode-0\nnode-1\nnode-1\n")
        here = folder / str(folder).lstrip("/")  # the same paths for us and for what takes the folder for its root
        here.parent.mkdir(parents=True)
        here.symlink_to(folder)
        self.command("ray-bootstrap", agent.format(python=sys.executable, record=str(self.record), status=STATUS))
        for name, body in case.stubs.items():
            self.command(name, STUB.format(body=body.replace("{{", "{").replace("}}", "}")))

    @property
    def record(self) -> Path:
        return self.folder / "record"

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def at(self, text: str, given: str = "") -> str:
        return text.replace("{root}", str(self.folder)).replace("{work}", str(self.work)).replace("{given}", given)

    def start(self, script: Path) -> subprocess.Popen[bytes]:
        env = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder / "home")}
        env |= {word: self.at(value) for word, value in self.case.env.items()}
        argv = ["bash", script, *map(self.at, self.case.argv)]  # not by a login shell, which sets another PATH
        return subprocess.Popen(argv, env=env, cwd=self.work, start_new_session=True, stdin=subprocess.DEVNULL)

    def starts(self) -> list[tuple[list[str], str, dict[str, str]]]:
        return [(argv, cwd, env) for argv, cwd, env in map(json.loads, self.record.read_text().splitlines())]


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path, CASES[request.node.callspec.params["name"]])
    shutil.rmtree(tmp_path)


def parsed(argv: Sequence[str], env: Mapping[str, str]) -> settings.Settings:
    ours = argv[: argv.index("--")]
    given = {flag.removeprefix("--").replace("-", "_"): [value] for flag, _, value in (o.partition("=") for o in ours)}
    return settings.load(given, env, argv[len(ours) + 1 :])


def test_every_script_is_tried_here() -> None:
    assert {*CASES, "torch-env.sh"} == {name for name in EXAMPLES if name.endswith(".sh")}


@pytest.mark.parametrize("name", CASES)
def test_it_starts_one_agent_on_each_host_and_returns_their_status(name: str, site: Site) -> None:
    process = site.start(FOLDER / name)
    assert process.wait(30) == STATUS
    starts = site.starts()
    settled = [parsed(argv, env) for argv, _, env in starts]
    found = []
    for (argv, cwd, env), asked in zip(starts, settled, strict=True):
        given = asked.run_id or ""
        assert argv == [*(site.at(option, given) for option in site.case.options), "--", "python", "train.py"]
        assert cwd == str(site.work) or name == "lepton.sh"  # where the image has it
        assert str(site.bin) in env["PATH"].split(":")  # or there would be no python there
        host = Host(env=env, hostname=env["STUB_HOST"], root=site.folder)
        identity, _ = identify(asked, host, own_addresses=list, resolve=lambda _: [])
        found.append((identity.rank, env["STUB_HOST"], identity.launcher, identity.size, identity.run_id))
    run = site.at(site.case.run_id, settled[0].run_id or "")
    assert sorted(found) == [(rank, f"node-{rank}", site.case.launcher, 2, run) for rank in (0, 1)]


def test_the_program_of_a_platform_for_torchrun_names_the_run_itself(tmp_path: Path) -> None:
    site = Site(tmp_path, Case("torchrun", "a-job", {}, {}))
    for rank in ("0", "1"):
        platform = {"NODE_RANK": rank, "NODE_COUNT": "2", "MASTER_ADDR": "10.0.0.4", "JOB_NAME": "a-job"}
        env = {"PATH": f"{site.bin}:/usr/bin:/bin", **platform}
        assert subprocess.run([FOLDER / "torch-env.sh"], env=env, check=False).returncode == STATUS
    nodes = [identify(parsed(argv, env), Host(env, "x"))[0] for argv, _, env in site.starts()]
    assert [(node.launcher, node.rank, node.size, node.run_id) for node in nodes] == [
        ("torchrun", rank, 2, "a-job") for rank in (0, 1)
    ]


WAITS = """\
import os, signal, sys
def log(what):
    with open({record!r}, "a") as file:
        print(what, file=file)
signal.signal(signal.SIGTERM, lambda *_: (log("ended"), os._exit(143)))
log("up")
while True:
    signal.pause()
"""
SLEEP = "#!/bin/sh\necho slept $1 >> {record}\n"


@pytest.mark.parametrize(
    ("name", "stub", "whole_group", "log"),
    [
        # PBS signals all processes; the tasks' kill follows the end of the script. ssh's ends the task by its end.
        ("pbs.sh", "pbs_tmrsh", True, ["ended", "ended", "slept 10"]),
        ("oar.sh", "oarsh", False, ["ended", "ended", "slept 25"]),
        ("ssh-hostfile.sh", "ssh", False, ["ended", "ended"]),
    ],
)
def test_a_script_that_is_stopped_gives_the_agents_time(
    name: str, stub: str, whole_group: bool, log: list[str], site: Site
) -> None:
    site.command(stub, f"#!{sys.executable}\n" + WAITS.format(record=str(site.record)))
    site.command("sleep", SLEEP.format(record=site.record))
    process = site.start(FOLDER / name)
    wait_for(lambda: site.record.exists() and site.record.read_text() == "up\nup\n", 20, "two tasks")
    if whole_group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    wait_for(lambda: site.record.read_text().count("ended") == 2, 20, "the end of both tasks")
    assert sorted(site.record.read_text().splitlines()[2:]) == log
