"""This node's part in the probes: the ports on which it answers, and on a worker what the head has it probe."""

import asyncio
import os
from types import TracebackType

from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import NodeIdentity
from bootstrap.parsers import host_port
from bootstrap.probe import exchange, messages
from bootstrap.probe.dialer import Prober
from bootstrap.probe.messages import GCS, Outcome, Target
from bootstrap.probe.responder import Responder
from bootstrap.raynode import ports as ray_ports
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.wire import Message
from bootstrap.settings import Settings

_PORTS_TRIED = 8
_FEWEST_WORKER_PORTS = 200
"""Width of the workers' range from which one of its ports may be held for probes."""


class ProbePorts:
    """The ports on which this node answers probes; 0 where it has none."""

    def __init__(self) -> None:
        self.responder = Responder()
        self.probe = self.worker = 0

    @property
    def numbers(self) -> tuple[int, int]:
        """Return both, as the hello has them."""
        return self.probe, self.worker


def bind(settings: Settings, host: Host, identity: NodeIdentity, log: Log) -> ProbePorts:
    """Bind this node's ports for probes, unless it is alone in the run.

    A port that cannot be bound is a warning: the run needs no probes.
    """
    ports = ProbePorts()
    if identity.size == 1:
        return ports
    asked = [settings.probe_port] if settings.probe_port else [0] * _PORTS_TRIED
    try:
        ports.probe = ports.responder.bind(asked)
    except OSError as error:
        which = f"--probe-port={settings.probe_port}" if settings.probe_port else "the probe port"
        why, port = os.strerror(error.errno or 0), settings.probe_port
        look = (
            f"`ss -ltnp sport = :{port}` shows which process has it; another --probe-port, or none"
            if port
            else "`ss -ltn`"
        )
        log.warn(f"{which} cannot be bound ({why}): the other nodes cannot probe this one; fix: {look}")
        return ports
    span = ray_ports.workers(settings, host)
    if len(span) >= _FEWEST_WORKER_PORTS:
        try:
            ports.worker = ports.responder.bind(span[: -1 - _PORTS_TRIED : -1])
        except OSError:
            return ports  # other programs use them: what Ray meets there, it says itself
    return ports


class WorkerProbes:
    """A worker's probes, from its welcome until the head has all results, or to the end of the block."""

    def __init__(self, membership: Membership, ports: ProbePorts, log: Log) -> None:
        self._membership, self._ports, self._log = membership, ports, log
        hello = membership.hello
        self._key = exchange.make_key(membership.secret.value, hello.run, hello.attempt)
        self._prober = Prober(self._key, membership.rank, self._report)
        self._gcs = Prober(self._key, membership.rank, self._report)
        """Apart from the others, which may be waiting for nodes that do not answer."""

    def __enter__(self) -> None:
        """Begin to answer, and to probe whom the head names."""
        self._ports.responder.begin(self._key, self._membership.rank)
        self._membership.on_peers = self._hear
        for message in self._membership.early_peers:
            self._hear(message)
        self._membership.released.add_done_callback(self._dial_gcs)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop probing and answering."""
        self._membership.released.remove_done_callback(self._dial_gcs)
        for prober in (self._prober, self._gcs):
            prober.close()
        self._ports.responder.close()

    def _hear(self, message: Message) -> None:
        targets = messages.parse_peers(message)
        if messages.is_over(message):
            self._prober.close()
            self._ports.responder.close()
        else:
            self._prober.begin(targets)

    def _dial_gcs(self, released: "asyncio.Future[str]") -> None:
        if not released.cancelled():
            host, port = host_port(released.result())
            self._gcs.begin([Target(0, host, GCS, port or 0)])

    def _report(self, outcome: Outcome) -> None:
        if outcome.name == GCS and outcome.error:
            gcs = self._membership.released.result()
            look = "`ip route get` and `nft list ruleset` here, `nft list ruleset` on the head, a NetworkPolicy"
            self._log.warn(f"this node does not reach GCS {gcs}: {outcome.error}; fix: {look}")
        self._membership.report_probe(outcome.message())
