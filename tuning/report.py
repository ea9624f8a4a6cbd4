"""The report of a study: one HTML file that needs no other, its plots in it as SVG."""

import html
import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from training.completion import Result
from tuning.answers import Point
from tuning.config import StudyConfig
from tuning.course import shown
from tuning.ledger import Ledger, Trial

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
    trials = ledger.trials()
    parts = [
        _summary(study, ranked, spent, made),
        _section("All points", _table(study, ranked)),
        _figure("Best so far against cost", lambda axes: _so_far(axes, study, trials)),
        _figure("Each trial, epoch by epoch", lambda axes: _curves(axes, study, trials)),
    ]
    if len(study.directions) > 1:
        parts.append(_figure("Pareto front", lambda axes: _pareto(axes, study, ranked)))
    if importance:
        parts.append(_figure("How much each key decides", lambda axes: _bars(axes, importance)))
    parts += _by_optuna(study, ledger, importance)
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
        "Best value": ", ".join(f"{metric} {_value(best, metric)}" for metric in study.directions),
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
            *(_value(point, metric) for metric in study.directions),
            str(facts["epochs"]),
            f"{facts['seconds']:.1f}",
            f"{states}: {reasons}" if reasons else states,
        ]
        kind = "" if point.done else ' class="lost"'
        lines.append(f"<tr{kind}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    note = "<caption>With several seeds: mean, and 95% interval of the mean.</caption>"
    return f'<div class="wide"><table>{note}<tr>{head}</tr>{"".join(lines)}</table></div>'


def _so_far(axes: Any, study: StudyConfig, trials: Sequence[Trial]) -> None:
    """The best value of any trial, over the epochs that all trials took."""
    metric = study.metric
    pick = min if study.directions[metric] == "minimize" else max
    spent, best, rows = 0, None, []
    for trial in trials:
        spent += len(trial.epochs)
        value = trial.value(metric)
        if value is not None and trial.state in ("done", "stopped"):
            best = value if best is None else pick(best, value)
            axes.plot(spent, value, "o", color="#bbb" if trial.state == "stopped" else "#1f77b4")
            rows.append((spent, best))
    if rows:
        axes.step(*zip(*rows, strict=True), where="post", color="#d62728")
    axes.set(xlabel="epochs of all trials", ylabel=metric)


def _curves(axes: Any, study: StudyConfig, trials: Sequence[Trial]) -> None:
    for trial in trials:
        values = [facts.get(study.metric, np.nan) for facts in trial.epochs.values()]
        stopped = trial.state != "done"
        axes.plot(
            list(trial.epochs), values, ".-", lw=1, color="#bbb" if stopped else None, alpha=0.8
        )
    axes.set(xlabel="epoch (grey: stopped or failed)", ylabel=study.metric)


def _pareto(axes: Any, study: StudyConfig, ranked: Sequence[Point]) -> None:
    across, up, *_ = study.directions
    for point in ranked:
        if point.done:
            axes.plot(point.values[across], point.values[up], "o", color="#1f77b4")
            axes.annotate(str(point.number), (point.values[across], point.values[up]))
    axes.set(xlabel=across, ylabel=up)


def _bars(axes: Any, importance: dict[str, float]) -> None:
    names = list(importance)[::-1]
    axes.barh(names, [importance[name] for name in names])
    axes.set(xlabel="share of the objective's variance")


def _by_optuna(study: StudyConfig, ledger: Ledger, importance: dict[str, float]) -> list[str]:
    """Parallel coordinates, and the contour of the two keys that matter most."""
    from optuna.visualization import matplotlib as plots

    target = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    done = [trial for trial in ledger.trials() if trial.state == "done"]
    always = [key for key in study.space if all(key in trial.settings for trial in done)]
    varied = [k for k in always if len({str(trial.settings[k]) for trial in done}) > 1]
    drawn = []
    if len(done) > 1 and varied:
        drawn.append(
            _drawn(
                "Parallel coordinates",
                lambda: plots.plot_parallel_coordinate(
                    ledger.study, params=varied, target=target, target_name=study.metric
                ),
            )
        )
    two = sorted(varied, key=lambda key: -importance.get(key, 0.0))[:2]
    if len(done) > 2 and len(two) == 2:
        drawn.append(
            _drawn(
                f"{two[0]} and {two[1]}",
                lambda: plots.plot_contour(
                    ledger.study, params=two, target=target, target_name=study.metric
                ),
            )
        )
    return drawn


def _figure(title: str, draw: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure

    def made() -> Any:
        axes = Figure(figsize=(8, 3.6), layout="constrained").add_subplot()
        draw(axes)
        return axes

    return _drawn(title, made)


def _drawn(title: str, make: Callable[[], Any]) -> str:
    """A section with what `make` draws: Matplotlib's axes, or several."""
    import matplotlib

    with _quiet(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mailray"}):
        axes = make()
        figure = np.ravel(axes)[0].figure
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    return _section(title, f"<figure>{svg[svg.index('<svg') :]}</figure>")


@contextmanager
def _quiet() -> Any:
    """Without Optuna's warnings of plots that may still change, nor a window for them."""
    import matplotlib

    matplotlib.use("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _value(point: Point, metric: str) -> str:
    if metric not in point.values:
        return ""
    if metric not in point.intervals:
        return f"{point.values[metric]:.4f}"
    low, high = point.intervals[metric]
    return f"{point.values[metric]:.4f} [{low:.4f}, {high:.4f}]"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
