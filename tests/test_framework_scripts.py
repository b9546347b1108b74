"""examples/frameworks: what users copy starts one agent on each node, and that runs the framework's own command.

The launchers are stubs here, as in test_examples.py, and so are the frameworks' commands and the agent, which runs its
workload on the first node, without Ray. For frameworks that cannot be installed, programs that ask the same of Ray
stand in (tests/stand_ins), on a real cluster.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import kubelet
import pytest
import yaml
from cluster import nothing_left, start
from controllers import templates
from test_examples import CASES as LAUNCHERS
from test_examples import REPOSITORY, STATUS, Case, Site, parsed

from bootstrap import settings
from bootstrap.host import Host
from bootstrap.launchers import identify

FOLDER = REPOSITORY / "examples" / "frameworks"
STAND_INS = REPOSITORY / "tests" / "stand_ins"
STOOD_IN = re.findall(r'^@stand_in\("(.+)"\)$', (STAND_INS / "frameworks.py").read_text(), re.MULTILINE)
NEEDS = {"kustomization.yaml": pytest.mark.requires("kubectl")}

AGENT = """\
#!{python}
import json, os, subprocess, sys
argv = sys.argv[1:]
with open({record!r}, "a") as file:
    print(json.dumps([argv, os.getcwd(), dict(os.environ)]), file=file)
if os.environ["STUB_HOST"] == "node-0" and "--" in argv:
    cluster = {{"RAY_ADDRESS": "10.0.0.1:6379", "MASTER_ADDR": "10.0.0.1", "RAY_BOOTSTRAP_CLUSTER_NODES": "2"}}
    sys.exit(subprocess.run(argv[argv.index("--") + 1 :], env={{**os.environ, **cluster}}).returncode)
sys.exit({status})
"""
COMMAND = f"""\
#!{sys.executable}
import json, os, sys
name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
if "ray-bootstrap" in argv:  # uv run ... ray-bootstrap
    ours = argv[argv.index("ray-bootstrap") :]
    os.execvp(ours[0], ours)
if [name, *argv[:1]] == ["ray", "status"]:
    print("Total Usage:\\n 0.0/512.0 CPU\\n 0.0/16.0 GPU")
elif [name, *argv] != ["python", "-"]:
    with open("{{calls}}", "a") as file:
        print(json.dumps([name, *argv]), file=file)
    sys.exit({STATUS})
"""
"""A framework's: it records how it was called, and fails."""

SRUN = """\
[[ " $* " == *" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=0 --mpi=none "* ]] || exit 99
while [[ $1 == -* ]]; do shift; done
for n in 0 1; do
    task "node-$n" SLURM_STEP_ID=0 SLURM_NODEID="$n" SLURM_PROCID="$n" SLURM_LOCALID=0 SLURM_NTASKS=2 \\
        SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST='node-[0-1]' "$@"
done"""
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_SUBMIT_DIR": "{work}", "SLURM_NODEID": "0"}
PALS = {**LAUNCHERS["pals.sh"].env, "HF_TOKEN": "hf"}
MASON = """\
[[ "$1 $2 $3" == "run python mason.py" ]] || exit 99
until [[ $1 == -- ]]; do shift; done; shift
for word in "$@"; do [[ $word != -- ]] || exit 98; done # the next of several tasks
for n in 0 1; do
    task "node-$n" BEAKER_REPLICA_RANK="$n" BEAKER_REPLICA_COUNT=2 BEAKER_LEADER_REPLICA_HOSTNAME=node-0 \\
        BEAKER_LEADER_REPLICA_JOB_ID=job-1 /bin/bash -c "$*"
done"""
DOCKER = """\
until [[ $1 == REGISTRY/* ]]; do shift; done; shift
task "$STUB_HOST" ray-bootstrap "$@" """
APPTAINER = """\
until [[ $1 == *.sif ]]; do shift; done; shift
exec "$@" """


@dataclass(frozen=True)
class Framework:
    """A script: its launcher, the agent's options, and the calls of the framework's commands."""

    launcher: str
    run_id: str
    stubs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    argv: Sequence[str] = ()
    options: Sequence[str] = ()
    calls: Sequence[str] = ()
    """How each begins."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the agents are started with, on all nodes."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of the framework's checkout, and the stand-in for each."""
    rank: str = ""
    """The variable with a node's rank, where the platform starts the same on each node, and no launcher does."""


SUBMITS = ["--dashboard-port=8265"]
SKYPILOT = {
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_TASK_ID": "sky-7",
}
BATCH = {
    "AWS_BATCH_JOB_NUM_NODES": "2",
    "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
    "AWS_BATCH_JOB_ID": "b-7#0",
    "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.1",
    "AWS_BATCH_JOB_ATTEMPT": "1",
}
SLIME_UV = {"entrypoint.sh": "entrypoint.sh", "launch_ray.sh": "launch_ray.sh"}
LLAMA = "vllm serve meta-llama/Llama-3.1-405B-Instruct"
FRAMEWORKS = {
    "openrlhf/slurm.sh": Framework(
        "slurm",
        "slurm-7.0",
        {"srun": SRUN},
        SLURM,
        calls=["ray job submit --runtime-env-json="],
    ),
    "verl/slurm.sh": Framework(
        "slurm",
        "slurm-7.0",
        {"srun": SRUN, "apptainer": APPTAINER},
        SLURM,
        options=["--expect-gpus=4"],
        calls=["python3 -m verl.trainer.main_ppo algorithm.adv_estimator=gae"],
        environment={"PYTHONUNBUFFERED": "1"},
    ),
    "slime/slurm.sh": Framework(
        "slurm",
        "slurm-7.0",
        {"srun": SRUN},
        {**SLURM, "BASE_DIR": "/base", "HOSTFILE": "/hosts"},
        ["scripts/run-glm5.2-744B-A40B.sh"],
        ["--expect-gpus=8", *SUBMITS, "--setup=*"],
        ["ray job submit --address=http://127.0.0.1:8265"],
        files={"scripts/run-glm5.2-744B-A40B.sh": "slime.sh"},
    ),
    "miles/slurm.sh": Framework(
        "slurm",
        "slurm-7.0",
        {"srun": SRUN},
        {
            **SLURM,
            "CONTAINER_IMAGE": "i",
            "CONTAINER_MOUNTS": "m",
            "DAYTONA_ENV_FILE": "/dev/null",
            "MILES_ROOT": "{work}",
            "FABRIC": "10.4.0.0/16",
        },
        ["--num-rollout", "10"],
        ["--interface=10.4.0.0/16", "--expect-gpus=4", "--dashboard-wait=60s"],
        ["python3 examples/experimental/openenv/glm52_tbench2/run_glm5_2_744b_a40b_daytona.py train --num-nodes 2 --n"],
        {"MILES_SCRIPT_EXTERNAL_RAY": "1", "RAY_memory_monitor_refresh_ms": "0"},
    ),
    "skyrl/slurm.sh": Framework(
        "slurm",
        "slurm-7.0",
        {"srun": SRUN},
        SLURM,
        options=["--expect-gpus=8"],
        calls=["uv run --isolated --extra fsdp -m skyrl.train.entrypoints.main_base data.train_data=['"],
        environment={"RAY_worker_register_timeout_seconds": "600"},
    ),
    "nemo-rl/slurm.sh": Framework(
        "slurm",
        "slurm-7.0",
        {"srun": SRUN},
        {**SLURM, "CONTAINER": "i", "COMMAND": "uv run ./examples/run_grpo.py", "SETUP_COMMAND": "true"},
        options=[
            *["--gcs-port=1200", "--rollcall-port=1210", "--min-worker-port=2000", "--max-worker-port=2999"],
            *["--expect-gpus=8", "--setup=true", "--setup=*"],
        ],
        calls=["uv run ./examples/run_grpo.py"],
        environment={"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
    ),
    "nemo-rl/lepton.sh": Framework(
        "lepton",
        "lepton-ray-98bw",
        {"lep": LAUNCHERS["lepton.sh"].stubs["lep"].replace("${command/app/}", "${command#*&& }")},
        {"LEPTON_RESOURCE_ACCELERATOR_NUM": "1"},
        options=["--gcs-port=1200"],
        calls=["uv run examples/run_grpo.py --config examples/configs/grpo_math_8B.yaml cluster.num_nodes=2 cluster."],
    ),
    "nemo-rl/kustomization.yaml": Framework(
        "",
        "",
        calls=["python -u examples/run_sft.py --config examples/configs/sft.yaml policy.model_name="],
        rank="JOB_COMPLETION_INDEX",
    ),
    "areal/skypilot.yaml": Framework(
        "skypilot",
        "sky-7",
        env=SKYPILOT,
        options=["--expect-gpus=8"],
        calls=["python3 examples/math/gsm8k_rl.py --config examples/skypilot/gsm8k_grpo_ray.yaml scheduler.type=ray"],
        rank="SKYPILOT_NODE_RANK",
    ),
    "roll/torch-env.sh": Framework(
        "torch-env",
        "a-job",
        env={"WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "23456", "JOB_NAME": "a-job"},
        options=["--run-id=a-job", "--gcs-port=23456"],
        calls=["python examples/start_agentic_pipeline.py --config_path agentic_demo"],
        rank="RANK",
    ),
    "xtuner/torch-env.sh": Framework(
        "torchrun",
        "a-job",
        env={"NODE_COUNT": "2", "MASTER_ADDR": "10.0.0.1", "JOB_NAME": "a-job", "PER_NODE": "8"},
        argv=["config.py", "sglang"],
        options=["--run-id=a-job", *SUBMITS],
        calls=["ray job submit --address=http://127.0.0.1:8265"],
        files={"examples/v1/scripts/run_rl_submit.sh": "xtuner.sh"},
        rank="NODE_RANK",
    ),
    "open-instruct/beaker.sh": Framework(
        "beaker",
        "beaker-job-1",
        {"uv": MASON},
        {"BEAKER_IMAGE": "me/image"},
        calls=["python open_instruct/grpo_fast.py --exp_name grpo"],
    ),
    "vllm/docker.sh": Framework(
        "",
        "",
        {"docker": DOCKER},
        argv=["10.0.0.1", "2", "a-run", "10.0.0.2"],
        options=["--address=10.0.0.1", "--nodes=2", "--run-id=a-run", "--node-ip=10.0.0.2"],
        calls=[f"{LLAMA} --tensor-parallel-size 8 --pipeline-parallel-size 2 --distributed-executor-backend ray"],
        rank="-",
    ),
    "vllm/kustomization.yaml": Framework(
        "",
        "",
        calls=[f"{LLAMA} --port=8000 --tensor-parallel-size=8 --pipeline-parallel-size=2 --distributed-executor-bac"],
        rank="LWS_WORKER_INDEX",
    ),
    "skypilot/skypilot.yaml": Framework(
        "skypilot",
        "sky-7",
        env=SKYPILOT,
        options=["--expect-gpus=8"],
        calls=["python train.py"],
        rank="SKYPILOT_NODE_RANK",
    ),
    "alcf/polaris.sh": Framework(
        "pals",
        "pals-app-1",
        {**LAUNCHERS["pals.sh"].stubs, "module": "", "conda": ""},
        PALS,
        options=["--interface=hsn0", "--expect-gpus=4", "--num-cpus=32", "--grace=8s"],
        calls=[
            "vllm serve meta-llama/Llama-3.1-70B-Instruct --port 8000 --tensor-parallel-size 4 --pipeline-parallel-siz"
        ],
        environment={"no_proxy": "localhost,127.0.0.1"},
    ),
    "alcf/aurora.sh": Framework(
        "pals",
        "pals-app-1",
        {**LAUNCHERS["pals.sh"].stubs, "module": ""},
        PALS,
        options=["--interface=hsn0", "--num-gpus=8", "--num-cpus=64", "--grace=8s"],
        calls=[f"{LLAMA} --port 8000 --tensor-parallel-size 8 --pipeline-parallel-size 2"],
        environment={"ONEAPI_DEVICE_SELECTOR": "opencl:gpu;level_zero:0,1,2,3,4,5,6,7"},
    ),
    "aws-batch/aws-batch.yaml": Framework(
        "aws-batch",
        "aws-batch-b-7",
        env=BATCH,
        options=["--dashboard-wait=60s"],
        calls=["ray job submit --address=auto -- echo"],
        files=SLIME_UV,
        rank="AWS_BATCH_JOB_NODE_INDEX",
    ),
    "aws-batch/kustomization.yaml": Framework(
        "",
        "",
        options=["--dashboard-wait=60s"],
        calls=["ray job submit --address=auto -- echo"],
        files=SLIME_UV,
        rank="JOB_COMPLETION_INDEX",
    ),
}
ELSEWHERE = {"on-cpus.sh", "recipe.yaml", "service.yaml"}
"""test_frameworks.py runs the first, with a framework that is installed; the second is Data-Juicer's, the third of a
kustomization."""
FOLDERS = sorted(path for path in FOLDER.iterdir() if path.is_dir())
FILES = sorted(
    f"{folder.name}/{path.name}"
    for folder in FOLDERS
    for path in folder.iterdir()
    if path.suffix in (".sh", ".yaml") and path.name not in ELSEWHERE
)


def test_every_script_and_manifest_is_tried_here() -> None:
    assert sorted(FRAMEWORKS) == FILES


def test_the_table_has_every_folder() -> None:
    rows = re.findall(r"^\| \[[^]]+\]\(([a-z-]+)\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("folder", sorted({name.partition("/")[0] for name in FRAMEWORKS}))
def test_each_folder_says_what_it_replaces_and_links_its_files(folder: str) -> None:
    page = (FOLDER / folder / "README.md").read_text()
    here = {path.name for path in (FOLDER / folder).iterdir()} - {"README.md", "service.yaml", "__pycache__"}
    assert {*re.findall(r"\]\(([a-z_.-]+)\)", page)} >= here
    assert re.search(r"/[0-9a-f]{40}/", page), "no revision of the script before"
    assert [title for title in ("Before", "After", "To mind", "Tested") if f"**{title}" not in page] == []
    assert len(page.splitlines()) <= 50


def test_the_table_says_for_which_frameworks_a_program_stands_in() -> None:
    table = (FOLDER / "README.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| [") and "stand-in" in line]
    assert sorted(re.findall(r"\]\(([a-z-]+)\)", "\n".join(rows))) == sorted(STOOD_IN)


def of_manifest(path: Path) -> list[str]:
    """The command of each node."""
    if path.name == "kustomization.yaml":
        objects = kubelet.render(path.parent.relative_to(REPOSITORY))
        return ["ray-bootstrap", *kubelet.container(next(t for o in objects for t in templates(o))["spec"])["args"]]
    manifest = yaml.safe_load(path.read_text())
    if "run" in manifest:
        return ["bash", "-c", manifest["run"]]
    (group,) = manifest["nodeProperties"]["nodeRangeProperties"]
    return ["ray-bootstrap", *group["container"]["command"]]


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The framework's checkout, the stubs of its commands, and those of its launcher."""
    framework = FRAMEWORKS[request.node.callspec.params["name"]]
    case = Case(framework.launcher, framework.run_id, framework.stubs, framework.env, argv=framework.argv)
    made = Site(tmp_path, case, AGENT)
    commands = {"ray", "vllm", "uv", "python", "python3", "pkill", "ssh"} - framework.stubs.keys()
    for command in commands:
        made.command(command, COMMAND.replace("{calls}", str(tmp_path / "calls")))
    for name, text in {**framework.files, "../home/ray/bin/activate": ""}.items():
        path = made.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((STAND_INS / text).read_text() if text else "")
    yield made
    shutil.rmtree(tmp_path)


def started(site: Site, path: Path, framework: Framework) -> list[int]:
    """The statuses of the launcher, or of each node where the platform starts the same on each."""
    if not framework.rank:
        return [site.start(path).wait(30)]
    argv = ["bash", str(path), *framework.argv] if path.suffix == ".sh" else of_manifest(path)
    argv = [word.replace("/opt/nemo-rl", str(site.work)) for word in argv]
    env = {"PATH": f"{site.bin}:/usr/bin:/bin", "HOME": str(site.folder / "home"), **framework.env}
    return [
        subprocess.run(
            argv, env={**env, framework.rank: rank, "STUB_HOST": f"node-{rank}"}, cwd=site.work, timeout=30, check=False
        ).returncode
        for rank in ("0", "1")
    ]


@pytest.mark.parametrize("name", [pytest.param(n, marks=NEEDS.get(Path(n).name, ())) for n in FRAMEWORKS])
def test_it_starts_one_agent_on_each_node_and_the_frameworks_command_on_the_first(name: str, site: Site) -> None:
    framework = FRAMEWORKS[name]
    assert {*started(site, FOLDER / name, framework)} == {STATUS}
    starts = site.starts()
    for argv, _, env in starts:
        ours = argv[: argv.index("--")]
        assert len(ours) == len(framework.options)
        assert all(fnmatch.fnmatch(word, pattern) for word, pattern in zip(ours, framework.options, strict=True))
        assert framework.environment.items() <= env.items()
        names = {word.removeprefix("--").partition("=")[0].replace("-", "_") for word in ours}
        assert names <= {"address", *(option.name for option in settings.options())}
    assert len(starts) == 2
    if framework.launcher:
        found = []
        for argv, _, env in starts:
            host = Host(env=env, hostname=env["STUB_HOST"], root=site.folder)
            identity, _ = identify(parsed(argv, env), host, own_addresses=list, resolve=lambda _: [])
            found.append((identity.rank, env["STUB_HOST"], identity.launcher, identity.size, identity.run_id))
        assert sorted(found) == [(r, f"node-{r}", framework.launcher, 2, framework.run_id) for r in (0, 1)]
    calls = [json.loads(line) for line in (site.folder / "calls").read_text().splitlines()]
    for argv, begins in zip(calls, framework.calls, strict=True):
        assert " ".join(argv).startswith(begins)
        for word in argv:
            if word.startswith("--runtime-env-json="):
                given = json.loads(word.partition("=")[2])
                assert given.get("env_vars", {}).get("MASTER_ADDR", "10.0.0.1") == "10.0.0.1"


def test_nemo_rl_gets_the_resources_by_which_it_orders_its_ranks(tmp_path: Path) -> None:
    script = (FOLDER / "nemo-rl" / "slurm.sh").read_text()
    (setup,) = re.findall(r"^topology='(.*?)'$", script, re.MULTILINE | re.DOTALL)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    given = tmp_path / "given"
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_NODEID": "3", "RAY_BOOTSTRAP_ENV": str(given)}
    subprocess.run(["sh", "-c", setup], env=env, check=True)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '    ClusterUUID                 : 8a1f-22'\n")
    subprocess.run(["sh", "-c", setup], env=env, check=True)
    lines = [line.partition("=") for line in given.read_text().splitlines()]
    assert {name for name, _, _ in lines} == {"RAY_BOOTSTRAP_RESOURCES"}
    assert [json.loads(value) for _, _, value in lines] == [
        {"topo_rank": 4},
        {"nvlink_domain_8a1f-22": 1, "topo_rank": 4},
    ]


@pytest.mark.hosts
@pytest.mark.ray
@pytest.mark.timeout(330)
def test_what_their_scripts_ask_of_ray(make_hosts):
    hosts = make_hosts(2)
    options = ["--shared-dir=/shared", "--num-gpus=2", "--num-cpus=2", "--dashboard-port=8265", "--dashboard-wait=60s"]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    agents = start(hosts, *options, workload=["python", str(STAND_INS / "frameworks.py")], env=path)
    assert agents.wait(seconds=300) == [0, 0], agents.out(0)
    said = [line for line in agents.out(0).splitlines() if line.endswith(": ok")]
    assert said == [f"{name}: ok" for name in STOOD_IN]
    nothing_left(hosts)
