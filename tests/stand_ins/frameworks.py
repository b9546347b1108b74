"""What frameworks that cannot be installed here ask of Ray, in the words of their published scripts.

examples/frameworks/ names those scripts. It is the workload of a run of two nodes with two GPUs each:

    ray-bootstrap --num-gpus=2 --dashboard-port=8265 --dashboard-wait=60s -- python frameworks.py [NAME ...]

It prints ``NAME: ok`` for each, or why not, and exits with the number of those that were not.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

HERE = Path(__file__).parent
SECONDS = 60
RAY_IS_UP = """\
ray() { [[ $1 == start || $1 == stop ]] || command ray "$@"; }
pkill() { :; }
export -f ray pkill
exec bash "$@"
"""
"""As in examples/frameworks/: a script whose `ray start`, `ray stop` and `pkill` do nothing."""
STAND_INS: dict[str, Callable[[], None]] = {}


def stand_in(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """For the framework of that folder."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        STAND_INS[name] = function
        return function

    return register


def head() -> str:
    """The head's address."""
    return os.environ["RAY_ADDRESS"].rpartition(":")[0]


def sh(*argv: str, status: int = 0, cwd: Path = HERE, **env: str) -> str:
    """What a command writes to standard output; it must end with this status."""
    ran = subprocess.run(
        argv, env={**os.environ, **env}, cwd=cwd, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=False
    )
    assert ran.returncode == status, f"{argv}: {ran.returncode}\n{ran.stdout}"
    return ran.stdout


@ray.remote(num_cpus=0)
class Look:
    """On one node, within the program's runtime environment."""

    def at(self, names: list[str]) -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in names}

    def sees(self, path: str) -> bool:
        return Path(path).exists()


def on_each_node() -> dict[str, Any]:
    """An actor on each node, by the node's address."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    assert len(nodes) == int(os.environ.get("RAY_BOOTSTRAP_CLUSTER_NODES", "2"))
    return {
        node["NodeManagerAddress"]: Look.options(  # type: ignore[attr-defined]
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    }


def own_values(passed_on: str | None = None) -> None:
    """Each node's workers have that node's address and token, and the head's address, whatever was passed on."""
    for address, actor in on_each_node().items():
        names = ["VLLM_HOST_IP", "MASTER_ADDR", "RAY_AUTH_TOKEN_PATH", "PASSED_ON"]
        values = ray.get(actor.at.remote(names), timeout=SECONDS)
        assert ray.get(actor.sees.remote(values["RAY_AUTH_TOKEN_PATH"]), timeout=SECONDS)
        assert (values["VLLM_HOST_IP"], values["MASTER_ADDR"]) == (address, head()), values
        assert values["PASSED_ON"] == passed_on


@stand_in("openrlhf")
def openrlhf() -> None:
    """A job with a working directory, whose program calls ray.init() with variables of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text(
            "import sys; sys.path.insert(0, sys.argv[1]); import frameworks as f; f.ppo()"
        )
        environment = json.dumps({"working_dir": folder})
        train = [f"--runtime-env-json={environment}", "--", "python3", "train.py", str(HERE)]
        assert "ppo on 2 nodes" in sh("ray", "job", "submit", "--address=http://localhost:8265", *train)


def ppo() -> None:
    """What its job runs."""
    ray.init(runtime_env={"env_vars": {"TOKENIZERS_PARALLELISM": "true", "NCCL_DEBUG": "WARN"}})
    actors = on_each_node().values()
    seen = ray.get([actor.at.remote(["NCCL_DEBUG"]) for actor in actors], timeout=SECONDS)
    assert seen == [{"NCCL_DEBUG": "WARN"}] * len(seen)
    print("ppo on", len(seen), "nodes")


@stand_in("slime")
def slime() -> None:
    """Its script as it is, which would end every python and start its own Ray."""
    said = sh("bash", "-c", RAY_IS_UP, "bash", "slime.sh", HOSTFILE="")
    assert f"slime leads from {head()}" in said


@stand_in("miles")
def miles() -> None:
    """Its launcher with MILES_SCRIPT_EXTERNAL_RAY: a job, at RAY_ADDRESS, with MASTER_ADDR for its workers."""
    master = os.environ.get("MASTER_ADDR", "127.0.0.1")
    environment = json.dumps({"env_vars": {"MASTER_ADDR": master, "no_proxy": f"127.0.0.1,{master}"}})
    show = "import os; print('miles leads from', os.environ['MASTER_ADDR'])"
    said = sh("ray", "job", "submit", f"--runtime-env-json={environment}", "--", "python3", "-c", show)
    assert f"miles leads from {head()}" in said


@stand_in("xtuner")
def xtuner() -> None:
    """Its script as it is, whose job fails: so must the run."""
    said = sh(*["bash", "-c", RAY_IS_UP, "bash", "-o", "pipefail", "xtuner.sh"], status=1, NODE_COUNT="2", PER_NODE="2")
    assert "out of memory" in said


@stand_in("aws-batch")
def aws_batch() -> None:
    """Its entrypoint.sh as it is, with the launch_ray.sh that it begins with."""
    batch = {"AWS_BATCH_JOB_NODE_INDEX": "0", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0", "AWS_BATCH_JOB_NUM_NODES": "2"}
    assert "a fleet of servers" in sh("bash", "-c", RAY_IS_UP, "bash", "entrypoint.sh", **batch)


@stand_in("nemo-rl")
def nemo_rl() -> None:
    """init_ray(): all of the program's environment for its workers; a cluster without its own tag is another's."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PMI_", "OMPI_"))}
    variables["PASSED_ON"] = "nemo"
    ray.init(address="auto", log_to_driver=True, include_dashboard=False, runtime_env={"env_vars": variables})
    assert not any(name.startswith("nrl_tag_") for name in ray.cluster_resources())
    own_values("nemo")


@stand_in("open-instruct")
def open_instruct() -> None:
    """grpo.py: the same with an address, options for a dashboard, and excluded files."""
    variables = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    variables["PASSED_ON"] = "olmo"
    environment = {"excludes": [".git/"], "env_vars": variables}
    ray.init(address=os.environ["RAY_ADDRESS"], dashboard_host="0.0.0.0", runtime_env=environment)
    own_values("olmo")


@stand_in("roll")
def roll() -> None:
    """initialize.py: where `ray status` succeeds it starts nothing, and joins."""
    sh("ray", "status")
    variables = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1", "NCCL_NVLS_ENABLE": "0"}
    ray.init(namespace="roll", ignore_reinit_error=True, log_to_driver=True, runtime_env={"env_vars": variables})
    assert ray.available_resources()["GPU"] == 4
    assert len(on_each_node()) == 2


@stand_in("areal")
def areal() -> None:
    """ray_cluster.sky.yaml's count of nodes, then ray.init() in the launcher."""
    assert int(sh("bash", "-c", "ray status | grep node_ | wc -l")) == 2
    ray.init()
    assert len(on_each_node()) == 2


@stand_in("skyrl")
def skyrl() -> None:
    """initialize_ray(), then a placement group over all GPUs."""
    ray.init(runtime_env={"env_vars": {"NCCL_CUMEM_ENABLE": "0", "VLLM_USE_V1": "1"}}, log_to_driver=True)
    ray.get(ray.util.placement_group([{"GPU": 2}] * 2, strategy="STRICT_SPREAD").ready(), timeout=SECONDS)


@stand_in("vllm")
def vllm() -> None:
    """Workers on the nodes that get_ip() names: VLLM_HOST_IP, which must be Ray's address, another on each node."""
    ray.init()
    own_values()
    driver = {f"node:{os.environ['VLLM_HOST_IP']}": 0.001}
    bundles = [{"GPU": 1, **driver}, *[{"GPU": 1}] * 3]
    ray.get(ray.util.placement_group(bundles, strategy="PACK").ready(), timeout=SECONDS)


@stand_in("skypilot")
def skypilot() -> None:
    """What start_cluster asks, and the address that SkyPilot's page recommends."""
    assert len(json.loads(sh("ray", "list", "nodes", "--format=json"))) == 2
    ray.init(address="localhost:6379")
    assert len(on_each_node()) == 2


@stand_in("alcf")
def alcf() -> None:
    """`ray status` with the site's proxy in the environment."""
    proxy = f"http://{head()}:9"
    sh("ray", "status", http_proxy=proxy, https_proxy=proxy, HTTP_PROXY=proxy, HTTPS_PROXY=proxy)


def main(names: list[str]) -> int:
    failed = 0
    for name in names or STAND_INS:
        try:
            STAND_INS[name]()
            print(f"{name}: ok", flush=True)
        except Exception:  # noqa: BLE001 (the others have their turn)
            failed += 1
            print(f"{name}: {traceback.format_exc()}", flush=True)
        finally:
            ray.shutdown()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
