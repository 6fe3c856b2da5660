"""The compose file and the Kubernetes manifests of three cells: complete, consistent, and with no right too many.

No container engine and no cluster are needed. The manifests are compared with Kubernetes' own schemas. The settings
that they give are loaded as the gateway loads them.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.settings.loading import Settings
from tests.e2e.test_container import settings_of
from tests.support.cells import CELLS, Secrets, make_secrets

KUBERNETES = ("1.28", "1.32", kubernetes_validate.latest_version())
OF_THE_OPERATOR = ("postgresql.cnpg.io/v1", "Cluster")
"""Kubernetes has no schema of it."""
POD_INDEX = "metadata.labels['apps.kubernetes.io/pod-index']"
IDS = ["cell_1", "cell_2", "cell_3"]
Document = dict[str, Any]


def compose() -> Document:
    """The compose file, as it is read with NAME=gateway.example.org in the environment."""
    text = (CELLS / "compose.yaml").read_text("utf-8").replace("${NAME:-localhost}", "gateway.example.org")
    found: Document = yaml.safe_load(text)
    return found


def kustomization() -> Document:
    """What `kubectl apply --kustomize` reads."""
    found: Document = yaml.safe_load((CELLS / "kustomization.yaml").read_text("utf-8"))
    return found


def manifests() -> list[Document]:
    """All objects of all manifests."""
    files = sorted((CELLS / "kubernetes").glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text("utf-8"))]


def manifest(kind: str, name: str) -> Document:
    """One object."""
    (found,) = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> dict[str, Document]:
    """The templates of the pods that are ours."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in manifests()
        if each["kind"] in ("StatefulSet", "Deployment")
    }


def variables(template: Document) -> dict[str, Any]:
    """The environment of the one container."""
    (container,) = template["spec"]["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def gateway_settings(given: dict[str, Any]) -> Settings:
    """The settings that a gateway reads from these variables."""
    return settings_of(**{name: value for name, value in given.items() if name.startswith("GATEWAY_")})


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    """The secrets of a trial."""
    return make_secrets(tmp_path_factory.mktemp("cells") / "secrets")


def mounted_files(secrets: Secrets, folder: str) -> set[str]:
    """The files of one folder, as a container sees them."""
    return {f"/run/secrets/{each.name}" for each in (secrets.folder / folder).iterdir()}


# --- compose ----------------------------------------------------------------------------------------------------------


def test_the_compose_file_describes_three_cells(secrets: Secrets) -> None:
    """Each has its own ids and volume, and a registry and files in common; the load balancer knows all of them."""
    services = compose()["services"]
    cells = {name: each for name, each in services.items() if each["image"] == "device-gateway"}
    found = [gateway_settings(each["environment"]) for each in cells.values()]
    assert [each.broker_id for each in found] == IDS
    assert len({each.gateway_id for each in found}) == len({str(each["volumes"][0]) for each in cells.values()}) == 3
    assert {str(each.database) for each in found} == {
        "postgresql://gateway@db1,db2/registry?sslrootcert=/run/secrets/ca.pem&sslmode=verify-full"
    }
    named = {value for value in services["cell-1"]["environment"].values() if value.startswith("/run/secrets/")}
    assert named <= mounted_files(secrets, "gateway")
    balancer = services["haproxy"]["environment"]
    assert [balancer[f"CELL_{number}"] for number in (1, 2, 3)] == list(cells)
    assert {str(each.mqtt_advertise) for each in found} == {f"{balancer['NAME']}:8883"} == {"gateway.example.org:8883"}


def test_containers_have_no_right_too_many() -> None:
    """No capability, a root that is read-only, a limit for memory and processes; one container listens outside."""
    services = compose()["services"]
    for name, each in services.items():
        assert (each["cap_drop"], each["read_only"]) == (["ALL"], True), name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "pids_limit", "stop_grace_period"} <= set(each), name
        assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"} & set(each), name
    assert [name for name, each in services.items() if "ports" in each] == ["haproxy"]
    assert services["haproxy"]["ports"] == ["443:8443", "8883:8883"]
    assert [name for name, each in services.items() if "database" in each["networks"]] == [
        *("cell-1", "cell-2", "cell-3"),
        *("db1", "db2"),
    ]
    assert compose()["networks"]["database"] == {"internal": True}


def test_the_compose_file_names_nothing_that_is_missing(secrets: Secrets) -> None:
    """Networks and volumes are declared, files are there, and services wait for services."""
    document = compose()
    for each in document["services"].values():
        assert set(each["networks"]) <= set(document["networks"])
        assert set(each.get("depends_on", {})) <= set(document["services"])
        for source, target, *mode in (volume.split(":") for volume in each["volumes"]):
            if source.startswith("./secrets/"):
                assert (secrets.folder / source.removeprefix("./secrets/")).is_dir()
            elif source.startswith("./"):
                assert (CELLS / source).is_file()
            else:
                assert source in document["volumes"]
            assert target.startswith("/")
            assert mode == (["ro"] if source.startswith("./") else [])
    assert (CELLS / document["services"]["cell-1"]["build"] / "Dockerfile").is_file()


def test_secrets_are_made_once(secrets: Secrets) -> None:
    """A second run changes no file. Nothing outside of the folder of the authority holds its key."""
    before = {each: each.read_bytes() for each in secrets.folder.rglob("*") if each.is_file()}
    make_secrets(secrets.folder)
    assert {each: each.read_bytes() for each in secrets.folder.rglob("*") if each.is_file()} == before
    key = (secrets.folder / "authority" / "ca.key").read_bytes()
    assert [each.name for each, content in before.items() if content == key] == ["ca.key"]
    assert {each.stat().st_mode & 0o077 for each in before} == {0}


def test_secrets_get_into_no_image_and_no_commit() -> None:
    """The image is built from a folder that holds them, so each list of files leaves them out."""
    for name in (".dockerignore", ".gitignore"):
        lines = (CELLS.parents[1] / name).read_text("utf-8").splitlines()
        assert [line.strip("/") for line in lines][-1] == "broker_config/cells/secrets"
    wheel = tomllib.loads((CELLS.parents[1] / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert "broker_config/cells/secrets" in wheel["wheel"]["exclude"]
    assert "broker_config/cells/secrets" in wheel["sdist"]["exclude"]


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_the_manifests(version: str) -> None:
    """Strictly: a field that Kubernetes does not know is an error, too."""
    own = [each for each in manifests() if (each["apiVersion"], each["kind"]) != OF_THE_OPERATOR]
    assert len(own) == len(manifests()) - 1
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)
    wrong = manifest("StatefulSet", "cells")
    wrong["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_all_manifests_are_applied(secrets: Secrets) -> None:
    """The list is complete, and its files are there or made by `secrets.sh`."""
    listed = kustomization()
    assert sorted(listed["resources"]) == sorted(f"kubernetes/{each.name}" for each in (CELLS / "kubernetes").iterdir())
    made = {each["name"]: each for each in (*listed["configMapGenerator"], *listed["secretGenerator"])}
    for each in (file for one in made.values() for file in one.get("files", ())):
        place = secrets.folder / each.removeprefix("secrets/") if each.startswith("secrets/") else CELLS / each
        assert place.is_file(), each
    by_operator = {"registry-app", "registry-ca"}
    for template in pods().values():
        for volume in template["spec"]["volumes"]:
            name = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
            assert name is None or name in {*made, *by_operator}


def test_each_pod_is_a_cell() -> None:
    """Three of them, with ids by their number; the load balancer asks each by its name."""
    cells = manifest("StatefulSet", "cells")
    given = variables(cells["spec"]["template"])
    assert given["CELL"] == {"fieldRef": {"fieldPath": POD_INDEX}}
    numbered = [
        gateway_settings(
            {
                name: value.replace("$(CELL)", str(number)).replace("$(NAME)", "gateway.example.org")
                for name, value in given.items()
                if isinstance(value, str)
            }
        )
        for number in range(cells["spec"]["replicas"])
    ]
    assert [(each.broker_id, each.gateway_id) for each in numbered] == [
        (f"cell_{number}", f"gw_{number}") for number in range(3)
    ]
    assert all(str(each.mqtt_advertise) == "gateway.example.org:8883" for each in numbered)
    balancer = variables(manifest("Deployment", "haproxy")["spec"]["template"])
    service, space = cells["spec"]["serviceName"], kustomization()["namespace"]
    assert [balancer[f"CELL_{number}"] for number in (1, 2, 3)] == [
        f"cells-{number}.{service}.{space}.svc.cluster.local" for number in range(3)
    ]


def test_named_files_are_mounted() -> None:
    """Each file that a setting names is below a mount of the container."""
    template = pods()["cells"]
    (container,) = template["spec"]["containers"]
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    named = [text for each in variables(template).values() for text in re.findall(r"=?(/run/\S+)", str(each))]
    assert len(named) == 7
    assert all(any(each.startswith(f"{mount}/") for mount in mounts) for each in named)
    listed = {each["name"]: each for each in kustomization()["secretGenerator"]}["gateway"]["files"]
    of_gateway = {Path(each).name for each in named if each.startswith("/run/secrets/gateway/")}
    assert of_gateway <= {Path(each).name for each in listed}


def test_pods_have_no_right_too_many() -> None:
    """As Kubernetes' restricted standard asks, without a token, with probes, resources and a disruption budget."""
    assert manifest("Namespace", "device-gateway")["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted"
    }
    for name, template in pods().items():
        spec = template["spec"]
        (container,) = spec["containers"]
        assert (spec["automountServiceAccountToken"], spec["serviceAccountName"]) == (False, name)
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"readinessProbe", "livenessProbe"} <= set(container)
        assert {"cpu", "memory"} == set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert all(each["readOnly"] for each in container["volumeMounts"] if each["name"] not in ("data", "tmp"))
        budget = manifest("PodDisruptionBudget", name)["spec"]
        assert budget["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert budget["maxUnavailable"] == 1
    assert pods()["cells"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_the_network_is_closed_by_default() -> None:
    """Nothing reaches a pod that no policy names; cells are reached by the load balancer, and by nothing else."""
    assert manifest("NetworkPolicy", "nothing")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    cells = manifest("NetworkPolicy", "cells")["spec"]
    (entry,) = cells["ingress"]
    assert entry["from"] == [{"podSelector": {"matchLabels": {"app": "haproxy"}}}]
    ports = {each["name"] for each in pods()["cells"]["spec"]["containers"][0]["ports"]}
    assert {each["port"] for each in entry["ports"]} == ports
    for name in pods():
        assert manifest("NetworkPolicy", name)["spec"]["policyTypes"] == ["Ingress", "Egress"]
    database = manifest("NetworkPolicy", "database")["spec"]
    cluster = manifest("Cluster", "registry")
    assert database["podSelector"] == {"matchLabels": {"cnpg.io/cluster": cluster["metadata"]["name"]}}


def test_a_commit_waits_for_the_standby() -> None:
    """On Kubernetes and with compose: two nodes, and an acknowledgement that both have written."""
    spec = manifest("Cluster", "registry")["spec"]
    assert (spec["instances"], spec["postgresql"]["synchronous"]) == (
        2,
        {"method": "any", "number": 1, "dataDurability": "required"},
    )
    assert spec["bootstrap"]["initdb"] | {"database": "registry", "owner": "gateway"} == spec["bootstrap"]["initdb"]
    settings = (CELLS / "postgresql.conf").read_text("utf-8").splitlines()
    assert {"synchronous_commit = on", "synchronous_standby_names = 'FIRST 1 (db1, db2)'"} <= set(settings)
    assert [compose()["services"][name]["environment"]["NODE"] for name in ("db1", "db2")] == ["db1", "db2"]
