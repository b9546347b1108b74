"""The GPUs that this node may use: those that NVML shows and CUDA_VISIBLE_DEVICES allows, MIG instances one by one.

The rules of CUDA_VISIBLE_DEVICES: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
from bootstrap.model import Gpu, Sources
from bootstrap.node import nvml
from bootstrap.node.nvml import Device, GpuHealth, Trouble

VISIBLE = "CUDA_VISIBLE_DEVICES"

_INDEX = re.compile(r"[0-9]{1,9}")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Fa-f][0-9A-Fa-f-]*|MIG-GPU-[0-9A-Fa-f-]+/[0-9]+/[0-9]+")


@dataclass(frozen=True, slots=True)
class GpuReport:
    """The GPUs that NVML shows and CUDA_VISIBLE_DEVICES allows."""

    gpus: tuple[Gpu, ...] = ()
    """The GPUs to use, in the order of CUDA_VISIBLE_DEVICES."""
    total_on_machine: int = 0
    """Devices of the whole machine, MIG instances one by one, broken ones and those of other users included."""
    visibility: str | None = None
    """CUDA_VISIBLE_DEVICES for every process that the agent starts; None leaves the variable as it is."""
    faults: tuple[tuple[int, str], ...] = ()
    """NVML's index and error text of each device that should be ours and does not answer."""
    trouble: Trouble | None = None
    """Why there are no devices, where the driver's library is installed."""
    sources: Sources = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Visible:
    """A parsed CUDA_VISIBLE_DEVICES."""

    entries: tuple[int | str, ...]
    """NVML indices, and possibly abbreviated identifiers that begin with GPU- or MIG-."""
    rejected: str | None = None
    """The entry at which CUDA stops reading, if any."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The devices that CUDA_VISIBLE_DEVICES selects."""

    gpus: tuple[Gpu, ...]
    visibility: str | None
    faults: tuple[tuple[int, str], ...]
    notes: tuple[str, ...]


def find(host: Host, expected: float | None) -> GpuReport:
    """Return the GPUs that this node may use; none without a driver, unless a GPU is expected.

    :param expected: how many this node must have; None or 0 if none is expected.
    :raises PreflightFailed: if NVML is broken although a GPU is expected or visible, or a device is listed twice.
    """
    if hidden := _hidden(host):
        return GpuReport(sources={"gpus": hidden})
    with nvml.session(_reason(host, expected)) as (library, trouble):
        if library is None:
            shown = trouble if trouble.remedy and expected != 0 else None
            return GpuReport(trouble=shown, sources={"gpus": trouble.text})
        devices = nvml.devices(library)
    chosen = select(devices, host.env.get(VISIBLE))
    listed = f"NVML, {VISIBLE}={host.env[VISIBLE]!r}" if VISIBLE in host.env else "NVML"
    notes = (*chosen.notes, *_order_note(host, devices), *(f"GPU {i}: {text}" for i, text in chosen.faults))
    sources = {"gpus": "; ".join((listed, *notes))}
    if chosen.visibility is not None:
        sources["gpu_visibility"] = "UUIDs from NVML" if "-" in chosen.visibility else f"the valid part of {VISIBLE}"
    none = trouble if not devices and expected != 0 else None
    return GpuReport(chosen.gpus, _total(host, devices), chosen.visibility, chosen.faults, none, sources)


def health(host: Host, gpus: Sequence[Gpu]) -> list[GpuHealth]:
    """Return the health of the ``gpus`` that :func:`find` returned, and of those that should be ours but do not answer.

    :raises PreflightFailed: if NVML is broken although there are ``gpus``.
    """
    if _hidden(host):
        return []
    with nvml.session(f"{len(gpus)} GPUs were found" if gpus else None) as (library, _):
        if library is None:
            return []
        states = [nvml.examine(library, gpu) for gpu in gpus]
        faults = select(nvml.devices(library), host.env.get(VISIBLE)).faults
    return states + [GpuHealth(i, "", "", fault=text) for i, text in faults if i not in {gpu.index for gpu in gpus}]


def parse_visible(text: str) -> Visible:
    """Parse CUDA_VISIBLE_DEVICES as CUDA does: up to the first entry that is neither an index nor a UUID.

    An empty value, ``-1`` and Slurm's ``NoDevFiles`` therefore mean no device.
    """
    entries: list[int | str] = []
    for item in text.split(","):
        entry = item.strip()
        if _INDEX.fullmatch(entry):
            entries.append(int(entry))
        elif _UUID.fullmatch(entry):
            entries.append(entry)
        else:
            return Visible(tuple(entries), entry)
    return Visible(tuple(entries))


def select(devices: Sequence[Device], text: str | None) -> Selection:
    """Return the ``devices`` that CUDA_VISIBLE_DEVICES=``text`` (None: unset) selects.

    :raises PreflightFailed: if it lists a device twice; CUDA then shows none at all.
    """
    visible = None if text is None else parse_visible(text)
    chosen: list[Device] = []
    accepted: list[int | str] = []
    rejected = visible.rejected if visible else None
    for entry in visible.entries if visible else [d.index for d in devices if not d.foreign]:
        device = _lookup(devices, entry)
        if device is None:
            rejected = str(entry)
            if isinstance(entry, str):
                # A GPU that does not answer has no known UUID: this entry may name one of them.
                chosen += [d for d in devices if d.fault]
            break
        chosen.append(device)
        accepted.append(entry)
    gpus = tuple(gpu for device in chosen for gpu in device.gpus)
    faults = tuple({d.index: (d.index, d.fault) for d in chosen if d.fault}.values())
    if len({gpu.uuid for gpu in gpus}) < len(gpus):
        raise PreflightFailed(f"{VISIBLE}={text!r} lists a device twice", hint=f"name each device once in {VISIBLE}")
    notes: list[str] = []
    if rejected and rejected != "-1":
        notes.append(f"{VISIBLE} ends at {rejected!r}, which is not a device here")
    notes += [f"GPU {d.index} is in MIG mode but has no instances" for d in chosen if d.mig and not d.gpus]
    whole = {gpu.uuid for gpu in gpus}
    visibility: str | None = None
    if any(d.mig for d in chosen) or faults or any(isinstance(e, str) and e not in whole for e in accepted):
        visibility = ",".join(gpu.uuid for gpu in gpus)
    elif rejected is not None and accepted:
        visibility = ",".join(map(str, accepted))
    return Selection(gpus, visibility, faults, tuple(notes))


def _lookup(devices: Sequence[Device], entry: int | str) -> Device | None:
    """Return the device that an entry names (for a MIG instance its parent, with that instance only); None if none."""
    if isinstance(entry, int):
        found = [d for d in devices if d.index == entry and not d.foreign]
    elif entry.startswith("GPU-"):
        found = [d for d in devices if d.uuid.lower().startswith(entry.lower())]
    else:
        known = ((d, name, gpu) for d in devices if d.mig for name, gpu in _mig_names(d))
        found = [
            Device(d.index, d.uuid, (gpu,), mig=True)
            for d, name, gpu in known
            # An old name ends in numbers: 1/1 must not match 1/12.
            if (name == entry if "/" in entry else name.lower().startswith(entry.lower()))
        ]
    return found[0] if len(found) == 1 else None


def _mig_names(device: Device) -> Iterator[tuple[str, Gpu]]:
    yield from ((gpu.uuid, gpu) for gpu in device.gpus if "/" not in gpu.uuid)
    yield from device.old_names.items()


def _hidden(host: Host) -> str:
    """Return which variable hides all GPUs, whatever NVML shows; empty if none does."""
    listed = host.env.get(VISIBLE)
    if listed is not None and not parse_visible(listed).entries:
        return f"{VISIBLE}={listed!r} shows none"
    runtime = host.env.get("NVIDIA_VISIBLE_DEVICES")
    # With CDI the runtime sets `void` even in containers that have GPUs, so that an older hook does not add all of them
    # (https://github.com/NVIDIA/nvidia-container-toolkit/pull/395): it means no GPU only without a device file.
    if runtime == "none" or (runtime == "void" and not _device_files(host)):
        return f"NVIDIA_VISIBLE_DEVICES={runtime}"
    return ""


def _device_files(host: Host) -> list[str]:
    return sorted(f"/dev/{path.name}" for path in host.path("/dev").glob("nvidia[0-9]*"))


def _reason(host: Host, expected: float | None) -> str | None:
    """Return why there should be a GPU; None without a sign of one."""
    if expected:
        return f"{expected:g} GPUs are expected"
    if host.env.get(VISIBLE):
        return f"{VISIBLE}={host.env[VISIBLE]!r}"
    files = _device_files(host)
    # A privileged container without driver libraries sees every device file; `void` means that it was given none.
    return f"{files[0]} exists" if files and host.env.get("NVIDIA_VISIBLE_DEVICES") != "void" else None


def _total(host: Host, devices: Sequence[Device]) -> int:
    """Count the machine's devices; the driver also lists those that a device cgroup hides from NVML."""
    try:
        listed = len(list(host.path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        listed = 0
    shown = sum(len(d.gpus) if d.mig else 1 for d in devices)
    return shown + max(0, listed - len(devices))


def _order_note(host: Host, devices: Sequence[Device]) -> Iterator[str]:
    """Yield a warning if CUDA may number the GPUs in another order than NVML."""
    indexed = any(isinstance(entry, int) for entry in parse_visible(host.env.get(VISIBLE, "")).entries)
    models = {gpu.name for device in devices for gpu in device.gpus if not device.mig}
    if indexed and len(models) > 1 and host.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        yield "GPUs differ: without CUDA_DEVICE_ORDER=PCI_BUS_ID the indices follow CUDA (fastest first), not NVML"
