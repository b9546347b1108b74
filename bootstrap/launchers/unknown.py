"""A platform without a row: what its variables say of nodes, so that none of several takes itself for the only one."""

import re
from collections.abc import Iterator

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import hostlist, kubernetes

_COUNT = re.compile(
    r"(?:.*_)?(?:NNODES|NUM_?NODES|NODE_?COUNT|NODES_NUM|NUM_HOSTS|NHOSTS)|PMI_SIZE|MV2_COMM_WORLD_SIZE|MLP_WORKER_NUM"
    r"|BEAKER_REPLICA_COUNT|LEPTON_JOB_TOTAL_WORKERS|VC_.*_NUM|PALS_.*SIZE|JSM_NAMESPACE_SIZE|(?:GROUP_)?WORLD_SIZE"
)
"""Names of variables with a number of nodes, or of processes that some launcher spreads over nodes."""
_LISTS = ("TPU_WORKER_HOSTNAMES", "VC_.*_HOSTS", "SKYPILOT_NODE_IPS", "DSTACK_NODES_IPS", "SM_HOSTS", "LSB_HOSTS")
_LIST = re.compile("|".join(_LISTS))
"""Names of variables with a list of nodes."""
_DOCUMENT = "TF_CONFIG"
"""TensorFlow's, with ``host:port`` for each task: of Kubeflow's TFJob, and of Vertex AI."""
_FILES = ("PBS_NODEFILE", "PE_HOSTFILE", "OAR_NODEFILE", "LSB_DJOB_HOSTFILE")
"""Variables with the path of such a list."""
_PREFIXES = re.compile(
    "(SLURM|PBS|PALS|LSB|JSM|FLUX|OAR|PE|SGE|PMI|PMIX|OMPI|MV2|VC|VK|MA|DSTACK|MLP|BEAKER|LEPTON|SM|AZ_BATCH|AZ_BATCHAI"
    "|AZUREML|AWS_BATCH|SKYPILOT|DET|TPU|MEGASCALE|NOMAD|MODAL|PET|LWS|JOBSET|K_MPI|CLOUD_ML)_"
)
_TELLING = re.compile(
    r".*(?:RANK|SIZE|INDEX|COUNT|NUM|NNODES|NODES|NODEID|NHOSTS|HOSTS|HOSTNAMES|NODELIST|NODEFILE|HOSTFILE|WORKER_ID)(?:_.*)?"
)
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
    variables, in_pod = ", ".join(seen(host)), host.get("KUBERNETES_SERVICE_HOST")
    if not variables and not in_pod:
        return ""
    what = f"no launcher matches {variables}" if variables else "no JOB_COMPLETION_INDEX or the like in this pod"
    return f"{what}: this {'pod' if in_pod else 'machine'} counts as the only node; for several: {_BY_HAND}"


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
    return bool(_COUNT.fullmatch(name) or (_PREFIXES.match(name) and _TELLING.fullmatch(name)))


def _counts(host: Host) -> Iterator[str]:
    """Yield what says that there is more than one node."""
    for name in sorted(filter(host.get, host.env)):
        value = host.env[name]
        if _COUNT.fullmatch(name) and value.strip().isdecimal() and int(value) > 1:
            yield f"{name}={value}"
        elif _LIST.fullmatch(name) and len(hosts := hostlist.unique(re.findall(r"[\w.:-]+", value))) > 1:
            yield f"{name}={value[:_SHOWN]!r} lists {len(hosts)} hosts"
        elif name == _DOCUMENT and len(hosts := hostlist.unique(re.findall(r"[\w.-]+(?=:[0-9])", value))) > 1:
            yield f"{name} lists {len(hosts)} hosts"
        elif name in _FILES and len(hosts := hostlist.unique(hostlist.in_file(value, host) or ())) > 1:
            yield f"{name}={value} lists {len(hosts)} hosts"
    pod, service = kubernetes.pod_name(host)
    if host.get("KUBERNETES_SERVICE_HOST") and service and re.fullmatch(r".+-[1-9][0-9]{0,3}", pod):
        yield f"this pod is called {pod}, as the second or a later one of a StatefulSet"
