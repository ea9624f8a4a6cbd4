"""The report of a study: one HTML file that needs no other, its plots in it as SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from training import page
from training.completion import Result
from tuning import plots
from tuning.answers import Point
from tuning.config import StudyConfig
from tuning.course import shown
from tuning.ledger import Ledger

REPORT = "report.html"


def write(
    path: Path,
    study: StudyConfig,
    ledger: Ledger,
    ranked: Sequence[Point],
    spent: dict[str, float],
    importance: dict[str, float],
    made: Result,
) -> Path:
    """Write the report of a study that has come to its end; returns the file."""
    sections = {
        "Summary": _summary(study, ranked, spent, made),
        "All points": _table(study, ranked),
        **{
            name: page.figure(svg)
            for name, svg in _plots(study, ledger, ranked, importance).items()
        },
    }
    return page.write(path / REPORT, page.page(f"Study {path.name}", sections))


def _summary(
    study: StudyConfig, ranked: Sequence[Point], spent: dict[str, float], made: Result
) -> Markup:
    best = ranked[0]
    goal = ", ".join(f"{metric} ({way})" for metric, way in study.directions.items())
    test = made.bundle.metrics["test"]
    rows = {
        "Objective": goal,
        "Best settings": shown(best.settings),
        "Best value": ", ".join(f"{metric} {best.told(metric)}" for metric in study.directions),
        "Searcher": f"{study.searcher}, stopping {study.stopping.kind}, seed {study.seed}",
        "Cost": f"{spent['trials']:.0f} trials, {spent['epochs']:.0f} epochs, "
        f"{spent['core_hours']:.2f} core-hours, {spent['gpu_hours']:.2f} GPU-hours",
        "Spared by early stopping": f"{spent['epochs_spared']:.0f} epochs "
        f"({spent['spared']:.0%} of full training)",
        "Model": f"{made.model} version {made.version}; test accuracy {test['accuracy']:.4f}, "
        f"ROC AUC {test['roc_auc']:.4f}",
    }
    return page.facts(rows)


def _table(study: StudyConfig, ranked: Sequence[Point]) -> Markup:
    heads = ["point", *study.space, *study.directions, "epochs", "seconds", "state"]
    rows = []
    for point in ranked:
        states = ", ".join(sorted({trial.state for trial in point.trials}))
        reasons = "; ".join(dict.fromkeys(t.reason for t in point.trials if t.reason))
        facts = point.facts()
        rows.append(
            [
                point.number,
                *(_text(point.settings.get(key, "")) for key in study.space),
                *(point.told(metric) for metric in study.directions),
                facts["epochs"],
                f"{facts['seconds']:.1f}",
                f"{states}: {reasons}" if reasons else states,
            ]
        )
    lost = {at for at, point in enumerate(ranked) if not point.done}
    note = "With several seeds: mean, and 95% interval of the mean."
    return page.table(heads, rows, note, lost=lost)


def _plots(
    study: StudyConfig, ledger: Ledger, ranked: Sequence[Point], importance: dict[str, float]
) -> dict[str, Markup]:
    """All plots that there are results for, by their titles."""
    trials = ledger.trials()
    drawn = {
        "Best so far against cost": plots.so_far(study, trials),
        "Each trial, epoch by epoch": plots.curves(study, trials),
    }
    if len(study.directions) > 1:
        drawn["Pareto front"] = plots.pareto(study, ranked)
    if importance:
        drawn["How much each key decides"] = plots.bars(importance)
    done = [point for point in ranked if point.done]
    always = [key for key in study.space if all(key in point.settings for point in done)]
    varied = [key for key in always if len({str(point.settings[key]) for point in done}) > 1]
    if len(done) > 1 and varied:
        drawn["Parallel coordinates"] = plots.parallel(study, ranked, varied)
    two = sorted(varied, key=lambda key: -importance.get(key, 0.0))[:2]
    if len(done) > 2 and len(two) == 2:
        drawn[f"{two[0]} and {two[1]}"] = plots.contour(ledger, two)
    return drawn


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
