"""The files that give each device a home broker: a component of the Kubernetes manifests, and a second compose file."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography import x509

from tests.e2e.test_cell_files import (
    KUBERNETES,
    Document,
    compose,
    gateway_settings,
    kustomization,
    manifest,
    variables,
)
from tests.support.cells import CELLS, NAME, make_secrets

HOMES = CELLS / "homes"
NAMED = re.compile(r"\$\((\w+)\)")


def documents(name: str) -> list[Document]:
    """The objects of one file of the component."""
    return list(yaml.safe_load_all((HOMES / name).read_text("utf-8")))


def patched_variables() -> list[Document]:
    """The environment of a cell with the component.

    Kustomize puts the variables of the patch first, then those of the manifest that the patch does not name.
    """
    (patch,) = documents("cells.yaml")
    stateful_set = manifest("StatefulSet", "cells")
    assert (patch["kind"], patch["metadata"]["name"]) == (stateful_set["kind"], stateful_set["metadata"]["name"])
    (ours,), (base,) = (each["spec"]["template"]["spec"]["containers"] for each in (patch, stateful_set))
    assert ours["name"] == base["name"]
    new = {each["name"] for each in ours["env"]}
    return [*ours["env"], *(each for each in base["env"] if each["name"] not in new)]


def test_the_component_is_complete() -> None:
    """Each of its files is applied, and one line of the manifests turns it on."""
    listed = yaml.safe_load((HOMES / "kustomization.yaml").read_text("utf-8"))
    assert listed["kind"] == "Component"
    files = {*listed["resources"], *(each["path"] for each in listed["patches"]), "kustomization.yaml"}
    assert files == {each.name for each in HOMES.iterdir()}
    text = (CELLS / "kustomization.yaml").read_text("utf-8")
    assert "components" not in kustomization()
    assert yaml.safe_load(text.replace("# components:", "components:"))["components"] == [HOMES.name]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_the_component(version: str) -> None:
    """The new objects, and the cells with their patch."""
    patched = copy.deepcopy(manifest("StatefulSet", "cells"))
    patched["spec"]["template"]["spec"]["containers"][0]["env"] = patched_variables()
    for each in (*documents("services.yaml"), *documents("network.yaml"), patched):
        kubernetes_validate.validate(each, version, strict=True)


def test_each_cell_has_a_name_and_an_address(tmp_path: Path) -> None:
    """A service leads to one pod, and the pod answers the name of its service, which the certificate holds."""
    cells = manifest("StatefulSet", "cells")
    count, labels = cells["spec"]["replicas"], cells["spec"]["template"]["metadata"]["labels"]
    services = documents("services.yaml")
    assert [each["metadata"]["name"] for each in services] == [f"cell-{number}" for number in range(count)]
    given = variables({"spec": {"containers": [{"env": patched_variables()}]}})
    certificate = x509.load_pem_x509_certificate((make_secrets(tmp_path / "secrets").gateway / "tls.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert f"*.{NAME}" in names.get_values_for_type(x509.DNSName)
    for number, service in enumerate(services):
        spec = service["spec"]
        assert spec["selector"] == {**labels, "statefulset.kubernetes.io/pod-name": f"cells-{number}"}
        assert [(each["port"], each["targetPort"]) for each in spec["ports"]] == [(8883, "mqtts")]
        settings = gateway_settings(_filled(given, number))
        assert (settings.cells, settings.broker_id) == ("home", f"cell_{number}")
        assert str(settings.mqtt_advertise) == f"{service['metadata']['name']}.{NAME}:8883"


def _filled(given: Document, number: int) -> dict[str, Any]:
    values = {"CELL": str(number), "NAME": NAME}
    return {
        name: NAMED.sub(lambda found: values[found[1]], value)
        for name, value in given.items()
        if isinstance(value, str)
    }


def test_variables_are_known_where_they_are_named() -> None:
    """Kubernetes leaves `$(CELL)` as it is where no variable of this name stands before."""
    known: set[str] = set()
    for each in patched_variables():
        assert set(NAMED.findall(each.get("value", ""))) <= known, each
        known.add(each["name"])


def test_devices_reach_the_broker_and_nothing_else() -> None:
    """The network policy of the component opens the port of MQTT, and no other."""
    (policy,) = documents("network.yaml")
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app": "cells"}}
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": "mqtts"}]}]
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_the_compose_file_publishes_each_cell() -> None:
    """Each at its own port, and its bind answers that."""
    text = (CELLS / "compose.homes.yaml").read_text("utf-8").replace("${NAME:-localhost}", NAME)
    added, base = yaml.safe_load(text)["services"], compose()
    cells = {name: each for name, each in base["services"].items() if each["image"] == "device-gateway"}
    assert list(added) == list(cells)
    published = [port for each in base["services"].values() for port in each.get("ports", ())]
    for name, each in added.items():
        assert set(each) == {"environment", "networks", "ports"}
        assert set(each["networks"]) <= set(base["networks"])
        ((outside, inside),) = [port.split(":") for port in each["ports"]]
        settings = gateway_settings({**cells[name]["environment"], **each["environment"]})
        assert settings.cells == "home"
        assert str(settings.mqtt_advertise) == f"{NAME}:{outside}"
        assert inside == str(settings.mqtt.port)
        published.append(each["ports"][0])
    assert len({port.split(":")[0] for port in published}) == len(published)
