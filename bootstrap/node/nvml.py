"""NVML through pynvml: the machine's devices and their health.

The functions here take a ``library``: the imported pynvml with NVML started, as :func:`session` yields it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bootstrap.errors import PreflightFailed
from bootstrap.model import Gpu

LIBRARY = "libnvidia-ml.so.1"

_HINTS: Mapping[int, str] = {
    4: "give this user read and write access to /dev/nvidiactl and /dev/nvidia*",
    9: "load the driver (modprobe nvidia, nvidia-smi), or start the container with the NVIDIA runtime",
    12: "install the driver's libraries or start the container with the NVIDIA runtime (--gpus, nvidia.com/gpu)",
    15: "drain the node and reset or replace the GPU",
    18: "reboot, or reload the kernel modules: the driver was upgraded under a running kernel module",
}


_NO_GPUS = "--num-gpus=0 says that this node has none"
_SHORT: Mapping[int, str] = {9: f"{_NO_GPUS}; else load the driver (modprobe nvidia)"}
"""Remedies for errors that also a machine without GPUs has, such as a login node with the driver's libraries."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why NVML shows no devices where nothing but the driver's library suggests that there are any."""

    text: str
    remedy: str = ""
    """What to type; empty if nothing is wrong: there is no driver."""


SHOWS_NONE = Trouble("NVML shows no devices", f"{_NO_GPUS}; else see nvidia-smi, and `dmesg | grep -e NVRM -e Xid`")


@dataclass(frozen=True, slots=True)
class Device:
    """One NVML device: a GPU, or the parent of MIG instances."""

    index: int
    uuid: str = ""
    gpus: tuple[Gpu, ...] = ()
    """What Ray can schedule on: the device, or its instances."""
    mig: bool = False
    old_names: Mapping[str, Gpu] = field(default_factory=dict)
    """MIG instances by their names before driver R470: ``MIG-GPU-<uuid>/<gpu instance>/<compute instance>``."""
    fault: str = ""
    """NVML's error text if the device does not answer."""
    foreign: bool = False
    """The device exists but is not ours: NVML has no permission."""


@dataclass(frozen=True, slots=True)
class GpuHealth:
    """NVML's signs that a GPU is failing, or will soon."""

    index: int
    uuid: str
    """Empty for a GPU that does not answer even that."""
    name: str
    fault: str = ""
    """NVML's error text if the GPU does not answer (``GPU is lost``); the other fields then mean nothing."""
    uncorrected_ecc: int | None = None
    """Uncorrectable memory errors since the driver was loaded; None if the GPU does not count them."""
    remap_pending: bool = False
    """A memory row waits for a GPU reset to be remapped."""
    remap_failed: bool = False
    processes: tuple[tuple[int, int], ...] = ()
    """``(pid, bytes)`` of each compute process but this one; 0 bytes if NVML does not report them."""


@contextmanager
def session(reason: str | None) -> Iterator[tuple[Any, Trouble]]:
    """Start NVML and shut it down at the end; yield the library and :data:`SHOWS_NONE`, or None and why not.

    :param reason: why there should be a GPU; None if nothing suggests one.
    :raises PreflightFailed: if NVML fails in the session, or does not start although there is a ``reason``.
    """
    import ctypes  # noqa: PLC0415 (`status` does not need it)

    try:
        # pynvml does the same, but without a driver this costs a tenth of importing it.
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        if reason:
            raise _broken(12, f"NVML Shared Library Not Found ({error})", reason) from None
        yield None, Trouble(f"no driver ({LIBRARY} not found)")
        return
    import pynvml  # noqa: PLC0415 (27 ms)

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if reason:
            raise _broken(error.value, _text(pynvml, error), reason) from None
        yield None, Trouble(f"NVML: {_text(pynvml, error)}", _SHORT.get(error.value) or _remedy(error.value))
        return
    try:
        yield pynvml, SHOWS_NONE
    except pynvml.NVMLError as error:
        raise _broken(error.value, _text(pynvml, error), reason or "NVML started") from None
    finally:
        pynvml.nvmlShutdown()


def _broken(code: int, text: str, reason: str) -> PreflightFailed:
    return PreflightFailed(f"NVML: {text} (code {code}), but {reason}", hint=_remedy(code))


def _remedy(code: int) -> str:
    return f"{_HINTS.get(code, 'run nvidia-smi here; look for Xid lines in dmesg')}; or --num-gpus=0 to use none"


def _text(nvml: Any, error: Any) -> str:
    """Return NVML's own text; pynvml's is older and says `RM` for the driver."""
    try:
        return str(nvml.nvmlErrorString(error.value))
    except nvml.NVMLError:
        return str(error)


def devices(library: Any) -> list[Device]:
    """Return every device that NVML counts, in NVML's order (that of the PCI bus)."""
    found = []
    for index in range(library.nvmlDeviceGetCount()):
        try:
            found.append(_device(library, index))
        except library.NVMLError_NoPermission:
            found.append(Device(index, foreign=True))
        except library.NVMLError as error:
            found.append(Device(index, fault=_text(library, error)))
    return found


def _device(library: Any, index: int) -> Device:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    uuid = library.nvmlDeviceGetUUID(handle)
    mode, _ = _optional(library, (0, 0), library.nvmlDeviceGetMigMode, handle)
    if not mode:
        return Device(index, uuid, (_gpu(library, handle, index, uuid),))
    gpus, old_names = [], {}
    for instance in _instances(library, handle):
        gpu = _gpu(library, instance, index, library.nvmlDeviceGetUUID(instance), mig=True)
        gpus.append(gpu)
        slot = _optional(library, None, library.nvmlDeviceGetGpuInstanceId, instance)
        part = _optional(library, None, library.nvmlDeviceGetComputeInstanceId, instance)
        old_names[f"MIG-{uuid}/{slot}/{part}"] = gpu
    return Device(index, uuid, tuple(gpus), mig=True, old_names=old_names)


def _instances(library: Any, parent: Any) -> Iterator[Any]:
    for slot in range(library.nvmlDeviceGetMaxMigDeviceCount(parent)):
        try:
            yield library.nvmlDeviceGetMigDeviceHandleByIndex(parent, slot)
        except (library.NVMLError_NotFound, library.NVMLError_NoPermission):
            # Slots may have gaps, and a container sees only the instances that it was given.
            continue


def _gpu(library: Any, handle: Any, index: int, uuid: str, *, mig: bool = False) -> Gpu:
    # Devices that share the machine's memory (Jetson, GB10) report none.
    memory = _optional(library, None, library.nvmlDeviceGetMemoryInfo, handle)
    return Gpu(index, uuid, library.nvmlDeviceGetName(handle), memory.total if memory else 0, mig)


def examine(library: Any, gpu: Gpu) -> GpuHealth:
    """Return the health of a GPU; for a MIG instance that of its parent, and the instance's processes."""
    try:
        handle = library.nvmlDeviceGetHandleByUUID(gpu.uuid)
        parent = library.nvmlDeviceGetHandleByIndex(gpu.index) if gpu.mig else handle
        errors = _optional(
            library,
            None,
            library.nvmlDeviceGetTotalEccErrors,
            parent,
            library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            library.NVML_VOLATILE_ECC,
        )
        _, _, pending, failed = _optional(library, (0, 0, 0, 0), library.nvmlDeviceGetRemappedRows, parent)
        running = _optional(library, [], library.nvmlDeviceGetComputeRunningProcesses, handle)
    except library.NVMLError as error:
        return GpuHealth(gpu.index, gpu.uuid, gpu.name, fault=_text(library, error))
    tenants = tuple((p.pid, p.usedGpuMemory or 0) for p in running if p.pid != os.getpid())
    return GpuHealth(gpu.index, gpu.uuid, gpu.name, "", errors, bool(pending), bool(failed), tenants)


def _optional(library: Any, default: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """Return the answer to a query, or ``default`` on devices, drivers and in containers that do not support it."""
    try:
        return ask(*arguments)
    except (
        library.NVMLError_NotSupported,
        library.NVMLError_FunctionNotFound,
        library.NVMLError_NoPermission,
        library.NVMLLibraryMismatchError,
    ):
        return default
