"""Ray Train around the loop: workers are started, lost and replaced; the best checkpoint remains.

Each start of the workers, the first one too, goes on from the newest whole checkpoint of the run.
So a lost worker, a lost controller and a killed driver are one and the same case, and differ only
in who starts the workers again: Ray Train, `train_run`, or the user with --resume.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import UserCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from training import checkpoint
from training.config import TrainConfig
from training.job import Job
from training.mails import Mails
from training.plan import Plan
from training.progress import Listener, Message
from training.run import Run
from training.schema import ConfigError

NO_GPU: Final = {"CUDA_VISIBLE_DEVICES": ""}
"""The environment of a worker that has no GPU of its own: it would find those of its machine, and
take the kernels, the precision and the dropout that are meant for them."""


class RunError(RuntimeError):
    """A run failed; the message has the cause and says what to do."""


def train_run(
    run: Run,
    mails: Mails,
    on_message: Callable[[Message], None] | None = None,
    *,
    callbacks: Sequence[Any] = (),
    report: Callable[[dict[str, float]], None] | None = None,
    board: ActorHandle[Any] | None = None,
    marks: Message | None = None,
    until: int | None = None,
) -> Path:
    """Train from where `run` stands to its end; returns the best checkpoint's directory.

    The end is the last epoch, or `until`, an earlier one. With `report`, which gets the metrics of
    each epoch, a single worker trains in this process. Messages go to `on_message`, or with `marks`
    in each of them to a `board` that others have too.

    Raises:
        ConfigError: the cluster has no room for the workers.
        RunError: training failed; the message has the cause.
    """
    config = run.config
    _room(config)
    # A report, and the end of a run, wait for the controller's next look: two seconds by default.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")
    batching = config.batching
    plan = Plan(
        mails.rows(),
        batching.size,
        batching.window,
        config.seed,
        config.optimizer.epochs,
        batching.tokens,
    )
    with Listener(on_message) as listener:
        board = board or listener.board
        job = Job(config, plan, mails.cache.path, run.path, board, marks or {}, report, until)
        fault = _fit(job, run, board, callbacks) if report is None else _fit_here(job)
    if fault is not None:
        raise RunError(f"training stopped: {fault}")
    best = checkpoint.best(run.path / "checkpoints")
    if best is None:
        raise RunError(f"{run.path} has no checkpoint of a whole epoch; start a new run")
    return best


def _fit(
    job: Job, run: Run, board: ActorHandle[Any] | None, callbacks: Sequence[Any]
) -> str | None:
    """What the workers say at their end, however often their controller had to be started."""
    controllers_lost = 0
    while True:
        try:
            result = _trainer(job, run, [*callbacks, _Lost(board)]).fit()
            said = getattr(result, "return_value", None)  # of rank 0
            return None if said is None else str(said)
        except TrainingFailedError as error:
            raise RunError(
                f"training failed: {_cause(error)}; mend it and continue with --resume"
            ) from error
        except RayActorError as error:  # Ray Train starts workers anew, not their controller
            controllers_lost += 1
            if controllers_lost > job.config.scaling.max_failures:
                raise RunError(
                    "training lost its controller too often; continue with --resume"
                ) from error
            if board is not None:
                board.post.remote({"kind": "lost", "ranks": [], "reason": "their controller died"})


def _fit_here(job: Job) -> str | None:
    """The same in this process, which starts no other."""
    if not job.config.scaling.gpu:
        os.environ.update(NO_GPU)
    try:
        return job()
    except Exception as error:
        raise RunError(f"training failed: {_innermost(error)}") from error


def _trainer(job: Job, run: Run, callbacks: list[Any]) -> TorchTrainer:
    scaling = job.config.scaling
    elastic = scaling.fewest < scaling.most
    gpus = ray.cluster_resources().get("GPU", 0)
    return TorchTrainer(
        job,
        scaling_config=ScalingConfig(
            num_workers=(scaling.fewest, scaling.most) if elastic else scaling.most,
            elastic_resize_monitor_interval_s=scaling.resize_seconds,
            use_gpu=scaling.gpu,
            resources_per_worker={"CPU": scaling.cpus} | ({"GPU": 1} if scaling.gpu else {}),
        ),
        run_config=RunConfig(
            name=run.path.name,
            storage_path=str(run.path.parent),
            failure_config=FailureConfig(
                max_failures=scaling.max_failures, relax_collectives_on_preemption=True
            ),
            callbacks=callbacks,
            worker_runtime_env={"env_vars": NO_GPU} if gpus and not scaling.gpu else {},
        ),
    )


class _Lost(UserCallback):
    """Tells the driver, from the controller, which workers were lost and why."""

    def __init__(self, board: ActorHandle[Any] | None) -> None:
        self.board = board

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Post one message for all of them."""
        if self.board is not None:
            ranks = sorted(worker_exceptions)
            reason = _innermost(worker_exceptions[ranks[0]])
            self.board.post.remote({"kind": "lost", "ranks": ranks, "reason": reason})


def _room(config: TrainConfig) -> None:
    """Refuse what would wait for ever."""
    have = ray.cluster_resources()
    scaling = config.scaling
    need = scaling.fewest * scaling.cpus
    if have.get("CPU", 0) < need:
        raise ConfigError(
            f"scaling: {scaling.fewest} workers of {scaling.cpus} CPUs "
            f"need {need} CPUs, the cluster has {have.get('CPU', 0):g}; "
            "lower scaling.workers or scaling.cpus"
        )
    if scaling.gpu and have.get("GPU", 0) < scaling.fewest:
        raise ConfigError(
            f"scaling.gpu: {scaling.fewest} GPUs are needed, the cluster has {have.get('GPU', 0):g}"
        )


def _cause(error: TrainingFailedError) -> str:
    """The innermost reason, in one line."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return _innermost(next(iter(error.worker_failures.values())))
    if isinstance(error, ControllerError):
        return _innermost(error.controller_failure)
    return _innermost(error)


def _innermost(error: BaseException) -> str:
    from training.faults import OutOfMemory  # loads transformers

    while not isinstance(error, (checkpoint.CheckpointError, OutOfMemory)):  # they say it all
        inner = getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
    if "deterministic implementation" in said:
        said = f"{said.partition(',')[0]}; set scaling.deterministic=false"
    if isinstance(error, OutOfMemoryError):
        said += "; lower batching.size, or set batching.micro_tokens"
    return said
