"""k8s/ and examples/frameworks/: every kustomization renders, is valid, and agrees with the code and with itself."""

from __future__ import annotations

import copy
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import custom_kinds
import kubelet
import pytest
from controllers import is_custom, native, ray_cluster, templates
from entrypoint import ENTRYPOINT
from kubelet import REPOSITORY
from pod_security import violations

from bootstrap import errors, settings, timeouts
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import Role
from bootstrap.node.resources import CPU_REQUEST

pytestmark = [pytest.mark.requires("kubectl", "kubernetes-validate")]
FOLDERS = sorted(
    str(path.parent.relative_to(REPOSITORY))
    for pattern in ("k8s/**/kustomization.yaml", "examples/frameworks/*/kustomization.yaml")
    for path in REPOSITORY.glob(pattern)
    if "kind: Kustomization" in path.read_text()
)
VOLCANO = "k8s/overlays/volcano"
_OTHERS = ("kuberay", "leaderworkerset", "volcano", "frameworks/vllm")
_JOBSETS = ("jobset", "frameworks/nemo-rl")
OF_JOBS = [folder for folder in FOLDERS if not any(other in folder for other in _OTHERS)]
PLAIN_JOBS = [folder for folder in OF_JOBS if not any(kind in folder for kind in _JOBSETS)]
COMPONENTS = sorted(path.name for path in REPOSITORY.glob("k8s/components/*"))
VERSIONS = ("1.29", "1.37")
"""Of Kubernetes: the oldest that the docs promise, and the newest that the library has."""
GLOBAL = ("JOB_GLOBAL_INDEX", "GLOBAL_REPLICAS")
"""Variables of a JobSet, by which a pod notices a second Job."""
UNPRIVILEGED_ROOT = {"k8s/overlays/efa", "k8s/overlays/rdma"}

_rendered: dict[str, list[dict[str, Any]]] = {}


def rendered(folder: str) -> list[dict[str, Any]]:
    """Once a folder, a copy each time."""
    if folder not in _rendered:
        _rendered[folder] = kubelet.render(folder)
    return copy.deepcopy(_rendered[folder])


def pods(folder: str) -> list[dict[str, Any]]:
    return [template["spec"] for thing in rendered(folder) for template in templates(thing)]


def jobs(folder: str) -> list[dict[str, Any]]:
    return [part for thing in rendered(folder) for part in native(thing) if part["kind"] == "Job"]


def check_validity(objects: list[dict[str, Any]], version: str = VERSIONS[0]) -> None:
    import kubernetes_validate

    for thing in objects:
        if is_custom(thing):
            custom_kinds.validate(thing)
        for part in native(thing):
            assert kubernetes_validate.validate(part, version, strict=True) == version


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_valid(folder: str, version: str) -> None:
    assert pods(folder)
    check_validity(rendered(folder), version)


@pytest.mark.parametrize("kind", ["Job", "PodTemplate"])
def test_the_validation_finds_a_misspelt_field(kind: str) -> None:
    import kubernetes_validate

    folder = "k8s/base" if kind == "Job" else "k8s/overlays/kuberay/cluster"
    part = next(part for thing in rendered(folder) for part in native(thing) if part["kind"] == kind)
    template = part["template"] if kind == "PodTemplate" else part["spec"]["template"]
    template["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(part, VERSIONS[-1], strict=True)


def test_there_is_an_overlay_for_everything_that_the_docs_promise() -> None:
    text = (REPOSITORY / "docs/kubernetes.md").read_text()
    promised = set(re.findall(r"`(k8s/[a-z/-]+)`", text))
    there = {folder for folder in FOLDERS if folder.startswith("k8s/")}
    assert promised == {*there, *(f"k8s/components/{name}" for name in COMPONENTS)}


def beyond_repair() -> set[int]:
    """The statuses that trying again cannot mend, by the table of the code; and a shell's for no such command."""
    tree, found = [errors.BootstrapError], {errors.INTERNAL_STATUS, 126, 127}
    while tree:
        kind = tree.pop()
        tree += kind.__subclasses__()
        if not kind.retryable:
            found.add(kind.status)
    return found


@pytest.mark.parametrize("folder", OF_JOBS)
def test_the_pod_failure_policy_is_made_of_the_exit_statuses(folder: str) -> None:
    for job in jobs(folder):
        disruption, stopped, hopeless, *more = job["spec"]["podFailurePolicy"]["rules"]
        given_up = [errors.QuorumTimeout.status] if folder in PLAIN_JOBS else []  # JobSet tries that again
        assert [(rule["action"], *rule["onExitCodes"]["values"]) for rule in more] == [("FailJob", s) for s in given_up]
        assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        codes = {rule["action"]: rule["onExitCodes"] for rule in (stopped, hopeless)}
        assert set(codes["Ignore"]["values"]) == {128 + signal.SIGTERM}
        assert set(codes["FailJob"]["values"]) == beyond_repair()
        name = kubelet.container(job["spec"]["template"]["spec"])["name"]
        assert all(code["containerName"] == name and code["operator"] == "In" for code in codes.values())


def test_volcanos_policies_are_made_of_the_exit_statuses() -> None:
    """The first one that fits decides (applyPolicies in Volcano's job_controller_util.go)."""
    *hopeless, others = kubelet.only(rendered(VOLCANO), "Job")["spec"]["policies"]
    assert {policy["exitCode"] for policy in hopeless} == beyond_repair()
    assert {policy["action"] for policy in hopeless} == {"TerminateJob"}
    assert others == {"events": ["PodFailed", "PodEvicted"], "action": "RestartJob"}


def test_volcanos_plugins_and_its_gang() -> None:
    spec = kubelet.only(rendered(VOLCANO), "Job")["spec"]
    assert spec["plugins"].keys() == {"env", "svc"}
    # The plugin's own policy would have the name of ours, and would be deleted with it.
    assert set(spec["plugins"]["svc"]) == {"--publish-not-ready-addresses=true", "--disable-network-policy=true"}
    assert spec["minAvailable"] == sum(task["replicas"] for task in spec["tasks"])


@pytest.mark.parametrize("folder", OF_JOBS)
def test_the_number_of_nodes_is_the_same_wherever_it_is_said(folder: str) -> None:
    found = jobs(folder)
    for number, job in enumerate(found):
        spec, env = job["spec"], kubelet.container(job["spec"]["template"]["spec"])["env"]
        said = {entry["name"]: entry["value"] for entry in env if "value" in entry}
        counts = [
            int(count) for count in said["JOBSET_PODS_PER_JOB" if len(found) > 1 else "RAY_BOOTSTRAP_NODES"].split(",")
        ]
        assert len(counts) == len(found)
        assert spec["completions"] == spec["parallelism"] == counts[number]


def test_only_the_workers_of_jobset_head_have_gpus() -> None:
    """Both templates say the same, so that neither can drift from the other."""
    head, worker = (kubelet.container(pod) for pod in pods("k8s/overlays/jobset-head"))
    assert head["env"] == worker["env"]
    told = {entry["name"]: entry.get("value") for entry in head["env"]}
    assert (told["RAY_BOOTSTRAP_HEAD_GPUS"], told["RAY_BOOTSTRAP_HEAD_CPUS"]) == ("0", "0")
    assert told["RAY_BOOTSTRAP_EXPECT_GPUS"] == str(worker["resources"]["limits"]["nvidia.com/gpu"])
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert head["args"] == worker["args"]
    gpus = 2 * worker["resources"]["limits"]["nvidia.com/gpu"]
    assert head["args"][-4:] == ["--nodes", "3", "--gpus", str(gpus)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_agent_understands_what_the_pods_tell_it(folder: str) -> None:
    maps = {o["metadata"]["name"]: o["data"] for o in rendered(folder) if o["kind"] == "ConfigMap"}
    for pod in pods(folder):
        its = kubelet.container(pod)
        env = {entry["name"]: entry.get("value", "7") for entry in its.get("env", ())}  # 7 of the downward API
        for source in its.get("envFrom", ()):
            env |= maps[source["configMapRef"]["name"]]
        known = {settings.variable(option.name) for option in settings.options()} | {settings.SECRET}
        assert {name for name in env if name.startswith(settings.PREFIX)} <= known
        asked = settings.load({}, env)  # raises if a value is not understood
        assert pod["terminationGracePeriodSeconds"] >= asked.grace + 20
        if "readinessProbe" in its:
            assert its["readinessProbe"]["tcpSocket"]["port"] == asked.ready_port


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_may_do_no_more_than_they_must(folder: str) -> None:
    for pod in pods(folder):
        whole, its = pod["securityContext"], kubelet.container(pod)["securityContext"]
        added = its["capabilities"].get("add", [])
        assert its["allowPrivilegeEscalation"] is False
        assert "privileged" not in its
        assert its["capabilities"]["drop"] == ["ALL"]
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        root = folder in UNPRIVILEGED_ROOT
        assert whole["runAsNonRoot"] is not root
        assert (whole["runAsUser"] == 0) is root
        assert added == (["IPC_LOCK"] if root else [])
        if "kuberay" not in folder:  # whose autoscaler asks the API server
            assert pod["automountServiceAccountToken"] is False
            assert its["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_object_store_is_in_memory_and_fits(folder: str) -> None:
    for pod in pods(folder):
        check_object_store(pod)


def check_object_store(pod: dict[str, Any]) -> None:
    its = kubelet.container(pod)
    mounts = {mount["mountPath"]: mount["name"] for mount in its["volumeMounts"]}
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mounts["/dev/shm"])
    assert volume["emptyDir"]["medium"] == "Memory"
    size, limit = volume["emptyDir"]["sizeLimit"], its["resources"]["limits"]["memory"]
    assert int(size.removesuffix("Gi")) <= int(limit.removesuffix("Gi")) / 2


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_secret_is_committed_and_the_token_may_be_absent(folder: str) -> None:
    assert [o for o in rendered(folder) if o["kind"] == "Secret"] == []
    for pod in pods(folder):
        for entry in kubelet.container(pod).get("env", ()):
            if "secretKeyRef" in entry.get("valueFrom", {}):
                assert entry["valueFrom"]["secretKeyRef"]["optional"] is True


@pytest.mark.parametrize("folder", ["k8s/base", "k8s/overlays/ports", "k8s/overlays/jobset", VOLCANO])
def test_the_network_policy_lists_the_fixed_ports_that_pods_use_between_them(folder: str) -> None:
    objects = rendered(folder)
    told = settings.load({}, kubelet.only(objects, "ConfigMap")["data"])
    (rule,) = kubelet.only(objects, "NetworkPolicy")["spec"]["ingress"]
    listed = [range(port["port"], port.get("endPort", port["port"]) + 1) for port in rule["ports"]]
    between = ("rollcall", "probe", "gcs", "object_manager", "node_manager")
    between += ("dashboard_agent_grpc", "dashboard_agent_listen")
    used = [getattr(told, f"{name}_port") for name in between]
    assert [port for port in used if not any(port in span for span in listed)] == []
    assert range(told.min_worker_port or 0, (told.max_worker_port or 0) + 1) in listed
    if folder != "k8s/overlays/ports":  # whose ranges are wider, as a firewall's are
        assert sorted(span.start for span in listed) == sorted([*used, told.min_worker_port])
    in_kernel_range = [port for port in settings.fixed_ports(told).values() if port >= 32768]
    assert in_kernel_range == []


def test_the_seeds_port_map() -> None:
    told = settings.load({}, kubelet.only(rendered("k8s/overlays/ports"), "ConfigMap")["data"])
    assert (told.gcs_port, told.ray_client_server_port, told.dashboard_port) == (6380, 10002, 8266)
    assert told.metrics_export_port == 8081
    assert told.object_manager_port in range(8301, 8401)
    assert told.node_manager_port in range(8401, 8501)
    assert told.runtime_env_agent_port in range(8501, 8601)


@pytest.mark.parametrize(
    ("folder", "differs"),
    [
        ("k8s/overlays/jobset", {f"JOBSET_{name}" for name in ("NAME", "UID", "RESTART_ATTEMPT", *GLOBAL)}),
        (VOLCANO, {"RAY_BOOTSTRAP_NODES", "RAY_BOOTSTRAP_ATTEMPT"}),
        ("k8s/overlays/leaderworkerset", {"RAY_BOOTSTRAP_NODES", "RAY_BOOTSTRAP_HEAD_ADDRESS"}),
    ],
)
def test_the_pods_of_other_controllers_are_those_of_the_base(folder: str, differs: set[str]) -> None:
    (base,), (pod,) = pods("k8s/base"), pods(folder)
    theirs, ours = kubelet.container(pod), kubelet.container(base)
    names = [{entry["name"] for entry in its.pop("env")} for its in (theirs, ours)]
    assert names[0] ^ names[1] <= differs | {"RAY_BOOTSTRAP_RUN_ID", "RAY_BOOTSTRAP_REPLACED_NODES"}
    theirs["args"] = ours["args"]
    for key in ("subdomain", "restartPolicy"):
        base.pop(key)
        pod.pop(key, None)
    assert pod == base


def sample(tmp_path: Path, folder: str) -> list[dict[str, Any]]:
    """The objects of the kustomization in the docs, over this folder in the place of the base."""
    text = (REPOSITORY / "docs/kubernetes.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0].replace("//k8s/base?", f"//{folder}?")
    here = os.path.relpath(REPOSITORY, tmp_path.resolve())
    theirs = re.sub(r"https://HOST/ray-bootstrap//(\S+)\?ref=TAG", rf"{here}/\1", example)
    (tmp_path / "kustomization.yaml").write_text(theirs)
    return kubelet.render(tmp_path)


@pytest.mark.parametrize("folder", ["k8s/base", "k8s/overlays/gpu", "k8s/overlays/shared-fs"])
def test_a_run_of_ones_own_as_in_the_docs(tmp_path: Path, folder: str) -> None:
    objects = sample(tmp_path, folder)
    check_validity(objects)
    job = kubelet.only(objects, "Job")
    pod = job["spec"]["template"]["spec"]
    its = kubelet.container(pod)
    assert violations(pod) == []
    assert (its["image"], its["args"]) == ("REGISTRY/train:7", ["--", "python", "train.py"])
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 4)
    assert (job["spec"]["backoffLimitPerIndex"], job["spec"]["maxFailedIndexes"]) == (3, 0)
    env = {entry["name"]: entry.get("value") for entry in its["env"]}
    assert (env["RAY_BOOTSTRAP_NODES"], env["RAY_BOOTSTRAP_LOG_DIR"]) == ("4", "/logs")
    check_object_store(pod)
    (spread,) = pod["topologySpreadConstraints"]
    services, policy = [o for o in objects if o["kind"] == "Service"], kubelet.only(objects, "NetworkPolicy")
    headless = next(service for service in services if service["spec"].get("clusterIP") == "None")
    template = kubelet.only(objects, "Job")["spec"]["template"]
    assert template["spec"]["subdomain"] == headless["metadata"]["name"] == "alice-ray"
    selectors = [headless["spec"]["selector"], policy["spec"]["podSelector"]["matchLabels"]]
    for selector in (*selectors, spread["labelSelector"]["matchLabels"]):
        assert selector["app.kubernetes.io/instance"] == "alice"
        assert selector.items() <= template["metadata"]["labels"].items()
    assert policy["spec"]["ingress"][0]["from"][0]["podSelector"] == policy["spec"]["podSelector"]
    reference = its["envFrom"][0]["configMapRef"]["name"]
    assert reference == kubelet.only(objects, "ConfigMap")["metadata"]["name"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert sorted(claims) == sorted(o["metadata"]["name"] for o in objects if o["kind"] == "PersistentVolumeClaim")


@pytest.mark.parametrize("folder", sorted({*FOLDERS} - {*PLAIN_JOBS} - {f for f in FOLDERS if "kuberay" in f}))
def test_the_components_leave_other_controllers_objects_as_they_are(tmp_path: Path, folder: str) -> None:
    """Volcano's kind is called Job, too."""
    (theirs,) = (thing for thing in rendered(folder) if is_custom(thing))
    assert theirs in kubelet.with_components(tmp_path, folder, *COMPONENTS)


@pytest.mark.parametrize("folder", PLAIN_JOBS)
def test_the_components_fit_to_every_job_and_to_each_other(tmp_path: Path, folder: str) -> None:
    objects = kubelet.with_components(tmp_path, folder, *COMPONENTS)
    check_validity(objects)
    spec = kubelet.only(objects, "Job")["spec"]
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (3, 0)
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "Ignore", "FailIndex"]
    assert set(spec["podFailurePolicy"]["rules"][2]["onExitCodes"]["values"]) == beyond_repair()
    pod = spec["template"]["spec"]
    asked = settings.load({}, {e["name"]: e["value"] for e in kubelet.container(pod)["env"] if "value" in e})
    assert (asked.min_nodes, asked.log_dir, asked.replaced_nodes) == (1, "/logs", "all")
    assert pod["terminationGracePeriodSeconds"] >= asked.grace + timeouts.COPY_LOGS_S + 20


@pytest.mark.parametrize("folder", FOLDERS)
def test_two_runs_side_by_side(tmp_path: Path, folder: str) -> None:
    """The docs' namePrefix and instance, over everything."""
    its = os.path.relpath(REPOSITORY / folder, tmp_path.resolve())
    instance = "{pairs: {app.kubernetes.io/instance: alice}, includeSelectors: true}"
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{its}]\nnamePrefix: alice-\nlabels: [{instance}]\n")
    objects = kubelet.render(tmp_path)
    assert all(thing["metadata"]["name"].startswith("alice-") for thing in objects)
    found = [template for thing in objects for template in templates(thing)]
    assert found
    for template in found:
        assert template["metadata"]["labels"]["app.kubernetes.io/instance"] == "alice"
        account = template["spec"].get("serviceAccountName")
        assert account in (None, *(thing["metadata"]["name"] for thing in objects if thing["kind"] == "ServiceAccount"))
    for policy in (thing for thing in objects if thing["kind"] == "NetworkPolicy"):
        chosen = policy["spec"]["podSelector"]["matchLabels"].items()
        ours = {(name, value) for name, value in chosen if name.startswith("app.kubernetes.io/")}
        assert ours
        assert all(ours <= template["metadata"]["labels"].items() for template in found)


@pytest.mark.parametrize("folder", [*OF_JOBS, VOLCANO])
def test_the_head_has_a_name_before_it_has_a_pod(tmp_path: Path, folder: str) -> None:
    """Also under another name; or the record in a shared folder says where it is."""
    its = os.path.relpath(REPOSITORY / folder, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{its}]\nnamePrefix: alice-\nnameSuffix: -x\n")
    objects = kubelet.render(tmp_path)
    ports = settings.load({}, next((o["data"] for o in objects if o["kind"] == "ConfigMap"), {}))
    for template in (template for thing in objects for template in templates(thing)):
        env = {entry["name"]: entry for entry in kubelet.container(template["spec"])["env"]}
        if "RAY_BOOTSTRAP_HEAD_ADDRESS" not in env:
            assert "RAY_BOOTSTRAP_SHARED_DIR" in env
            continue
        path = env["RAY_BOOTSTRAP_HEAD_ADDRESS"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.annotations['ray-bootstrap-head']"
        name = template["metadata"]["annotations"]["ray-bootstrap-head"]
        (service,) = (o for o in objects if o["kind"] == "Service" and o["metadata"]["name"] == name)
        assert name.startswith("alice-")
        assert name.endswith("-x")
        assert "clusterIP" not in service["spec"]
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert [port["port"] for port in service["spec"]["ports"]] == [ports.rollcall_port]
        selector = dict(service["spec"]["selector"])
        task = {"volcano.sh/task-spec": "node"} if folder == VOLCANO else {}
        index = "volcano.sh/task-index" if folder == VOLCANO else "batch.kubernetes.io/job-completion-index"
        assert selector.pop(index) == "0"
        assert selector.pop("jobset.sigs.k8s.io/job-global-index", "0") == "0"
        assert {name: selector.pop(name) for name in task} == task
        assert selector.items() <= template["metadata"]["labels"].items()


def test_the_token_of_the_component_events_lists_events_and_nothing_else(tmp_path: Path) -> None:
    objects = kubelet.with_components(tmp_path, "k8s/base", "events")
    account, role, binding = (kubelet.only(objects, kind) for kind in ("ServiceAccount", "Role", "RoleBinding"))
    pod = kubelet.only(objects, "Job")["spec"]["template"]["spec"]
    assert violations(pod) == []
    assert role["rules"] == [{"apiGroups": [""], "resources": ["events"], "verbs": ["list"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [account["metadata"]["name"]]
    assert pod["serviceAccountName"] == account["metadata"]["name"]


def test_efa_has_what_elastic_fabric_needs() -> None:
    (pod,) = pods("k8s/overlays/efa")
    its = kubelet.container(pod)
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert pod["nodeSelector"] == {"node.kubernetes.io/instance-type": "p4d.24xlarge"}
    assert "podAntiAffinity" in pod["affinity"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    for limits in (its["resources"]["limits"], its["resources"]["requests"]):
        assert (limits["nvidia.com/gpu"], limits["vpc.amazonaws.com/efa"]) == (8, 4)
    assert {"name": "shared", "persistentVolumeClaim": {"claimName": "fsx-pvc"}} in pod["volumes"]
    assert {"name": "RAY_BOOTSTRAP_SHARED_DIR", "value": "/shared"} in its["env"]
    assert "envFrom" not in its  # ports of the machine, some of them taken


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if "kuberay" not in folder])
def test_ray_offers_what_the_pod_requests_where_it_has_no_limit(folder: str) -> None:
    """KubeRay's operator passes --num-cpus itself, from limits.cpu or else requests.cpu (setMissingRayStartParams)."""
    for pod in pods(folder):
        its = kubelet.container(pod)
        (entry,) = (entry for entry in its["env"] if entry["name"] == CPU_REQUEST)
        said = kubelet.resource_field(entry["valueFrom"]["resourceFieldRef"], its)
        assert int(said) == int(its["resources"]["requests"]["cpu"]) * 1000
        assert "cpu" not in its["resources"]["limits"]


def clusters() -> list[dict[str, Any]]:
    folders = [folder for folder in FOLDERS if "kuberay" in folder]
    return [o for f in folders for o in rendered(f) if o["kind"] in ("RayCluster", "RayJob", "RayService")]


def test_kuberay_leaves_its_command_to_the_agent_everywhere() -> None:
    assert len(clusters()) == 4
    for thing in clusters():
        assert thing["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
        cluster = ray_cluster(thing)
        assert cluster.get("enableInTreeAutoscaling", False) is (thing["kind"] != "RayJob")
        for group in cluster["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for template in templates(thing):
            its = kubelet.container(template["spec"])
            assert (its["command"], its.get("args", [])) == ([*ENTRYPOINT, "kuberay"], [])
            assert template["spec"]["serviceAccountName"] == "ray-deployer"


def test_the_entrypoint_of_a_rayjob_waits_for_all_its_pods_and_attaches() -> None:
    job = kubelet.only(rendered("k8s/overlays/kuberay/job"), "RayJob")
    agent, *args = shlex.split(job["spec"]["entrypoint"])
    ours, workload = args[: args.index("--")], args[args.index("--") + 1 :]
    nodes = 1 + sum(group["replicas"] for group in ray_cluster(job)["workerGroupSpecs"])
    flags = {flag.lstrip("-"): [value] for flag, value in (option.split("=") for option in ours)}
    assert (agent, settings.load(flags, {}).nodes, workload[-1]) == ("ray-bootstrap", nodes, str(nodes))
    head = kubelet.container(ray_cluster(job)["headGroupSpec"]["template"]["spec"])
    host = Host({"RAY_ADDRESS": "10.244.1.7:6379", **{e["name"]: e.get("value", "7") for e in head["env"]}}, "ray-head")
    assert identify(settings.load(flags, host.env), host)[0].role is Role.DRIVER


def test_the_gpu_groups_double() -> None:
    import json

    (cluster,) = (o for o in rendered("k8s/overlays/kuberay/gpu-groups") if o["kind"] == "RayCluster")
    groups = cluster["spec"]["workerGroupSpecs"]
    sizes = [int(group["rayStartParams"]["num-gpus"]) for group in groups]
    assert sizes == [1, 2, 4, 8]
    for group, size in zip(groups, sizes, strict=True):
        limits = kubelet.container(group["template"]["spec"])["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == size
        (text,) = shlex.split(group["rayStartParams"]["resources"])  # KubeRay pastes it into a shell's line
        expected = {"NVIDIA-A100-SXM4-80GB": size, **({"full-worker": 1} if size == 8 else {})}
        assert json.loads(text) == expected
    for small, large in zip(groups, sizes[1:], strict=False):
        assert small["maxReplicas"] * int(small["rayStartParams"]["num-gpus"]) <= large
