"""What a search costs: `bayes` with ASHA against the full grid; and how soon a trial trains.

    python -m tests.bench.search_cost HOME [--mails 600] [--seeds 5] [--share 0.3]
    python -m tests.bench.search_cost HOME --starts

HOME is a MAILRAY_HOME with the fetched SpamAssassin corpus. The grid of 4 learning rates and 3
batch sizes is trained in full on a fixed subset; then `bayes` with ASHA searches the same ranges
with that share of the grid's epochs, once for each seed, and without the recipe's own settings
for a first point, as studies have else. One trial at a time, on both cores: so what a search
finds does not hang on what else the machine does. Reached is the validation ROC AUC of the trial
that a study registers; half of the mails validate, so that a tenth of a point is not three pairs.

With `--starts`, the seconds from a trial's being drawn to its first step, and 12 `smoke` trials,
one after another, from the command to its end. The last line printed is one JSON object.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import optuna
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.session import ray_session
from tests.end_to_end.terminal import run
from training.home import Home
from training.labels import Labels
from training.readers import read
from training.sources import open_source
from training.stages import Quiet
from tuning.config import StudyConfig, resolve_study
from tuning.ledger import LEDGER
from tuning.record import Record, new_study
from tuning.study import StudyResult, search
from tuning.trial import Trial

ROOT: Final = Path(__file__).resolve().parents[2]
RATES: Final = [1e-5, 5e-5, 2e-4, 1e-3]
SIZES: Final = [8, 16, 32]
EPOCHS: Final = 5
METRIC: Final = "val_roc_auc"
POINT: Final = 0.001
"""0.1 point of ROC AUC."""
TRAINING: Final = (
    "train=spam-minilm", "data.wide_length=0", "data.validation=0.5", "data.test=0.1",
    f"objective={METRIC}",
    f"optimizer.epochs={EPOCHS}", f"optimizer.patience={EPOCHS}", "tracking.promote=never",
)  # fmt: skip
ONE: Final = "concurrent: 1\nresources: {cpus: 2}\n"
SMOKE_TRIALS: Final = 12


def subset(home: Path, mails: int, file: Path) -> None:
    """So many mails of the corpus, those whose ids have the lowest hashes, as Parquet."""
    source = open_source("spamassassin", Labels(("ham", "spam")), Home(home).corpora)
    rows = [row for piece in source.pieces for batch in read(piece) for row in batch]
    rows = [row for row in rows if row.get("raw") is not None]
    rows.sort(key=lambda row: hashlib.sha256(str(row["id"]).encode()).digest())
    names = ("id", "label", "group", "raw")
    pq.write_table(pa.table({n: [row[n] for row in rows[:mails]] for n in names}), file)


def study(home: Home, name: str, file: Path, source: Path, *overrides: str) -> StudyResult:
    """Run a study from a file."""
    given = [*TRAINING, f"data.source={source}", *overrides]
    record = new_study(home, *resolve_study(file=file, overrides=given), name)
    return search(_seeded(record, overrides), home, Quiet())


def _seeded(record: Record, overrides: Sequence[str]) -> Record:
    """`seed=` is the training's; the searcher has the same here."""
    seeds = [int(text.removeprefix("seed=")) for text in overrides if text.startswith("seed=")]
    chosen: StudyConfig = record.study.model_copy(update={"seed": seeds[0] if seeds else 0})
    return replace(record, study=chosen)


def trials(result: StudyResult) -> list[Trial]:
    """In the order in which they were drawn."""
    return sorted((t for p in result.points for t in p.trials), key=lambda t: t.number)


def curve(result: StudyResult) -> list[tuple[int, float]]:
    """Epochs of the trials in the order in which they were drawn, and the best value so far."""
    spent, best, rows = 0, 0.0, []
    for trial in trials(result):
        spent += len(trial.epochs)
        best = max(best, trial.value(METRIC) or 0.0)
        rows.append((spent, round(best, 5)))
    return rows


def searches(home: Path, mails: int, seeds: int, share: float) -> dict[str, Any]:
    """The grid in full, and the search for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        place, here = Path(folder), Home(Path(folder) / "home")
        source = place / "mails.parquet"
        subset(home, mails, source)
        grid, bayes = place / "grid.yaml", place / "bayes.yaml"
        grid.write_text(
            f"searcher: grid\n{ONE}space:\n  optimizer.lr: {{grid: {RATES}}}\n"
            f"  batching.size: {{grid: {SIZES}}}\n"
        )
        bayes.write_text(
            f"searcher: bayes\n{ONE}trials: 99\nbaseline: false\n"
            "stopping: {kind: asha, grace: 1, factor: 3}\nspace:\n"
            f"  optimizer.lr: {{loguniform: [{RATES[0]}, {RATES[-1]}]}}\n"
            f"  batching.size: {{choice: {SIZES}}}\n"
        )
        budget = int(len(RATES) * len(SIZES) * EPOCHS * share)
        with ray_session(address=None, cpus=2):
            began = time.monotonic()
            full = study(here, "grid", grid, source)
            grid_seconds = time.monotonic() - began
            values = sorted(point.values[METRIC] for point in full.points)
            _say(f"grid: {values[0]:.4f} to {values[-1]:.4f}, {grid_seconds:.0f} s")
            found: list[dict[str, Any]] = []
            for seed in range(seeds):
                began = time.monotonic()
                done = study(
                    here, f"bayes-{seed}", bayes, source, f"budget.epochs={budget}", f"seed={seed}"
                )
                found.append({
                    "seed": seed,
                    "reached": round(done.points[0].values[METRIC], 5),
                    "epochs": int(done.cost["epochs"]),
                    "trials": int(done.cost["trials"]),
                    "seconds": round(time.monotonic() - began, 1),
                    "curve": curve(done),
                })  # fmt: skip
                _say(f"bayes {seed}: {found[-1]['reached']:.4f}, {found[-1]['seconds']} s")
    reached = median(row["reached"] for row in found)
    return {
        "benchmark": "search_cost",
        "grid_best": round(values[-1], 5),
        "grid_worst": round(values[0], 5),
        "grid_epochs": int(full.cost["epochs"]),
        "grid_seconds": round(grid_seconds, 1),
        "share_of_epochs": max(row["epochs"] for row in found) / full.cost["epochs"],
        "reached_median": reached,
        "short_of_best_points": round((values[-1] - reached) * 100, 3),
        "within_a_tenth": bool(reached >= values[-1] - POINT),
        "grid": [point.facts() for point in full.points],
        "searches": found,
        "config": {"mails": mails, "epochs": EPOCHS, "metric": METRIC, "training": TRAINING},
    }


def starts() -> dict[str, Any]:
    """How soon trials train: `smoke`, one after another, as a user calls it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        words = ("tune", "--recipe", "random", "--name", "s", "train=smoke", "concurrent=1",
                 f"trials={SMOKE_TRIALS}", "tracking.audit=true", "--json")  # fmt: skip
        began = time.monotonic()
        said = run(home, *words, timeout=900)
        seconds = time.monotonic() - began
        assert said.code == 0, said.err
        waits = list(_waits(home / "runs/s"))
    return {
        "benchmark": "search_starts",
        "seconds": round(seconds, 1),
        "first_trial_to_step": round(waits[0], 2),
        "later_trials_to_step_median": round(median(waits[1:]), 2),
        "later_trials_to_step_most": round(max(waits[1:]), 2),
        "config": {"trials": SMOKE_TRIALS, "recipe": "smoke", "workers": 1},
    }


def _waits(path: Path) -> Iterator[float]:
    """Seconds from each trial's being drawn to the moment when its first step begins."""
    known = optuna.load_study(study_name="study", storage=f"sqlite:///{path / LEDGER}")
    for trial in known.get_trials(deepcopy=False):
        files = (path / "trials" / f"{trial.number:04d}" / "audit").glob("*.jsonl")
        assert trial.datetime_start is not None
        began = min(json.loads(file.read_text().splitlines()[0])["time"] for file in files)
        yield began - trial.datetime_start.timestamp()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("--mails", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--starts", action="store_true")
    given = parser.parse_args()
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    facts = {
        "commit": commit.strip(),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 1),
    }
    found = (
        starts() if given.starts else searches(given.home, given.mails, given.seeds, given.share)
    )
    print(json.dumps(found | facts))  # noqa: T201


if __name__ == "__main__":
    main()
