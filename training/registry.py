"""The registry: bundles under a name, numbered, served by the alias `champion`."""

import json
import math
import re
import shutil
import uuid
from pathlib import Path
from typing import Any, Final

from training.bundle import Bundle
from training.config import TrackingConfig
from training.home import Home
from training.tracking import TrackingError, client

CHAMPION: Final = "champion"
_SPELLING: Final = re.compile(r"(?P<name>[\w.-]+)(?:@(?P<alias>[\w-]+)|:(?P<version>\d+))?")


class ModelNotFound(ValueError):
    """No model is registered under that name, version or alias."""


def register(home: Home, bundle: Bundle, run_id: str, config: TrackingConfig) -> tuple[str, bool]:
    """Upload a bundle and register it; returns its version, and whether it is now the champion.

    The alias moves as `config.promote` says; `better` is a higher validation ROC AUC than the
    champion's, or the first of its name.

    Raises:
        TrackingError: the registry does not answer, or refuses.
    """
    from mlflow.exceptions import MlflowException

    mlflow = client(home)
    auc = bundle.metrics.get("validation", {}).get("roc_auc", float("nan"))
    try:
        mlflow.log_artifacts(run_id, str(bundle.path), "bundle")
        source = f"{mlflow.get_run(run_id).info.artifact_uri}/bundle"
        if not mlflow.search_registered_models(f"name = '{config.model}'"):
            mlflow.create_registered_model(config.model)
        made = mlflow.create_model_version(
            config.model, source, run_id, tags={"roc_auc": repr(auc), "run": bundle.version}
        )
        champion = _by_alias(mlflow, config.model, CHAMPION)
        known = not math.isnan(auc)  # else it was trained on the validation mails
        better = champion is None or (
            known and not auc <= float(champion.tags.get("roc_auc", "nan"))
        )
        promoted = config.promote == "always" or (config.promote == "better" and better)
        if promoted:
            mlflow.set_registered_model_alias(config.model, CHAMPION, made.version)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"registering {config.model} failed: {str(error).splitlines()[0]}"
        ) from error
    return str(made.version), promoted


def resolve(home: Home, spelling: str) -> Path:
    """The bundle directory of `name`, `name@alias` or `name:version` (`name` is its champion).

    It is downloaded once for each version; its `bundle.json` then carries the registry's version.

    Raises:
        ModelNotFound: the spelling is wrong, or there is no such model.
        TrackingError: the registry does not answer.
    """
    match = _SPELLING.fullmatch(spelling)
    if match is None:
        raise ModelNotFound(
            f"{spelling}: neither a bundle directory nor NAME, NAME@ALIAS or NAME:VERSION"
        )
    from mlflow.exceptions import MlflowException

    mlflow = client(home)
    name, version = match["name"], match["version"]
    try:
        found = (
            mlflow.get_model_version(name, version)
            if version
            else _by_alias(mlflow, name, match["alias"] or CHAMPION)
        )
    except MlflowException:
        found = None
    if found is None:
        known = sorted(model.name for model in mlflow.search_registered_models())
        raise ModelNotFound(
            f"no model {spelling} is registered; there are: {', '.join(known) or 'none'}. "
            "Train one with `mailray train`, or name a bundle directory"
        )
    return _downloaded(home, name, found)


def _by_alias(mlflow: Any, name: str, alias: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version_by_alias(name, alias)
    except MlflowException:
        return None


def _downloaded(home: Home, name: str, version: Any) -> Path:
    # The run id tells apart the first version of this registry from the first of another.
    place = home.models / name / f"{version.version}-{version.run_id[:8]}"
    if place.is_dir():
        return place
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    scratch = place.with_name(f".{place.name}-{uuid.uuid4().hex[:8]}")
    scratch.mkdir(parents=True)
    try:
        # Its URI is an argument: MLflow's own setter puts it into the environment for good.
        got = Path(
            mlflow.artifacts.download_artifacts(
                version.source, dst_path=str(scratch), tracking_uri=home.tracking_uri
            )
        )
        facts = got / "bundle.json"
        facts.write_text(
            json.dumps(
                json.loads(facts.read_text("utf-8")) | {"version": str(version.version)}, indent=2
            ),
            "utf-8",
        )
        try:
            got.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TrackingError(
            f"{name} version {version.version} cannot be downloaded: {reason}"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return place
