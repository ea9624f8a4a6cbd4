"""Who may import whom: the layout of the packages, kept by reading their source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cluster", "training", "tuning", "serving")
ALLOWED = {"training": set(), "tuning": {"training"}, "serving": {"training"}, "cluster": set()}
SERVING_MAY_USE = {
    "bundle", "config", "home", "labels", "mail", "model", "prose", "readers", "reference",
    "registry", "schema", "scorer", "sources", "stages", "tokenizing", "wide",
}  # fmt: skip
COMMAND_LINE = ("cluster/main.py", "cluster/commands/")
FILES = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if "." not in node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_file_imports_only_packages_that_it_may(file: Path) -> None:
    path = file.relative_to(ROOT).as_posix()
    if path.startswith(COMMAND_LINE):
        return
    own = path.split("/")[0]
    others = {name.split(".")[0] for name in _imports(file)} & set(PACKAGES) - {own}
    assert others <= ALLOWED[own]


@pytest.mark.parametrize(
    "name",
    [
        "mail",
        "config",
        "bundle",
        "model",
        "prose",
        "reference",
        "scorer",
        "sources",
        "tokenizing",
        "wide",
    ],
)
def test_what_serving_uses_knows_no_ray(name: str) -> None:
    assert not any(
        item.split(".")[0] == "ray" for item in _imports(ROOT / "training" / f"{name}.py")
    )


def test_serving_uses_only_parts_of_training_that_know_no_ray() -> None:
    for file in (ROOT / "serving").rglob("*.py"):
        parts = {item.split(".")[1] for item in _imports(file) if item.startswith("training.")}
        assert parts <= SERVING_MAY_USE, file


def test_the_classifier_imports_neither_ray_nor_fastapi() -> None:
    names = {item.split(".")[0] for item in _imports(ROOT / "serving" / "classifier.py")}
    assert not names & {"ray", "fastapi"}


def test_the_root_holds_what_the_design_says() -> None:
    allowed = {
        "README.md", "pyproject.toml", "cluster", "training", "tuning", "serving", "k8s", "tests",
        "LICENSE", "Makefile", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt",
    }  # fmt: skip
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {name for name in found if not name.endswith(".egg-info")} <= allowed
