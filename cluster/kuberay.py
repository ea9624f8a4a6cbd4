"""What KubeRay takes: its CRDs' schemas with their CEL rules, and the rules of the operator's code.

schemas = load_schemas(Path("../shared/k8s-schemas/kuberay"))
faults = schema_faults(rayjob, schemas["RayJob"]) + operator_faults(rayjob)

Read in KubeRay 1.7.0. A fault of the second kind is no error at `kubectl apply`: the operator puts
it into the status of the object, and nothing starts.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml

Document = dict[str, Any]
Schema = Mapping[str, Any]

SPEC_PATH: Final = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
}
"""Where each kind keeps the spec of its cluster."""

LONGEST_NAME: Final = {"RayCluster": 53, "RayJob": 47, "RayService": 47}
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MODES: Final = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_UPGRADES: Final = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")


def load_schemas(folder: Path) -> dict[str, Schema]:
    """The `v1` schema of each kind, from the CRD files in a folder."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a second, not ten
    found: dict[str, Schema] = {}
    for file in sorted(folder.glob("*.yaml")):
        crd = yaml.load(file.read_text("utf-8"), Loader=loader)["spec"]
        version = next(item for item in crd["versions"] if item["name"] == "v1")
        found[crd["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return found


def schema_faults(document: Document, schema: Schema) -> list[str]:
    """What the API server refuses, and what it would silently drop: unknown fields."""
    root = _closed(schema)
    root["properties"]["metadata"] = {"type": "object"}
    value = _filled(document, schema)
    errors = jsonschema.Draft202012Validator(root).iter_errors(value)
    faults = [f"{error.json_path.removeprefix('$.')}: {error.message[:200]}" for error in errors]
    return faults + list(_rule_faults(value, schema, ""))


def _closed(schema: Schema) -> dict[str, Any]:
    """As JSON Schema: objects that name their properties have no others."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in schema:
        result["properties"] = {k: _closed(v) for k, v in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            result[key] = _closed(schema[key])
    if result.pop("nullable", False):
        result["type"] = [schema["type"], "null"]
    return result


def _filled(value: Any, schema: Schema) -> Any:
    """Without nulls, and with the schema's defaults, as the API server would read it."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        rest = rest if isinstance(rest, Mapping) else {}
        items = {k: _filled(v, known.get(k, rest)) for k, v in value.items() if v is not None}
        defaults = {k: s["default"] for k, s in known.items() if "default" in s}
        return defaults | items
    if isinstance(value, list):
        return [_filled(item, schema.get("items", {})) for item in value]
    return value


def _rule_faults(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """CEL rules, and the uniqueness that `x-kubernetes-list-type` asks for."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            if key in value:
                yield from _rule_faults(value[key], part, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", ())
        if schema.get("x-kubernetes-list-type") in ("map", "set"):
            names = [
                str([item.get(key) for key in keys]) if isinstance(item, dict) else str(item)
                for item in value
            ]
            yield from (
                f"{path}: {name} twice" for name in sorted(set(names)) if names.count(name) > 1
            )
        for number, item in enumerate(value):
            yield from _rule_faults(item, schema.get("items", {}), f"{path}[{number}]")


def _holds(rule: str, value: Any) -> bool:
    try:
        import cel
    except ModuleNotFoundError:  # it comes with the dev extra; the API server checks anyway
        return True
    return bool(cel.evaluate(rule, {"self": value}))


def cluster_spec(document: Document) -> dict[str, Any]:
    """The spec of the cluster in a Ray kind, empty where there is none."""
    part: Any = document
    for key in SPEC_PATH[document["kind"]]:
        part = part.get(key) or {}
    return dict(part)


def operator_faults(document: Document) -> list[str]:
    """What the operator's own code refuses in a RayCluster, RayJob or RayService."""
    kind, name, spec = document["kind"], document["metadata"]["name"], document.get("spec") or {}
    faults = []
    if len(name) > LONGEST_NAME[kind] or not _LABEL.fullmatch(name):
        faults.append(
            f"metadata.name: at most {LONGEST_NAME[kind]} of a-z, 0-9 and -, got {name!r}"
        )
    cluster = cluster_spec(document)
    if kind == "RayJob":
        faults += _job_faults(spec)
        if bool(cluster) == bool(spec.get("clusterSelector")):
            faults.append("spec: either rayClusterSpec or clusterSelector")
    if kind == "RayService":
        upgrade = (spec.get("upgradeStrategy") or {}).get("type", "NewCluster")
        if upgrade not in _UPGRADES:
            faults.append(f"spec.upgradeStrategy.type: one of {_UPGRADES}, got {upgrade!r}")
        if upgrade == _UPGRADES[1] and not cluster.get("enableInTreeAutoscaling"):
            faults.append(f"spec.upgradeStrategy.type: {upgrade} needs autoscaling")
        if (spec.get("rayClusterDeletionDelaySeconds") or 0) < 0:
            faults.append("spec.rayClusterDeletionDelaySeconds: not negative")
    if cluster:
        where = ".".join(SPEC_PATH[kind])
        annotations = document["metadata"].get("annotations") or {}
        faults += [f"{where}: {fault}" for fault in _cluster_faults(cluster, annotations)]
    return faults


def _job_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    mode, shutdown = spec.get("submissionMode", _MODES[0]), spec.get("shutdownAfterJobFinishes")
    rules = (spec.get("deletionStrategy") or {}).get("deletionRules")
    if mode not in _MODES:
        yield f"spec.submissionMode: one of {_MODES}, got {mode!r}"
    if spec.get("suspend") and not shutdown:
        yield "spec.suspend: needs shutdownAfterJobFinishes"
    if spec.get("ttlSecondsAfterFinished") and not shutdown:
        yield "spec.ttlSecondsAfterFinished: needs shutdownAfterJobFinishes"
    if rules and shutdown:
        yield "spec.deletionStrategy.deletionRules: not with shutdownAfterJobFinishes"
    if spec.get("ttlSecondsAfterFinished", 0) < 0 or spec.get("backoffLimit", 0) < 0:
        yield "spec: ttlSecondsAfterFinished and backoffLimit must not be negative"
    if spec.get("activeDeadlineSeconds", 1) <= 0:
        yield "spec.activeDeadlineSeconds: must be positive"
    if mode == "InteractiveMode" and spec.get("backoffLimit", 0) > 0:
        yield "spec.backoffLimit: not with InteractiveMode"
    if mode == "SidecarMode" and (spec.get("submitterPodTemplate") or spec.get("submitterConfig")):
        yield "spec.submitterPodTemplate, submitterConfig: not with SidecarMode"
    try:
        yaml.safe_load(spec.get("runtimeEnvYAML") or "")
    except yaml.YAMLError:
        yield "spec.runtimeEnvYAML: not YAML"


def _cluster_faults(spec: Mapping[str, Any], annotations: Mapping[str, str]) -> Iterator[str]:
    head = spec.get("headGroupSpec") or {}
    workers = spec.get("workerGroupSpecs") or []
    groups = [("head", head), *((group.get("groupName", "?"), group) for group in workers)]
    autoscaling = bool(spec.get("enableInTreeAutoscaling"))
    v2 = autoscaling and (spec.get("autoscalerOptions") or {}).get("version") == "v2"
    env: dict[str, Any] = {}
    for name, group in groups:
        params = group.get("rayStartParams") or {}
        pod = ((group.get("template") or {}).get("spec")) or {}
        if not pod.get("containers"):
            yield f"{name}: no container"
            continue
        if group is head:
            env = {item["name"]: item for item in pod["containers"][0].get("env") or []}
        if group.get("resources") and params.keys() & {"num-cpus", "num-gpus", "memory"}:
            yield f"{name}: resources both in rayStartParams and beside them"
        if "labels" in params:
            yield f"{name}: labels in rayStartParams"
        if autoscaling and group.get("suspend"):
            yield f"{name}: suspend with autoscaling"
        if v2 and pod.get("restartPolicy", "Never") != "Never":
            yield f"{name}: restartPolicy must be Never with autoscaler v2"
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31)
        if group is not head and not 0 <= low <= group.get("replicas", low) <= high:
            yield f"{name}: minReplicas <= replicas <= maxReplicas"
    names = [name for name, _ in groups]
    yield from (f"{name}: two groups of that name" for name in set(names) if names.count(name) > 1)
    if "RAY_enable_autoscaler_v2" in env:
        yield "head: RAY_enable_autoscaler_v2 is set by autoscalerOptions.version"
    fault_tolerance = spec.get("gcsFaultToleranceOptions")
    if "RAY_REDIS_ADDRESS" in env:
        yield "head: RAY_REDIS_ADDRESS is set by gcsFaultToleranceOptions"
    if fault_tolerance and "ray.io/ft-enabled" in annotations:
        yield "gcsFaultToleranceOptions: not with the annotation ray.io/ft-enabled"
    if fault_tolerance and fault_tolerance.get("backend", "redis") == "redis":
        if not fault_tolerance.get("redisAddress"):
            yield "gcsFaultToleranceOptions.redisAddress: missing"
        if "REDIS_PASSWORD" in env:
            yield "head: REDIS_PASSWORD is set by gcsFaultToleranceOptions"
    if (spec.get("authOptions") or {}).get("mode") == "token":
        numbers = re.findall(r"\d+", str(spec.get("rayVersion", "")))
        if tuple(map(int, numbers[:2])) < (2, 52):
            yield f"authOptions: token needs rayVersion 2.52, got {spec.get('rayVersion')!r}"
