"""When the workload needs the dashboard, and when the dashboard takes jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from bootstrap.run.dashboard import Dashboard, need


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("ray job submit -- python train.py", "ray job"),
        ("/opt/venv/bin/ray  --logging-level=debug job submit -- true", "ray  --logging-level=debug job"),
        ("env A=1 uv run ray list nodes", "ray list"),
        ("bash -c 'cd /x && ray job submit --no-wait -- true'", "ray job"),
        ("serve deploy config.yaml", "serve deploy"),
        ("python -c 'from ray.job_submission import JobSubmissionClient'", "JobSubmissionClient"),
        ("python train.py", ""),
        ("ray status", ""),
        ("serve run app:main", ""),
        ("vllm serve model", ""),
        ("x-ray job", ""),
        ("python array list", ""),
        ("ray jobs.txt", ""),
        ("bash -c 'echo xray list'", ""),
    ],
)
def test_by_its_command_line(line: str, needs: str) -> None:
    assert need(line.split(" ")) == (f"`{needs}` in its command line" if needs else "")


def test_by_a_script_that_it_names(tmp_path: Path) -> None:
    script, program, other = tmp_path / "train.sh", tmp_path / "tool", tmp_path / "notes"
    script.write_bytes(b"set -e\nray job submit --address=http://127.0.0.1:8265 -- python \xff\n")
    program.write_bytes(b"\x7fELF\0 ray job submit")
    other.write_bytes(b" " * (1 << 16) + b"ray job submit")
    assert need(["bash", "-e", str(script), "arg"]) == f"`ray job` in {script}"
    assert need(["bash", "-c", f'cd . && exec bash -e {script} "$@"', "bash"]) == f"`ray job` in {script}"
    assert need([str(program), str(other), str(tmp_path), "no such file", "\0"]) == ""


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ({}, ""),
        ({"/api/jobs/": b"HTTP/1.1 401 Unauthorized\r\n\r\n"}, ""),
        ({"/api/healthz": b"HTTP/1.1 503 Service Unavailable\r\n\r\n"}, ""),
        ({"/api/jobs/": b"HTTP/1.1 404 Not Found\r\n\r\n"}, "/api/jobs/: status 404"),
        ({"/api/jobs/": b"HTTP/1.1 500 Internal Server Error\r\n\r\n"}, "/api/jobs/: status 500"),
        ({"/api/jobs/": b"SSH-2.0-OpenSSH_9.2\r\n"}, "/api/jobs/: status 0"),
        ({"/api/jobs/": b""}, "/api/jobs/: status 0"),
        ({"/api/jobs/": b"x" * (1 << 17)}, "/api/jobs/: status 0"),
    ],
)
def test_when_it_takes_jobs(answers: Mapping[str, bytes], fault: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        writer.write(answers.get(path, OK))
        writer.close()

    async def ask() -> str:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            return (await Dashboard(address, address).fault()).removeprefix(f"http://{address}")

    assert asyncio.run(ask()) == fault


def test_an_agent_that_does_not_run_yet() -> None:
    async def ask() -> str:
        server = await asyncio.start_server(lambda _, writer: (writer.write(OK), writer.close()), "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            return await Dashboard(address, "127.0.0.1:9").fault()

    assert asyncio.run(ask()) == "http://127.0.0.1:9/api/healthz: connection refused"


def test_where_it_listens() -> None:
    ports = {"dashboard_port": 8265, "dashboard_agent_listen_port": 52365}
    assert Dashboard.of(ports, "0.0.0.0", "10.0.0.5") == Dashboard("127.0.0.1:8265", "10.0.0.5:52365")
    assert Dashboard.of(ports, "::", "2001:db8::5") == Dashboard("[::1]:8265", "[2001:db8::5]:52365")
    assert Dashboard.of(ports, "10.0.0.5", "10.0.0.5").address == "10.0.0.5:8265"
