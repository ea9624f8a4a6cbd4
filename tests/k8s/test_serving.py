"""The Serve config inside the RayService is what Serve and the application builder take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kuberay import Document, cluster_spec
from serving.config import ServeConfig
from serving.feedback.store import Store
from serving.proxy import Unsteered
from serving.request_ids import RequestIds
from serving.retry import Retry
from serving.shedding import LIMIT, Shed
from training.home import Home

Render = Callable[[str], list[Document]]


@pytest.fixture
def service(rendered: Render) -> Document:
    (found,) = [d for d in rendered("dev/serving") if d["kind"] == "RayService"]
    return found


@pytest.fixture
def application(service: Document) -> dict[str, Any]:
    (found,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    return dict(found)


def test_serve_takes_the_config(service: Document) -> None:
    from ray.serve.schema import ServeDeploySchema

    given = yaml.safe_load(service["spec"]["serveConfigV2"])
    config = ServeDeploySchema.model_validate(given)
    assert config.http_options.port == 8000
    # Serve passes over fields that it does not know.
    assert given.keys() <= ServeDeploySchema.model_fields.keys()


def test_the_application_is_the_one_that_mailray_serve_starts(application: dict[str, Any]) -> None:
    import serving.deployment

    module, _, builder = application["import_path"].partition(":")
    assert (module, builder) == ("serving.deployment", serving.deployment.build_app.__name__)
    assert application["name"] == serving.deployment.APP


def test_the_builder_takes_the_arguments(application: dict[str, Any], service: Document) -> None:
    config = ServeConfig.model_validate(application["args"])
    assert config.model == "mailray-spam@champion"
    (group,) = cluster_spec(service)["workerGroupSpecs"]
    resources = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert config.cpus <= int(resources["cpu"])
    (deployment,) = application["deployments"]
    # Each replica on a node of its own, and a node for each.
    assert deployment["max_replicas_per_node"] == 1
    assert config.replicas <= group["replicas"]


def test_the_component_access_changes_who_may_ask_and_what_is_kept_and_nothing_else(
    application: dict[str, Any], service: Document, composed: Callable[..., list[Document]]
) -> None:
    documents = composed("overlays/dev/serving", "access")
    (guarded,) = [d for d in documents if d["kind"] == "RayService"]
    given = yaml.safe_load(guarded["spec"]["serveConfigV2"])
    args = given["applications"][0]["args"]
    config = ServeConfig.model_validate(args)
    assert config.tokens is not None
    (group,) = cluster_spec(guarded)["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "tokens"]
    assert config.tokens.startswith(f"{mount['mountPath']}/")
    env = {each["name"]: each.get("value") for each in container["env"]}
    url = env["MAILRAY_FEEDBACK_URL"].replace("$(MAILRAY_POSTGRES_PASSWORD)", "00ff")
    assert Store(url).place == "postgresql+psycopg://mlflow:***@mailray-postgres:5432/mlflow"

    rest = {name: value for name, value in args.items() if name not in ("tokens", "public")}
    given["applications"][0]["args"] = rest | {"open": True, "feedback": "none"}
    assert given == yaml.safe_load(service["spec"]["serveConfigV2"])


def test_the_builder_leaves_an_alias_to_the_replicas_and_names_the_deployment(
    application: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import serving.deployment

    asked = []

    def resolve(home: Home, spelling: str) -> Path:
        asked.append((home, spelling))
        return tmp_path

    monkeypatch.setattr(serving.deployment, "resolve", resolve)
    built = serving.deployment.build_app(ServeConfig.model_validate(application["args"]))
    given: tuple[Any, ...] = built._bound_deployment.init_args
    config, home = given
    # Nothing in it changes when the alias moves: Serve would restart every replica.
    assert (config.model, home) == ("mailray-spam@champion", Home.default())
    assert asked == [(Home.default(), "mailray-spam@champion")]
    assert built._bound_deployment.name in {item["name"] for item in application["deployments"]}
    pinned = serving.deployment.build_app(ServeConfig(model="mailray-spam:3"))
    assert pinned._bound_deployment.init_args[0].model == str(tmp_path)


def test_the_builder_takes_a_directory_as_it_is(tmp_path: Path) -> None:
    from serving.deployment import build_app

    given: tuple[Any, ...] = build_app(ServeConfig(model=str(tmp_path)))._bound_deployment.init_args
    config = given[0]
    assert config.model == str(tmp_path)


def test_a_new_head_waits_until_workers_have_found_it(service: Document) -> None:
    from ray.serve._private import deployment_state

    [container] = cluster_spec(service)["headGroupSpec"]["template"]["spec"]["containers"]
    env = {item["name"]: item["value"] for item in container["env"]}
    # The name is Serve's own; gRPC looks an address up again after 30 s, and a call takes its time.
    assert hasattr(deployment_state, "SLOW_STARTUP_WARNING_S")
    assert int(env["RAY_SERVE_SLOW_STARTUP_WARNING_S"]) >= 90


def test_every_proxy_has_our_middleware_before_it(service: Document) -> None:
    from ray.serve._private import constants
    from ray.serve._private.http_util import validate_http_proxy_callback_return
    from ray.serve._private.utils import call_function_from_import_path

    # The variable is Serve's own, and a path that cannot be imported would stop all proxies.
    name = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    assert hasattr(constants, name)
    spec = cluster_spec(service)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        [container] = group["template"]["spec"]["containers"]
        env = {item["name"]: item.get("value") for item in container["env"]}
        path = env[name]
        assert env["MLFLOW_TRACKING_URI"]
        assert int(env[LIMIT] or 0) >= ServeConfig(model="m").max_queued
        before = validate_http_proxy_callback_return(call_function_from_import_path(path))
        assert [repr(each.cls) for each in before] == [
            repr(Retry),
            repr(Shed),
            repr(RequestIds),
            repr(Unsteered),
        ]
