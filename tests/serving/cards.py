"""What a bundle tells of itself on the page: a card with markup in it, and curves."""

CARD = """---
license: apache-2.0
---

# Twin <script>ran()</script>

Reads `mail`, **all** of it: [the hub](https://huggingface.co/x) and [not this](javascript:ran()).

| split | value |
|---|---|
| test | <img src=x onerror=ran()> |

- one

    mailray classify
"""
CURVE = {
    "yes": 40, "no": 60,
    "roc": [[0, 0, None], [0, 30, 0.9], [6, 38, 0.4], [60, 40, 0.0]],
    "calibration": [[0.05, 0.04, 50], [0.55, 0.5, 4], [0.95, 0.97, 46]],
}  # fmt: skip
POINTS = [
    {"name": "balanced", "rate": 0.005, "threshold": 0.9, "needed": 598, "had": 600},
    {"name": "strict", "rate": 0.001, "threshold": None, "needed": 2995, "had": 600},
]
EPOCHS = [{"epoch": n, "train_loss": 0.5 / n, "val_loss": 0.6 / n} for n in (1, 2, 3)]
