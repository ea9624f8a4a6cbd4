"""The training loop: what each DDP worker runs, from its place in the plan to the end."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed as dist
from ray.actor import ActorHandle
from ray.train.torch import get_device, prepare_model
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from training import checkpoint, metrics
from training.batches import Batch, stream
from training.checkpoint import State
from training.config import OptimizerConfig, TrainConfig
from training.model import MailModel, build
from training.plan import VALIDATE, Plan
from training.progress import Poster
from training.scorer import bf16_pays


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is given."""

    config: TrainConfig
    plan: Plan
    tokens: Path
    board: ActorHandle[Any] | None


def train(job: Job) -> None:
    """Train, validate each epoch, report metrics and checkpoints; the same on every rank."""
    config, plan = job.config, job.plan
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(config.scaling.cpus)
    torch.manual_seed(config.seed)

    raw = build(config.model, len(config.data.labels), config.data.max_length)
    model = prepare_model(raw)
    optimizer, schedule = _optimizer(raw, config.optimizer, plan.steps * plan.epochs)
    state = State()
    if (saved := ray.train.get_checkpoint()) is not None:
        with saved.as_directory() as folder:
            state = checkpoint.read(Path(folder), raw, optimizer, schedule)
    worker = Worker(
        config, raw, model, optimizer, schedule, state, Poster(job.board if rank == 0 else None)
    )

    if saved is not None:
        worker.poster.result(kind="resumed", **asdict(state))
    flow = stream(plan, job.tokens, raw.filler, rank, world, state.epoch, state.step)
    if state.over:
        return
    for (epoch, validating), batches in groupby(flow, lambda b: (b.epoch, b.step == VALIDATE)):
        if not validating:
            worker.train_epoch(batches, plan.steps)
            continue
        result = worker.validate(batches)
        state.epoch, state.step = epoch + 1, 0
        better = result["loss"] < state.best
        state.best, state.stale = (result["loss"], 0) if better else (state.best, state.stale + 1)
        state.over = state.stale >= config.optimizer.patience
        worker.report(result)
        if state.over:
            return


@dataclass(slots=True)
class Worker:
    """One rank of a run: its model, its optimizer and where it stands."""

    config: TrainConfig
    raw: MailModel
    model: Any
    """`raw`, wrapped for DDP"""
    optimizer: AdamW
    schedule: LambdaLR
    state: State
    poster: Poster

    def train_epoch(self, batches: Iterator[Batch], steps: int) -> None:
        """Forward, backward, step, for each global batch from where the state stands."""
        self.model.train()
        every = self.config.scaling.checkpoint_steps
        began, mails, tokens = time.monotonic(), 0, 0
        for batch in batches:
            loss = self._step(batch)
            self.state.step += 1
            self.state.seen += batch.size
            mails += batch.size
            tokens += batch.ids.numel() * _world()
            seconds = time.monotonic() - began
            self.poster.step(
                epoch=batch.epoch,
                step=batch.step + 1,
                steps=steps,
                loss=loss,
                lr=self.schedule.get_last_lr()[0],
                seen=self.state.seen,
                mails_per_second=mails / seconds,
                tokens_per_second=tokens / seconds,
            )
            if every and self.state.step % every == 0 and self.state.step < steps:
                self.report({"epoch": batch.epoch, "step": self.state.step})

    def _step(self, batch: Batch) -> float:
        """One global step; returns this rank's part of the batch's mean loss."""
        # What is random in a step depends on the step alone, not on what ran before a restart.
        torch.manual_seed(hash((self.config.seed, batch.epoch, batch.step, _rank())) & 0x7FFFFFFF)
        device = get_device()
        mask = None if batch.mask is None else batch.mask.to(device)
        with self._autocast():
            logits = self.model(batch.ids.to(device), mask)
        losses = self.raw.losses(logits, batch.labels.to(device))
        # DDP takes the mean over ranks; the sum over mails times world / size makes that the mean
        # over the global batch, however it was sliced. An empty slice's stand-in weighs nothing.
        weight = _world() / batch.size if len(batch.rows) else 0.0
        loss = losses.sum() * weight
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.raw.parameters(), self.config.optimizer.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def validate(self, batches: Iterator[Batch]) -> dict[str, float]:
        """The metrics of the validation mails, the same on every rank."""
        self.model.eval()
        rows, scores, labels = [], [], []
        device = get_device()
        for batch in batches:
            # Not around the loop: the stream's next batch, for training, is read in it.
            with torch.inference_mode(), self._autocast():
                logits = self.raw(
                    batch.ids.to(device), None if batch.mask is None else batch.mask.to(device)
                )
                scores.append(self.raw.probabilities(logits).cpu().numpy())
            labels.append(batch.labels.numpy())
            rows.append(batch.rows)
        mine = tuple(np.concatenate(part) for part in (labels, scores, rows))
        parts: list[Any] = [mine]
        if _world() > 1:
            parts = [None] * _world()
            dist.all_gather_object(parts, mine)
        truth, scored, _ = (np.concatenate(column) for column in zip(*parts, strict=True))
        return metrics.summary(truth, scored)

    def report(self, result: dict[str, float]) -> None:
        """Publish metrics and a checkpoint; all ranks must come here together."""
        facts = {f"val_{k}" if k not in ("epoch", "step") else k: v for k, v in result.items()}
        facts = {"epoch": self.state.epoch, "seen": self.state.seen} | facts
        # Ray keeps the checkpoint with the lowest; one within an epoch has no validation loss.
        facts.setdefault("val_loss", float("inf"))
        with tempfile.TemporaryDirectory() if _rank() == 0 else nullcontext() as folder:
            saved = None
            if folder is not None:
                checkpoint.write(Path(folder), self.raw, self.optimizer, self.schedule, self.state)
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(facts, checkpoint=saved)
        if "val_accuracy" in facts:
            self.poster.result(kind="epoch", **facts)

    def _autocast(self) -> torch.autocast:
        precision = self.config.scaling.precision
        on = precision == "bf16" or (precision == "auto" and bf16_pays())
        return torch.autocast(get_device().type, torch.bfloat16, enabled=on)


def _optimizer(model: MailModel, config: OptimizerConfig, steps: int) -> tuple[AdamW, LambdaLR]:
    """AdamW, weight decay on matrices alone; linear warm-up, then linear decay to 0."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=config.lr, fused=True)
    warmup = max(1, round(steps * config.warmup))
    schedule = LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    return optimizer, schedule


def _rank() -> int:
    return int(ray.train.get_context().get_world_rank())


def _world() -> int:
    return int(ray.train.get_context().get_world_size())
