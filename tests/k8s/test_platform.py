"""What stays: the tracker answers to its names, and what is watched is what Ray exports."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cluster.kuberay import SPEC_PATH, Document
from cluster.manifests import example_secrets
from cluster.pods import pods
from serving.challenger import ChallengerConfig
from serving.drift import Drift
from serving.lineup import Lineup
from tests.serving.engines import Twin
from tests.serving.references import INFO, made
from tests.serving.twin import app_of, client_of

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "k8s" / "base" / "platform" / "dashboards").glob("*.json"))
OF_RAY = [file for file in DASHBOARDS if file.stem != "classifier"]
OF_COMPONENTS = ("mailray-s3", "mailray-tokens")
"""Secrets that only components need."""

Render = Callable[[str], list[Document]]


def test_mlflow_answers_to_the_names_that_clients_use(rendered: Render) -> None:
    from mlflow.server.security_utils import is_allowed_host_header
    from mlflow.utils import uri

    (mlflow,) = [d for d in rendered("dev") if d["kind"] == "Deployment"]
    (job,) = [d for d in rendered("dev/training") if d["kind"] == "RayJob"]
    env = _env(mlflow)
    host = _env(job)["MLFLOW_TRACKING_URI"].removeprefix("http://")
    allowed = env["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for name in (host, "mailray-mlflow.ns.svc.cluster.local:5000", "localhost:5000"):
        assert is_allowed_host_header(allowed, name), name
    assert not is_allowed_host_header(allowed, "evil.example:5000")
    kind = uri.extract_db_type_from_uri(env["MLFLOW_BACKEND_STORE_URI"])  # type: ignore[no-untyped-call]
    assert kind == "postgresql"


def test_redis_gets_its_password_from_the_environment_and_not_from_a_flag(
    rendered: Render, tmp_path: Path
) -> None:
    (redis,) = [d for d in rendered("dev") if d["metadata"]["name"] == "mailray-redis"
                and d["kind"] == "StatefulSet"]  # fmt: skip
    (container,) = pods(redis)[0].containers
    (tmp_path / "redis.conf").write_text("dir /data\n")
    script = container["args"][0].replace("/etc/redis", str(tmp_path))
    script = script.replace("/run/redis", str(tmp_path / "run")).replace("redis-server", "cat")
    (tmp_path / "run").mkdir()
    done = subprocess.run(
        [*container["command"], script],
        env={"REDIS_PASSWORD": "a b'c", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "dir /data\nrequirepass a b'c\n"
    assert (tmp_path / "run" / "redis.conf").stat().st_mode & 0o077 == 0


def test_the_secrets_are_made_as_the_example_says(rendered: Render) -> None:
    rendered("dev")
    text = (ROOT / "k8s" / "secrets.example.yaml").read_text("utf-8")
    (loop,) = re.findall(r"^#   (for name.*?done)$", text, re.MULTILINE | re.DOTALL)
    made = set(re.findall(r"([\w-]+)/(\w+)[ ;]", loop.splitlines()[0]))
    listed = {(name, key) for name, keys in example_secrets(ROOT / "k8s").items() for key in keys}
    assert made == {item for item in listed if item[0] not in OF_COMPONENTS}


@pytest.mark.parametrize("file", OF_RAY, ids=lambda file: file.stem)
def test_a_dashboard_shows_only_what_ray_exports(file: Path) -> None:
    modules = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    exported = "\n".join(path.read_text("utf-8") for path in modules.glob("*_panels.py"))
    expressions = _expressions(json.loads(file.read_text("utf-8")))
    names = {name for text in expressions for name in re.findall(r"\bray_\w+(?=\{)", text)}
    assert len(names) >= 7
    assert {name for name in names if not re.search(rf"\b{name}\b", exported)} == set()


def test_dashboards_are_found_by_grafana_under_ids_of_their_own(rendered: Render) -> None:
    (config,) = [d for d in rendered("dev") if d["metadata"]["name"] == "mailray-dashboards"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    boards = [json.loads(text) for text in config["data"].values()]
    assert len({board["uid"] for board in boards}) == len(DASHBOARDS) == len(boards)
    for board in boards:
        cells = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]}
        assert len(cells) == len(board["panels"])


def test_the_monitor_scrapes_ports_and_labels_that_ray_pods_have(rendered: Render) -> None:
    (monitor,) = [d for d in rendered("gpu") if d["kind"] == "PodMonitor"]
    head, worker = pods(next(d for d in rendered("gpu/training") if d["kind"] in SPEC_PATH))
    assert monitor["spec"].keys() == {"selector", "podMetricsEndpoints"}
    assert head.is_selected(monitor["spec"]["selector"]["matchLabels"])
    assert worker.is_selected(monitor["spec"]["selector"]["matchLabels"])
    numbers = {port["name"]: port["containerPort"] for port in head.containers[0]["ports"]}
    scraped = {numbers[endpoint["port"]] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    (policy,) = [d for d in rendered("gpu") if d["kind"] == "NetworkPolicy"
                 and d["metadata"]["name"] == "mailray-ray"]  # fmt: skip
    open_ports = {port["port"] for rule in policy["spec"]["ingress"]
                  for port in rule.get("ports", ())}  # fmt: skip
    assert scraped <= open_ports
    targets = {rule["targetLabel"] for endpoint in monitor["spec"]["podMetricsEndpoints"]
               for rule in endpoint["relabelings"]}  # fmt: skip
    labels = {"ray_io_cluster", "component"}
    assert targets == labels
    used = "".join(text for file in OF_RAY for text in _expressions(json.loads(file.read_text())))
    assert "ray_io_cluster=~" in used


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """The labels of each series that the classifier has."""

    async def answer(lineup: Any) -> str:
        async with client_of(app_of(lineup)) as client:
            await client.post("/v1/classify", json={"body": "Hi"})
            return str((await client.get("/metrics")).text)

    twin: Any = Twin()
    twin.drift = Drift(made(), INFO)
    twin.drift.note({"ham": 0.9, "spam": 0.1}, 100)
    lineup = Lineup(twin)
    lineup.challenge(Twin("2"), ChallengerConfig())
    return {
        sample.name: set(sample.labels) | {"namespace", "job"}
        for family in text_string_to_metric_families(asyncio.run(answer(lineup)))
        for sample in family.samples
    } | {
        f"mailray_{name}_total": {label, "namespace"}
        for name, label in (("refusals", "code"), ("rate_limited", "token"))
    }


def test_the_classifiers_dashboard_shows_only_what_it_tells(told: dict[str, set[str]]) -> None:
    (file,) = set(DASHBOARDS) - set(OF_RAY)
    assert _checked(_expressions(json.loads(file.read_text("utf-8"))), told) >= 20


def test_alerts_are_of_what_the_classifier_tells(
    rendered: Render, told: dict[str, set[str]]
) -> None:
    (rule,) = [d for d in rendered("gpu") if d["kind"] == "PrometheusRule"]
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert _checked([alert["expr"] for alert in alerts], told) >= len(alerts) == 6
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        used = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", alert["expr"]))))
        assert used <= kept


def _checked(expressions: list[str], told: dict[str, set[str]]) -> int:
    """How many series are named; each is one that is told, by labels that it has."""
    names = 0
    for text in expressions:
        by = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", text))))
        for name, filters in re.findall(r"\b((?:mailray|process)_\w+)(?:\{([^}]*)\})?", text):
            names += 1
            labels = by | set(re.findall(r"(\w+)=", filters))
            assert labels <= told[name], (name, labels)
    return names


def test_prometheus_scrapes_the_classifier_once_through_its_service(rendered: Render) -> None:
    (scrape,) = [d for d in rendered("gpu") if d["kind"] == "ScrapeConfig"]
    (service,) = [d for d in rendered("gpu/serving") if d["kind"] == "RayService"]
    port = yaml.safe_load(service["spec"]["serveConfigV2"])["http_options"]["port"]
    spec = scrape["spec"]
    assert spec.keys() == {"jobName", "metricsPath", "kubernetesSDConfigs", "relabelings"}
    assert spec["kubernetesSDConfigs"] == [{"role": "Service"}]
    # KubeRay names the service after the RayService.
    keep = spec["relabelings"][0]
    assert keep["regex"] == f"{service['metadata']['name']}-serve-svc;{port}"
    (policy,) = [d for d in rendered("gpu") if d["metadata"]["name"] == "mailray-metrics"]
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert all(pod.is_selected(selected) for pod in pods(service))
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": port}]


def _env(document: Document) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in pods(document)[0].containers[0]["env"]}


def _expressions(board: dict[str, Any]) -> list[str]:
    variables = [item["query"] for item in board["templating"]["list"]]
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]] + variables
