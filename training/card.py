"""The model card of a bundle, as the Hugging Face hub has them: metadata in YAML, then a page.

The metadata follow https://github.com/huggingface/hub-docs/blob/main/modelcard.md; what is not
known is left out of them.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from huggingface_hub import EvalResult, ModelCardData

from training.config import TrainConfig
from training.operating import RATES
from training.weights import PACKAGED, TINY

if TYPE_CHECKING:
    from training.bundle import Bundle

TASK: Final = "text-classification"
SPLITS: Final = ("validation", "test")
METRICS: Final = {
    "accuracy": ("accuracy", "Accuracy"),
    "precision": ("precision", "Precision"),
    "recall": ("recall", "Recall"),
    "f1": ("f1", "F1"),
    "roc_auc": ("roc_auc", "ROC AUC"),
    "brier": ("brier_score", "Brier score"),
}
"""What the hub calls the figures of a report, and what people do."""
FIGURES: Final = {
    "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1",
    "false_positive_rate": "false-positive rate", "roc_auc": "ROC AUC",
    "average_precision": "PR AUC", "lam_percent": "LAM%",
    **{f"recall_at_fpr_{rate:g}": f"recall at FPR {rate:.1%}" for rate in RATES.values()},
    "loss": "log loss", "brier": "Brier score", "calibration_error": "calibration error (ECE)",
}  # fmt: skip
_HUB: Final = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_BASES: Final = {PACKAGED: ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")}
"""Of packaged weights the name on the hub, and their licence."""
_ENGLISH: Final = ("spamassassin", "synthetic:")


def card(bundle: "Bundle", config: TrainConfig) -> str:
    """The text of README.md."""
    parts = [
        f"---\n{_metadata(bundle, config)}\n---",
        f"# {bundle.name} {bundle.version}",
        _description(bundle, config),
        *_intended(bundle),
        *_data(bundle, config),
        *_procedure(bundle, config),
        *_evaluation(bundle),
        *_runtimes(bundle),
        *_use(bundle),
        *_made(bundle),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(bundle: "Bundle", config: TrainConfig) -> str:
    base, licence = _base(config.model.name)
    source = config.data.source
    results = _results(bundle, config)
    data = ModelCardData(
        language="en" if source.startswith(_ENGLISH) else None,
        license=licence,
        library_name="mailray",
        pipeline_tag=TASK,
        tags=["email", *(["spam-detection"] if "spam" in bundle.labels else []), "mailray"],
        base_model=base,
        datasets=[source.removeprefix("hf:")] if _on_hub(source) else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=bundle.name,
        eval_results=results or None,
    )
    if not results:
        data.pop("model_name")
    return str(data.to_yaml())


def _base(name: str) -> tuple[str | None, str | None]:
    """On the hub the name of the weights that were fine-tuned, and their licence."""
    if name in _BASES:
        return _BASES[name]
    here = name == TINY or Path(name).expanduser().is_dir()
    return (name if not here and _HUB.fullmatch(name) else None), None


def _on_hub(source: str) -> bool:
    name = source.removeprefix("hf:")
    return name != source and _HUB.fullmatch(name) is not None and not Path(name).is_dir()


def _results(bundle: "Bundle", config: TrainConfig) -> list[EvalResult]:
    """What is known of the test mails."""
    test = bundle.metrics.get("test", {})
    return [
        EvalResult(
            task_type=TASK,
            task_name="E-mail classification",
            dataset_type=config.data.source.removeprefix("hf:"),
            dataset_name=config.data.source,
            dataset_split="test",
            dataset_revision=bundle.provenance.get("data.fingerprint"),
            metric_type=kind,
            metric_name=name,
            metric_value=test[key],
        )
        for key, (kind, name) in METRICS.items()
        if math.isfinite(test.get(key, math.nan))
    ]


def _description(bundle: "Bundle", config: TrainConfig) -> str:
    several = "any of " if bundle.head.multi else ""
    base = _base(config.model.name)[0]
    name = f"[{base}](https://huggingface.co/{base})" if base else f"`{config.model.name}`"
    wide = f" (its wide part {bundle.read_length})" if bundle.head.wide else ""
    return (
        f"Classifies e-mail as {several}{' or '.join(bundle.labels)}. {name}, fine-tuned by "
        f"mailray (recipe `{config.recipe}`) on `{config.data.source}`. It reads "
        f"{bundle.max_length} tokens{wide} of subject, sender, body and what else mail text "
        f"version {bundle.mail_text_version} has of a mail; of a longer one "
        f"{bundle.keep_head:.0%} of them from its beginning, the others from its end."
    )


def _intended(bundle: "Bundle") -> list[str]:
    filtering = (
        " An operating point chooses how much good mail may be lost; mail that a filter takes "
        "should go where people can look, and not be deleted."
        if bundle.points else ""
    )  # fmt: skip
    return [
        "## Intended use and limits",
        f"For sorting whole e-mails, as they come, into {' and '.join(bundle.labels)}.{filtering}",
        "The figures below hold for mail like that it was trained and tested on. Other languages, "
        "other years, other senders and mail that was written to deceive this model were not "
        "tested unless a table says so: measure it on your own mail "
        "(`mailray evaluate --source`) first. Attachments and pictures are not read.",
    ]


def _data(bundle: "Bundle", config: TrainConfig) -> list[str]:
    data, known = config.data, bundle.provenance
    counts = [
        f"{int(known[f'data.{split}']):,} {split}"
        for split in ("train", *SPLITS)
        if f"data.{split}" in known
    ]
    said = f": {', '.join(counts)}" if counts else ""
    how = "by time" if data.split == "time" else f"by hash (seed {data.seed})"
    lines = [
        f"`{data.source}`, split {how}{said}. Near-duplicates, threads and the campaigns of a "
        "sender are on one side."
    ]
    if data.with_validation:
        lines[0] += " The validation mails were trained on too."
    if "data.fingerprint" in known:
        lines.append(f"Fingerprint of the source: `{known['data.fingerprint']}`.")
    return ["## Training data", *lines]


def _procedure(bundle: "Bundle", config: TrainConfig) -> list[str]:
    optimizer, batching, scaling = config.optimizer, config.batching, config.scaling
    size = f"{batching.tokens:,} tokens" if batching.tokens else f"{batching.size} mails"
    rows = [
        ("optimizer", f"AdamW, weight decay {optimizer.weight_decay:g}, clip {optimizer.clip:g}"),
        ("learning rate", f"{optimizer.lr:g}, {optimizer.schedule}, warm-up {optimizer.warmup:g}"),
        ("batch", size),
        ("epochs", f"at most {optimizer.epochs}, patience {optimizer.patience}"),
        ("loss", optimizer.loss.replace("_", "-")),
        ("pooling, head", f"{config.model.pooling}, {config.model.head}"),
        ("dropout", f"{config.model.dropout:g}"),
        ("workers, precision", f"{scaling.workers}, {scaling.precision}"),
        ("seed", str(config.seed)),
    ]
    parts = ["## Training procedure", _table(("setting", "value"), rows),
             "`config.yaml` has every setting."]  # fmt: skip
    if bundle.epochs:
        keys = ("train_loss", "val_loss", "val_f1", "val_roc_auc")
        told = [
            (f"{row['epoch']:.0f}{', kept' if row.get('best') else ''}",
             *(_number(row.get(key)) for key in keys))
            for row in bundle.epochs
        ]  # fmt: skip
        heads = ("epoch", "train loss", "validation loss", "validation F1", "validation ROC AUC")
        parts.append(_table(heads, told))
    return parts


def _evaluation(bundle: "Bundle") -> list[str]:
    reports = {split: bundle.metrics[split] for split in SPLITS if split in bundle.metrics}
    parts = ["## Evaluation"] if reports else []
    for split, report in reports.items():
        rows = [
            (name, f"{report[key]:.4f}", _interval(report, key))
            for key, name in FIGURES.items()
            if math.isfinite(report.get(key, math.nan))
        ]
        count = f" ({report['mails']:,} mails)" if "mails" in report else ""
        title = f"{split.capitalize()}{count}"
        parts.append(_table((title, "value", "95% interval"), rows))
    points = reports.get("test", {}).get("points", [])
    if points:
        parts += ["### Operating points", _points(points)]
    if known := bundle.reference:
        parts.append(
            f"A server measures drift against {known.mails:,} {' and '.join(known.splits)} mails, "
            f"of {known.length.mean:.0f} tokens on average."
        )
    baselines = bundle.metrics.get("baselines", {})
    if baselines and "test" in reports:
        keys = ("accuracy", "recall", "false_positive_rate", "roc_auc")
        rows = [
            (name, *(_number(report.get(key)) for key in keys), _interval(report, "roc_auc"))
            for name, report in {"this model": reports["test"], **baselines}.items()
        ]
        heads = ("", *(FIGURES[key] for key in keys), "95% of ROC AUC")
        parts += ["### Baselines on the same test mails", _table(heads, rows)]
    return parts


def _points(points: Sequence[dict[str, Any]]) -> str:
    """What each did on test mails, which it was not fitted on."""
    rows = []
    for point in points:
        keeps = f"at most {point['rate']:.1%}"
        if point["threshold"] is None:
            needs = f"needs {point['needed']:,} good mails to validate on, had {point['had']:,}"
            rows.append((point["name"], keeps, needs, "", ""))
            continue
        rate, recall = (point[key] for key in ("false_positive_rate", "recall"))
        rows.append(
            (point["name"], keeps, f"{point['threshold']:.4f}",
             f"{rate:.2%} ({_interval(point, 'false_positive_rate')})",
             f"{recall:.4f} ({_interval(point, 'recall')})")
        )  # fmt: skip
    return _table(("point", "keeps FPR", "threshold", "FPR on test", "recall on test"), rows)


def _runtimes(bundle: "Bundle") -> list[str]:
    """What it has beside PyTorch, and how far that is from it."""
    if not bundle.exports:
        return []
    called = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
    rows = []
    for export in bundle.exports:
        check = export.check
        row = ("not checked", "", "", "") if check is None else (
            f"{check['mails']:,}", f"{check['largest']:.2g}", f"{check['mean']:.2g}",
            str(max([check["changed"], *check["points"].values()])),
        )  # fmt: skip
        name = f"{called[export.runtime]} {export.precision}"
        rows.append((name, f"{export.bytes / 1e6:,.1f}", *row))
    heads = ("runtime", "MB", "held-out mails", "largest difference", "mean", "verdicts changed")
    return [
        "## Runtimes",
        "PyTorch, and those that stand here, on a CPU. The differences are of calibrated "
        "probabilities from those of PyTorch in fp32; the figures above are PyTorch's.",
        _table(heads, rows),
    ]


def _use(bundle: "Bundle") -> list[str]:
    lines = [
        "mailray classify --model BUNDLE inbox/*.eml",
        "mailray serve --model BUNDLE port=8080",
        "mailray evaluate --model BUNDLE --split test",
    ]
    return [
        "## How to use",
        "With BUNDLE as this directory, or as the name under which it is registered "
        f"(`{bundle.name}`):",
        "\n".join(f"    {line}" for line in lines),
    ]


def _made(bundle: "Bundle") -> list[str]:
    known = bundle.provenance
    names = ("commit", "mailray", "torch", "transformers", "ray", "python", "cpu", "gpu", "weights")
    rows = [(name, f"`{known[name]}`") for name in names if name in known]
    if not rows:
        return []
    spent = sum(row.get("seconds") or 0.0 for row in bundle.epochs)
    if spent:
        rows.append(("training", f"{spent / 60:.1f} minutes"))
    note = "CPU and GPU are of the machine that the training was started from."
    return ["## How it was made", _table(("what", "which"), rows), note]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def _interval(report: dict[str, Any], key: str) -> str:
    low, high = report.get("intervals", {}).get(key, (math.nan, math.nan))
    return "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
