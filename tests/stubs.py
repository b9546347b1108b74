"""C code in the place of what hangs for ever on a broken machine: NVML, a name server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents import Site

NVML_THAT_HANGS = """
#include <stdio.h>
#include <unistd.h>
int nvmlInitWithFlags(unsigned flags) { fprintf(stderr, "NVML hangs\\n"); for (;;) pause(); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
"""

RESOLVER_THAT_HANGS = """
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    if (name && strcmp(name, "head.example") == 0) { fprintf(stderr, "the resolver hangs\\n"); for (;;) pause(); }
    return EAI_NONAME;
}
"""


def compiled(folder: Path, code: str, name: str) -> Path:
    """Return the shared library of this name that is made of ``code``."""
    (folder / "stub.c").write_text("#define _GNU_SOURCE\n" + code)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / name, folder / "stub.c"], check=True, timeout=60)
    return folder / name


def preloaded(site: Site, code: str) -> dict[str, str]:
    """Return the environment of a program whose C library is changed in this way."""
    return {"LD_PRELOAD": str(compiled(site.folder, code, "stub.so"))}


def nvml_that_hangs(site: Site) -> dict[str, str]:
    """Return the environment of a program that finds an NVML which never answers."""
    compiled(site.folder, NVML_THAT_HANGS, "libnvidia-ml.so.1")
    return {"LD_LIBRARY_PATH": str(site.folder)}
