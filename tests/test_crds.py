"""What validates k8s/'s objects of other projects' kinds, in test_manifests, finds what the API server would refuse."""

from __future__ import annotations

import copy
import gzip
import json
from functools import cache
from typing import Any

import custom_kinds
import kubelet
import pytest
from crds import vendor
from custom_kinds import Invalid

pytestmark = [pytest.mark.requires("kubectl", "kubernetes-validate")]
FOLDERS = {
    "JobSet": "k8s/overlays/jobset",
    "LeaderWorkerSet": "k8s/overlays/leaderworkerset",
    "RayCluster": "k8s/overlays/kuberay/gpu-groups",
    "RayJob": "k8s/overlays/kuberay/job",
    "RayService": "k8s/overlays/kuberay/service",
    "Job": "k8s/overlays/volcano",
}
"""By kind; that of Volcano's is Job."""
JOB = "spec.replicatedJobs.0.template.spec"
POD = f"{JOB}.template.spec"
GROUP = "spec.leaderWorkerTemplate"
MISSPELT = [
    ("JobSet", "spec.network", "publishNotReadyAdresses"),
    ("JobSet", f"{JOB}.podFailurePolicy.rules.0", "actoin"),
    ("JobSet", f"{POD}.containers.0.securityContext", "readOnlyRootFileSystem"),
    ("JobSet", "metadata", "lables"),
    ("LeaderWorkerSet", GROUP, "sise"),
    ("LeaderWorkerSet", f"{GROUP}.workerTemplate.metadata", "lables"),
    ("RayCluster", "spec.workerGroupSpecs.0", "minReplica"),
    ("RayCluster", "spec.headGroupSpec.template.spec.containers.0.resources", "limit"),
    ("RayJob", "spec", "entryPoint"),
    ("RayService", "spec", "serveConfig"),
    ("RayService", "spec.rayClusterConfig.headGroupSpec", "rayStartParam"),
    ("Job", "spec.tasks.0", "replica"),
    ("Job", "spec.policies.0", "exitcode"),
    ("Job", "spec.tasks.0.template.spec.containers.0.env.0", "valueform"),
]
WRONG = [
    ("JobSet", f"{JOB}.parallelism", "2", "'2' is not of type 'integer'"),
    ("JobSet", "spec.failurePolicy.rules.0.action", "Fail", "is not one of"),
    ("JobSet", "spec.replicatedJobs.0.name", None, "'name' is a required property"),
    ("LeaderWorkerSet", f"{GROUP}.restartPolicy", "Never", "is not one of"),
    ("RayCluster", "spec.headGroupSpec", None, "'headGroupSpec' is a required property"),
    ("RayCluster", "spec.workerGroupSpecs.0.rayStartParams.num-gpus", 1, "1 is not of type 'string'"),
    ("RayJob", "spec.shutdownAfterJobFinishes", "yes", "'yes' is not of type 'boolean'"),
    ("RayService", "spec.serveConfigV2", {"applications": []}, "is not of type 'string'"),
    ("Job", "spec.minAvailable", "two", "'two' is not of type 'integer'"),
]


@cache
def rendered(kind: str) -> dict[str, Any]:
    return kubelet.only(kubelet.render(FOLDERS[kind]), kind)


def at(thing: Any, path: str) -> Any:
    for part in path.split("."):
        thing = thing[int(part)] if part.isdigit() else thing[part]
    return thing


@pytest.mark.parametrize(("kind", "path", "field"), MISSPELT)
def test_a_misspelt_field_is_found_at_any_depth(kind: str, path: str, field: str) -> None:
    thing = copy.deepcopy(rendered(kind))
    custom_kinds.validate(thing)
    at(thing, path)[field] = {}
    with pytest.raises(Invalid, match=f"'{field}' was unexpected"):
        custom_kinds.validate(thing)


@pytest.mark.parametrize(("kind", "path", "value", "fault"), WRONG)
def test_a_wrong_value_is_found(kind: str, path: str, value: Any, fault: str) -> None:
    thing = copy.deepcopy(rendered(kind))
    parent, _, field = path.rpartition(".")
    if value is None:
        del at(thing, parent)[field]
    else:
        at(thing, parent)[field] = value
    with pytest.raises(Invalid, match=fault):
        custom_kinds.validate(thing)


def test_an_entry_that_is_there_twice_is_found() -> None:
    thing = copy.deepcopy(rendered("JobSet"))
    env = at(thing, f"{POD}.containers.0.env")
    env.append({"name": env[0]["name"], "value": "other"})
    with pytest.raises(Invalid, match="is there twice"):
        custom_kinds.validate(thing)


def test_which_rules_in_cel_are_not_evaluated() -> None:
    found = {kind: custom_kinds.not_evaluated(rendered(kind)) for kind in FOLDERS}
    (order,) = found.pop("JobSet")
    assert order.startswith("!(has(self.startupPolicy) && self.startupPolicy.startupPolicyOrder == 'InOrder'")
    assert "startupPolicy" not in rendered("JobSet")["spec"]  # so it holds
    assert not any(found.values())


def test_the_script_that_vendored_them_writes_them_as_they_are(tmp_path, monkeypatch) -> None:
    """From a definition with all that it must keep and drop, since the originals are not here."""
    import hashlib

    field = {"type": "string", "description": "What it is."}
    fields = {"description": field, "properties": {"type": "object", "properties": {"description": field}}}
    schema = {"type": "object", "description": "All.", "properties": fields}
    crd = {"spec": {"group": "g", "names": {"kind": "K"}}}
    crd["spec"]["versions"] = [{"name": v, "schema": {"openAPIV3Schema": schema}} for v in ("v1alpha1", "v1")]
    text = json.dumps(crd).encode()
    monkeypatch.setattr(vendor, "HERE", tmp_path)
    source = vendor.Source("g/k", "v1.0.0", "crds/g_ks.yaml", hashlib.sha256(text).hexdigest(), "v1")
    vendor.vendor(source, text)
    kept = json.loads(gzip.decompress((tmp_path / "g_ks.json.gz").read_bytes()))
    field = {"type": "string"}
    fields = {"description": field, "properties": {"type": "object", "properties": {"description": field}}}
    assert kept == {"group": "g", "kind": "K", "version": "v1", "schema": {"type": "object", "properties": fields}}
    with pytest.raises(ValueError, match=f"SHA-256 .*, expected {source.sha256}"):
        vendor.vendor(source, text + b" ")


def test_each_schema_is_named_with_its_version_and_source() -> None:
    files = {path.name for path in custom_kinds.CRDS.glob("*.json.gz")}
    assert files == {source.file.name for source in vendor.SOURCES}
    readme = (custom_kinds.CRDS / "README.md").read_text()
    for source in vendor.SOURCES:
        (row,) = (line for line in readme.splitlines() if f"`{source.file.name.removesuffix('.json.gz')}`" in line)
        assert f"github.com/{source.repository})" in row
        assert source.tag in row
        assert "Apache-2.0" in row
        assert f"/{source.tag}/" in source.url
