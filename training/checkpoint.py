"""Checkpoints: all that a run needs to go on exactly where it stood, written while it goes on.

runs/<name>/checkpoints/e001-s000120/    named by the place in the plan, in its order
    model.safetensors   the weights      optimizer.pt   AdamW's moments and the schedule
    state.json          the place in the plan, the digest of each file; written last

Rank 0 writes them and every rank reads them, so they must lie where all nodes see them. Ray Train
is not asked to keep them: its own bookkeeping takes a checkpoint for good by its name alone.
"""

import copy
import errno
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import tenacity
import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from training.model import MailModel

MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.pt"
STATE: Final = "state.json"
KEPT: Final = 2
"""The newest ones; the second is what is fallen back to. The best one is kept besides."""
PATIENCE_SECONDS: Final = 120.0
"""How long storage may fail before the run does."""
_FOR_GOOD: Final = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written; the message names the last good one."""


@dataclass(slots=True)
class State:
    """Where a run stands; the next batch is (`epoch`, `step`)."""

    epoch: int = 0
    step: int = 0
    seen: int = 0
    """Mails trained on so far."""
    best: float = float("inf")
    """The lowest validation loss so far."""
    stale: int = 0
    """Epochs since then."""
    over: bool = False
    """Stopped early: nothing is left to do."""
    validated: float | None = None
    """The validation loss of exactly these weights, at the end of an epoch."""
    plan: str = ""
    """The fingerprint of the plan that `epoch` and `step` are a place in."""
    epochs: tuple[dict[str, Any], ...] = ()
    """What each whole epoch gave: `epoch`, `seen`, `train_loss`, `seconds` and the `val_` metrics;
    of the one that training goes on in, loss and seconds are of what this start did."""

    @property
    def name(self) -> str:
        """Of the checkpoint's directory; names sort as places do."""
        return f"e{self.epoch:03d}-s{self.step:06d}"


class Found(NamedTuple):
    """A checkpoint to go on from, if there is one, and why newer ones were passed over."""

    path: Path | None
    passed_over: list[str]


class Writer:
    """Writes a run's checkpoints, one at a time, in a thread.

    Storage that fails is tried again, with growing pauses, for `patience` seconds; `on_trouble` is
    told at the first failure.
    """

    def __init__(
        self,
        folder: Path,
        on_trouble: Callable[[str], None] = lambda text: None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.folder, self.on_trouble, self.patience = folder, on_trouble, patience
        self.thread = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None

    def save(self, model: "MailModel", optimizer: Any, schedule: Any, state: State) -> None:
        """Copy what a checkpoint is made of, and have it written.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.wait()
        weights = {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
        moments = _on_cpu({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
        self.pending = self.thread.submit(self._write, weights, moments, replace(state))

    def wait(self) -> None:
        """Until the last one is written.

        Raises:
            CheckpointError: it cannot be.
        """
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self.thread.shutdown(wait=kind is None)

    def _write(self, weights: dict[str, torch.Tensor], moments: Any, state: State) -> None:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_exponential(multiplier=0.5, max=10),
            stop=tenacity.stop_after_delay(self.patience),
            before_sleep=self._say_once,
            reraise=True,
        )
        try:
            attempts(self._attempt, weights, moments, state)
        except (OSError, RuntimeError) as error:  # Torch's own writer raises the latter
            last = latest(self.folder).path
            good = f"the last good checkpoint is {last}" if last else "there is none before it"
            raise CheckpointError(
                f"checkpoint {state.name} cannot be written to {self.folder}: {_reason(error)}; "
                f"{good}"
            ) from error

    def _attempt(self, weights: dict[str, torch.Tensor], moments: Any, state: State) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".e*"):  # by a writer that was killed
            shutil.rmtree(left, ignore_errors=True)
        scratch = self.folder / f".{state.name}-{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        try:
            save_file({k: v.contiguous() for k, v in weights.items()}, scratch / MODEL)
            torch.save(moments, scratch / OPTIMIZER)
            digests = {name: _digest(scratch / name) for name in (MODEL, OPTIMIZER)}
            facts = asdict(state) | {"files": digests}
            (scratch / STATE).write_text(json.dumps(facts), "utf-8")
            place = self.folder / state.name
            _remove(place)  # a damaged one, that was passed over
            scratch.rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        places, kept = _all(self.folder), best(self.folder)
        beyond = [path for path in places if path.name > state.name]  # damaged, passed over
        for path in [*beyond, *places[: -len(beyond) - KEPT]]:
            if path != kept:
                _remove(path)

    def _say_once(self, call: tenacity.RetryCallState) -> None:
        if call.attempt_number == 1 and call.outcome is not None:
            error = call.outcome.exception()
            self.on_trouble(
                f"checkpoints cannot be written to {self.folder}: {_reason(error)}; "
                f"trying again for {self.patience:.0f} s"
            )


def latest(folder: Path) -> Found:
    """The newest whole checkpoint of a run."""
    passed_over: list[str] = []
    for path in reversed(_all(folder)):
        fault = _fault(path)
        if fault is None:
            return Found(path, passed_over)
        passed_over.append(f"checkpoint {path.name}: {fault}")
    return Found(None, passed_over)


def best(folder: Path) -> Path | None:
    """The checkpoint with the lowest validation loss."""
    validated = [(loss, path) for path in _all(folder) if (loss := _loss(path)) is not None]
    return next((path for _, path in sorted(validated) if _fault(path, MODEL) is None), None)


def read(path: Path, model: "MailModel", optimizer: Any, schedule: Any) -> State:
    """Restore what `Writer.save` took, in place.

    Learning rates, weight decay and the like stay as they are configured: a population changes
    them on the way.
    """
    model.load_state_dict(load_file(path / MODEL))
    saved = torch.load(path / OPTIMIZER, weights_only=True, map_location="cpu")
    configured = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    schedule.base_lrs = [group["initial_lr"] for group in configured]
    rates = [
        base * rule(schedule.last_epoch)
        for base, rule in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, own, rate in zip(optimizer.param_groups, configured, rates, strict=True):
        group.update(own | {"lr": rate})
    schedule._last_lr = rates
    facts = json.loads((path / STATE).read_text("utf-8"))
    del facts["files"]
    return State(**facts | {"epochs": tuple(facts.get("epochs", ()))})


def epochs(folder: Path) -> list[dict[str, Any]]:
    """A row for each epoch that a run has trained, by whatever commands, and whether it is `best`.

    Otherwise as `State.epochs`, of the newest checkpoint that tells.
    """
    rows: list[dict[str, Any]] = []
    for path in reversed(_all(folder)):
        try:
            rows = json.loads((path / STATE).read_text("utf-8")).get("epochs", [])
        except (OSError, ValueError):
            continue
        break
    best = min(rows, key=lambda row: row["val_loss"], default=None)
    return [row | {"best": row is best} for row in rows]


def keep_best(folder: Path) -> None:
    """Leave of a finished run's checkpoints the weights of the best."""
    kept = best(folder)
    for path in _all(folder):
        if path != kept:
            _remove(path)
    if kept is not None:
        (kept / OPTIMIZER).unlink(missing_ok=True)


def weights_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's weights."""
    facts = json.loads((path / STATE).read_text("utf-8"))
    return str(facts["files"][MODEL])


def _all(folder: Path) -> list[Path]:
    """Every checkpoint whose last file was written, oldest first."""
    return sorted(file.parent for file in folder.glob(f"e*/{STATE}"))


def _fault(path: Path, *names: str) -> str | None:
    """What is wrong with a checkpoint, or with some files of it."""
    try:
        files = json.loads((path / STATE).read_text("utf-8"))["files"]
        for name in names or (MODEL, OPTIMIZER):
            if _digest(path / name) != files[name]:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"cannot be read: {_reason(error)}"
    return None


def _loss(path: Path) -> float | None:
    try:
        loss = json.loads((path / STATE).read_text("utf-8"))["validated"]
        return None if loss is None else float(loss)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove(path: Path) -> None:
    """Unmake a checkpoint: without its last file it is none, however far this comes."""
    (path / STATE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _on_cpu(tree: Any) -> Any:
    """A copy of a tree of tensors and plain values."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: _on_cpu(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_on_cpu(value) for value in tree]
    return copy.copy(tree)


def _may_pass(error: BaseException) -> bool:
    """Whether a fault of storage may go away: not one of permissions or of names."""
    if isinstance(error, OSError):
        return error.errno not in _FOR_GOOD
    return isinstance(error, RuntimeError)


def _reason(error: BaseException | None) -> str:
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(said).splitlines()[0]
