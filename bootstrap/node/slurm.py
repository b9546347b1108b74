"""The memory that a Slurm job has on this node, where no variable says it and only slurmctld knows.

sbatch exports SLURM_MEM_PER_NODE or SLURM_MEM_PER_CPU to the steps of its job; srun by itself does not, and salloc only
if it was given the option (Slurm 22.05).
"""

import re
import shutil

from bootstrap import timeouts
from bootstrap.host import Host
from bootstrap.process import command

_NODES = re.compile(r"\bNodes=(\S+) CPU_IDs=\S* Mem=([0-9]+)\b")
"""A line of ``scontrol --details show job``: what each of these nodes gave, in MiB. ``show step`` has only the sum."""

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME", "USER")
"""What scontrol gets of our environment beside Slurm's own variables."""


def ask_for_memory(host: Host) -> tuple[int, str]:
    """Ask slurmctld, once, how much memory of this node the job has; return MiB and the source, or 0 and why not.

    It takes some 10 ms, and at most :data:`timeouts.SCONTROL_S`. All nodes of a step may ask at the same time.
    """
    job, path = host.get("SLURM_JOB_ID") or "", host.env.get("PATH", "")
    scontrol = shutil.which("scontrol", path=path)
    if not job.isdecimal() or scontrol is None:
        why = "scontrol is not on PATH" if scontrol is None else f"SLURM_JOB_ID={job!r} is not a number"
        return 0, f"neither SLURM_MEM_PER_NODE nor SLURM_MEM_PER_CPU is set, and {why}"
    env = {name: value for name, value in host.env.items() if name.startswith("SLURM") or name in _ENVIRONMENT}
    said, fault = command.output([scontrol, "--details", "--oneliner", "show", "job", job], env, timeouts.SCONTROL_S)
    source = f"`scontrol --details show job {job}`"
    amounts = _memory_by_nodes(said)
    if not amounts:
        return 0, f"{source}: {fault or 'names no memory'}"
    # A list of several nodes is not read: nodes of one job rarely differ, and less is safe.
    mib = amounts.get(host.get("SLURMD_NODENAME") or "") or min(amounts.values())
    return mib, f"{source}: Mem={mib} MiB"


def _memory_by_nodes(said: str) -> dict[str, int]:
    """Return MiB by the node lists in what scontrol said; none where Slurm does not track memory (Mem=0)."""
    return {nodes: int(mib) for nodes, mib in _NODES.findall(said) if int(mib)}
