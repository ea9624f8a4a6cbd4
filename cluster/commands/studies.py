"""What `mailray tune` shows at its end."""

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.commands.baselines import beside
from cluster.commands.evaluation import report

if TYPE_CHECKING:
    from training.labels import Labels
    from tuning.answers import Point
    from tuning.study import StudyResult


def shown(result: "StudyResult", labels: "Labels") -> RenderableType:
    """The ranking, what the study cost, and the best trial's model."""
    keys = list(dict.fromkeys(key for point in result.points for key in point.settings))
    table = Table("rank", *keys, *result.objective, "epochs", "seconds", "", box=None)
    for rank, point in enumerate(result.points, 1):
        facts = point.facts()
        table.add_row(
            str(rank), *(_text(point.settings.get(key, "")) for key in keys),
            *(point.told(metric) for metric in result.objective), str(facts["epochs"]),
            f"{facts['seconds']:.1f}", _state(point),
        )  # fmt: skip
    spent, best = result.cost, result.best
    lines = [
        f"{spent['trials']:.0f} trials, {spent['epochs']:.0f} epochs, {spent['core_hours']:.3f} "
        f"core-hours; early stopping spared {spent['epochs_spared']:.0f} epochs "
        f"({spent['spared']:.0%})",
    ]
    if result.importance:
        shares = (f"{key} {share:.0%}" for key, share in result.importance.items())
        lines.append(f"what decides: {', '.join(shares)}")
    lines += [f"report: {result.report}", f"best settings: mailray train --config {result.recipe}"]
    tested = report(best.bundle.metrics["test"], labels, "test mails, best trial")
    return Group(
        table, Text(), *map(Text, lines), Text(), tested,
        *beside(best.bundle.metrics),
        Text(f"\n{best.model} version {best.version}: {best.bundle.path}"),
    )  # fmt: skip


def _state(point: "Point") -> str:
    reasons = list(dict.fromkeys(trial.reason for trial in point.trials if trial.reason))
    states = [trial.state for trial in point.trials if trial.state != "done"]
    return f"{states[0]}: {reasons[0]}" if states and reasons else ", ".join(states[:1])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
