"""A worker that starts before its head has a name, behind a resolver that remembers what does not exist."""

from __future__ import annotations

import publication
import pytest

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120), pytest.mark.requires("nft")]


@pytest.mark.parametrize("by", publication.BY)
def test_a_resolver_that_remembers_does_not_keep_the_worker_from_its_head(make_hosts, by):
    """It remembers for longer than the worker searches: had the worker asked too early, it would end with 68."""
    hosts = make_hosts(2, dns={}, dns_cache=600)
    agents, publisher = publication.start(hosts, by, f"by-{by}", published=[1.5, 0.5])
    try:
        assert [agent.wait(timeout=90) for agent in agents] == [0, 0]
    finally:
        publisher.join()
