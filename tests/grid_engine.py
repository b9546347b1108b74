"""A real Grid Engine on the hosts of :mod:`hosts`: sge_execd on each but the last, which has sge_qmaster and submits.

All of it lives in the hosts and in one folder of the tests: its own SGE_ROOT and cell with a classic spool, which all
hosts see, and each execd's spool on its host's own /run. The cell that Debian's packages make is not touched.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hosts import Host, Hosts, make_hosts, wait_for
from slurm_cluster import open_to_all

SECONDS = 30.0
"""For anything that a test waits for."""
PROGRAMS = "/usr/lib/gridengine"
"""Debian's, without the wrappers of /usr/bin, whose only work is to set SGE_ROOT."""
_USER = 1234
"""Who submits. Of root's jobs Grid Engine signals the process group alone, of others' every process of the job."""
_ADD_USER = """
{ cat /etc/passwd; echo "somebody:x:$0:1::/tmp/home:/bin/sh"; } >/run/passwd
mount --bind /run/passwd /etc/passwd
chown "$0" /tmp/home
"""
"""qrsh starts tasks with the user's login shell."""
_PYTHON = {str(Path(__file__).parent.parent), sys.prefix, sys.base_prefix, *filter(None, sys.path)}

_BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {cell}/common;{cell}/spool
binary_path {programs}
qmaster_spool_dir {cell}/spool
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
_PREPARE = """
set -e
"$0/spoolinit" classic libspoolc "$1/common;$1/spool" init
"$0/spooldefaults" configuration "$1/configuration"
"$0/spooldefaults" complexes /usr/share/gridengine/util/resources/centry
"$0/spooldefaults" usersets /usr/share/gridengine/util/resources/usersets
"$0/spooldefaults" managers root
"""
_CONFIGURATION = {
    "execd_spool_dir": "/run/sge",
    "mailer": "/bin/true",
    "min_gid": "0",
    "login_shells": "none",
    "reporting_params": "accounting=true reporting=false accounting_flush_time=0",
}
"""What differs from Debian's default: each host spools for itself; jobs do not read this machine's /etc/profile, which
may set another PATH; the accounting file is written at once."""
_SCHEDULER = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
"""A second is the shortest."""
_QUEUE = {
    "qname": "all.q",
    "hostlist": "@allhosts",
    "slots": "4",
    "load_thresholds": "NONE",
    "pe_list": "ray",
    "notify": "00:00:20",
}
"""A loaded machine takes jobs, too. ``notify``: from the signal that qsub's -notify asks for to SIGKILL."""
_PE = {"pe_name": "ray", "allocation_rule": "1"}
"""What differs from Debian's example for MPI, with control_slaves and job_is_first_task."""


@dataclass(repr=False)
class GridEngine:
    """A Grid Engine that is up."""

    hosts: Hosts
    folder: Path
    """Seen by all hosts at this very path; the jobs run in ``folder/jobs``."""
    before: dict[str, tuple[frozenset[int], frozenset[int]]] = field(default_factory=dict)
    """What runs and listens on each host without any job."""

    def __repr__(self) -> str:
        return f"<Grid Engine on {len(self.hosts)} hosts>"

    @property
    def nodes(self) -> list[Host]:
        """Those with an execd."""
        return list(self.hosts)[:-1]

    @property
    def master(self) -> Host:
        """The one with qmaster, where jobs are submitted."""
        host: Host = self.hosts[-1]
        return host

    @property
    def env(self) -> dict[str, str]:
        """With it Grid Engine's programs find their cell."""
        return {
            "SGE_ROOT": f"{self.folder}/root",
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": "6444",
            "SGE_EXECD_PORT": "6445",
        }

    def run(self, *argv: str, check: bool = True) -> str:
        """One of Grid Engine's commands, on the master; its standard output."""
        return self.master.run(argv, env=self.env, check=check).stdout

    def change(self, option: str, text: str, new: Mapping[str, str]) -> None:
        """``qconf`` with this option and a file: the text of an object, with these of its values changed."""
        file = self.folder / f"{option.lstrip('-')}.txt"
        file.write_text(_changed(text, new))
        self.run("qconf", option, str(file))

    def submit(self, *argv: str) -> str:
        """``qsub`` with these words; the job's number."""
        user = ["setpriv", f"--reuid={_USER}", "--regid=1", "--clear-groups", "--"]
        return self.run(*user, "qsub", "-terse", "-wd", f"{self.folder}/jobs", *argv).strip()

    def output(self, number: str) -> str:
        """What the job has written so far, with ``-j y``."""
        files = list((self.folder / "jobs").glob(f"*.o{number}"))
        return files[0].read_text(errors="replace") if files else ""

    def prints(self, number: str, text: str) -> None:
        """Wait until the job has written ``text``."""
        try:
            wait_for(lambda: text in self.output(number), timeout=SECONDS)
        except TimeoutError:
            raise AssertionError(f"no {text!r} of job {number}:\n{self.output(number)}") from None

    def wait(self, number: str) -> int:
        """The exit status of the job's script, as soon as Grid Engine has accounted for it and forgotten the job."""
        try:
            wait_for(lambda: not self.run("qstat", "-u", "*"), timeout=SECONDS)
        except TimeoutError:
            raise AssertionError(f"job {number} has not ended:\n{self.output(number)}") from None
        return next(status for job, task, status in self._accounted() if (job, task) == (number, "NONE"))

    def _accounted(self) -> Iterator[tuple[str, str, int]]:
        """(job, task of qrsh or NONE, exit status) of what has ended: fields 6, 42 and 13 of sge_accounting(5)."""
        for line in (self.folder / "root/default/common/accounting").read_text().splitlines():
            if not line.startswith("#"):
                fields = line.split(":")
                yield fields[5], fields[41], int(fields[12])

    def nothing_left(self) -> None:
        """No process, port or file of a job on any host, but Ray's logs and how it ended."""
        wait_for(lambda: not any(map(self._more, self.hosts)), SECONDS, "the end of what the jobs have started")
        kept = re.compile(r"/tmp/ray-bootstrap\.[^/]*/(ray/session_[^/]*(/logs/.*)?|result\.json)|/tmp/home.*")
        for host in self.hosts:
            files = host.run(["find", "/dev/shm", "/tmp", "-xdev", "-not", "-type", "d"]).stdout.split()
            left = [name for name in files if not kept.fullmatch(name)]
            assert not left, f"{host.name}: {left}"

    def _more(self, host: Host) -> list[object]:
        """The processes and ports of jobs on this host."""
        pids, ports = self.before[host.name]
        return [*(p for p in host.leftovers() if p.pid not in pids), *(host.sockets() - ports)]


@contextlib.contextmanager
def grid_engine_on_hosts(base: Path, nodes: int = 2) -> Iterator[GridEngine]:
    """Starts the hosts and a Grid Engine on them, which see this repository and Python; ends with everything gone."""
    folder = base / "sge"
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs").chmod(0o1777)
    base.chmod(0o755)
    visible = [*_PYTHON, str(base)]
    with make_hosts(nodes + 1, base=base / "hosts", visible=visible) as hosts:
        lines = ["127.0.0.1 localhost", *(f"{host.ip} {host.name}" for host in hosts), ""]
        for host in hosts:
            # In place: a bind mount shows the file, not the name.
            (host.base / "hosts").write_text("\n".join(lines))
            host.run(["sh", "-ec", _ADD_USER, str(_USER)])
            open_to_all(host, visible)
        site = GridEngine(hosts, folder)
        _start(site)
        yield site


def _start(site: GridEngine) -> None:
    cell = site.folder / "root" / "default"
    for name in ("common", "spool"):
        (cell / name).mkdir(parents=True)
    for name in ("util", "bin", "lib", "utilbin"):
        (site.folder / "root" / name).symlink_to(f"/var/lib/gridengine/{name}")
    (cell / "common" / "act_qmaster").write_text(f"{site.master.name}\n")
    (cell / "common" / "bootstrap").write_text(_BOOTSTRAP.format(cell=cell, programs=PROGRAMS))
    default = Path("/usr/share/gridengine/default-configuration").read_text()
    (cell / "configuration").write_text(_changed(default, _CONFIGURATION))
    site.run("sh", "-c", _PREPARE, PROGRAMS, str(cell))
    site.master.popen([f"{PROGRAMS}/sge_qmaster"], env={**site.env, "SGE_ND": "1"})
    wait_for(lambda: site.run("qconf", "-sconf", check=False), SECONDS, "an answer of qmaster")
    site.change("-Msconf", site.run("qconf", "-ssconf"), _SCHEDULER)
    names = [host.name for host in site.nodes]
    site.run("qconf", "-ah", ",".join(names))
    site.run("qconf", "-as", ",".join([*names, site.master.name]))
    site.change("-Ahgrp", "group_name\nhostlist\n", {"group_name": "@allhosts", "hostlist": " ".join(names)})
    site.change("-Ap", Path("/usr/share/gridengine/util/resources/pe/mpi").read_text(), _PE)
    site.change("-Aq", site.run("qconf", "-sq"), _QUEUE)
    for host in site.nodes:
        host.run(["mkdir", "-p", "/run/sge"])
        host.popen([f"{PROGRAMS}/sge_execd"], env={**site.env, "SGE_ND": "1"})
    ready = re.compile(r"^node-\d+ +lx-", re.MULTILINE)
    wait_for(lambda: len(ready.findall(site.run("qhost"))) == len(names), SECONDS, "execd on all nodes")
    for host in site.hosts:
        site.before[host.name] = (frozenset(p.pid for p in host.leftovers()), host.sockets())


def _changed(text: str, new: Mapping[str, str]) -> str:
    """The lines of a configuration, each a name and a value, with these values."""
    lines = text.splitlines()
    names = [line.partition(" ")[0] for line in lines]
    return "".join(
        f"{name} {new[name]}\n" if name in new else f"{line}\n" for name, line in zip(names, lines, strict=True)
    )
