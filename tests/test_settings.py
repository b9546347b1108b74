"""Options: how their texts become values, who wins, and what cannot work together."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap import cli, parsers, settings
from bootstrap.errors import UsageError
from bootstrap.model import join_host_port
from bootstrap.settings import Settings, load

GIB = 1 << 30


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parsers.duration, "90", 90),
        (parsers.duration, "90s", 90),
        (parsers.duration, "1.5s", 1.5),
        (parsers.duration, "250ms", 0.25),
        (parsers.duration, " 10 m ", 600),
        (parsers.duration, "2h", 7200),
        (parsers.duration, "1d", 86400),
        (parsers.duration, "0", 0),
        (parsers.size, "1073741824", GIB),
        (parsers.size, "16Gi", 16 * GIB),
        (parsers.size, "16GiB", 16 * GIB),
        (parsers.size, "16gi", 16 * GIB),
        (parsers.size, "16G", 16 * 10**9),
        (parsers.size, "16GB", 16 * 10**9),
        (parsers.size, "0.5Ti", 512 * GIB),
        (parsers.size, "512 Mi", GIB // 2),
        (parsers.size, "1k", 1000),
        (parsers.size, "7B", 7),
        (parsers.port, "1", 1),
        (parsers.port, "65535", 65535),
        (parsers.integer(0), "0", 0),
        (parsers.integer(0), " 007 ", 7),
        (parsers.duration_from(1), "1s", 1),
        (parsers.duration_or_off(1), "90s", 90),
        (parsers.duration_or_off(1), " off ", math.inf),
        (parsers.run_id, "\u00fc" * 256, "\u00fc" * 256),
        (parsers.host_port, "my_host.example.", ("my_host.example.", None)),
        (parsers.choice("a", "b"), "b", "b"),
        (parsers.text, " x ", " x "),
        (parsers.interface, "^=eth0, 10.4.7.7/16,2001:db8::/32", "^=eth0, 10.4.7.7/16,2001:db8::/32"),
        (parsers.ip_address, "10.0.0.1", "10.0.0.1"),
        (parsers.ip_address, "FD00::0001", "fd00::1"),
        (parsers.gcs_address, "[fd00::1]:6379", "[fd00::1]:6379"),
        (parsers.gcs_address, "auto", "auto"),
        (parsers.host_port, "head", ("head", None)),
        (parsers.host_port, "head:6379", ("head", 6379)),
        (parsers.host_port, "[fd00::1]", ("fd00::1", None)),
        (parsers.host_port, "[fd00::1]:6379", ("fd00::1", 6379)),
        (parsers.host_port, "fd00::1", ("fd00::1", None)),
        (parsers.resources_json, "{}", {}),
        (parsers.resources_json, '{"disk": 2, "half": 0.5, "none": 0}', {"disk": 2, "half": 0.5, "none": 0}),
        (parsers.amounts_json, '{"NPU": 8, "CPU": 2, "memory": 1e9}', {"NPU": 8, "CPU": 2, "memory": 1e9}),
        (parsers.variables, "", {}),
        (parsers.variables, 'A=1\n\n_b2=x = "y" <<E\nC=', {"A": "1", "_b2": 'x = "y" <<E', "C": ""}),
        (parsers.variables, "A<<E N D\none\n\nB=2\nE N D\nC=3\n", {"A": "one\n\nB=2", "C": "3"}),
        (parsers.variables, "A=1\nA<<E\nE\n", {"A": ""}),
        (parsers.labels, "", {}),
        (parsers.labels, "a=b,c=d", {"a": "b", "c": "d"}),
        (parsers.labels, " a=b , ", {"a": "b"}),
        (parsers.labels, "example.com/zone=eu-1,empty=", {"example.com/zone": "eu-1", "empty": ""}),
    ],
)
def test_a_text_becomes_a_value(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parsers.duration, "", "a duration such as"),
        (parsers.duration, "soon", "a duration such as"),
        (parsers.duration, "-1", "a duration such as"),
        (parsers.duration, "1e3", "a duration such as"),
        (parsers.duration, "inf", "a duration such as"),
        (parsers.duration, "5 minutes", "a duration such as"),
        (parsers.size, "", "a size such as"),
        (parsers.size, "16X", "a size such as"),
        (parsers.size, "16iB", "a size such as"),
        (parsers.size, "-1G", "a size such as"),
        (parsers.duration, "9" * 400, "a duration such as"),
        (parsers.size, "9" * 400, "below 8 EiB"),
        (parsers.size, "0", "at least one byte"),
        (parsers.size, "0.1B", "at least one byte"),
        (parsers.port, "0", "from 1 to 65535"),
        (parsers.port, "65536", "from 1 to 65535"),
        (parsers.port, "http", "from 1 to 65535"),
        (parsers.integer(1), "0", "at least 1"),
        (parsers.integer(0), "1.0", "a whole number"),
        (parsers.integer(0), "1_0", "a whole number"),
        (parsers.integer(0), "\u0663", "a whole number"),
        (parsers.integer(0), "9" * 5000, "a whole number"),
        (parsers.duration, "\u0663", "a duration such as"),
        (parsers.duration_from(1), "0.9s", "a duration of at least 1 s"),
        (parsers.duration_or_off(1), "0", "a duration of at least 1 s, or off"),
        (parsers.duration_or_off(1), "never", "10m or 2h, or off"),
        (parsers.size, "\u0663", "a size such as"),
        (parsers.run_id, "r" * 257, "at most 256 characters, got 257"),
        (parsers.run_id, "r\udcff", "valid UTF-8"),
        (parsers.host_port, "bad_host..x", "'bad_host..x' cannot be a host name"),
        (parsers.host_port, f"{'a' * 64}.b:6379", "cannot be a host name"),
        (parsers.choice("a", "b"), "c", "one of a, b"),
        (parsers.text, "  ", "it is empty"),
        (parsers.interface, "10.4.0.0/33", "'10.4.0.0/33' is not a network; expected ADDRESS/BITS"),
        (parsers.interface, "^eth0,=10.4/16", "'=10.4/16' is not a network"),
        (parsers.ip_address, "head", "not a name"),
        (parsers.ip_address, "0.0.0.0", "one machine"),
        (parsers.ip_address, "224.0.0.1", "one machine"),
        (parsers.ip_address, "::", "one machine"),
        (parsers.ip_address, "10.0.0", "not a name"),
        (parsers.host_port, "", "HOST or HOST:PORT"),
        (parsers.host_port, ":6379", "HOST or HOST:PORT"),
        (parsers.host_port, "head:", "from 1 to 65535"),
        (parsers.host_port, "head:six", "from 1 to 65535"),
        (parsers.host_port, "http://head", "from 1 to 65535"),
        (parsers.host_port, "he ad", "HOST or HOST:PORT"),
        (parsers.host_port, "he/ad", "HOST or HOST:PORT"),
        (parsers.host_port, "[fd00::1", "HOST or HOST:PORT"),
        (parsers.host_port, "[fd00::1]6379", "HOST or HOST:PORT"),
        (parsers.host_port, "[fd00:::1]:6379", "not a name"),
        (parsers.host_port, "a:b:c", "not a name"),
        (parsers.resources_json, "{", "a JSON object"),
        (parsers.resources_json, "[]", "a JSON object"),
        (parsers.resources_json, "[" * 100_000, "a JSON object"),
        (parsers.resources_json, '{"disk": 1' + "0" * 400 + "}", "a number of at least 0"),
        (parsers.resources_json, '{"disk": 1' + "0" * 5000 + "}", "a JSON object"),
        (parsers.resources_json, '{"CPU": 2}', "has its own option"),
        (parsers.resources_json, '{"GPU": 2}', "has its own option"),
        (parsers.resources_json, '{"disk": "2"}', "a number of at least 0"),
        (parsers.resources_json, '{"disk": true}', "a number of at least 0"),
        (parsers.resources_json, '{"disk": -1}', "a number of at least 0"),
        (parsers.resources_json, '{"disk": NaN}', "a number of at least 0"),
        (parsers.resources_json, '{"disk": Infinity}', "a number of at least 0"),
        (parsers.variables, "A=1\nB", "line 2 is 'B': expected NAME=value, or NAME<<END, lines and END"),
        (parsers.variables, "# comment", "line 1 is '# comment'"),
        (parsers.variables, "A =1", "line 1 is 'A =1'"),
        (parsers.variables, "1A=1", "line 1 is '1A=1'"),
        (parsers.variables, "A=\0", "line 1 is "),
        (parsers.variables, "A<<E\n\0\nE", "line 2 is '\\x00': no variable can hold a NUL character"),
        (parsers.variables, "A<<E\none\nE \n", "line 1 is 'A<<E', and no line after it is 'E'"),
        (parsers.labels, "a", "expected key=value,key=value, got 'a'"),
        (parsers.labels, "=b", "got '=b'"),
        (parsers.labels, "/a=b", "got '/a=b'"),
        (parsers.labels, "a=-b", "'-b' is not a valid label value"),
        (parsers.labels, f"a={'b' * 64}", "not a valid label value"),
        (parsers.labels, "a=b c", "not a valid label value"),
        (parsers.labels, "ray.io/node-id=1", "reserved for Ray"),
    ],
)
def test_what_is_no_value_says_what_was_expected(parse: Callable[[str], Any], text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse(text)
    assert expected in str(error.value)


PARSERS = (
    parsers.duration,
    parsers.size,
    parsers.host_port,
    parsers.resources_json,
    parsers.labels,
    parsers.interface,
    parsers.ip_address,
)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(text=st.text() | st.from_regex(r"[0-9\[\]:.{}\"=,/a-zKMGTi -]*", fullmatch=True))
def test_free_text_is_a_value_or_a_value_error(parse: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


TAKEN = ("CPU", "GPU", "memory", "object_store_memory")


@given(st.dictionaries(st.text(), st.floats(0, 1e15) | st.integers(0, 10**6)))
def test_resources_come_back_as_given(resources: dict[str, float]) -> None:
    own = {name: amount for name, amount in resources.items() if name not in TAKEN}
    assert parsers.resources_json(json.dumps(own)) == own


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_resources_are_numbers_in_an_object(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parsers.resources_json(json.dumps({"disk": value} if not _amount(value) else [value]))


def _amount(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < 2**53


@given(st.ip_addresses().filter(lambda a: not a.is_unspecified and not a.is_multicast), st.integers(1, 65535))
def test_an_address_and_its_port_come_back_as_written(address: Any, port: int) -> None:
    assert parsers.host_port(join_host_port(str(address), port)) == (str(address), port)


@given(st.floats(0, 1e6).map(lambda seconds: round(seconds, 3)))
def test_seconds_come_back(seconds: float) -> None:
    assert parsers.duration(f"{seconds:.3f}s") == pytest.approx(seconds)


@given(st.integers(1, 1 << 32), st.sampled_from([("", 1), ("K", 1000), ("Ki", 1024), ("MiB", 1 << 20), ("G", 10**9)]))
def test_bytes_come_back(amount: int, unit: tuple[str, int]) -> None:
    assert parsers.size(f"{amount}{unit[0]}") == pytest.approx(amount * unit[1], rel=1e-15)


@pytest.mark.parametrize(
    ("flags", "env", "expected"),
    [
        ({}, {}, {"num_cpus": None, "role": "auto", "grace": 20.0, "ray_start_arg": ()}),
        ({"num_cpus": ["3"]}, {}, {"num_cpus": 3}),
        ({}, {"RAY_BOOTSTRAP_NUM_CPUS": "4"}, {"num_cpus": 4}),
        ({"num_cpus": ["3"]}, {"RAY_BOOTSTRAP_NUM_CPUS": "4"}, {"num_cpus": 3}),
        ({"num_cpus": ["3"]}, {"RAY_BOOTSTRAP_NUM_CPUS": "four"}, {"num_cpus": 3}),
        ({"num_cpus": ["3", "5"]}, {}, {"num_cpus": 5}),
        ({}, {"RAY_BOOTSTRAP_NUM_CPUS": ""}, {"num_cpus": None}),
        ({"ray_start_arg": ["--a=b c", "--d"]}, {}, {"ray_start_arg": ("--a=b c", "--d")}),
        ({}, {"RAY_BOOTSTRAP_RAY_START_ARG": "--a --b"}, {"ray_start_arg": ("--a", "--b")}),
        ({}, {"RAY_BOOTSTRAP_SETUP": "pip install x\n\n  a 'b c'\n"}, {"setup": ("pip install x", "  a 'b c'")}),
        ({}, {"RAY_BOOTSTRAP_IGNORE_CHECK": "shm ports"}, {"ignore_check": ("shm", "ports")}),
        ({}, {"RAY_BOOTSTRAP_RESOURCES": '{"a": 1}'}, {"resources": {"a": 1}}),
        ({"num_gpus": ["2"]}, {}, {"num_gpus": "2"}),
    ],
)
def test_flags_win_over_variables(flags: Any, env: Mapping[str, str], expected: Mapping[str, Any]) -> None:
    chosen = load(flags, env, ["true"])
    assert {name: getattr(chosen, name) for name in expected} == expected
    assert chosen.workload == ("true",)


@pytest.mark.parametrize("name", ["heartbeat_timeout", "head_timeout", "quorum_timeout"])
def test_no_time_at_all_is_not_for_ever(name: str) -> None:
    with pytest.raises(UsageError, match="expected a duration of at least"):
        load({name: ["0"]}, {})


SERVICE = {
    "RAY_BOOTSTRAP_DASHBOARD_SERVICE_HOST": "10.96.3.4",
    "RAY_BOOTSTRAP_DASHBOARD_SERVICE_PORT": "8265",
    "RAY_BOOTSTRAP_DASHBOARD_SERVICE_PORT_HTTP": "8265",
    "RAY_BOOTSTRAP_DASHBOARD_PORT": "tcp://10.96.3.4:8265",
    "RAY_BOOTSTRAP_DASHBOARD_PORT_8265_TCP": "tcp://10.96.3.4:8265",
    "RAY_BOOTSTRAP_DASHBOARD_PORT_8265_TCP_ADDR": "10.96.3.4",
}


def test_the_variables_of_a_service_that_is_called_like_an_option_are_no_options() -> None:
    assert load({}, SERVICE).dashboard_port is None
    assert settings.unknown_variables(SERVICE) == []
    assert load({}, {**SERVICE, "RAY_BOOTSTRAP_DASHBOARD_PORT": "8266"}).dashboard_port == 8266
    with pytest.raises(UsageError, match="RAY_BOOTSTRAP_DASHBOARD_PORT='tcp"):
        load({}, {"RAY_BOOTSTRAP_DASHBOARD_PORT": "tcp://10.96.3.4:8265"})


def test_a_long_text_is_quoted_by_its_beginning() -> None:
    with pytest.raises(UsageError, match=r"^--run-id='r{100}\.\.\.': expected at most 256 characters, got 20000$"):
        load({"run_id": ["r" * 20_000]}, {})


IMPOSSIBLE = [
    ({"num_gpus": "\u0663"}, "--num-gpus="),
    ({"head_address": "bad_host..x"}, "--head-address='bad_host..x': 'bad_host..x' cannot be a host name"),
    ({"num_gpus": "some"}, "--num-gpus='some': expected auto or a whole number"),
    ({"num_gpus": "-1"}, "--num-gpus='-1'"),
    ({"rank": "2", "nodes": "2"}, "--rank=2 with --nodes=2: ranks go from 0 to 1"),
    ({"min_nodes": "3", "nodes": "2"}, "--min-nodes=3 is more than --nodes=2"),
    ({"role": "head", "rank": "1"}, "--role=head with --rank=1"),
    ({"role": "worker", "rank": "0"}, "--role=worker with --rank=0"),
    ({"rendezvous": "file"}, "--rendezvous=file needs --shared-dir=DIR"),
    ({"rendezvous": "static"}, "--rendezvous=static needs --head-address=HOST[:PORT]"),
    ({"head_address": "a b"}, "--head-address='a b': expected HOST or HOST:PORT"),
    ({"head_address": "h:6379", "gcs_port": "6380"}, "--head-address=h:6379 and --gcs-port=6380 name different ports"),
    ({"expect_gpus": "8", "expect_resources": '{"GPU": 4}'}, "--expect-gpus=8 and --expect-resources with 4 of 'GPU'"),
    ({"tls": "required", "auth": "off"}, "--tls=required with --auth=off: only nodes that prove they know a secret"),
    ({"min_worker_port": "20000"}, "--min-worker-port and --max-worker-port go together"),
    ({"min_worker_port": "2", "max_worker_port": "1"}, "--min-worker-port=2 is above --max-worker-port=1"),
    ({"gcs_port": "7000", "dashboard_port": "7000"}, "--dashboard-port=7000 is also --gcs-port"),
    (
        {"min_worker_port": "7000", "max_worker_port": "7010", "gcs_port": "7005"},
        "--gcs-port=7005 is inside the range of Ray's workers, 7000-7010",
    ),
    ({"ray_start_arg": "--head"}, "--ray-start-arg=--head: the agent passes --head itself"),
    ({"ray_start_arg": "--num-cpus=4"}, "the agent passes --num-cpus itself; use the agent's option for it"),
    ({"ray_start_arg": "--address=a:1"}, "the agent passes --address itself"),
]


@pytest.mark.parametrize(("given_flags", "fault"), IMPOSSIBLE)
def test_what_cannot_work_together(given_flags: Mapping[str, str], fault: str) -> None:
    with pytest.raises(UsageError) as error:
        load({name: [text] for name, text in given_flags.items()}, {})
    assert fault in error.value.message
    assert len(error.value.faults) == 1


@pytest.mark.parametrize(
    "flags",
    [
        {"rank": "0", "nodes": "1"},
        {"role": "head", "rank": "0"},
        {"head_address": "h:6379", "gcs_port": "6379"},
        {"head_address": "[fd00::1]:6379"},
        {"min_worker_port": "7000", "max_worker_port": "7010", "gcs_port": "7011"},
        {"ray_start_arg": "--verbose"},
    ],
)
def test_what_can_work_together(flags: Mapping[str, str]) -> None:
    assert isinstance(load({name: [text] for name, text in flags.items()}, {}), Settings)


def test_all_faults_are_told_at_once_and_name_where_they_come_from() -> None:
    flags = {"num_cpus": ["x"], "nodes": ["2"], "rank": ["2"]}
    with pytest.raises(UsageError) as error:
        load(flags, {"RAY_BOOTSTRAP_GRACE": "soon"}, faults=["no such option: --frob"])
    assert [fault.partition(":")[0] for fault in error.value.faults] == [
        "no such option",
        "--num-cpus='x'",
        "RAY_BOOTSTRAP_GRACE='soon'",
        "--rank=2 with --nodes=2",
    ]
    assert error.value.status == 64


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RAY_BOOTSTRAP_MIN_NODE", "RAY_BOOTSTRAP_MIN_NODES"),
        ("RAY_BOOTSTRAP_NUMCPUS", "RAY_BOOTSTRAP_NUM_CPUS"),
        ("RAY_BOOTSTRAP_SHARED_DIRECTORY", "RAY_BOOTSTRAP_SHARED_DIR"),
        ("RAY_BOOTSTRAP_NUM_CPUS", None),
        ("RAY_BOOTSTRAP_PORT", None),  # these five are of a Kubernetes Service that is called ray-bootstrap
        ("RAY_BOOTSTRAP_SERVICE_HOST", None),
        ("RAY_BOOTSTRAP_SERVICE_PORT", None),
        ("RAY_BOOTSTRAP_PORT_6379_TCP_ADDR", None),
        ("RAY_BOOTSTRAP_PORT_6379_TCP_PORT", None),
        ("RAY_BOOTSTRAP_CLUSTER_NODES", None),  # ours, in the environment of a workload that starts another run
        ("RAY_BOOTSTRAP_CLUSTER_GPUS", None),
        ("RAY_NUM_CPUS", None),
        ("RAY_BOOTSTRAP_SECRET", None),
        ("RAY_BOOTSTRAP_SECRT", "RAY_BOOTSTRAP_SECRET"),
    ],
)
def test_a_variable_that_looks_misspelt(name: str, meant: str | None) -> None:
    lines = settings.unknown_variables({name: "1"})
    assert lines == ([] if meant is None else [f"{name} is not an option's variable; did you mean {meant}?"])


def test_every_option_says_what_it_means() -> None:
    for option in settings.options():
        assert option.metadata["help"], option.name
        assert option.metadata["group"], option.name
        assert option.metadata["metavar"], option.name
    assert (settings.flag("num_cpus"), settings.variable("num_cpus")) == ("--num-cpus", "RAY_BOOTSTRAP_NUM_CPUS")


WITHOUT_DEFAULT = {"shared_dir", "expect_gpus", "expect_resources", "resources", "labels"}
WITHOUT_DEFAULT |= {"setup", "log_dir", "ray_start_arg", "ignore_check"}


def test_help_shows_one_default_for_each_option_that_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    entries = re.split(r"^  (?=--)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    shown = {entry.split()[0].rstrip(","): " ".join(entry.split()) for entry in entries}
    for option in settings.options():
        defaults = re.findall(r"\[default: ([^]]+)\]", shown[settings.flag(option.name)])
        assert shown[settings.flag(option.name)].count("[default") == len(defaults)
        assert len(defaults) == (option.name not in WITHOUT_DEFAULT), option.name
        if option.default not in (None, (), dataclasses.MISSING):
            assert option.metadata["parse"](defaults[0]) == option.default, option.name
