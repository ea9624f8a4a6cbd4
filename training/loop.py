"""The training loop: what each DDP worker runs, from its place in the plan to the end."""

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from training import checkpoint, faults, metrics
from training.audit import Audit
from training.batches import Batch, Micro, stream
from training.checkpoint import State, Writer
from training.config import TrainConfig
from training.gauges import Gauges
from training.job import Job
from training.losses import Loss
from training.meter import Meter, highest_peak
from training.model import MailModel, build
from training.optimizer import make_optimizer
from training.plan import VALIDATE, Plan
from training.profiler import Profiler
from training.progress import Poster
from training.rarity import rarities
from training.schema import ConfigError
from training.scorer import bf16_pays
from training.seat import Seat
from training.tensors import Reader

_LOOK: Final = 16
"""Steps between two looks for a notice that a node is to go: the call is one of all ranks."""


def train(job: Job) -> str | None:
    """Train, validate each epoch, report metrics and write checkpoints; the same on every rank.

    Returns why training cannot go on, None where it came to its end.
    """
    config, plan = job.config, job.plan
    seat = Seat.among_workers() if job.report is None else Seat.alone(job.report)
    rank, world = seat.rank, seat.world
    poster = Poster(job.board if rank == 0 else None, job.marks)
    _settle(config)

    try:
        raw = build(
            config.model, len(config.data.labels), config.data.max_length,
            multi=config.data.multi_label, wide=config.data.wide_length > 0,
        )  # fmt: skip
        if raw.wide is not None:
            rarity = rarities(job.tokens, plan.rows.train, raw.wide.buckets)
            raw.wide.rarity.data.copy_(rarity)
        model = seat.prepare(raw)
        optimizer, schedule = make_optimizer(raw, config.optimizer, sum(plan.steps()))
        loss = _loss(config, raw, plan)
    except ConfigError as error:  # it would come again, however often workers were started
        return str(error)
    state = State(plan=plan.fingerprint)
    found, start = _agreed(job.run / "checkpoints", rank, world)
    if found.path is not None:
        state = checkpoint.read(found.path, raw, optimizer, schedule)
        if state.plan != plan.fingerprint:
            return faults.other_plan(job.run)
    poster.result(
        kind="started", epoch=state.epoch, step=state.step, seen=state.seen, best=state.best,
        workers=world, passed_over=found.passed_over,
    )  # fmt: skip
    if state.over or state.epoch >= (job.until or config.optimizer.epochs):
        return None
    highest_peak(seat.device)  # while nothing else is done here
    reader = Reader(raw.filler, config.data.max_length, config.data.keep_head, raw.shape.wide)
    batches = stream(
        plan, job.tokens, reader, rank, world, state.epoch, state.step,
        config.batching.micro_tokens, pinned=torch.cuda.is_available(),
        here=job.report is not None,
    )  # fmt: skip
    writer = Writer(job.run / "checkpoints", lambda text: poster.result(kind="note", text=text))
    with (
        writer,
        Audit(job.run, start, rank, world, on=config.tracking.audit) as audit,
        Profiler(job.run, on=config.tracking.profile and rank == 0) as profiler,
        Gauges(lambda read: poster.result(kind="system", **read)) if rank == 0 else nullcontext(),
    ):
        worker = Worker(
            job, seat, raw, model, optimizer, schedule, loss, state, poster, writer, audit,
            profiler,
        )  # fmt: skip
        return worker.run(batches)


@dataclass(slots=True)
class Worker:
    """One rank of a run: its model, its optimizer and where it stands."""

    job: Job
    seat: Seat
    raw: MailModel
    model: Any
    """`raw`, wrapped for DDP where there are several workers"""
    optimizer: AdamW
    schedule: LambdaLR
    loss: Loss
    state: State
    poster: Poster
    writer: Writer
    audit: Audit
    profiler: Profiler
    ended: float = field(default_factory=time.monotonic)
    """When the last step was done; until the next batch comes, the worker waits."""
    waited: float = 0.0
    """Seconds, at most, that a step of this epoch has waited for its batch."""
    began: float = field(default_factory=time.monotonic)
    """When this epoch was, or when these workers were."""
    losses: list[float] = field(default_factory=list)
    """Of this epoch's steps, since then."""
    largest: int = 0
    """Tokens of the largest forward that there was memory for."""

    def run(self, batches: Iterator[Batch]) -> str | None:
        """All epochs that are left."""
        state, patience = self.state, self.job.config.optimizer.patience
        for (epoch, step), of_epoch in groupby(batches, lambda b: (b.epoch, min(b.step, 0))):
            if step != VALIDATE:
                fault = self.train_epoch(of_epoch, self.job.plan.steps()[epoch])
                if fault is not None:
                    return fault
                continue
            result = self.validate(of_epoch)
            state.epoch, state.step, state.validated = epoch + 1, 0, result["loss"]
            state.stale = 0 if state.validated < state.best else state.stale + 1
            state.best = min(state.best, state.validated)
            state.over = state.stale >= patience
            facts: dict[str, float] = {"epoch": state.epoch, "seen": state.seen}
            facts |= {f"val_{key}": value for key, value in result.items()}
            facts["longest_wait"], self.waited = self.waited, 0.0
            state.epochs = (*state.epochs, facts | self.course())
            self.save()
            self.seat.report(facts)
            self.poster.result(kind="epoch", **facts)
            self.ended = time.monotonic()
            if state.over or state.epoch == self.job.until:
                break
        return None

    def train_epoch(self, batches: Iterator[Batch], steps: int) -> str | None:
        """Forward, backward, step, for each global batch from where the state stands."""
        self.model.train()
        state, scaling = self.state, self.job.config.scaling
        meter = Meter(self.raw, self.seat.world)
        saved = time.monotonic()
        for batch in batches:
            began = time.monotonic()
            self.waited = max(self.waited, began - self.ended)
            self.audit.write(batch)
            loss, norm = self.step(batch)
            self.profiler.step()
            if not np.isfinite(norm):
                rows = self._suspects(batch)
                return faults.not_finite(self.job.run, self.job.tokens, batch, rows)
            self.losses.append(loss)
            state.step += 1
            state.seen += batch.size
            state.validated = None
            self.ended = time.monotonic()
            meter.add(batch, self.ended - began)
            self.poster.step(
                epoch=batch.epoch, step=state.step, steps=steps, seen=state.seen, loss=loss,
                norm=norm, lr=self.schedule.get_last_lr()[0], **meter.facts(),
            )  # fmt: skip
            due = scaling.checkpoint_steps and state.step % scaling.checkpoint_steps == 0
            late = time.monotonic() - saved > scaling.checkpoint_minutes * 60
            going = state.step % _LOOK == 0 and self.seat.leaving()
            if (due or late or going) and state.step < steps:
                self.save()
                saved = time.monotonic()
                if going:
                    self.writer.wait()
        return None

    def step(self, batch: Batch) -> tuple[float, float]:
        """One global step; returns this rank's part of the mean loss, and the gradients' norm."""
        config = self.job.config
        # What is random in a step depends on the step alone, not on what ran before a restart.
        torch.manual_seed(hash((config.seed, batch.epoch, batch.step, self.seat.rank)) & 0x7FFFFFFF)
        total = torch.zeros((), device=self.seat.device)
        for at, part in enumerate(batch.parts):
            last = at == len(batch.parts) - 1
            with nullcontext() if last or self.seat.world == 1 else self.model.no_sync():
                # DDP takes the mean over ranks; the sum over mails times world / size makes that
                # the mean over the global batch, however it was sliced. A stand-in weighs nothing.
                weight = self.seat.world / batch.size if len(part.rows) else 0.0
                try:
                    loss = self._losses(self.model, part).sum() * weight
                    loss.backward()
                except torch.OutOfMemoryError as error:
                    raise faults.out_of_memory(part.ids.numel(), self.largest) from error
            self.largest = max(self.largest, part.ids.numel())
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.raw.parameters(), config.optimizer.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.schedule.step()
        self.optimizer.zero_grad()
        return float(total), float(norm)

    def validate(self, batches: Iterator[Batch]) -> dict[str, float]:
        """The metrics of the validation mails, each counted once, the same on every rank.

        Scores are gathered, not counts of them: those of a million mails take 16 MB.
        """
        self.model.eval()
        scores, labels = [], []
        with torch.inference_mode():
            for part in (part for batch in batches for part in batch.parts if len(part.rows)):
                scores.append(self.raw.probabilities(self._logits(self.raw, part)).cpu().numpy())
                labels.append(part.labels.numpy())
        mine = (np.concatenate(labels), np.concatenate(scores)) if labels else None
        parts: list[Any] = [mine]
        if self.seat.world > 1:
            parts = [None] * self.seat.world
            dist.all_gather_object(parts, mine)
        columns = zip(*[part for part in parts if part is not None], strict=True)
        truth, scored = (np.concatenate(column) for column in columns)
        return metrics.summary(self.job.config.data.label_set.truth(truth), scored)

    def course(self) -> dict[str, float | None]:
        """How the epoch that ends went: the mean of rank 0's losses, and wall seconds."""
        losses, began = self.losses, self.began
        self.losses, self.began = [], time.monotonic()
        mean = sum(losses) / len(losses) if losses else None
        return {"train_loss": mean, "seconds": self.began - began}

    def save(self) -> None:
        """A checkpoint of where the state stands, by rank 0, while training goes on."""
        if self.seat.rank == 0:
            self.writer.save(self.raw, self.optimizer, self.schedule, self.state)

    def _logits(self, model: Any, part: Micro) -> torch.Tensor:
        device = self.seat.device
        mask = None if part.mask is None else part.mask.to(device, non_blocking=True)
        precision = self.job.config.scaling.precision
        bf16 = precision == "bf16" or (precision == "auto" and bf16_pays())
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            grams = None if part.grams is None else part.grams.to(device)
            logits: torch.Tensor = model(part.ids.to(device, non_blocking=True), mask, grams)
        return logits

    def _losses(self, model: Any, part: Micro) -> torch.Tensor:
        logits = self._logits(model, part)
        return self.loss(logits, part.labels.to(logits.device, non_blocking=True))

    @torch.no_grad()
    def _suspects(self, batch: Batch) -> list[int]:
        """Rows of the global batch whose own loss is no number; all, where each one's is."""
        mine = [
            int(row)
            for part in batch.parts
            for row, loss in zip(part.rows, self._losses(self.raw, part), strict=False)
            if not torch.isfinite(loss)
        ]
        everyone: list[Any] = [(mine, batch.rows.tolist())]
        if self.seat.world > 1:
            everyone = [None] * self.seat.world
            dist.all_gather_object(everyone, (mine, batch.rows.tolist()))
        found = [row for suspects, _ in everyone for row in suspects]
        return sorted(found or [row for _, rows in everyone for row in rows])


def _loss(config: TrainConfig, model: MailModel, plan: Plan) -> Loss:
    trained = plan.rows.labels[plan.rows.train]
    counts = config.data.label_set.indicator(trained).sum(0)
    return Loss(config.optimizer, model.shape, counts, len(trained))


def _settle(config: TrainConfig) -> None:
    """Threads, seeds, and kernels that give the same bits each time."""
    torch.set_num_threads(config.scaling.cpus)
    torch.manual_seed(config.seed)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else its sums vary
        torch.backends.cudnn.benchmark = False
        # Not `warn_only`, with which the kernels of attention take the way that varies.
        torch.use_deterministic_algorithms(config.scaling.deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _agreed(folder: Path, rank: int, world: int) -> tuple[checkpoint.Found, int]:
    """What rank 0 found, where a file system may show others less, and the time of this start."""
    said: list[Any] = [None]
    if rank == 0:
        said = [(checkpoint.latest(folder), time.time_ns())]
    if world > 1:
        dist.broadcast_object_list(said, src=0)
    agreed: tuple[checkpoint.Found, int] = said[0]
    return agreed
