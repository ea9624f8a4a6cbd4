"""The classifier on Ray Serve: replicas, each with the model, its batcher and the API.

    ray.init()
    url = start(ServeConfig(model="/path/to/bundle"))
    stop()

`serving.deployment:build_app` is also an application builder for a Serve config file, whose
`args` are the fields of `ServeConfig`; `model` may be a name in the registry there.
"""

import errno
import re
import socket
import time
from functools import partial
from pathlib import Path

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import BackpressureConfig, HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from serving.access import Access
from serving.api import build_api
from serving.batcher import Batcher
from serving.board import Replicas, Snapshot
from serving.classifier import Classifier
from serving.config import ServeConfig
from serving.drift import Drift, told_of
from serving.explaining import Explaining
from serving.explanation import Explainer
from serving.feedback.keeper import Keeper
from serving.feedback.store import Store, feedback_url
from serving.log import Log
from serving.metrics import Metrics
from serving.tracing import Tracing, require
from serving.watch import follow
from training.bundle import BundleError, load
from training.home import Home
from training.registry import look_up, resolve, spelled

APP = "mailray"

_REQUEST_TIMEOUT_S = 120.0
"""A client that sends its body slower than this loses its permit, and others get it."""

_SHED_FACTOR = 4
"""Requests that reach a replica, for each it works on: the rest is there to be told 429."""


class ServeError(RuntimeError):
    """Serving cannot start; the message is one line that says why."""


class Replica:
    """One process of the deployment. It holds no state besides its models."""

    def __init__(self, config: ServeConfig, home: Home) -> None:
        self._config = config
        context = serve.get_replica_context()
        replica = context.replica_id.unique_id
        self._log = _log(config, home, replica)
        self._tracing = _tracing(config, replica)
        self._metrics = Metrics(replica)
        self._board = Replicas(self._told, deployment=context.deployment, app=context.app_name)
        self._lineup, self._watchman = follow(
            config, home, partial(engine, config, self._metrics), replica, partial(look_up, home),
            # What a challenger does beside is not counted as the server's work.
            partial(engine, config, Metrics(replica)),
        )  # fmt: skip
        self._access = _access(config)
        self._keeper = Keeper(store) if (store := _store(config)) else None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve in the replica, after the constructor."""
        return build_api(
            self._lineup,
            max_in_flight=self._config.max_in_flight,
            max_body_bytes=self._config.max_body_bytes,
            timeout_ms=self._config.request_timeout_ms,
            max_mails=self._config.max_mails,
            body_timeout_s=self._config.body_timeout_s,
            access=self._access,
            keeper=self._keeper,
            with_page=self._config.page,
            metrics=self._metrics,
            board=self._board,
            # The trace's id stands in the log.
            observers=[each.request for each in (self._tracing, self._log) if each is not None],
        )

    async def snapshot(self, metrics: bool) -> Snapshot:
        """What this replica tells of itself; called by the others, through `Replicas`."""
        return self._told(metrics)

    def _told(self, metrics: bool) -> Snapshot:
        text = self._metrics.text() if metrics else ""
        return Snapshot(self._metrics.replica, time.time(), text, told_of(self._lineup))

    def __del__(self) -> None:
        """Called by Serve when the replica has answered its last request."""
        if hasattr(self, "_lineup"):
            if self._watchman is not None:
                self._watchman.stop()
            self._lineup.close()
        if keeper := getattr(self, "_keeper", None):
            keeper.close()
        for each in (getattr(self, "_tracing", None), getattr(self, "_log", None)):
            if each is not None:
                each.close()


def engine(config: ServeConfig, metrics: Metrics, path: Path) -> Batcher:
    """A bundle's model behind a queue; it has scored a mail."""
    classifier = Classifier(
        path,
        config.precision,
        config.runtime,
        config.cpus,
        operating_point=config.operating_point,
        abstain=config.abstain,
    )
    reference = classifier.scorer.bundle.reference
    return Batcher(
        classifier,
        threads=config.cpus,
        batch_tokens=config.batch_tokens,
        max_queued=config.max_queued,
        timeout_ms=config.request_timeout_ms,
        explaining=Explaining(
            lambda: Explainer(load(path)),
            threads=config.cpus,
            seconds=config.explain_seconds,
            limit=config.explain_in_flight,
        ),
        metrics=metrics,
        drift=Drift(reference, classifier.info, hours=config.drift_window_h) if reference else None,
    )


def build_app(config: ServeConfig) -> serve.Application:
    """The Serve application of a config; nothing is started.

    A version in the registry is looked up here, once. An alias is looked up by each replica, and
    followed; here only to say at once that there is no such model.

    Raises:
        ModelNotFound: there is neither a directory of that name nor a model.
    """
    home = Home.default()
    path = place(config.model)
    if not Path(config.model).is_dir() and spelled(config.model).version:
        config = config.model_copy(update={"model": str(path)})
    reachable = config.max_in_flight * _SHED_FACTOR
    deployment = serve.deployment(
        name="Replica",
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": config.cpus},
        max_ongoing_requests=reachable,
        max_queued_requests=reachable,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        # A line for each request, beside our own.
        logging_config=LoggingConfig(enable_access_log=False),
        # A bundle that cannot be loaded once cannot be loaded twice.
        max_constructor_retry_count=1,
    )(serve.ingress()(Replica))
    app: serve.Application = deployment.bind(config, home)
    return app


def place(model: str) -> Path:
    """The bundle's directory that a model stands for now; raises ModelNotFound, TrackingError."""
    return Path(model) if Path(model).is_dir() else resolve(Home.default(), model)


def start(config: ServeConfig, listens: str | None = None) -> str:
    """Serve a model on the Ray cluster that the caller is connected to; gives the URL.

    `listens` is the address that Serve listens on where something else does on `config.host`.

    Raises:
        ServeError: the port is taken, Serve runs already, the cluster has too few CPUs, or a
            replica cannot load the bundle. Nothing is left running then.
        ConfigError: the tokens file or the URL of the feedback's store is wrong, or there are no
            packages for traces.
    """
    try:
        load(place(config.model))  # its files, not its weights: the usual faults at once
        _access(config)
        _store(config)
        if config.tracing is not None:
            require()
    except BundleError as error:
        raise ServeError(str(error)) from error
    if serve.status().proxies:
        raise ServeError("this Ray cluster serves already; stop that first")
    # Serve would wait for CPUs that never come, without an end.
    needed = config.replicas * config.cpus
    there = int(ray.cluster_resources().get("CPU", 0))
    if needed > there:
        raise ServeError(
            f"{config.replicas} x {config.cpus} CPUs are needed (replicas x cpus), "
            f"the Ray cluster has {there}"
        )
    _claim(config.host, config.port)
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(
                host=listens or config.host,
                port=config.port,
                request_timeout_s=_REQUEST_TIMEOUT_S,
            ),
        )
        serve.run(build_app(config), name=APP)
    except (RuntimeError, TimeoutError, RayError) as error:
        cause = _cause(str(error))
        stop()
        raise ServeError(f"the replica did not start: {cause}") from error
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


def stop() -> None:
    """End all serving on the Ray cluster; requests in flight are answered first."""
    serve.shutdown()


def _access(config: ServeConfig) -> Access:
    file = Path(config.tokens) if config.tokens else None
    return Access(file, open_to_all=config.open, public=config.public, replicas=config.replicas)


def _store(config: ServeConfig) -> Store | None:
    url = feedback_url(config.feedback)
    return None if url == "none" else Store(url, days=config.feedback_days)


def log_folder(config: ServeConfig, home: Home) -> Path | None:
    """Where replicas write their logs, if they do."""
    if config.log == "none":
        return None
    return Path(config.log) if config.log else home.logs / "serve"


def _log(config: ServeConfig, home: Home, replica: str) -> Log | None:
    folder = log_folder(config, home)
    return None if folder is None else Log(folder, replica)


def _tracing(config: ServeConfig, replica: str) -> Tracing | None:
    if config.tracing is None:
        return None
    return Tracing(config.tracing, share=config.tracing_share, replica=replica)


def _claim(host: str, port: int) -> None:
    """Bind and let go: Serve itself reports a taken port late, and in many lines."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As uvicorn does, or connections of a server that just ended would look like one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ServeError(
                    f"port {port} of {host} is taken; choose another with port="
                ) from error
            raise ServeError(
                f"cannot listen on {host} port {port}: {error.strerror or error}"
            ) from error


def _cause(message: str) -> str:
    """One line out of the traceback that Serve keeps of a replica's constructor."""
    app = serve.status().applications.get(APP)
    if app is not None:
        message = "\n".join([message, *(part.message for part in app.deployments.values())])
    causes = re.findall(r"^[\w.]*(?:Error|Exception): .+$", message, re.MULTILINE)
    line = causes[-1] if causes else message.strip().splitlines()[-1]
    # Of our own errors the words will do.
    return re.sub(r"^(?:training|serving)\.[\w.]+: ", "", line)
