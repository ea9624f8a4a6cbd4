"""Who trains in `train_speed.py`: one of CONTESTANTS, in a process of its own.

    python -m tests.bench.train_contestants NAME TASK

TASK is a pickled `Task`. The last line printed is one JSON object.
"""

import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from cluster.session import ray_session
from training import metrics
from training.config import TrainConfig, resolve
from training.mails import Mails
from training.model import build
from training.plan import Plan, cut
from training.scorer import bf16_pays
from training.tensors import pad
from training.weights import locate

Found = dict[str, float]
"""Tokens a second, or F1 and ROC AUC."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a contestant is given."""

    settings: tuple[str, ...]
    """Overrides of mailray's default recipe."""
    mails: Mails
    threads: int
    warmup: int
    """Steps, at least 1."""
    hf_lr: float
    scored: bool
    """Whether to validate, instead of timing."""
    seed: int = 0

    def config(self, *settings: str) -> TrainConfig:
        """The recipe, with settings besides the task's own."""
        return resolve(overrides=[*self.settings, f"seed={self.seed}", *settings])

    def tokens(self, rows: np.ndarray) -> list[list[int]]:
        """The tokens of mails, special ones included."""
        taken: list[list[int]] = self.mails.cache.table()["tokens"].take(rows).to_pylist()
        return taken

    def rate(self, ends: Mapping[int, float], tokens: Sequence[int]) -> Found:
        """Tokens a second: `ends` are seconds by step, from 1, `tokens` those of every step."""
        first, last = min(step for step in ends if step >= self.warmup), max(ends)
        seconds = ends[last] - ends[first]
        return {"tokens_per_second": sum(tokens[first:last]) / seconds}


def plan_of(config: TrainConfig, mails: Mails) -> Plan:
    """The plan that mailray trains by."""
    batching, epochs = config.batching, config.optimizer.epochs
    return Plan(mails.rows(), batching.size, batching.window, config.seed, epochs, batching.tokens)


def mailray(task: Task, workers: int) -> Found:
    """Through Ray, as `mailray train` does it."""
    from training.run import Run
    from training.trainer import train_run

    each = task.threads // workers
    config = task.config(f"scaling.workers={workers}", f"scaling.cpus={each}")
    ends: dict[int, float] = {}
    validated: dict[str, float] = {}

    def hear(message: dict[str, Any]) -> None:
        if message["kind"] == "step":
            ends[message["step"]] = time.perf_counter()
        elif message["kind"] == "epoch":
            validated.update(message)

    with (
        tempfile.TemporaryDirectory() as runs,
        ray_session(address="local", cpus=task.threads + 1),
    ):
        train_run(Run(Path(runs, "run"), config), task.mails, hear)
    if task.scored:
        return {"f1": validated["val_f1"], "roc_auc": validated["val_roc_auc"]}
    lengths = task.mails.lengths
    return task.rate(
        ends, [int(lengths[rows].sum()) for rows in plan_of(config, task.mails).epoch(0)]
    )


def bare(task: Task) -> Found:
    """mailray's model, plan, precision and optimizer, batches made before: no Ray, no DDP."""
    from training.losses import Loss
    from training.optimizer import make_optimizer

    config, mails = task.config(), task.mails
    plan = plan_of(config, mails).epoch(0)
    torch.manual_seed(config.seed)
    model = build(config.model, len(config.data.labels), config.data.max_length)
    optimizer, schedule = make_optimizer(model, config.optimizer, len(plan))
    trained = mails.labels[mails.on("train")]
    counts = config.data.label_set.indicator(trained).sum(0)
    loss_of = Loss(config.optimizer, model.shape, counts, len(trained))
    steps = []
    for rows in plan:
        order = rows[np.argsort(mails.lengths[rows], kind="stable")]
        micro = config.batching.micro_tokens
        parts = [order] if micro is None else cut(order, mails.lengths, micro)
        labels = [torch.from_numpy(mails.labels[part].astype(np.int64)) for part in parts]
        padded = [pad(task.tokens(part), model.filler) for part in parts]
        steps.append((len(rows), list(zip(padded, labels, strict=True))))
    precision = config.scaling.precision
    bf16 = precision == "bf16" or (precision == "auto" and bf16_pays())
    ends: dict[int, float] = {}
    model.train()
    for step, (size, batch) in enumerate(steps, 1):
        total = 0.0
        for (ids, mask), labels_of in batch:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model(ids, mask)
            loss = loss_of(logits, labels_of).sum() / size
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ends[step] = time.perf_counter()
    return task.rate(ends, [int(mails.lengths[rows].sum()) for rows in plan])


def classic(task: Task) -> Found:
    """As articles write it: all mails padded to the full length, shuffled, in fp32."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    config, mails = task.config(), task.mails
    rows, place = mails.on("train"), locate(config.model.name)
    torch.manual_seed(config.seed)
    words = AutoTokenizer.from_pretrained(place)
    model = AutoModelForSequenceClassification.from_pretrained(
        place, num_labels=len(config.data.labels), dtype=torch.float32
    )
    padded = words.pad(
        {"input_ids": task.tokens(rows)},
        padding="max_length",
        max_length=config.data.max_length,
        return_tensors="pt",
    )
    truth = torch.from_numpy(mails.labels[rows].astype(np.int64))
    dataset = TensorDataset(padded["input_ids"], padded["attention_mask"], truth)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    ends: dict[int, float] = {}
    tokens: list[int] = []
    model.train()
    for ids, mask, labels in DataLoader(dataset, batch_size=config.batching.size, shuffle=True):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tokens.append(int(mask.sum()))
        ends[len(tokens)] = time.perf_counter()
    return task.rate(ends, tokens)


def hf_trainer(task: Task, **model_settings: float) -> Found:
    """HF Trainer with bf16 where it pays, dynamic padding and groups of like lengths.

    Learning rate, its warm-up and the weight decay are those of BERT's paper; all else is default.
    """
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    config, mails = task.config(), task.mails
    place = locate(config.model.name)
    words = AutoTokenizer.from_pretrained(place)
    collate = DataCollatorWithPadding(words)
    ends: dict[int, float] = {}
    tokens: list[int] = []

    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            ends[state.global_step] = time.perf_counter()

    def counted(batch: list[dict[str, Any]]) -> Any:
        tokens.append(sum(len(mail["input_ids"]) for mail in batch))
        return collate(batch)

    def dataset(split: str) -> list[dict[str, Any]]:
        rows = mails.on(split)
        pairs = zip(task.tokens(rows), mails.labels[rows].tolist(), strict=True)
        return [{"input_ids": of_mail, "labels": label} for of_mail, label in pairs]

    set_seed(config.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        place, num_labels=len(config.data.labels), **model_settings
    )
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output,
            use_cpu=True,
            bf16=bf16_pays(),
            per_device_train_batch_size=config.batching.size,
            num_train_epochs=config.optimizer.epochs,
            train_sampling_strategy="group_by_length",
            learning_rate=task.hf_lr,
            warmup_steps=0.1,
            weight_decay=0.01,
            seed=config.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer: Any = Trainer(
            model,
            arguments,
            counted,
            dataset("train"),
            processing_class=words,
            callbacks=[Ends()],
        )
        trainer.train()
        if not task.scored:
            return task.rate(ends, tokens)
        found = trainer.predict(dataset("validation"))
    scores = torch.softmax(torch.from_numpy(found.predictions).float(), 1).numpy()
    result = metrics.summary(found.label_ids, scores)
    return {"f1": result["f1"], "roc_auc": result["roc_auc"]}


CONTESTANTS: Final[dict[str, Callable[[Task], Found]]] = {
    "mailray": lambda task: mailray(task, 1),
    "mailray_two_workers": lambda task: mailray(task, 2),
    "hf_trainer": hf_trainer,
    # As mailray on a CPU, where dropout of attention leaves the fused kernel.
    "hf_no_attention_dropout": lambda task: hf_trainer(task, attention_probs_dropout_prob=0.0),
    "classic": classic,
    "bare": bare,
}


if __name__ == "__main__":
    name, file = sys.argv[1:]
    task: Task = pickle.loads(Path(file).read_bytes())
    torch.set_num_threads(task.threads)
    sys.stdout.write(json.dumps(CONTESTANTS[name](task)) + "\n")
