"""Where a Ray already runs: which variable or option names it, and what does not go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bootstrap import settings
from bootstrap.errors import BootstrapError
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import Role

KUBERAY = {"KUBERAY_GEN_RAY_START_CMD": "ray start --head"}
SUBMITTER = {"RAY_DASHBOARD_ADDRESS": "ray-x7k2p-head-svc.ml.svc.cluster.local:8265", "RAY_JOB_SUBMISSION_ID": "ray-1"}
HEAD = {"RAY_ADDRESS": "head:6379"}


@pytest.mark.parametrize(
    ("env", "flags", "address", "source"),
    [
        (HEAD, {}, "head:6379", "RAY_ADDRESS"),
        ({"RAY_ADDRESS": "auto"}, {}, "auto", "RAY_ADDRESS"),
        (HEAD, {"nodes": "4", "launcher": "ray"}, "head:6379", "RAY_ADDRESS"),
        (HEAD, {"attach": "10.0.0.1:6380"}, "10.0.0.1:6380", "--attach"),
        (SUBMITTER, {"attach": "ray-head-svc:6379"}, "ray-head-svc:6379", "--attach"),
        (
            {"RAY_ADDRESS": "ray://head:10001"},
            {"attach": "auto"},
            "",
            "RAY_ADDRESS='ray://head:10001': the address of Ray",
        ),
    ],
)
def test_what_names_the_ray(env: Mapping[str, str], flags: Mapping[str, str], address: str, source: str) -> None:
    asked = settings.load({name: [text] for name, text in flags.items()}, {})
    if not address:
        with pytest.raises(BootstrapError, match=source.replace("(", r"\(")):
            identify(asked, Host(env, "h"))
        return
    identity, notes = identify(asked, Host(env, "h"))
    assert (identity.role, identity.launcher, identity.rank) == (Role.DRIVER, "ray", None)
    assert (identity.head_hints, identity.sources["head"], identity.size) == ((address,), source, asked.nodes)
    assert identity.run_id.startswith("ray-")
    assert notes == []


def refused(flags: Mapping[str, str], env: Mapping[str, str]) -> BootstrapError:
    with pytest.raises(BootstrapError) as caught:
        identify(settings.load({name: [text] for name, text in flags.items()}, {}), Host(env, "h"))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("flags", "env", "status", "said"),
    [
        (
            {"attach": "ray://head:10001"},
            {},
            64,
            "--attach='ray://head:10001': the address of Ray Client, which cannot",
        ),
        (
            {"attach": "https://head"},
            {},
            64,
            "the address of a dashboard, which cannot count nodes; expected that of GCS",
        ),
        ({"attach": "anyscale://x"}, {}, 64, "not a host and a port; expected that of GCS, HOST:PORT"),
        ({"attach": "head"}, {}, 64, "--attach='head': no port; expected that of GCS, HOST:PORT (6379 unless"),
        ({"attach": "local"}, {}, 64, "this asks for a Ray of its own"),
        ({"attach": "a b:1"}, {}, 64, "expected HOST or HOST:PORT"),
        ({}, {"RAY_ADDRESS": "http://h:8265"}, 65, "RAY_ADDRESS='http://h:8265': the address of a dashboard"),
        ({}, {"RAY_ADDRESS": "local"}, 65, "RAY_ADDRESS='local': this asks for a Ray of its own"),
        ({}, KUBERAY, 65, "KUBERAY_GEN_RAY_START_CMD='ray start --head': a Ray runs here, but RAY_ADDRESS is not set"),
        ({}, SUBMITTER, 65, "RAY_DASHBOARD_ADDRESS=ray-x7k2p-head-svc.ml.svc.cluster.local:8265: a Ray runs here"),
        ({"role": "head"}, HEAD, 64, "--role with RAY_ADDRESS=head:6379: that Ray runs already"),
        (
            {"shared_dir": "/nfs", "rendezvous": "file"},
            HEAD,
            64,
            "--rendezvous, --shared-dir with RAY_ADDRESS=head:6379",
        ),
        ({"attach": "h:1", "rank": "0", "nodes": "2"}, {}, 64, "--rank with --attach=h:1: that Ray runs already"),
        ({"attach": "h:1", "launcher": "slurm"}, {}, 64, "--launcher with --attach=h:1"),
        ({"attach": "h:1", "head_address": "h"}, {}, 64, "--head-address with --attach=h:1"),
        ({"auth": "required"}, HEAD, 64, "--auth=required with RAY_ADDRESS=head:6379"),
        ({"tls": "required"}, HEAD, 64, "--tls=required with RAY_ADDRESS=head:6379"),
        ({}, {**HEAD, "OMPI_COMM_WORLD_RANK": "1", "SLURM_NODEID": "0"}, 65, "no size: OMPI_COMM_WORLD_SIZE not set"),
        ({}, {**HEAD, "PMI_RANK": "2"}, 65, "PMI_RANK=2 with RAY_ADDRESS=head:6379: each of several nodes would run"),
        ({"launcher": "ray"}, {}, 65, "--launcher=ray does not match this environment; it needs one of RAY_ADDRESS"),
    ],
)
def test_what_does_not_go_with_it(flags: Mapping[str, str], env: Mapping[str, str], status: int, said: str) -> None:
    error = refused(flags, env)
    assert said in error.message
    assert error.status == status


def test_the_submitter_of_a_rayjob_is_told_where_its_gcs_may_be() -> None:
    assert "--attach=ray-x7k2p-head-svc.ml.svc.cluster.local:6379, or GCS's other port" in refused({}, SUBMITTER).hint


@pytest.mark.parametrize(
    ("flags", "launcher"),
    [
        ({"launcher": "local"}, "local"),
        ({"rank": "0", "nodes": "2"}, "explicit"),
        ({"head_address": "h", "nodes": "2"}, "address"),
    ],
)
def test_what_starts_a_ray_all_the_same(flags: dict[str, Any], launcher: str) -> None:
    asked = settings.load({name: [text] for name, text in flags.items()}, {})
    identity, _ = identify(asked, Host(HEAD, "h"), own_addresses=list, resolve=lambda _name: ["10.0.0.9"])
    assert identity.launcher == launcher


def test_options_without_effect_are_named() -> None:
    asked = settings.load({"num_cpus": ["2"], "labels": ["a=b"], "nodes": ["2"], "grace": ["5"]}, {})
    _, notes = identify(asked, Host(HEAD, "h"))
    assert notes == ["without effect, since this run starts no Ray: --num-cpus, --labels"]
