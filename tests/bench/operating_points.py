"""Whether operating points keep their false-positive rates on mail that they have not seen.

    python -m tests.bench.operating_points HOME [--seeds 20]

HOME is a MAILRAY_HOME with the fetched SpamAssassin corpus. Its mails are scored once by TF-IDF
words with logistic regression, in five folds that keep the groups of `training.groups` together, so
no mail is scored by a model that saw it or its like. For each seed the groups are dealt to two
parts by chance; the points are fitted on the first and looked at on the other:

    0.1 to 0.3   the second part is large enough to know the true rate fairly well
    0.5          halves: whether the second part lies above the rate is its own chance as well
    0.75         good mail enough for `strict`

`kept` counts the seeds in which the rate seen is at most the one promised, `broken` those in which
it is above beyond chance (exact binomial test, one-sided, 5%). `kept_of_400` and `broken_of_400`
are what 20 seeds are a sample of; `kept_apart` is the first with mails dealt one by one, as if none
were like another. The last line printed is one JSON object.
"""

import argparse
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from cluster.session import ray_session
from training.config import resolve
from training.curve import Curve
from training.home import Home
from training.mail import parse, render
from training.mails import survey
from training.operating import fit
from training.readers import read
from training.sources import open_source
from training.stages import Quiet
from training.weights import tokenizer

ROOT: Final = Path(__file__).resolve().parents[2]
SHARES: Final = (0.1, 0.2, 0.25, 0.3, 0.5, 0.75)
MANY: Final = 400


def scored(home: Home) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether spam, probability of spam, and group of every mail."""
    config = resolve(recipe="spam-minilm")
    with ray_session(address=None, cpus=2):
        mails, _ = survey(config.data, tokenizer(config.model.name), home, Quiet())
    rows = mails.on("all")
    ids = mails.cache.table()["id"].take(rows).to_pylist()
    source = open_source(config.data.source, config.data.label_set, home.corpora)
    found = (row for piece in source.pieces for rows in read(piece) for row in rows)
    texts = {row["id"]: render(parse(row["raw"])) for row in found if row["error"] is None}
    words = [texts[id_] for id_ in ids]
    truth, groups = mails.labels[rows] == 1, mails.groups.of[rows]
    scores = np.zeros(len(rows), np.float32)
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(words, truth, groups):
        vectors = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=100_000)
        model = LogisticRegression(C=10, max_iter=300)
        model.fit(vectors.fit_transform([words[i] for i in train]), truth[train])
        scores[test] = model.predict_proba(vectors.transform([words[i] for i in test]))[:, 1]
    return truth, scores, groups


def dealt(groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Whether each mail is in the first part; whole groups, by chance."""
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)[order]
    first = np.zeros(len(order), bool)
    first[order[np.cumsum(sizes) <= share * len(groups)]] = True
    mine: np.ndarray = first[groups]
    return mine


def looked_at(
    truth: np.ndarray, scores: np.ndarray, groups: np.ndarray, share: float, seeds: int
) -> dict[str, list[tuple[bool, bool, float]]]:
    """Of each point that could be fitted, seed by seed: kept, broken, the rate seen."""
    seen: dict[str, list[tuple[bool, bool, float]]] = {}
    for seed in range(seeds):
        first = dealt(groups, share, seed)
        rest = Curve.of(truth[~first], scores[~first])
        no = int(rest.no.sum())
        for point in fit(Curve.of(truth[first], scores[first])):
            if point.threshold is None:
                continue
            false, _ = rest.taken(point.threshold)
            p = stats.binomtest(false, no, point.rate, alternative="greater").pvalue
            row = (false / no <= point.rate, bool(p < 0.05), false / no)
            seen.setdefault(point.name, []).append(row)
    return seen


def told(truth: np.ndarray, scores: np.ndarray, groups: np.ndarray, seeds: int) -> list[Any]:
    """A row for each share and point."""
    rows = []
    for share in SHARES:
        many = looked_at(truth, scores, groups, share, max(MANY, seeds))
        apart = looked_at(truth, scores, np.arange(len(truth)), share, MANY)
        for name, found in many.items():
            kept, broken, rates = (np.array(column) for column in zip(*found, strict=True))
            row = {"fitted_on": share, "point": name, "seeds": min(seeds, len(found))}
            row |= {"kept": int(kept[:seeds].sum()), "broken": int(broken[:seeds].sum())}
            row |= {f"kept_of_{MANY}": round(float(kept.mean()), 4)}
            row |= {f"broken_of_{MANY}": round(float(broken.mean()), 4)}
            row |= {"mean_rate": round(float(rates.mean()), 5)}
            others = [was_kept for was_kept, _, _ in apart.get(name, [])]
            rows.append(row | {"kept_apart": round(float(np.mean(others)), 4)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    truth, scores, groups = scored(Home(given.home.absolute()))
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    result = {
        "benchmark": "operating_points",
        "mails": len(truth),
        "ham": int((~truth).sum()),
        "groups_of_ham": len(np.unique(groups[~truth])),
        "roc_auc": Curve.of(truth, scores).auc,
        "points": told(truth, scores, groups, given.seeds),
        "commit": commit.strip(),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": {"seeds": given.seeds, "folds": 5, "model": "TF-IDF words, C=10"},
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
