"""deploy/ and the guides: what they hold loads, fits together, and works without an engine for containers."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hector.config import loads
from hector.config.model import SqlStoreSection
from hector.config.sql import PostgresSection
from tests.e2e.conftest import HECTOR
from tests.e2e.shell import ROOT, bash

DEPLOY = ROOT / "deploy"
GUIDES = ("session-persistence.md", "deployment.md")
ENVIRON = {name: f"{name}-0123456789" for name in ("DB_PASSWORD", "HECTOR_DB_PASSWORD", "HECTOR_TOKEN")}
CONFIG = """\
llms: {scripted: {type: scripted, model: recall}}
agents: {assistant: {llm: scripted}}
"""


def documents(text: str) -> list[Any]:
    return list(YAML(typ="safe").load_all(text))


COMPOSE = documents((DEPLOY / "compose.yaml").read_text())[0]
KUBERNETES = [
    document for path in sorted(DEPLOY.glob("kubernetes/*.yaml")) for document in documents(path.read_text())
]
DOCKERFILE = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())


def instruction(name: str) -> str:
    """The last of that name: of the image that is the result."""
    *_, last = re.findall(rf"^{name} +(.*)", DOCKERFILE, re.MULTILINE)
    return str(last).strip()


def command(name: str) -> list[str]:
    words: list[str] = json.loads(instruction(name)[instruction(name).index("[") :])
    return words


def of_kind(kind: str, name: str) -> Any:
    (found,) = (each for each in KUBERNETES if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def container(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"][0]


def pods() -> dict[str, Any]:
    """The pods' specifications, by kind and name."""
    return {
        f"{each['kind']} {each['metadata']['name']}": each["spec"]["template"]["spec"]
        for each in KUBERNETES
        if "template" in each.get("spec", {})
    }


# --- the image


def test_the_image_serves_the_mounted_configuration_on_port_8080(tmp_path: Path) -> None:
    (tmp_path / "hector").symlink_to(HECTOR)
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert (command("ENTRYPOINT"), instruction("WORKDIR")) == (["hector"], "/app")
    python, *arguments = command("HEALTHCHECK")
    assert python == "python"  # which not every machine has
    healthy = shlex.join([sys.executable, *arguments])
    ended = bash(
        tmp_path,
        f"""
mkfifo lines
./hector {shlex.join(command("CMD"))} > lines &
grep -m1 '^ready' lines
{healthy}; echo "healthy: $?"
curl -s -X POST http://localhost:8080/v1/agents/assistant/message:send \\
  -H "Content-Type: application/json" \\
  -d '{{"message": {{"context_id": "s", "role": 1, "content": [{{"text": "Hello"}}]}}}}'
pkill hector
wait
{healthy} 2> complaint; echo "healthy: $?"
""",
    )
    assert '"text":"Got it: Hello"' in ended.stdout, ended.stderr
    assert re.findall("healthy: .", ended.stdout) == ["healthy: 0", "healthy: 1"]


def test_the_image_is_built_from_what_its_build_may_see() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sent = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    }
    assert {name for names in copied for name in names.split()} == sent
    assert all((ROOT / name).exists() for name in sent)


# --- what surrounds it


def test_all_mean_the_same_port_and_file() -> None:
    port, grpc = map(int, instruction("EXPOSE").split())
    file = f"{instruction('WORKDIR')}/config.yaml"
    hector = COMPOSE["services"]["hector"]
    assert hector["ports"] == [f"{port}:{port}"]
    assert hector["volumes"] == [f"./config.yaml:{file}:ro"]
    pod = container(of_kind("Deployment", "hector"))
    assert [each["containerPort"] for each in pod["ports"]] == [port, grpc]
    assert pod["volumeMounts"][0]["mountPath"] == file
    (user, _) = instruction("USER").split(":")
    assert of_kind("Deployment", "hector")["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == int(
        user
    )


def test_the_manifests_fit_together() -> None:
    deployment = of_kind("Deployment", "hector")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service", "hector")["spec"]["selector"] == labels
    assert deployment["spec"]["replicas"] == 3
    secrets = {
        each["metadata"]["name"]: each["stringData"] for each in KUBERNETES if each["kind"] == "Secret"
    }
    for pod in pods().values():
        for variable in pod["containers"][0]["env"]:
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["key"] in secrets[reference["name"]]
    assert container(deployment)["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container(deployment)["livenessProbe"]["httpGet"]["path"] == "/health"


@pytest.mark.parametrize("name", list(pods()))
def test_a_pod_has_no_rights_that_it_does_not_need(name: str) -> None:
    pod = pods()[name]
    (only,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"]["allowPrivilegeEscalation"] is False
    assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    # Whatever serves is given the time that it needs to end.
    assert name.startswith("Job ") or pod["terminationGracePeriodSeconds"] >= 30


def test_the_job_migrates_the_store_of_the_deployment(tmp_path: Path) -> None:
    job = of_kind("Job", "hector-migrate")
    pod = container(job)
    assert pod["image"] == container(of_kind("Deployment", "hector"))["image"]
    (mount, *_) = pod["volumeMounts"]
    assert mount["mountPath"] == container(of_kind("Deployment", "hector"))["volumeMounts"][0]["mountPath"]
    assert job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == "hector-migrate"
    text = of_kind("ConfigMap", "hector-migrate")["data"]["config.yaml"]
    served = documents(of_kind("ConfigMap", "hector")["data"]["config.yaml"])[0]["session_stores"]
    (found,) = documents(text)
    for name, store in found["session_stores"].items():
        assert {key: store["sql"][key] for key in ("driver", "host", "database", "ssl_mode")} == {
            key: served[name]["sql"][key] for key in ("driver", "host", "database", "ssl_mode")
        }
    given = {variable["name"]: "secret-0123456789" for variable in pod["env"]}
    assert loads(text, environ=given).session_stores
    # Its command, on a database that needs no cluster.
    for store in found["session_stores"].values():
        store["sql"] = {"driver": "sqlite", "database": "sessions.db"}
    (tmp_path / "config.yaml").write_text(json.dumps(found))
    ended = subprocess.run(
        [HECTOR, *pod["args"]], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.stdout.startswith("session store 'production-db': schema "), ended.stderr
    assert (tmp_path / "sessions.db").exists()


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_configurations_load_and_find_their_database(where: str) -> None:
    if where == "compose":
        text, given = (DEPLOY / "config.yaml").read_text(), COMPOSE["services"]["hector"]["environment"]
        assert "postgres" in COMPOSE["services"]
        database = COMPOSE["services"]["postgres"]["environment"]
    else:
        text = of_kind("ConfigMap", "hector")["data"]["config.yaml"]
        given = [variable["name"] for variable in container(of_kind("Deployment", "hector"))["env"]]
        of_kind("Service", "postgres")
        server = container(of_kind("StatefulSet", "postgres"))
        database = {variable["name"]: variable.get("value") for variable in server["env"]}
    config = loads(text, environ={name: f"{name}-0123456789" for name in given})
    store = config.session_stores["production-db"]
    assert isinstance(store, SqlStoreSection)
    sql = store.sql
    assert isinstance(sql, PostgresSection)
    assert (sql.host, sql.port) == ("postgres", 5432)
    assert (sql.database, sql.user) == (database["POSTGRES_DB"], database["POSTGRES_USER"])
    assert config.server.auth.tokens


# --- the guides


def blocks() -> Iterator[tuple[str, str]]:
    for guide in GUIDES:
        for text in re.findall(
            r"^```yaml\n(.*?)^```", (ROOT / "docs" / guide).read_text(), re.DOTALL | re.MULTILINE
        ):
            yield guide, text


@pytest.mark.parametrize(("guide", "text"), list(blocks()))
def test_the_yaml_of_the_guides_loads(guide: str, text: str, tmp_path: Path) -> None:
    found = documents(text)[0]
    if "services" in found:
        assert set(found["services"]) == set(COMPOSE["services"])
        return
    # Files that are named must be there.
    (tmp_path / "file.pem").touch()
    text = re.sub(r"/path/to/\S+", str(tmp_path / "file.pem"), text)
    assert loads(text, environ=ENVIRON).agents


@pytest.mark.parametrize("guide", GUIDES)
def test_the_links_of_the_guides_lead_somewhere(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        page = ROOT / "docs" / (path or guide)
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, target
