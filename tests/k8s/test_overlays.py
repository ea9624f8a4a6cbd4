"""Each overlay is without a fault, and says the same as the package about versions and commands."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.kuberay import Document, cluster_spec
from cluster.manifests import Setting, check, render
from cluster.pods import pods
from training.config import resolve
from tuning.config import resolve_study

ROOT = Path(__file__).parents[2]
OVERLAYS = ("dev", "gpu", "gpu-autoscaling")
KINDS = {
    "training": "RayJob",
    "study": "RayJob",
    "serving": "RayService",
    "cluster": "RayCluster",
}
LEAVES = [f"{overlay}/{name}" for overlay in OVERLAYS for name in KINDS]

Render = Callable[[str], list[Document]]
Compose = Callable[..., list[Document]]


def _ray(documents: Sequence[Document]) -> Document:
    (found,) = [d for d in documents if d["apiVersion"] == "ray.io/v1"]
    return found


def _locked(name: str) -> str:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    (version,) = re.findall(rf"^{name}==(\S+)$", text, re.MULTILINE)
    return str(version)


def test_the_core_schemas_and_the_cel_rules_are_really_looked_at() -> None:
    import cel
    import kubernetes_validate

    assert cel.evaluate("has(self.a)", {"self": {}}) is False
    assert kubernetes_validate.latest_version()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_platform_has_no_fault(overlay: str, rendered: Render, setting: Setting) -> None:
    assert check(rendered(overlay), setting) == []


@pytest.mark.parametrize("leaf", LEAVES)
def test_what_runs_on_it_has_no_fault(leaf: str, rendered: Render, setting: Setting) -> None:
    overlay, _, name = leaf.partition("/")
    documents = rendered(leaf)
    assert check(documents, setting, beside=rendered(overlay)) == []
    assert _ray(documents)["kind"] == KINDS[name]
    assert _ray(documents)["metadata"]["name"] == f"mailray-{name}"


@pytest.mark.parametrize(
    ("platform", "resource", "components"),
    [
        ("dev", "overlays/dev/training", ["kueue"]),
        ("dev", "overlays/dev/cluster", ["kueue"]),
        ("gpu", "overlays/gpu/study", ["volcano"]),
        ("dev", "overlays/dev/serving", ["volcano"]),
        ("gpu", "overlays/gpu/training", ["yunikorn"]),
        ("dev", "overlays/dev/training", ["submitter"]),
        ("gpu", "overlays/gpu/study", ["submitter", "kueue"]),
        ("dev", "base/training", ["charts", "embed"]),
        ("dev", "overlays/dev/serving", ["access"]),
        ("gpu", "overlays/gpu/serving", ["access", "volcano"]),
        ("", "overlays/dev", ["s3", "object-store"]),
        ("", "overlays/dev", ["monitoring"]),
    ],
)
def test_an_option_has_no_fault(
    platform: str,
    resource: str,
    components: list[str],
    composed: Compose,
    rendered: Render,
    setting: Setting,
) -> None:
    beside = rendered(platform) if platform else []
    assert check(composed(resource, *components), setting, beside=beside) == []


def test_a_job_in_a_queue_waits_until_it_is_admitted(composed: Compose) -> None:
    job = _ray(composed("overlays/dev/training", "kueue"))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "mailray"
    assert job["spec"]["suspend"] is True


def test_yunikorn_is_told_which_pods_belong_together(composed: Compose) -> None:
    labels = _ray(composed("overlays/dev/study", "yunikorn"))["metadata"]["labels"]
    assert labels["yunikorn.apache.org/app-id"] == "mailray-study"
    assert labels["ray.io/gang-scheduling-enabled"] == "true"


def test_artifacts_go_to_the_bucket_alone(composed: Compose) -> None:
    documents = composed("overlays/dev", "s3", "object-store")
    (mlflow,) = [d for d in documents if d["kind"] == "Deployment"]
    env = [item["name"] for item in pods(mlflow)[0].containers[0]["env"]]
    assert len(env) == len(set(env))
    values = {item["name"]: item.get("value") for item in pods(mlflow)[0].containers[0]["env"]}
    assert values["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://mailray/artifacts"


@pytest.mark.parametrize("leaf", LEAVES)
def test_ray_is_of_one_version_in_manifests_lock_and_environment(
    leaf: str, rendered: Render, setting: Setting
) -> None:
    assert cluster_spec(_ray(rendered(leaf)))["rayVersion"] == _locked("ray") == setting.ray


def test_the_image_has_one_place_and_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tags = [
        (file.parent.name, tag)
        for file in (ROOT / "k8s").rglob("*.yaml")
        for tag in re.findall(r"newTag: \"?([^\"\s]+)|image: mailray\S*:(\S+)", file.read_text())
    ]
    assert tags == [("release", (project["version"], ""))]


def test_no_manifest_holds_a_secret(rendered: Render) -> None:
    for name in (*OVERLAYS, *LEAVES):
        assert not [d for d in rendered(name) if d["kind"] == "Secret"], name
    example = (ROOT / "k8s" / "secrets.example.yaml").read_text("utf-8")
    assert set(re.findall(r'(?:password|auth_token|key): "([^"]*)"', example)) == {""}


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if KINDS[leaf.split("/")[1]] == "RayJob"])
def test_a_job_is_a_command_that_mailray_knows(leaf: str, rendered: Render, tmp_path: Path) -> None:
    words = _said(_ray(rendered(leaf))["spec"]["entrypoint"], tmp_path)
    assert words[0] == "mailray"
    options = dict(zip(words[2::2], words[3::2], strict=False)) if "--name" in words else {}
    overrides = [word for word in words if "=" in word]
    recipe = words[words.index("--recipe") + 1]
    assert options["--name"] == _ray(rendered(leaf))["metadata"]["name"]
    if words[1] == "train":
        scaling = resolve(recipe=recipe, overrides=overrides).scaling
        most, gpu = scaling.most, scaling.gpu
    else:
        assert words[1] == "tune"
        study, config = resolve_study(recipe=recipe, overrides=overrides)
        most, gpu = config.scaling.most * (study.concurrent or 1), config.scaling.gpu
        scaling = config.scaling
    (group,) = cluster_spec(_ray(rendered(leaf)))["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    there = {key: int(value) * group["maxReplicas"] for key, value in limits.items() if "." in key
             or key == "cpu"}  # fmt: skip
    # One CPU at least must be left to Ray Data, or the run would wait for ever.
    assert most * scaling.cpus < there["cpu"]
    assert gpu == ("nvidia.com/gpu" in there)
    assert not gpu or most <= there["nvidia.com/gpu"]


@pytest.mark.parametrize("leaf", ["dev/training", "gpu/training", "dev/study", "gpu/study"])
def test_a_retried_job_goes_on_and_a_first_one_does_not(
    leaf: str, rendered: Render, tmp_path: Path
) -> None:
    job = _ray(rendered(leaf))
    entrypoint, kind = job["spec"]["entrypoint"], leaf.partition("/")[2]
    assert "--resume" not in _said(entrypoint, tmp_path)
    run = tmp_path / "home" / "runs" / job["metadata"]["name"]
    run.mkdir(parents=True)
    (run / {"training": "run.json", "study": "study.json"}[kind]).write_text("{}")
    assert "--resume" in _said(entrypoint, tmp_path)
    assert job["spec"]["backoffLimit"] > 0


def _said(entrypoint: str, folder: Path) -> list[str]:
    """The words of the command, as the shell of a Ray job makes them out."""
    line = entrypoint.replace("mailray ", "printf '%s\\n' mailray ", 1)
    environment = {"PATH": os.environ["PATH"], "MAILRAY_HOME": str(folder / "home")}
    done = subprocess.run(
        line, shell=True, check=True, capture_output=True, text=True, env=environment
    )
    assert shlex.split(entrypoint)
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("name", ["training", "study"])
def test_a_job_is_the_ray_job_alone(name: str, rendered: Render) -> None:
    # Who may submit jobs may then create nothing else, say a network policy.
    assert [d["kind"] for d in rendered(f"dev/{name}")] == ["RayJob"]


def test_a_fixed_number_of_workers_is_not_scaled(rendered: Render) -> None:
    def spec(leaf: str) -> dict[str, Any]:
        return cluster_spec(_ray(rendered(leaf)))

    assert not any(spec(f"gpu/{name}").get("enableInTreeAutoscaling") for name in KINDS)
    for name in ("training", "study", "cluster"):
        assert spec(f"gpu-autoscaling/{name}")["autoscalerOptions"]["version"] == "v2"


def test_the_head_that_scales_has_an_account_of_its_own(rendered: Render) -> None:
    accounts = {
        d["metadata"]["name"] for d in rendered("gpu-autoscaling") if d["kind"] == "ServiceAccount"
    }
    head, worker = pods(_ray(rendered("gpu-autoscaling/training")))
    assert head.spec["serviceAccountName"] == "mailray-autoscaler"
    assert worker.spec["serviceAccountName"] == "mailray"
    assert accounts == {"mailray", "mailray-autoscaler"}


def test_everything_can_be_one_kustomization(rendered: Render, tmp_path: Path) -> None:
    rendered("dev")
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(
        "resources:\n" + "".join(f"- ../k8s/overlays/dev/{name}\n" for name in (".", *KINDS))
    )
    kinds = [d["kind"] for d in render(tmp_path / "own") if d["apiVersion"] == "ray.io/v1"]
    assert sorted(kinds) == sorted(KINDS.values())
