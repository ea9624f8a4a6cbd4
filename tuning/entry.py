"""How a study's SQLite file keeps it: Optuna's tables, and what each trial is in them."""

import json
from pathlib import Path

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuning.config import Direction
from tuning.proposal import experimental
from tuning.trial import State, Trial

_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


class LedgerError(RuntimeError):
    """A ledger cannot be read, or does not fit; the message says why."""


def opened(file: Path, directions: list[Direction]) -> Study:
    """The study in a file, made if it is not there.

    Raises:
        LedgerError: it is no ledger.
    """
    try:
        with experimental():
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            study = optuna.create_study(
                storage=storage, study_name="study", directions=directions, load_if_exists=True
            )
    except Exception as error:  # SQLAlchemy's, Alembic's and Optuna's own
        reason = str(error).splitlines()[0]
        raise LedgerError(f"{file} cannot be opened: {reason}") from error
    return study


def epoch_key(epoch: int) -> str:
    """The attribute that has what an epoch gave."""
    return f"epoch:{epoch:05d}"


def read(found: FrozenTrial) -> Trial:
    """A trial; one that has paused is `running` here, since it may go on."""
    attrs = found.user_attrs
    epochs = {
        int(key.partition(":")[2]): json.loads(value)
        for key, value in sorted(attrs.items())
        if key.startswith("epoch:")
    }
    return Trial(
        number=found.number,
        point=int(attrs["point"]),
        seed=int(attrs["seed"]),
        settings=json.loads(attrs["settings"]),
        state=_STATES[found.state],
        epochs=epochs,
        reason=attrs.get("reason"),
        generation=int(attrs.get("generation", 0)),
        origin=attrs.get("origin"),
        until=attrs.get("until"),
    )
