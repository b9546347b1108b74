"""A stand-in for NVIDIA's library, below the real pynvml: ``nvml_stub.c`` compiled, where the linker finds it first."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml_stub.c")


def compiler() -> str | None:
    """The C compiler of this machine."""
    return shutil.which("cc") or shutil.which("gcc")


@functools.cache
def library_folder() -> Path:
    """The folder that holds the stub as ``libnvidia-ml.so.1``; compiled once, given away at the process's end."""
    keeper = tempfile.TemporaryDirectory(prefix="nvml-stub-")
    _KEPT.append(keeper)
    folder = Path(keeper.name)
    command = [compiler() or "cc", "-shared", "-fPIC", "-Wall", "-Werror", "-O1", "-o", folder / "libnvidia-ml.so.1"]
    subprocess.run([*command, SOURCE], check=True, timeout=60)
    return folder


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def environment(description: str, folder: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which NVML says what ``description`` (the stub's language) does; ``folder`` keeps the text."""
    text = folder / "nvml.txt"
    text.write_text(description)
    path = os.pathsep.join(filter(None, (str(library_folder()), (env or os.environ).get("LD_LIBRARY_PATH"))))
    return {**(os.environ if env is None else env), "LD_LIBRARY_PATH": path, "NVML_STUB": str(text)}


def gpus(count: int, name: str = "NVIDIA A100-SXM4-80GB", memory: int = 80 << 30) -> str:
    """A description of ``count`` whole GPUs, ``GPU-00000000-…`` to ``GPU-0000000n-…``."""
    return "".join(f"gpu {uuid(i)} {memory} {name}\n" for i in range(count))


def uuid(index: int) -> str:
    """The UUID that :func:`gpus` gives the GPU ``index``."""
    return f"GPU-{index:08x}-1111-2222-3333-444444444444"


def mig_uuid(index: int) -> str:
    """A MIG instance's UUID."""
    return f"MIG-{index:08x}-5555-6666-7777-888888888888"
