"""A platform without a row: what its variables say of nodes, so that none of several takes itself for the only one."""

import re
from collections.abc import Iterator

from bootstrap import timeouts
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import hostlist, kubernetes
from bootstrap.launchers.row import number
from bootstrap.process import command

_PREFIX = (
    "SLURM|PBS|PALS|LSB|JSM|FLUX|OAR|PE|SGE|PMI|PMIX|OMPI|MV2|VC|VK|MA|DSTACK|MLP|BEAKER|LEPTON|SM|AZ_BATCH|AZ_BATCHAI"
    "|AZUREML|AWS_BATCH|SKYPILOT|DET|TPU|MEGASCALE|NOMAD|MODAL|PET|LWS|JOBSET|K_MPI|CLOUD_ML|ACCELERATE|NGC_ARRAY|PAI"
)
"""Beginnings of the names of variables that launchers set."""
_COUNT = re.compile(
    rf"(?:(?:{_PREFIX})_(?:.*_)?)?(?:NNODES|NUM_?NODES|NODE_?COUNT|NODES?_NUM|NUM_HOSTS|HOST_NUM|NHOSTS|NUM_MACHINES|WORLD_SIZE)"
    "|(?:PMI|MV2_COMM_WORLD|HOROVOD|NGC_ARRAY)_SIZE|VC_.*_NUM|MEGASCALE_NUM_SLICES|_CONDOR_NPROCS|COBALT_JOBSIZE"
    "|PJM_NODE|PADDLE_TRAINERS_NUM|ARNOLD_WORKER_NUM"
)
"""Names of variables with a number of nodes, or of processes that some launcher spreads over nodes."""
_RANK = re.compile("(?:NODE_|PMI_|PMIX_|HOROVOD_)?RANK|NOMAD_ALLOC_INDEX|TPU_WORKER_ID|_CONDOR_PROCNO")
"""Names of variables that number nodes from 0: where it is more, there are several."""
_LISTS = ("TPU_WORKER_HOSTNAMES", "VC_.*_HOSTS", "SKYPILOT_NODE_IPS", "DSTACK_NODES_IPS", "SM_HOSTS", "LSB_HOSTS")
_LIST = re.compile("|".join(_LISTS))
"""Names of variables with a list of nodes."""
_DOCUMENT = "TF_CONFIG"
"""TensorFlow's, with ``host:port`` for each task: of Kubeflow's TFJob, and of Vertex AI."""
_FILES = ("PBS_NODEFILE", "PE_HOSTFILE", "OAR_NODEFILE", "LSB_DJOB_HOSTFILE")
"""Variables with the path of such a list."""
_TELLING = re.compile(
    rf"(?:{_PREFIX})_(?!.*(?:GPU|ARRAY_|LOCAL)).*"
    "(?:RANK|SIZE|INDEX|COUNT|NUM|NNODES|NODES|NODEID|NHOSTS|HOSTS|HOSTNAMES|NODELIST|NODEFILE|HOSTFILE|WORKER_ID)(?:_.*)?"
)
"""Names of variables that are worth showing, as they may number, count or list nodes."""
_BY_HAND = (
    "--rank=N and --nodes=N on each node with --head-address=HOST and --run-id=TEXT, or --hostfile=FILE; or"
    " --launcher=local for this machine alone"
)
_SHOWN = 60
"""Characters of a value."""


def seen(host: Host) -> list[str]:
    """Return the variables, ``NAME=value``, by which some launcher numbers, counts or lists nodes."""
    names = sorted(name for name in host.env if host.get(name) and _tells(name))
    return [f"{name}={host.env[name][:_SHOWN]}" for name in names]


def note(host: Host) -> str:
    """Return what to log on a node that takes itself for the only one although something says where it runs."""
    variables, in_pod = seen(host), host.get("KUBERNETES_SERVICE_HOST")
    if all(each.endswith("=1") for each in variables) and not in_pod:
        return ""
    where = "this pod" if in_pod else "this machine"
    what = (
        f"no launcher matches {', '.join(variables)}"
        if variables
        else f"no JOB_COMPLETION_INDEX or the like in {where}"
    )
    return f"{what}: {where} counts as the only node; for several: {_BY_HAND}"


def refuse_several(host: Host) -> None:
    """Raise an error if a variable, or a file that one names, says that there are several nodes.

    :raises IdentityError: which quotes it, and all that numbers or counts nodes here.
    """
    for what in _counts(host):
        others = ", ".join(each for each in seen(host) if each.partition("=")[0] != what.partition("=")[0])
        raise IdentityError(
            f"{what}: there are several nodes, but no known variable has this node's rank"
            + (f" (also set: {others})" if others else ""),
            hint=_BY_HAND,
        )


def _tells(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (_RANK, _COUNT, _TELLING))


def _counts(host: Host) -> Iterator[str]:
    """Yield what says that there is more than one node."""
    for name in sorted(filter(host.get, host.env)):
        value, hosts = host.env[name], _listed(name, host)
        if (_COUNT.fullmatch(name) and number(value) > 1) or (_RANK.fullmatch(name) and number(value) > 0):
            yield f"{name}={value}"
        elif len(hosts) > 1:
            yield f"{name}={value[:_SHOWN]!r} lists {len(hosts)} hosts"
    if host.get("FLUX_URI"):  # the script of `flux batch`, whose instance has the nodes
        size, _ = command.output(["flux", "getattr", "size"], host.env, timeouts.FLUX_S)
        if number(size) > 1:
            yield f"`flux getattr size` says {size.strip()}, and this is not a task of `flux run`"
    pod, service = kubernetes.pod_name(host)
    if host.get("KUBERNETES_SERVICE_HOST") and service and re.fullmatch(r".+-[1-9][0-9]{0,3}", pod):
        yield f"this pod is called {pod}, as the second or a later one of a StatefulSet"


def _listed(name: str, host: Host) -> list[str]:
    """Return the hosts that a variable lists, or a file that it names."""
    value = host.env[name]
    if name in _FILES:
        return hostlist.unique(hostlist.in_file(value, host) or ())
    pattern = r"[\w.-]+(?=:[0-9])" if name == _DOCUMENT else r"[\w.:-]+"
    return hostlist.unique(re.findall(pattern, value)) if name == _DOCUMENT or _LIST.fullmatch(name) else []
