"""examples/serve_text.py serves, on a real node."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from cluster import nothing_left, start

EXAMPLE = Path(__file__).parent.parent / "examples" / "serve_text.py"
pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(280), pytest.mark.requires("serve")]
ASK = """
import json, sys, urllib.request
body = json.dumps({"input": sys.argv[2], "words": 4}).encode()
request = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


def test_a_request_is_answered_from_another_node_and_a_stop_ends_it(make_hosts):
    server, client = make_hosts(2, shm_size="2g")
    agents = start([server], "--head-address", server.ip, workload=[sys.executable, str(EXAMPLE)])
    agents.prints(0, "serving")
    url = f"http://{server.ip}:8000/text/simple-gen"
    replies = [json.loads(client.run([sys.executable, "-c", ASK, url, "the ray"]).stdout) for _ in range(2)]
    assert replies[0] == replies[1]
    words = replies[0]["text"].split()
    assert (words[:2], len(words)) == (["the", "ray"], 6)
    assert words[2] == "of"  # what follows "ray" wherever the text has it
    agents.signal(0, signal.SIGTERM)
    assert agents.wait() == [143]
    assert server.leftovers() == []
    assert server.sockets() == frozenset()
    nothing_left([client])
