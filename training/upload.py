"""Bundles go into the registry: those of runs, and those that came from elsewhere."""

import math
from typing import Any

from training.bundle import Bundle, BundleError
from training.config import TrackingConfig
from training.home import Home
from training.registry import CHAMPION, champion_of, is_name, move
from training.tracking import TrackingError, client, experiment_id


def register(home: Home, bundle: Bundle, run_id: str, config: TrackingConfig) -> tuple[str, bool]:
    """Upload a run's bundle and register it; its version, and whether it is now the champion.

    The alias moves as `config.promote` says; `better` is a higher validation ROC AUC than the
    champion's, or the first of its name.

    Raises:
        TrackingError: the registry does not answer, or refuses.
    """
    from mlflow.exceptions import MlflowException

    mlflow = client(home)
    auc = _roc_auc(bundle)
    try:
        version = _uploaded(mlflow, bundle, run_id, config.model)
        champion = champion_of(mlflow, config.model)
        known = not math.isnan(auc)  # else it was trained on the validation mails
        better = champion is None or (
            known and not auc <= float(champion.tags.get("roc_auc", "nan"))
        )
        promoted = config.promote == "always" or (config.promote == "better" and better)
        if promoted:
            before = None if champion is None else str(champion.version)
            move(mlflow, config.model, CHAMPION, before, version)
    except (MlflowException, OSError) as error:
        raise _refused(config.model, error) from error
    return version, promoted


def add(home: Home, bundle: Bundle) -> str:
    """Register a bundle that is in a directory, under its own name; gives its version.

    No alias moves: it is tried and promoted as any other version.

    Raises:
        BundleError: its name is none that a model can have.
        TrackingError: the registry does not answer, or refuses.
    """
    from mlflow.entities import RunStatus
    from mlflow.exceptions import MlflowException

    if not is_name(bundle.name):
        raise BundleError(
            f"{bundle.path} is of a model called {bundle.name[:80]!r}; a name has letters, digits, "
            "'.', '_' and '-'"
        )
    mlflow = client(home)
    try:
        place = experiment_id(home, mlflow, bundle.name)
        run = mlflow.create_run(place, run_name=f"add {bundle.path.name}").info.run_id
        try:
            version = _uploaded(mlflow, bundle, run, bundle.name)
        except BaseException:
            mlflow.set_terminated(run, RunStatus.to_string(RunStatus.FAILED))
            raise
        mlflow.set_terminated(run)
    except (MlflowException, OSError) as error:
        raise _refused(bundle.name, error) from error
    return version


def _uploaded(mlflow: Any, bundle: Bundle, run_id: str, name: str) -> str:
    mlflow.log_artifacts(run_id, str(bundle.path), "bundle")
    source = f"{mlflow.get_run(run_id).info.artifact_uri}/bundle"
    if not mlflow.search_registered_models(f"name = '{name}'"):
        mlflow.create_registered_model(name)
    tags = {"roc_auc": repr(_roc_auc(bundle)), "run": bundle.version}
    if bundle.exports:
        tags["exports"] = " ".join("-".join(export.kind) for export in bundle.exports)
    return str(mlflow.create_model_version(name, source, run_id, tags=tags).version)


def _roc_auc(bundle: Bundle) -> float:
    return float(bundle.metrics.get("validation", {}).get("roc_auc", math.nan))


def _refused(name: str, error: Exception) -> TrackingError:
    return TrackingError(f"registering {name} failed: {str(error).splitlines()[0]}")
