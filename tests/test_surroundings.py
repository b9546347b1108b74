"""What each row puts around a node: it is recognised as that row's on every node, and it is what was recorded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from launcher_environments import RECORDED, Recorded

from bootstrap import settings
from bootstrap.host import Host
from bootstrap.launchers import LAUNCHERS, Launcher, environments, identify
from bootstrap.launchers.place import Place, Surroundings
from bootstrap.model import NodeIdentity
from bootstrap.rendezvous import slurm
from bootstrap.settings import Settings

REHEARSED = [row for row in LAUNCHERS if row.environment]
BY_ID = {recorded.id: recorded for recorded in RECORDED}
rows = pytest.mark.parametrize("row", REHEARSED, ids=[row.name for row in REHEARSED])
sizes = pytest.mark.parametrize("size", [1, 2, 3])


def places(row: Launcher, size: int, run: str = "train", attempt: int = 0) -> list[Place]:
    addresses = tuple(f"10.77.0.{rank + 1}" for rank in range(size))
    names = environments.names(row.name, size, run)
    return [Place(rank, names, addresses, run, attempt) for rank in range(size)]


def around(row: Launcher, place: Place) -> Surroundings:
    assert row.environment
    return row.environment(place)


def known(row: Launcher, place: Place) -> Mapping[str, Sequence[str]]:
    """What the resolver of a node knows: /etc/hosts with all nodes, or in a pod, which has its own, DNS."""
    if "/etc/hosts" in around(row, place).files:
        return environments.dns(row.name, place.names, place.addresses, place.run)
    return {name: (address,) for name, address in zip(place.names, place.addresses, strict=True)}


def recognised(row: Launcher, place: Place, folder: Path) -> tuple[NodeIdentity, list[str]]:
    """The identity of a node that has these surroundings and nothing else."""
    given, root = around(row, place), folder / f"root-{place.rank}"
    files = {root / path.lstrip("/"): text for path, text in given.files.items()}
    printing = {root / "bin" / name: f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\n" for name, text in given.programs.items()}
    for path, text in {**files, **printing}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    names = known(row, place)

    def resolve(name: str) -> list[str]:
        if name not in names:
            raise OSError(-2, "Name or service not known")
        return list(names[name])

    flags: dict[str, list[str]] = {}
    for option in given.options:
        name, _, value = option.removeprefix("--").partition("=")
        flags.setdefault(name.replace("-", "_"), []).append(value)
    env = {**given.env, "PATH": f"{root / 'bin'}:/usr/bin:/bin"}
    host = Host(env, place.names[place.rank], root)
    own = (place.addresses[place.rank],)
    return identify(settings.load(flags, {}), host, own_addresses=lambda: own, resolve=resolve)


def test_each_row_with_variables_can_be_rehearsed() -> None:
    assert {row.name for row in LAUNCHERS} - {row.name for row in REHEARSED} == {
        *(row.name for row in LAUNCHERS if row.when),
        "ray",
    }
    with pytest.raises(ValueError, match="launcher local has no environment"):
        environments.names("local", 2, "train")


@rows
@sizes
def test_every_node_is_recognised_as_its_rows(row: Launcher, size: int, tmp_path: Path) -> None:
    run_ids = set()
    for place in places(row, size):
        identity, notes = recognised(row, place, tmp_path)
        assert (identity.launcher, identity.rank, identity.size) == (row.name, place.rank, size)
        assert notes == []
        run_ids.add(identity.run_id)
        if identity.rendezvous == "file":
            assert f"--shared-dir={place.shared}" in around(row, place).options
        elif place.rank > 0:
            (head,) = identity.head_hints
            addresses = known(row, place).get(head, [head])
            assert list(addresses) == [place.addresses[0]]
    assert len(run_ids) == 1


@rows
def test_a_worker_in_kubernetes_sees_all_pods_in_the_service_of_the_heads_name(row: Launcher, tmp_path: Path) -> None:
    """:mod:`bootstrap.rendezvous.dns` waits for them before it asks for the head."""
    place = places(row, 3)[1]
    identity, _ = recognised(row, place, tmp_path)
    if identity.rendezvous != "dns":
        assert row.rendezvous != "dns"
        return
    (head,) = identity.head_hints
    service = head.partition(".")[2]
    assert known(row, place).get(service, place.addresses if not service else ()) == place.addresses


ATTEMPTS = {"aws-batch": 3, "kubeflow-trainer": 0}
"""AWS counts from 1; the Trainer's pods get JobSet's variables from the user's manifest alone."""


@rows
def test_the_attempt_is_said_as_the_launcher_says_it(row: Launcher, tmp_path: Path) -> None:
    for place in places(row, 2, attempt=2):
        identity, _ = recognised(row, place, tmp_path)
        assert identity.attempt == ATTEMPTS.get(row.name, 2 if row.attempt else 0)


@rows
def test_two_runs_have_two_ids(row: Launcher, tmp_path: Path) -> None:
    found = []
    for run in ("train", "tune"):
        (place,) = places(row, 1, run=run)
        found.append(recognised(row, place, tmp_path / run)[0].run_id)
    assert found[0] != found[1]


@dataclass(frozen=True)
class Drawn:
    """How a recording is drawn from its row's text."""

    id: str
    run: str = "ray"
    addresses: tuple[str, ...] = ("10.0.0.4", "10.0.0.5", "10.0.0.6")
    names: tuple[str, ...] = ()
    """If they are others than the row's own, or in another order."""
    rank: int | None = None
    """In that order."""
    cpus: int = 1
    gpus: int = 1
    shared: str = "/shared"
    ids: Mapping[str, str] = field(default_factory=dict)
    """Of :func:`environments.ids`, as the recording has them."""
    apart: Mapping[str, str] = field(default_factory=dict)
    """Variable, or path of a file → why its value is another one."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Variable, or path of a file → why it is not there."""


NETWORK = ("10.77.0.1", "10.77.0.2")
PODS = ("10.244.1.7",) * 4
HOSTFILES = dict.fromkeys(("LSB_DJOB_HOSTFILE", "LSB_DJOB_RANKFILE"), "a folder of the host's own")
ALGOS = tuple(sorted(f"algo-{number}" for number in range(1, 12)))
DRAWN = {
    "skypilot": Drawn("skypilot", "train", gpus=8, ids={"job": "345678"}),
    "dstack": Drawn(
        "dstack",
        gpus=8,
        ids={"uuid": "5e2c9d17-0000-4000-8000-00000000000a"},
        apart={"DSTACK_MPI_HOSTFILE": "a folder of the host's own"},
    ),
    "beaker": Drawn("beaker", cpus=31, gpus=8, ids={"job": "000000"}),
    "lepton": Drawn("lepton", "env-job-98bw", addresses=PODS),
    "volcengine": Drawn(
        "volcengine",
        addresses=("10.128.0.4", "10.128.0.5"),
        cpus=2,
        gpus=3,
        ids={"job": "211641"},
        apart={
            "MLP_PRIMARY_HOST": "a second network",
            "MLP_WORKER_0_PRIMARY_HOST": "a second network",
            "MLP_WORKER_1_PRIMARY_HOST": "a second network",
            "MLP_WORKER_ALL_PRIMARY_HOSTS": "a second network",
        },
    ),
    "vertex": Drawn(
        "vertex",
        addresses=("10.12.0.81",) * 3,
        ids={"job": "5942175266485829632"},
        apart=dict.fromkeys(("HOSTNAME", "/etc/hosts"), "-cd5sv at the end of the name"),
    ),
    "azureml": Drawn("azureml-no-distribution", "dreamy_sun_x7f0q8z2", gpus=2),
    "determined": Drawn("determined", gpus=8, ids={"uuid": "3f1c0c52-6a32-4c5c-9f0e-2d4e1c9a7b11"}),
    "sagemaker": Drawn(
        "sagemaker-toolkit",
        "ray-2026-08-20-06-27-15-511",
        addresses=("10.0.0.4",) * 11,
        names=ALGOS,
        rank=ALGOS.index("algo-10"),
        cpus=4,
    ),
    "aws-batch": Drawn(
        "aws-batch",
        addresses=("10.0.0.6", "10.0.0.4", "10.0.0.5"),
        ids={"uuid": "a7182d0e-7e9e-44a1-8417-3b7d8dac9a42"},
        apart={
            "AWS_BATCH_JOB_ID": "the main node is the third",
            "AWS_BATCH_JOB_MAIN_NODE_INDEX": "the main node is the third",
            "AWS_BATCH_JOB_NODE_INDEX": "the main node is the third",
            "AWS_BATCH_JOB_ATTEMPT": "counted from 1",
        },
    ),
    "kubeflow-trainer": Drawn("kubeflow-trainer", "llama", gpus=8, addresses=PODS),
    "jobset": Drawn("jobset", addresses=PODS, ids={"uuid": "8f14e45f-0000-4000-8000-000000000003"}),
    "leaderworkerset": Drawn(
        "leaderworkerset-tpu",
        "vllm",
        addresses=PODS,
        left_out=dict.fromkeys(
            ("TPU_NAME", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"), "there are no TPUs"
        ),
    ),
    "kubernetes": Drawn("kubernetes", addresses=PODS),
    "volcano": Drawn(
        "volcano-one-task",
        addresses=PODS,
        left_out=dict.fromkeys(
            (f"/etc/volcano/{name}" for name in ("VC_WORKER_HOSTS", "VC_WORKER_NUM", "worker.host")),
            "a folder of the machine; the same is in variables",
        ),
    ),
    "flux": Drawn(
        "flux",
        apart={
            **dict.fromkeys(("FLUX_JOB_ID", "FLUX_JOB_ID_PATH"), "an id of the run"),
            "FLUX_JOB_TMPDIR": "a folder that is there",
        },
        left_out=dict.fromkeys(("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"), "pretended GPUs are none of CUDA's"),
        ids={"job": "85312143360"},
    ),
    "jsrun": Drawn(
        "jsrun",
        ids={"job": "748"},
        apart=dict.fromkeys(
            ("LSB_DJOB_NUMPROC", "LSB_JOBRES_CALLBACK", "LSB_MAX_NUM_PROCESSORS"), "the recording has another job's"
        )
        | HOSTFILES,
    ),
    "openmpi": Drawn(
        "openmpi-ssh",
        addresses=NETWORK,
        apart={
            "OMPI_MCA_orte_node_regex": "names in full",
            "OMPI_MCA_orte_precondition_transports": "an id of the run",
        },
    ),
    "mvapich": Drawn("mvapich-hydra", addresses=NETWORK),
    "hydra": Drawn("hydra-ssh", addresses=NETWORK),
    "gridengine": Drawn(
        "gridengine-qrsh",
        names=("node-1", "node-0"),
        shared="/home/alice",
        ids={"job": "1"},
        apart=dict.fromkeys(("TMP", "TMPDIR"), "a folder that is there"),
    ),
    "oar": Drawn("oar-oarsh", names=("idpot1.grid", "idpot5.grid"), ids={"job": "1234"}),
    "pals": Drawn(
        "pals-polaris",
        cpus=8,
        ids={"job": "1234", "uuid": "8c3b5f0e-2f6c-4d4e-8f5a-0d7e6c5b4a39"},
        apart=dict.fromkeys(("PBS_NODEFILE", "TMPDIR"), "a folder that is there"),
    ),
    "pbs": Drawn(
        "pbs-pbsdsh",
        cpus=8,
        ids={"job": "1234"},
        apart=dict.fromkeys(("PBS_NODEFILE", "TMPDIR"), "a folder that is there"),
    ),
    "slurm": Drawn("slurm", addresses=NETWORK, ids={"job": "3"}),
    "lsf": Drawn("lsf-blaunch", names=("grid01", "grid03", "grid05"), ids={"job": "748"}, apart=HOSTFILES),
    "pytorchjob": Drawn("pytorchjob-1.9", gpus=8, addresses=PODS),
    "torchrun": Drawn("torchrun", "7"),
    "torch-env": Drawn("torch-env"),
}
"""By row."""


def drawn(row: Launcher) -> tuple[dict[str, str], dict[str, str]]:
    """Variables and files, as drawn; the ids in them are the recording's."""
    how, generated = DRAWN[row.name], environments.ids(DRAWN[row.name].run)
    recorded = BY_ID[how.id]
    size, rank = recorded.size or 0, recorded.rank or 0
    names = how.names or environments.names(row.name, size, how.run)
    place = Place(rank, names, how.addresses[:size], how.run, recorded.attempt, how.shared, how.cpus, how.gpus)
    given = around(row, place if how.rank is None else replace(place, rank=how.rank))

    def with_ids(text: str) -> str:
        for name, value in how.ids.items():
            text = text.replace(generated[name], value)
        return text

    return tuple({with_ids(name): with_ids(text) for name, text in it.items()} for it in (given.env, given.files))


def words(text: str) -> list[str]:
    """Each once: a list of hosts may have a line for each slot."""
    return list(dict.fromkeys(text.split()))


@rows
def test_a_text_has_the_variables_and_files_of_a_recording_with_their_values(row: Launcher) -> None:
    how = DRAWN[row.name]
    recorded, (env, files) = BY_ID[how.id], drawn(row)
    assert recorded.launcher == row.name
    theirs = [text for path, text in recorded.files.items() if path not in how.left_out]
    assert env.keys() | how.left_out.keys() - recorded.files.keys() == recorded.env.keys()
    other = {name for name in env if env[name] != recorded.env[name]}
    other |= {path for (path, text), its in zip(files.items(), theirs, strict=True) if words(text) != words(its)}
    assert other == how.apart.keys()


HEADS = {
    "aws-batch": {"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": None},
    "azureml": {"AZ_BATCH_IS_CURRENT_NODE_MASTER": "true"},
    "hydra": {"SSH_CONNECTION": None},
    "mvapich": {"SSH_CONNECTION": None},
    "openmpi": {"SSH_CONNECTION": None, "OMPI_MCA_orte_parent_uri": None},
    "pbs": {"PBS_TASKNUM": "00000002"},
}
"""What is otherwise on rank 0, which no recording is of; None: not set."""


@rows
def test_files_lie_where_a_host_of_namespaces_has_folders_of_its_own(row: Launcher) -> None:
    """All other folders are the machine's, and a file there would count for everyone on it."""
    place = places(row, 2)[1]
    own = ("/etc/hosts", "/run/", "/tmp/", place.shared)
    elsewhere = {path for path in around(row, place).files if not path.startswith(own)}
    assert elsewhere == ({"/opt/ml/input/config/resourceconfig.json"} if row.name == "sagemaker" else set())


@rows
def test_on_the_head_the_same_is_set_but_for_what_makes_it_the_head(row: Launcher) -> None:
    head, worker = (around(row, place).env for place in places(row, 2))
    expected = HEADS.get(row.name, {})
    assert worker.keys() - head.keys() == {name for name, value in expected.items() if value is None}
    assert head.items() >= {name: value for name, value in expected.items() if value is not None}.items()


@pytest.mark.parametrize("recorded", RECORDED, ids=[r.id for r in RECORDED])
def test_without_what_belongs_to_launchers_an_environment_is_no_launchers(recorded: Recorded) -> None:
    own = {"HOME": "/home/alice", "PATH": "/bin", "OMP_NUM_THREADS": "4", "AWS_REGION": "us-east-1", "RUNS": "2"}
    env = {**recorded.env, **own, "POD_IP": "10.244.1.7", "NCCL_SOCKET_IFNAME": "ens5"}
    left = {name: value for name, value in env.items() if name not in environments.foreign(env)}
    identity, notes = identify(Settings(), Host(left, "node", Path("/nonexistent")))
    assert (identity.launcher, notes) == ("local", [])
    assert own.items() <= left.items()
    assert not {"POD_IP", "NCCL_SOCKET_IFNAME"} & left.keys()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["node-0", "node-1", "node-2"], "node-[0-2]"),
        (["gpu009", "gpu010"], "gpu[009-010]"),
        (["n9", "n10"], "n[9-10]"),
        (["node-0"], "node-0"),
        (["a1", "a3"], "a1,a3"),
        (["a1", "b2"], "a1,b2"),
        (["idpot1.grid", "idpot2.grid"], "idpot1.grid,idpot2.grid"),
    ],
)
def test_a_list_of_nodes_is_written_as_slurm_writes_it(names: list[str], text: str) -> None:
    assert environments.nodelist(names) == text
    assert list(slurm.hosts(text)) == names


def test_scontrol_expands_the_nodes_of_the_job() -> None:
    (row,) = (row for row in REHEARSED if row.name == "slurm")
    place = places(row, 3)[2]
    assert around(row, place).programs == {"scontrol": "node-0\nnode-1\nnode-2"}


def test_the_name_server_knows_a_pod_in_all_forms_of_the_search_path() -> None:
    found = environments.dns("kubernetes", ["train-0", "train-1"], NETWORK, "train")
    ends = ("", ".default", ".default.svc", ".default.svc.cluster.local")
    assert found == {
        **{f"train-{rank}.train{end}": (address,) for rank, address in enumerate(NETWORK) for end in ends},
        **{f"train{end}": NETWORK for end in ends},
    }
    assert environments.dns("pytorchjob", ["train-master-0"], NETWORK[:1], "train")["train-master-0"] == NETWORK[:1]
    assert environments.dns("slurm", ["node-0"], NETWORK[:1], "train") == {}


def test_a_run_reads_none_of_the_texts() -> None:
    code = "import sys, bootstrap.cli, bootstrap.run.agent; print('bootstrap.launchers.environments' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
