"""A platform of verl's for machines without GPUs; verl loads it by VERL_USE_EXTERNAL_MODULES=cpu_platform.

Ray hands out the logical GPUs of `ray-bootstrap --num-gpus=1`; the tensors are on the CPU, and Gloo takes NCCL's place.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.plugin.platform.platform_cuda import PlatformCUDA
from verl.plugin.platform.platform_manager import PlatformRegistry

for name in ("max_memory_allocated", "max_memory_reserved", "empty_cache"):
    setattr(torch.cpu, name, lambda: 0)  # what verl asks of every device after a step


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformCUDA):
    device_name = "cpu"
    device_module = torch.cpu

    def is_available(self) -> bool:
        return True

    def communication_backend_name(self) -> str:
        return "gloo"

    def current_device(self) -> str:  # type: ignore[override]
        return "cpu"

    def device_count(self) -> int:
        return 1

    def nothing(self, *_: object) -> None:
        """What only a GPU needs."""

    set_device = synchronize = empty_cache = manual_seed = manual_seed_all = nothing


def _init_process_group(backend: str, *args: Any, **options: Any) -> None:
    """Name Gloo once: verl names a backend for CPUs and one for the platform's device, which is the CPU, too."""
    _original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **options)


_original = torch.distributed.init_process_group
torch.distributed.init_process_group = _init_process_group
