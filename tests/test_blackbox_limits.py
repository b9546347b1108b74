"""The real command below limits with which Ray would hang or crash: it ends at once, and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

SOON = 10.0
"""Seconds, generous: it takes 0.4. Ray took 31 with `ulimit -v 4000000`, and 72 with 500000."""


@pytest.mark.parametrize(
    ("kib", "store", "needed"),
    [
        (4_000_000, "3Gi", "3.8 GiB (ulimit -v); Ray needs at least 4.2 GiB"),
        (500_000, "100Mi", "488.3 MiB"),
        (300_000, "100Mi", "293.0 MiB"),
    ],
)
def test_too_small_an_address_space_is_found_before_ray_starts(site: Site, kib: int, store: str, needed: str) -> None:
    before = ["bash", "-c", f'ulimit -v {kib} && exec "$@"', "-"]
    node = site.run(f"--object-store-memory={store}", "--", "true", before=before)
    assert node.wait(SOON) == 78
    assert f"address-space: the address space of a process is limited to {needed}" in node.err
    assert "fix: `ulimit -v unlimited` before this command" in node.err
    assert node.starts == []


@pytest.mark.parametrize("kib", [50_000, 70_000, 198_000])
def test_an_address_space_too_small_for_the_agent_itself(site: Site, kib: int) -> None:
    node = site.run("--", "true", before=["bash", "-c", f'ulimit -v {kib} && exec "$@"', "-"])
    assert node.wait(SOON) == 78
    assert f"limited to {kib // 1024} MiB (ulimit -v): too little for this agent" in node.err


def test_a_process_that_hangs_while_it_imports_ray_holds_up_no_finding(site: Site) -> None:
    site.patch("import sys, time", "if 'child_main' in ' '.join(sys.orig_argv): time.sleep(600)")
    node = site.run("--object-store-memory=100Mi", "--", "true", before=["prlimit", "--as=500000000", "--"])
    assert node.wait(SOON) == 78
    assert "address-space: " in node.err


def test_a_soft_limit_of_processes_is_raised_and_that_of_addresses_is_not(site: Site) -> None:
    before = ["bash", "-c", 'ulimit -S -u 5000 && ulimit -S -v 20000000 && exec "$@"', "-"]
    node = site.run(
        "--object-store-memory=100Mi", "--", "bash", "-c", "ulimit -S -u; ulimit -H -u; ulimit -v", before=before
    )
    assert node.wait() == 0
    soft, hard, addresses = node.out.split()
    assert soft == hard != "5000"
    assert addresses == "20000000"


def test_kuberays_command_gets_the_raised_limit_too(site: Site) -> None:
    ray = site.folder / "ray"
    ray.write_text("#!/bin/bash\nulimit -S -u; ulimit -H -u\n")
    ray.chmod(0o755)
    env = {"KUBERAY_GEN_RAY_START_CMD": "ray start --head --block", "PATH": f"{site.folder}:/usr/bin:/bin"}
    node = site.run("kuberay", env=env, before=["bash", "-c", 'ulimit -S -u 5000 && exec "$@"', "-"])
    assert node.wait() == 0
    soft, hard = node.out.split()
    assert soft == hard != "5000"


def test_a_name_that_is_too_long_is_found_before_ray_starts(site: Site) -> None:
    site.patch("import socket", "socket.gethostname = lambda: 'a' * 64")
    node = site.run("--", "true")
    assert node.wait(SOON) == 78
    assert f"host-name: the host name '{'a' * 64}' has 64 characters without a dot, and DNS allows 63" in node.err


_OTHER_USER = "65534"
_MAY_READ = "-all,+dac_override"
"""Of root's privileges, so that the files of the tests can be used; with CAP_SYS_RESOURCE there would be no limit."""


@pytest.mark.requires("root", "setpriv")
@pytest.mark.parametrize(("permitted", "status"), [(60, 78), (4000, 0)])
def test_too_few_processes_for_this_user_are_found_before_ray_starts(site: Site, permitted: int, status: int) -> None:
    as_other = [f"--reuid={_OTHER_USER}", "--clear-groups", f"--inh-caps={_MAY_READ}", f"--ambient-caps={_MAY_READ}"]
    before = ["setpriv", *as_other, "prlimit", f"--nproc={permitted}", "--"]
    node = site.run("--object-store-memory=100Mi", "--", "true", before=before)
    assert node.wait(SOON) == status
    assert (f"of {permitted} in use: ulimit -u, for all that uid {_OTHER_USER} runs)" in node.err) == (status == 78)
