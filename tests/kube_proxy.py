"""What kube-proxy's iptables mode does for one ClusterIP Service, with nft(8) in a host's own network namespace.

On a real node the rules stand in the machine's namespace and see a pod's packets in PREROUTING; here they see them in
OUTPUT, before they leave. A program sees no difference: without an endpoint connect(2) is refused at once (``-j
REJECT`` in the chain KUBE-SERVICES, pkg/proxy/iptables/proxier.go); with one the connection goes to the pod, which sees
its peer's own address, as nothing is masqueraded between pods.
"""

from __future__ import annotations

from collections.abc import Sequence

from hosts import Host


def program(hosts: Sequence[Host], address: str, port: int, to: tuple[str, int] | None) -> None:
    """Leads what these hosts connect to at ``address:port`` to an endpoint; refuses it without one."""
    theirs = f"ip daddr {address} tcp dport {port}"
    chain, verdict = ("none", "reject with icmp type port-unreachable")
    if to is not None:
        chain, verdict = ("services", f"dnat to {to[0]}:{to[1]}")
    table = f"ip service-{address.replace('.', '-')}-{port}"
    rules = f"""
        table {table} {{
            chain services {{ type nat hook output priority -100; }}
            chain none {{ type filter hook output priority 0; }}
        }}
        flush table {table}
        add rule {table} {chain} {theirs} {verdict}
    """
    for host in hosts:
        host.run(["nft", rules])
