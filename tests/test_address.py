"""Which address is this node's."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.net import Interface
from bootstrap.node.address import node_address
from bootstrap.node.interfaces import Pattern
from bootstrap.settings import Settings

LO = Interface("lo", True, ("127.0.0.1", "::1"))
ETH0 = Interface("eth0", True, ("10.0.0.5", "fe80::1", "2001:db8:1::5"))
ETH1 = Interface("eth1", True, ("10.1.0.5",))
IB0 = Interface("ib0", True, ("fe80::2", "192.168.7.5"))
DOWN = Interface("eno9", False, ("10.9.0.5",))
DOCKER = Interface("docker0", True, ("172.17.0.1",))
BRIDGE = Interface("br-12ab", True, ("172.18.0.1",))
V6 = Interface("eth0", True, ("fe80::1", "2001:db8:1::5"))
TABLE = (LO, DOCKER, DOWN, ETH0, ETH1, IB0, BRIDGE)


def matches(pattern: str, name: str) -> bool:
    """Whether a variable with this pattern selects an interface of this name."""
    return bool(Pattern.parse(pattern, networks=False).narrow(Interface(name, True, ("10.0.0.5",))).addresses)


def routes(towards: Mapping[str, str] | None = None, default: str | None = None) -> Callable[[str], str | None]:
    """A kernel that knows these routes; 192.0.2.1 and 2001:db8::1 stand for the default one."""

    def route(target: str) -> str | None:
        if target in ("192.0.2.1", "2001:db8::1"):
            return default if default and (":" in default) == (":" in target) else None
        return (towards or {}).get(target)

    return route


def address(
    *,
    table: tuple[Interface, ...] = TABLE,
    towards: str | None = None,
    route: Callable[[str], str | None] | None = None,
    lookup: Mapping[str, list[str]] | None = None,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[str, str | None, str]:
    found = node_address(
        Settings(**options),
        Host(env=env or {}, hostname="node1"),
        towards,
        table=table,
        route=route or routes(),
        lookup=lambda name: (lookup or {}).get(name, []),
    )
    assert found.hostname == "node1"
    return found.ip, found.interface, found.sources["ip"]


HEAD = {"10.1.0.1": "10.1.0.5", "127.0.1.1": "127.0.0.1", "2001:db8:9::1": "2001:db8:1::5", "172.17.0.9": "172.17.0.1"}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"node_ip": "10.1.0.5", "env": {"POD_IP": "10.0.0.5"}}, ("10.1.0.5", "eth1", "--node-ip")),
        (
            {"node_ip": "203.0.113.4"},
            ("203.0.113.4", None, "--node-ip (on no interface of this machine: NAT?)"),
        ),
        ({"env": {"POD_IP": "10.0.0.5"}, "interface": "ib0"}, ("10.0.0.5", "eth0", "POD_IP")),
        ({"env": {"POD_IP": ""}, "interface": "ib0"}, ("192.168.7.5", "ib0", "--interface=ib0 (ib0)")),
        ({"env": {"POD_IP": "2001:DB8:1:0::5"}}, ("2001:db8:1::5", "eth0", "POD_IP")),
        (
            {"env": {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "eth1"}},
            ("192.168.7.5", "ib0", "NCCL_SOCKET_IFNAME=ib0 (ib0)"),
        ),
        ({"env": {"NCCL_SOCKET_IFNAME": "ib"}, "interface": "=eth1"}, ("10.1.0.5", "eth1", "--interface==eth1 (eth1)")),
        ({"env": {"GLOO_SOCKET_IFNAME": "eth1"}}, ("10.1.0.5", "eth1", "GLOO_SOCKET_IFNAME==eth1 (eth1)")),
        # A pattern that admits several: the route decides among them.
        (
            {"interface": "eth", "towards": "10.1.0.1", "route": routes(HEAD, "10.0.0.5")},
            ("10.1.0.5", "eth1", "the route to the head (10.1.0.1) (among those that --interface=eth selects)"),
        ),
        (
            {"interface": "ib", "towards": "10.1.0.1", "route": routes(HEAD)},
            ("192.168.7.5", "ib0", "--interface=ib (ib0)"),
        ),
        (
            {"interface": "^eth0,lo,docker", "route": routes(default="10.0.0.5")},
            ("10.1.0.5", "eth1", "--interface=^eth0,lo,docker (eth1)"),
        ),
        # An exclusion names nothing, so bridges stay what they are; a name means what it names.
        (
            {"interface": "^eth,ib,lo"},
            (
                "172.17.0.1",
                "docker0",
                "--interface=^eth,ib,lo (docker0): a bridge, as no other interface has an address",
            ),
        ),
        ({"interface": "docker0"}, ("172.17.0.1", "docker0", "--interface=docker0 (docker0)")),
        ({"interface": "lo"}, ("127.0.0.1", "lo", "loopback, as no interface that is up has another address")),
        # Networks: of an interface with several addresses the one inside; a bridge only for want of anything else.
        ({"interface": "10.1.0.0/16"}, ("10.1.0.5", "eth1", "--interface=10.1.0.0/16 (eth1)")),
        ({"interface": "10.1.200.9/16"}, ("10.1.0.5", "eth1", "--interface=10.1.200.9/16 (eth1)")),
        ({"interface": "2001:db8:1::/48"}, ("2001:db8:1::5", "eth0", "--interface=2001:db8:1::/48 (eth0)")),
        ({"interface": "ib9, 10.1.0.0/24"}, ("10.1.0.5", "eth1", "--interface=ib9, 10.1.0.0/24 (eth1)")),
        ({"interface": "ib,10.1.0.0/24"}, ("10.1.0.5", "eth1", "--interface=ib,10.1.0.0/24 (eth1)")),
        ({"interface": "=eth1,172.17.0.0/16"}, ("10.1.0.5", "eth1", "--interface==eth1,172.17.0.0/16 (eth1)")),
        ({"interface": "^10.0.0.0/8"}, ("192.168.7.5", "ib0", "--interface=^10.0.0.0/8 (ib0)")),
        (
            {"interface": "^=ib0,10.0.0.0/8", "table": (LO, ETH0, IB0, ETH1)},
            ("2001:db8:1::5", "eth0", "--interface=^=ib0,10.0.0.0/8 (eth0)"),
        ),
        (
            {"interface": "172.16.0.0/12", "route": routes(default="10.0.0.5")},
            (
                "172.17.0.1",
                "docker0",
                "--interface=172.16.0.0/12 (docker0): a bridge, as no other interface has an address",
            ),
        ),
        (
            {"interface": "10.0.0.0/8", "towards": "10.1.0.1", "route": routes(HEAD, "10.0.0.5")},
            ("10.1.0.5", "eth1", "the route to the head (10.1.0.1) (among those that --interface=10.0.0.0/8 selects)"),
        ),
        # Routes.
        (
            {"towards": "10.1.0.1", "route": routes(HEAD, "10.0.0.5")},
            ("10.1.0.5", "eth1", "the route to the head (10.1.0.1)"),
        ),
        (
            {"towards": "head", "lookup": {"head": ["2001:db8:9::1", "10.1.0.1"]}, "route": routes(HEAD)},
            ("10.1.0.5", "eth1", "the route to the head (head)"),
        ),
        (
            {"towards": "head", "lookup": {"head": ["2001:db8:9::1"]}, "route": routes(HEAD, "10.0.0.5")},
            ("2001:db8:1::5", "eth0", "the route to the head (head)"),
        ),
        # The head's own name on Debian: the way to itself is loopback and says nothing.
        (
            {"towards": "head", "lookup": {"head": ["127.0.1.1"]}, "route": routes(HEAD, "10.1.0.5")},
            ("10.1.0.5", "eth1", "the default route"),
        ),
        ({"towards": "unknown", "route": routes(HEAD, "10.1.0.5")}, ("10.1.0.5", "eth1", "the default route")),
        ({"towards": "172.17.0.9", "route": routes(HEAD, "10.1.0.5")}, ("10.1.0.5", "eth1", "the default route")),
        ({"route": routes(default="172.18.0.1")}, ("10.0.0.5", "eth0", "the first interface that is up (eth0)")),
        # Nothing says anything.
        ({}, ("10.0.0.5", "eth0", "the first interface that is up (eth0)")),
        ({"table": (LO, V6)}, ("2001:db8:1::5", "eth0", "the first interface that is up (eth0)")),
        ({"table": (LO, V6, ETH1)}, ("10.1.0.5", "eth1", "the first interface that is up (eth1)")),
        (
            {"table": (LO, DOWN, DOCKER)},
            (
                "172.17.0.1",
                "docker0",
                "the first interface that is up (docker0): a bridge, as no other interface has an address",
            ),
        ),
        ({"table": (LO, DOWN)}, ("127.0.0.1", "lo", "loopback, as no interface that is up has another address")),
        (
            {"table": (LO, Interface("eth0", True, ("169.254.3.4", "fe80::9")))},
            ("127.0.0.1", "lo", "loopback, as no interface that is up has another address"),
        ),
        ({"table": ()}, ("127.0.0.1", None, "loopback, as no interface that is up has another address")),
    ],
)
def test_node_address(given_: dict[str, Any], expected: tuple[str, str | None, str]) -> None:
    assert address(**given_) == expected


@pytest.mark.parametrize(
    ("given_", "quoted"),
    [
        ({"interface": "enp"}, "--interface='enp'"),
        ({"interface": "eno9"}, "--interface='eno9'"),
        ({"interface": "10.9.0.0/16"}, "--interface='10.9.0.0/16'"),
        ({"env": {"NCCL_SOCKET_IFNAME": "10.1.0.0/16"}}, "NCCL_SOCKET_IFNAME='10.1.0.0/16'"),
        ({"env": {"NCCL_SOCKET_IFNAME": "=eth"}}, "NCCL_SOCKET_IFNAME='=eth'"),
        ({"env": {"GLOO_SOCKET_IFNAME": "eth"}}, "GLOO_SOCKET_IFNAME='=eth'"),
        ({"env": {"NCCL_SOCKET_IFNAME": "^e,i,l,d,b"}}, "NCCL_SOCKET_IFNAME='^e,i,l,d,b'"),
    ],
)
def test_a_pattern_that_admits_nothing(given_: dict[str, Any], quoted: str) -> None:
    with pytest.raises(IdentityError) as caught:
        address(**given_)
    assert quoted in caught.value.message
    assert "eno9 (10.9.0.5, down); eth0 (10.0.0.5, fe80::1, 2001:db8:1::5); eth1 (10.1.0.5)" in caught.value.message
    assert "--node-ip=ADDRESS" in caught.value.hint


def test_a_pod_ip_that_is_none() -> None:
    with pytest.raises(IdentityError, match=re.escape("POD_IP='$(POD_IP)' is not an IP address")) as caught:
        address(env={"POD_IP": "$(POD_IP)"})
    assert "status.podIP" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "admitted"),
    [
        ("eth", {"eth0", "eth1", "eth10"}),
        ("eth1", {"eth1", "eth10"}),
        ("=eth1", {"eth1"}),
        ("=eth1,ib0", {"eth1", "ib0"}),
        ("=eth1,=ib0", {"eth1", "ib0"}),
        ("eth1,ib", {"eth1", "eth10", "ib0"}),
        (" eth0 , ib0 ", {"eth0", "ib0"}),
        ("^lo,docker", {"eth0", "eth1", "eth10", "ib0"}),
        ("^=eth1", {"lo", "docker0", "eth0", "eth10", "ib0"}),
        ("^=eth1,docker", {"lo", "docker0", "eth0", "eth10", "ib0"}),
        ("eth0,", {"eth0"}),
        ("^", {"lo", "docker0", "eth0", "eth1", "eth10", "ib0"}),
    ],
)
def test_patterns(pattern: str, admitted: set[str]) -> None:
    there = ("lo", "docker0", "eth0", "eth1", "eth10", "ib0")
    assert {name for name in there if matches(pattern, name)} == admitted


interface_names = st.text("abe0123.-", min_size=1, max_size=6)


@given(st.lists(interface_names, min_size=1, max_size=4), interface_names)
def test_a_pattern_and_its_exclusion_part_the_interfaces(items: list[str], name: str) -> None:
    pattern = ",".join(items)
    assert matches(pattern, name) is any(name.startswith(item) for item in items)
    assert matches(f"={pattern}", name) is (name in items)
    assert matches(f"^{pattern}", name) is not matches(pattern, name)
    assert matches(f"^={pattern}", name) is not matches(f"={pattern}", name)


@given(st.text(), st.text(min_size=1))
def test_any_pattern_is_read(pattern: str, name: str) -> None:
    assert matches(pattern, name) in {True, False}


addresses = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.sampled_from(["127.0.0.1", "::1", "10.0.0.5"])
)
tables = st.lists(
    st.builds(
        Interface,
        st.sampled_from(["lo", "eth0", "docker0", "veth12", "ib0"]),
        st.booleans(),
        st.tuples() | st.tuples(addresses),
    ),
    max_size=5,
    unique_by=lambda interface: interface.name,
).map(tuple)


@given(tables)
def test_loopback_and_bridges_only_if_there_is_nothing_else(table: tuple[Interface, ...]) -> None:
    ip, _, _ = address(table=table)
    outward = [
        (i.name, ipaddress.ip_address(a))
        for i in table
        if i.up
        for a in i.addresses
        if _reachable(ipaddress.ip_address(a))
    ]
    chosen = ipaddress.ip_address(ip)
    if not outward:
        assert chosen.is_loopback
        return
    better = [a for name, a in outward if not name.startswith(("docker", "veth"))] or [a for _, a in outward]
    assert chosen in better
    assert chosen.version == 4 or all(a.version == 6 for a in better)


def _reachable(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


def test_this_machine() -> None:
    table = net.interfaces()
    assert any("127.0.0.1" in interface.addresses for interface in table)
    assert "127.0.0.1" in net.own_addresses()
    assert net.own_addresses() == net.own_addresses(table)
    assert not any("%" in own for own in net.own_addresses())
    found = node_address(Settings(), Host(env={}, hostname="x"), None)
    assert found.ip in net.own_addresses()
    assert found.interface in {interface.name for interface in table}


def test_own_addresses_are_canonical() -> None:
    assert net.own_addresses((Interface("e", False, ("2001:DB8:0::1", "10.0.0.1")),)) == {"2001:db8::1", "10.0.0.1"}


def test_source_address() -> None:
    assert net.source_address("127.0.0.9") == "127.0.0.1"


def test_resolve() -> None:
    assert "127.0.0.1" in net.resolve("localhost")
    assert net.resolve("127.0.0.1") == ("127.0.0.1",)
    assert net.resolve("a" * 300) == ()
    assert net.resolve("..") == ()


def test_a_dead_name_server_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        answer.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    assert net.resolve("head", timeout=0.05) == ()
    assert time.monotonic() - began < 5
    answer.set()
