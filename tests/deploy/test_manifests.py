"""The files that put a server somewhere else, held against published schemas and against what the server takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from palate.cli.main import app

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted(DEPLOY.glob("kubernetes/[!k]*.yaml"))


def documents() -> list[dict[str, Any]]:
    return [each for file in MANIFESTS for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def options() -> set[str]:
    """What `palate serve` knows: its options and the environment's names for them."""
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    known = {name for each in serve.params for name in each.opts}
    return known | {each.envvar for each in serve.params if getattr(each, "envvar", None)} | {"PALATE_API_KEY"}


@pytest.mark.parametrize("document", documents(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_manifests_fit_the_schemas_of_kubernetes(document: dict[str, Any], version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    assert validate.validate(document, version, strict=True)
    broken = json.loads(json.dumps(document))
    broken["spc" if "spec" in broken else "automountServiceAccountTokn"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, version, strict=True)


def test_they_fit_together() -> None:
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents()}
    for kind, name in found:
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            spec = found[kind, name]["spec"]
            selector = spec.get("selector") or spec["podSelector"]
            wanted = selector.get("matchLabels", selector)
            pods = [each["spec"]["template"] for each in found.values() if "template" in each.get("spec", {})]
            assert any(wanted.items() <= pod["metadata"]["labels"].items() for pod in pods), (kind, name)
    servers = found["Deployment", "palate"]["spec"]["template"]["spec"]
    (container,) = servers["containers"]
    volumes = {each["name"] for each in servers["volumes"]}
    assert volumes == {each["name"] for each in container["volumeMounts"]}
    state = next(each["value"] for each in container["env"] if each["name"] == "PALATE_STATE")
    assert ("Service", re.sub(r"^redis://([^:]+):.*", r"\1", state)) in found
    drain = next(float(each["value"]) for each in container["env"] if each["name"] == "PALATE_DRAIN")
    assert servers["terminationGracePeriodSeconds"] >= drain + 30


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_nothing_runs_as_root_or_writes_where_it_need_not(kind: str) -> None:
    for each in documents():
        if each["kind"] == kind:
            pod = each["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
            for container in pod["containers"]:
                own = container["securityContext"]
                assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
                assert own["capabilities"] == {"drop": ["ALL"]} and "memory" in container["resources"]["limits"]


def test_the_server_knows_what_it_is_told() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    (server,) = [
        each["spec"]["template"]["spec"]["containers"][0] for each in documents() if each["kind"] == "Deployment"
    ]
    told = {*compose["services"]["palate"]["environment"]} | {each["name"] for each in server["env"]}
    told |= {word for word in server["args"] if word.startswith("--")}
    told |= set(re.findall(r"PALATE_\w+", (DEPLOY / "Dockerfile").read_text(encoding="utf-8")))
    assert told >= {"PALATE_STATE", "--host"} and told <= options()


def test_the_image_has_no_torch_and_no_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert text.count("FROM ") == 2 and re.search(r"^USER 10001", text, re.MULTILINE)
    (extras,) = re.findall(r'"\.\[(.*?)\]"', text)
    assert set(extras.split(",")) == {"serve", "fast", "redis", "otel"}
    import tomllib

    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for name in extras.split(",") for each in project["optional-dependencies"][name]),
    ]
    assert not [each for each in wanted if each.startswith(("torch", "transformers", "xllamacpp"))]
    copied = {word for line in re.findall(r"^COPY (?!--)(.*)", text, re.MULTILINE) for word in line.split()[:-1]}
    assert all((DEPLOY.parent / each).exists() for each in copied)
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert copied == {line[1:] for line in let_in if line.startswith("!")}


def test_compose_and_kustomize_read_their_files(tmp_path: Path) -> None:
    """By their own commands, where they are installed; neither needs a server."""
    ran = 0
    if shutil.which("kubectl"):
        done = subprocess.run(
            ["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True
        )
        assert len([*yaml.safe_load_all(done.stdout)]) == len(documents())
        ran += 1
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode
    ):
        words = ["docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "--format", "json"]
        environment = {"PROJECT": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path)}
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert {*json.loads(done.stdout)["services"]} == {"palate", "valkey"}
        ran += 1
    if not ran:
        pytest.skip("neither kubectl nor docker compose is here")
