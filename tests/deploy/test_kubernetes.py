"""`deploy/kubernetes`: valid, and as strict with its pods as Kubernetes' *restricted* profile."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bucketwatch.env import secret_variables
from bucketwatch.local.environment import product_variables
from scanning.runtime.processes import STOP_S
from tests.support.deployment import DEPLOY, compose, dockerfile

KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.37"
PSEUDO = {"Kustomization", "Component"}  # kustomize's own, in no schema of Kubernetes


def documents(directory: Path) -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(directory.rglob("*.yaml"))]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def label(document: dict[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


OBJECTS = [document for document in documents(KUBERNETES) if document["kind"] not in PSEUDO]
BASE = documents(KUBERNETES / "base")


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {doc["metadata"]["name"]: doc for doc in BASE if doc["kind"] == kind}


DEPLOYMENTS = of_kind("Deployment")
PODS = {
    name: document["spec"]["template"] for name, document in (DEPLOYMENTS | of_kind("Job")).items()
}
CONTAINERS = {
    f"{name}: {container['name']}": container
    for name, pod in PODS.items()
    for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
}
SETTINGS: dict[str, str] = of_kind("ConfigMap")["bucketwatch-settings"]["data"]


def validate(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("document", OBJECTS, ids=label)
def test_an_object_is_what_kubernetes_takes(document):
    validate(document)


@pytest.mark.parametrize("with_vault", [False, True], ids=["as it is", "with embedded vault"])
def test_the_example_can_be_put_together(tmp_path, with_vault):
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("NO KUSTOMIZE: kubectl is not installed here")
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    example = tmp_path / "kubernetes/overlays/example"
    if with_vault:
        text = (example / "kustomization.yaml").read_text()
        text = text.replace("# components:\n#   - ", "components:\n  - ")
        (example / "kustomization.yaml").write_text(text)
    built = subprocess.check_output([kubectl, "kustomize", example], text=True, timeout=60)
    objects = list(yaml.safe_load_all(built))
    assert len(objects) > len(BASE)
    for document in objects:
        validate(document)
    volumes = [
        volume
        for document in objects
        if document["kind"] == "Deployment"
        for volume in document["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "data"
    ]
    assert [("persistentVolumeClaim" in volume) for volume in volumes] == 3 * [with_vault]
    assert all("emptyDir" not in volume for volume in volumes) is with_vault


# --- pods


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_as_nobody_and_gets_nothing_of_the_cluster(name):
    spec = PODS[name]["spec"]
    [user] = [step.text.partition(":")[0] for step in dockerfile()[1] if step.name == "USER"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(user),
        "fsGroup": int(user),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is False
    # Else a Service called redis would set REDIS_PORT to a URL.
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_may_do_no_more_than_it_has_to(name):
    container = CONTAINERS[name]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}
    assert container["resources"]["limits"].keys() == {"memory"}  # never less CPU than there is


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_the_time_that_it_takes_to_stop(name):
    spec = PODS[name]["spec"]
    assert spec.get("terminationGracePeriodSeconds", 30) > STOP_S


def test_its_commands_are_those_of_compose_which_a_test_runs():
    services = compose()["services"]
    commands = [services[name]["command"] for name in ("web", "monitor", "workers", "migrate")]
    there = [container["args"] for container in CONTAINERS.values()]
    assert {" ".join(args) for args in there} == {
        *(" ".join(command) for command in commands),
        "python manage.py migrate --check",
    }


def test_probes_ask_what_answers_while_redis_is_away():
    [web] = DEPLOYMENTS["bucketwatch-web"]["spec"]["template"]["spec"]["containers"]
    probes = [web[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert probes == 3 * [{"path": "/health", "port": "http"}]
    assert web["ports"] == [{"name": "http", "containerPort": int(SETTINGS["PORT"])}]


# --- what belongs together


def test_every_setting_is_one_that_bucketwatch_reads():
    example = yaml.safe_load((KUBERNETES / "overlays/example/settings.yaml").read_text())
    assert SETTINGS.keys() | example["data"].keys() <= product_variables()


def test_no_secret_is_a_plain_setting():
    example = yaml.safe_load((KUBERNETES / "overlays/example/settings.yaml").read_text())
    assert not (SETTINGS.keys() | example["data"].keys()) & secret_variables()
    assert not [document for document in OBJECTS if document["kind"] == "Secret"]


def test_every_secret_is_looked_for_where_it_is_mounted():
    example = yaml.safe_load((KUBERNETES / "overlays/example/settings.yaml").read_text())
    files = [v for k, v in (SETTINGS | example["data"]).items() if k.endswith("_FILE")]
    for container in CONTAINERS.values():
        paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert {str(Path(file).parent) for file in files} == {paths["secrets"]}
        assert paths["data"] == SETTINGS["DATA_DIR"]


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "Service", "NetworkPolicy"])
def test_every_selector_finds_pods(kind):
    for document in of_kind(kind).values():
        selector = document["spec"].get("selector") or document["spec"]["podSelector"]
        wanted = selector.get("matchLabels", selector)
        labels = [pod["metadata"]["labels"].items() for pod in PODS.values()]
        assert any(wanted.items() <= there for there in labels), label(document)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_outlives_the_loss_of_a_node(name):
    replicas = DEPLOYMENTS[name]["spec"].get("replicas")
    scalers = [s["spec"] for s in of_kind("HorizontalPodAutoscaler").values()]
    minimum = {s["scaleTargetRef"]["name"]: s["minReplicas"] for s in scalers}
    # Not both: each apply would undo what the autoscaler did.
    assert (replicas or 0) + minimum.get(name, 0) == 2
    assert name in of_kind("PodDisruptionBudget")
    [spread] = DEPLOYMENTS[name]["spec"]["template"]["spec"]["topologySpreadConstraints"]
    labels = PODS[name]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"] == labels


def test_nothing_may_be_sent_to_the_clouds_metadata_service():
    egress = of_kind("NetworkPolicy")["bucketwatch"]["spec"]["egress"]
    blocks = [peer["ipBlock"] for rule in egress for peer in rule["to"] if "ipBlock" in peer]
    assert blocks
    assert all(block["except"] for block in blocks)
