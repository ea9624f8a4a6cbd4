"""The report of a study: one HTML file that needs no other, its plots in it as SVG."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.completion import Result
from tuning import plots
from tuning.answers import Point
from tuning.config import StudyConfig
from tuning.course import shown
from tuning.ledger import Ledger

REPORT = "report.html"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
.lost { color: #777; } caption { text-align: left; color: #555; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


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
    parts = [_summary(study, ranked, spent, made), _section("All points", _table(study, ranked))]
    for name, svg in _plots(study, ledger, ranked, importance).items():
        parts.append(_section(name, f"<figure>{svg}</figure>"))
    title = html.escape(f"Study {path.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    )
    file = path / REPORT
    scratch = file.with_suffix(".new")
    scratch.write_text(page, "utf-8")
    return scratch.replace(file)


def _summary(
    study: StudyConfig, ranked: Sequence[Point], spent: dict[str, float], made: Result
) -> str:
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
    cells = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(text)}</td></tr>"
        for key, text in rows.items()
    )
    return f"<table>{cells}</table>"


def _table(study: StudyConfig, ranked: Sequence[Point]) -> str:
    heads = ["point", *study.space, *study.directions, "epochs", "seconds", "state"]
    lines = []
    for point in ranked:
        states = ", ".join(sorted({trial.state for trial in point.trials}))
        reasons = "; ".join(dict.fromkeys(t.reason for t in point.trials if t.reason))
        facts = point.facts()
        cells = [
            str(point.number),
            *(_text(point.settings.get(key, "")) for key in study.space),
            *(point.told(metric) for metric in study.directions),
            str(facts["epochs"]),
            f"{facts['seconds']:.1f}",
            f"{states}: {reasons}" if reasons else states,
        ]
        kind = "" if point.done else ' class="lost"'
        lines.append(f"<tr{kind}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    note = "<caption>With several seeds: mean, and 95% interval of the mean.</caption>"
    return f'<div class="wide"><table>{note}<tr>{head}</tr>{"".join(lines)}</table></div>'


def _plots(
    study: StudyConfig, ledger: Ledger, ranked: Sequence[Point], importance: dict[str, float]
) -> dict[str, str]:
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


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
