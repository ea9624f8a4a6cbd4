"""Where mailray keeps its things: one directory, `MAILRAY_HOME` or `~/.mailray`.

corpora/   fetched mail          tokens/   token caches        runs/     checkpoints, bundles
models/    models out of the registry      mlflow.db, artifacts/          tracker and registry
splits/    the side of each mail           logs/          one file for each command
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The directory, and what stands where in it; on a cluster it must be shared storage."""

    root: Path

    @classmethod
    def default(cls) -> "Home":
        """The one that the environment names."""
        return cls(Path(os.environ.get("MAILRAY_HOME") or "~/.mailray").expanduser().absolute())

    @property
    def corpora(self) -> Path:
        """Fetched mail."""
        return self.root / "corpora"

    @property
    def tokens(self) -> Path:
        """Token caches."""
        return self.root / "tokens"

    @property
    def splits(self) -> Path:
        """Which side each mail was dealt, a ledger for each way to split a source."""
        return self.root / "splits"

    @property
    def runs(self) -> Path:
        """Training runs and studies, a directory each."""
        return self.root / "runs"

    @property
    def models(self) -> Path:
        """Bundles taken out of the registry."""
        return self.root / "models"

    @property
    def logs(self) -> Path:
        """The full log of each command."""
        return self.root / "logs"

    @property
    def artifacts(self) -> Path:
        """What the embedded tracker stores of runs."""
        return self.root / "artifacts"

    @property
    def tracking_uri(self) -> str:
        """`MLFLOW_TRACKING_URI`, or an SQLite file here."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def tracker(self) -> str:
        """The same as people may read it: without a password."""
        return re.sub(r"(?<=://)[^/@]*@", "", self.tracking_uri)
