"""GPUs as NVML shows them and CUDA_VISIBLE_DEVICES leaves them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nvml as stub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
from bootstrap.model import Gpu
from bootstrap.node import gpus
from bootstrap.node.nvml import Device

ASK = """
import dataclasses, json, pathlib, sys
from bootstrap.node import gpus
from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
root, env, expected = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
host = Host(env=env, hostname="node", root=pathlib.Path(root))
loaded_early = "pynvml" in sys.modules
try:
    report = gpus.find(host, expected)
    health = gpus.health(host, report.gpus)
    answer = {name: getattr(report, name) for name in ("total_on_machine", "visibility", "faults")}
    answer["gpus"] = [dataclasses.asdict(gpu) for gpu in report.gpus]
    answer["sources"] = dict(report.sources)
    answer["health"] = [dataclasses.asdict(one) for one in health]
except PreflightFailed as error:
    answer = {"error": error.message, "hint": error.hint}
print(json.dumps({**answer, "pynvml": "pynvml" in sys.modules, "early": loaded_early}))
"""

TWO = stub.gpus(2)
EIGHT = stub.gpus(8)
PRODUCT = "NVIDIA A100-SXM4-80GB"
MIG = f"""
gpu {stub.uuid(0)} 85899345920 {PRODUCT}
mig 7
instance 0 {stub.mig_uuid(0)} 7 0 10737418240 {PRODUCT} MIG 1g.10gb
instance 3 {stub.mig_uuid(3)} 9 0 10737418240 {PRODUCT} MIG 1g.10gb
gpu {stub.uuid(1)} 85899345920 {PRODUCT}
mig 7
instance 0 {stub.mig_uuid(16)} 1 0 42949672960 {PRODUCT} MIG 3g.40gb
instance 1 {stub.mig_uuid(17)} 12 1 42949672960 {PRODUCT} MIG 3g.40gb
"""
MIGS = [stub.mig_uuid(i) for i in (0, 3, 16, 17)]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NVML is looked for on Linux")
with_stub = pytest.mark.requires("cc")


def ask(
    folder: Path,
    description: str | None,
    env: Mapping[str, str] | None = None,
    expected: int | None = None,
    files: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What a fresh interpreter finds with the stub (none: without any library) and these system files."""
    for name in files:
        path = folder / "root" / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if description is None:
        # An empty file is not a library, and the linker does not look further: as good as a machine without a driver.
        (folder / "libnvidia-ml.so.1").touch()
        around = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    else:
        around = stub.environment(description, folder)
    command = [sys.executable, "-c", ASK, folder / "root", json.dumps(dict(env or {})), json.dumps(expected)]
    done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["early"] is False
    return answer


def uuids(answer: Mapping[str, Any]) -> list[str]:
    return [gpu["uuid"] for gpu in answer["gpus"]]


@with_stub
@pytest.mark.parametrize("count", [0, 1, 8])
def test_all_gpus_are_found(tmp_path: Path, count: int) -> None:
    answer = ask(tmp_path, stub.gpus(count))
    assert uuids(answer) == [stub.uuid(i) for i in range(count)]
    assert answer["total_on_machine"] == count
    assert answer["visibility"] is None
    assert all(
        (gpu["name"], gpu["memory"], gpu["mig"], gpu["index"]) == (PRODUCT, 80 << 30, False, i)
        for i, gpu in enumerate(answer["gpus"])
    )


@with_stub
@pytest.mark.parametrize(
    ("listed", "indices", "visibility"),
    [
        ("0,1", [0, 1], None),
        ("7,2", [7, 2], None),
        (" 3 , 4 ", [3, 4], None),
        ("0,2,-1,1", [0, 2], "0,2"),
        ("1,99,2", [1], "1"),
        ("2,", [2], "2"),
        (stub.uuid(5), [5], None),
        ("GPU-00000006", [6], stub.uuid(6)),
        ("GPU-00000006,1", [6, 1], f"{stub.uuid(6)},{stub.uuid(1)}"),
        ("1,GPU-0000000", [1], "1"),  # not unique
        ("0,MIG-00000000-5555-6666-7777-888888888888", [0], "0"),
        ("", [], None),
        ("-1", [], None),
        ("NoDevFiles", [], None),
        ("none", [], None),
        ("99", [], None),
    ],
)
def test_cuda_visible_devices(tmp_path: Path, listed: str, indices: list[int], visibility: str | None) -> None:
    answer = ask(tmp_path, EIGHT, {"CUDA_VISIBLE_DEVICES": listed})
    assert uuids(answer) == [stub.uuid(i) for i in indices]
    assert answer["visibility"] == visibility
    assert f"CUDA_VISIBLE_DEVICES={listed!r}" in answer["sources"]["gpus"]


@with_stub
def test_the_end_of_the_list_is_told(tmp_path: Path) -> None:
    answer = ask(tmp_path, TWO, {"CUDA_VISIBLE_DEVICES": "1,5,0"})
    assert "ends at '5', which is not a device here" in answer["sources"]["gpus"]


@with_stub
@pytest.mark.parametrize("listed", ["0,1,0", f"0,{stub.uuid(0)}", "GPU-00000001,1"])
def test_a_device_listed_twice_is_an_error(tmp_path: Path, listed: str) -> None:
    answer = ask(tmp_path, TWO, {"CUDA_VISIBLE_DEVICES": listed})
    assert answer["error"] == f"CUDA_VISIBLE_DEVICES={listed!r} lists a device twice"


@with_stub
@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, MIGS),
        ("0", MIGS[:2]),
        ("1,0", [*MIGS[2:], *MIGS[:2]]),
        (MIGS[1], MIGS[1:2]),
        (f"{MIGS[3]},{MIGS[0]}", [MIGS[3], MIGS[0]]),
        ("MIG-00000010", [MIGS[2]]),
        (f"MIG-{stub.uuid(1)}/1/0", [MIGS[2]]),
        (f"MIG-{stub.uuid(1)}/12/1,MIG-{stub.uuid(0)}/9/0", [MIGS[3], MIGS[1]]),
        (stub.uuid(1), MIGS[2:]),
    ],
)
def test_mig_instances_are_the_devices(tmp_path: Path, listed: str | None, expected: list[str]) -> None:
    answer = ask(tmp_path, MIG, {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed})
    assert uuids(answer) == expected
    assert answer["visibility"] == ",".join(expected)
    assert answer["total_on_machine"] == 4
    assert all(gpu["mig"] for gpu in answer["gpus"])
    assert {gpu["name"] for gpu in answer["gpus"]} <= {f"{PRODUCT} MIG 1g.10gb", f"{PRODUCT} MIG 3g.40gb"}


@with_stub
def test_whole_gpus_beside_mig_and_a_parent_without_instances(tmp_path: Path) -> None:
    description = MIG + f"gpu {stub.uuid(2)} 85899345920 {PRODUCT}\ngpu {stub.uuid(3)} 85899345920 {PRODUCT}\nmig 7\n"
    answer = ask(tmp_path, description)
    assert uuids(answer) == [*MIGS, stub.uuid(2)]
    assert answer["visibility"] == ",".join([*MIGS, stub.uuid(2)])
    assert answer["total_on_machine"] == 5
    assert "GPU 3 is in MIG mode but has no instances" in answer["sources"]["gpus"]


@with_stub
@pytest.mark.parametrize(
    ("env", "expected", "files", "reason"),
    [
        ({}, 8, (), "8 GPUs are expected"),
        ({}, None, ("/dev/nvidia0",), "/dev/nvidia0 exists"),
        ({}, 0, ("/dev/nvidia3",), "/dev/nvidia3 exists"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, None, (), "CUDA_VISIBLE_DEVICES='0,1'"),
    ],
)
@pytest.mark.parametrize(
    ("code", "text"), [(18, "Driver/library version mismatch"), (9, "Driver Not Loaded"), (999, "Unknown Error")]
)
def test_a_broken_nvml_where_gpus_should_be_speaks_for_itself(
    tmp_path: Path,
    *,
    code: int,
    text: str,
    env: dict[str, str],
    expected: int | None,
    files: tuple[str, ...],
    reason: str,
) -> None:
    answer = ask(tmp_path, f"init {code}\n", env, expected, files)
    assert answer["error"] == f"NVML: {text} (code {code}), but {reason}"
    assert "--num-gpus=0" in answer["hint"]


@with_stub
def test_a_broken_nvml_where_nothing_should_be_is_no_gpus(tmp_path: Path) -> None:
    answer = ask(tmp_path, "init 9\n", {}, None, ("/dev/nvidiactl",))
    assert answer["gpus"] == []
    assert answer["health"] == []
    assert answer["sources"]["gpus"] == "NVML: Driver Not Loaded"


@pytest.mark.parametrize(
    ("expected", "files", "env", "reason"),
    [
        (None, (), {}, None),
        (0, (), {}, None),
        (1, (), {}, "1 GPUs are expected"),
        (None, ("/dev/nvidia0",), {}, "/dev/nvidia0 exists"),
        (None, ("/dev/nvidia0",), {"NVIDIA_VISIBLE_DEVICES": "void"}, None),
    ],
)
def test_no_driver_at_all(
    tmp_path: Path, expected: int | None, files: tuple[str, ...], env: dict[str, str], reason: str | None
) -> None:
    answer = ask(tmp_path, None, env, expected, files)
    assert answer["pynvml"] is False
    if reason:
        assert answer["error"].startswith("NVML: NVML Shared Library Not Found (")
        assert "libnvidia-ml.so.1" in answer["error"]
        assert answer["error"].endswith(f"but {reason}")
    else:
        assert answer["gpus"] == []
        assert "no driver" in answer["sources"]["gpus"]


@with_stub
@pytest.mark.parametrize(
    ("value", "files", "count"),
    [
        ("void", (), 0),
        ("none", (), 0),
        ("none", ("/dev/nvidia0",), 0),
        ("void", ("/dev/nvidia0",), 2),  # what a container that got its GPUs by CDI looks like
        ("", (), 2),
        ("all", (), 2),
    ],
)
def test_nvidia_visible_devices(tmp_path: Path, value: str, files: tuple[str, ...], count: int) -> None:
    answer = ask(tmp_path, TWO, {"NVIDIA_VISIBLE_DEVICES": value}, None, files)
    assert len(answer["gpus"]) == count
    assert (f"NVIDIA_VISIBLE_DEVICES={value}" == answer["sources"]["gpus"]) is (count == 0)


LOST = TWO + "lost 15\n" + f"gpu {stub.uuid(2)} 85899345920 {PRODUCT}\n"


@with_stub
@pytest.mark.parametrize(
    ("listed", "good", "visibility", "told"),
    [
        (None, [0, 2], f"{stub.uuid(0)},{stub.uuid(2)}", True),
        ("1,2", [2], stub.uuid(2), True),
        ("0,2", [0, 2], None, False),
        (f"{stub.uuid(0)},{stub.uuid(1)}", [0], stub.uuid(0), True),
    ],
)
def test_a_lost_gpu_is_not_used_but_told(
    tmp_path: Path, listed: str | None, good: list[int], visibility: str | None, told: bool
) -> None:
    answer = ask(tmp_path, LOST, {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed})
    assert uuids(answer) == [stub.uuid(i) for i in good]
    assert answer["visibility"] == visibility
    assert answer["total_on_machine"] == 3
    assert answer["faults"] == ([[1, "GPU is lost"]] if told else [])
    assert ("GPU 1: GPU is lost" in answer["sources"]["gpus"]) is told
    assert [(h["index"], h["fault"]) for h in answer["health"]] == [(i, "") for i in good] + told * [(1, "GPU is lost")]


@with_stub
def test_a_gpu_of_others_is_neither_ours_nor_broken(tmp_path: Path) -> None:
    answer = ask(tmp_path, TWO + "lost 4\n")
    assert uuids(answer) == [stub.uuid(0)]
    assert answer["faults"] == []
    assert answer["total_on_machine"] == 2


@with_stub
def test_gpus_that_a_device_cgroup_hides_belong_to_the_machine(tmp_path: Path) -> None:
    files = tuple(f"/proc/driver/nvidia/gpus/0000:0{i}:00.0/information" for i in range(8))
    assert ask(tmp_path, TWO, files=files)["total_on_machine"] == 8


@with_stub
def test_health(tmp_path: Path) -> None:
    first, second, third, fourth = stub.gpus(4).splitlines(keepends=True)
    description = (
        f"{first}ecc 0\nremap 0 0\n{second}ecc 3\nremap 1 0\n{third}remap 0 1\nprocess 4242 1048576\n{fourth}sick 15\n"
    )
    told = ask(tmp_path, description)["health"]
    assert [h["uuid"] for h in told] == [stub.uuid(i) for i in range(4)]
    keys = ("uncorrected_ecc", "remap_pending", "remap_failed", "processes", "fault")
    assert [tuple(h[k] for k in keys) for h in told] == [
        (0, False, False, [], ""),
        (3, True, False, [], ""),
        (None, False, True, [[4242, 1048576]], ""),
        (None, False, False, [], "GPU is lost"),
    ]


@with_stub
def test_health_of_mig_instances_is_their_parents(tmp_path: Path) -> None:
    told = ask(tmp_path, MIG + "ecc 2\n", {"CUDA_VISIBLE_DEVICES": f"{MIGS[0]},{MIGS[2]}"})["health"]
    assert [(h["index"], h["uuid"], h["uncorrected_ecc"]) for h in told] == [(0, MIGS[0], None), (1, MIGS[2], 2)]


@with_stub
@pytest.mark.parametrize("env", [{}, {"CUDA_VISIBLE_DEVICES": "0,0"}])
def test_nvml_is_shut_down_whatever_happens(tmp_path: Path, env: dict[str, str]) -> None:
    record = tmp_path / "record"
    ask(tmp_path, f"shutdown {record}\n{TWO}", env)
    assert record.read_text() == ("shutdown\n" if env else "shutdown\n" * 2)  # find, and health if it came to that


@with_stub
def test_indices_on_a_mixed_machine_come_with_a_warning(tmp_path: Path) -> None:
    mixed = TWO + f"gpu {stub.uuid(2)} 17179869184 Tesla T4\n"
    listed = {"CUDA_VISIBLE_DEVICES": "0"}
    assert "CUDA_DEVICE_ORDER" in ask(tmp_path, mixed, listed)["sources"]["gpus"]
    listed["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    assert "CUDA_DEVICE_ORDER" not in ask(tmp_path, mixed, listed)["sources"]["gpus"]


@with_stub
def test_memory_that_nvml_does_not_know_is_zero(tmp_path: Path) -> None:
    assert ask(tmp_path, f"gpu {stub.uuid(0)} 0 NVIDIA GB10\n")["gpus"][0]["memory"] == 0


@pytest.mark.parametrize(
    ("text", "entries", "rejected"),
    [
        ("0,1", (0, 1), None),
        ("007", (7,), None),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",), None),
        ("MIG-ab,GPU-cd", ("MIG-ab", "GPU-cd"), None),
        ("MIG-GPU-ab/1/0", ("MIG-GPU-ab/1/0",), None),
        ("0,+1", (0,), "+1"),
        ("0,gpu-ab", (0,), "gpu-ab"),
        ("GPU-", (), "GPU-"),
        ("", (), ""),
        ("0,,1", (0,), ""),
        ("-1", (), "-1"),
        ("NoDevFiles", (), "NoDevFiles"),
        ("all", (), "all"),
        ("٣", (), "٣"),
    ],
)
def test_parse_visible(text: str, entries: tuple[int | str, ...], rejected: str | None) -> None:
    assert gpus.parse_visible(text) == gpus.Visible(entries, rejected)


@given(
    st.text() | st.lists(st.sampled_from(["0", "1", " 2", "-1", "", "x", "GPU-0", "GPU-00000001", "7"])).map(",".join)
)
def test_any_list_selects_a_prefix_of_what_it_names(text: str) -> None:
    whole = tuple(Gpu(i, stub.uuid(i), PRODUCT, 1) for i in range(4))
    devices = [Device(gpu.index, gpu.uuid, (gpu,)) for gpu in whole]
    visible = gpus.parse_visible(text)
    items = [item.strip() for item in text.split(",")]
    assert len(visible.entries) == (len(items) if visible.rejected is None else items.index(visible.rejected))
    assert all(isinstance(entry, int) or entry == item for entry, item in zip(visible.entries, items, strict=False))
    try:
        chosen = gpus.select(devices, text)
    except PreflightFailed:
        assert len(visible.entries) > 1
        return
    assert set(chosen.gpus) <= set(whole)
    assert len(set(chosen.gpus)) == len(chosen.gpus) <= len(visible.entries)
    if chosen.visibility is not None:
        # What is passed on means the same again, and needs no second mending.
        again = gpus.select(devices, chosen.visibility)
        assert (again.gpus, again.visibility, again.notes) == (chosen.gpus, None, ())


def test_nothing_is_loaded_where_the_user_hides_all_gpus(tmp_path: Path) -> None:
    answer = ask(tmp_path, None, {"CUDA_VISIBLE_DEVICES": ""}, None, ("/dev/nvidia0",))
    assert (answer["gpus"], answer["pynvml"]) == ([], False)


def test_the_host_is_the_only_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus.find(Host(env={"CUDA_VISIBLE_DEVICES": "-1"}, hostname="node", root=tmp_path), 1).gpus == ()
