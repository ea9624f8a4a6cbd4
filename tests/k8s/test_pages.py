"""The pages on Kubernetes say what is there: what needs no cluster runs, the rest parses."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from cluster.main import app
from cluster.manifests import ManifestError, render, renderer
from training.config import resolve
from training.schema import ConfigError
from tuning.config import resolve_study

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "k8s").glob("*.md"))
NEEDS = "# needs "
USAGE: Any = typer.BadParameter.__base__  # newer typers have a click of their own
BREAKS = {"|", "||", "&&", ";", "&", "do", "then", "(", "{", "done", "}"}
TOOLS = {
    ">", "cat", "curl", "docker", "echo", "for", "git", "grep", "helm", "kind", "kubectl",
    "mailray", "make", "mkdir", "openssl", "sed", "tar", "test", "tr",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Indented lines of a page."""

    page: str
    line: int
    text: str

    @property
    def marked(self) -> bool:
        """It needs what a test does not have."""
        return self.text.startswith(NEEDS)


def blocks(path: Path) -> Iterator[Block]:
    """The indented lines of a page; a mark after a blank line begins a block of its own."""
    text = path.read_text("utf-8")
    for code in re.finditer(r"^(?:    .*\n|\n(?=    ))+", text, re.MULTILINE):
        start = text.count("\n", 0, code.start()) + 1
        for part in re.split(rf"\n(?=\n    {NEEDS})", code[0]):
            blank = len(part) - len(part.lstrip("\n"))
            yield Block(path.name, start + blank, textwrap.dedent(part).strip())
            start += part.count("\n") + 1


BLOCKS = [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> list[list[str]]:
    """The simple commands of a block, as words."""
    found: list[list[str]] = []
    for line in block.text.replace("\\\n", " ").replace("|\n", "| ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;(){}")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in BREAKS:
                if words:
                    found.append(words)
                words = []
            elif word != "!":
                words.append(word)
    return [words for words in found if not re.match(r"\w+=", words[0])]


def parse(words: list[str]) -> None:
    """As the command line would, recipe and keys too, without running anything.

    Raises UsageError or ConfigError where it would.
    """
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if words[0] not in command.commands:
            raise typer.BadParameter(f"no command {words[0]}")
        command, words = command.commands[words[0]], words[1:]
    with command.make_context("mailray", list(words)) as context:
        given = context.params
    read = {"train": resolve, "tune": resolve_study}.get(command.name)
    if read is not None:
        read(recipe=given["recipe"], overrides=given["overrides"] or [])
    if "--" in words:
        parse(words[words.index("--") + 1 :])


EVERY = [
    pytest.param(block, words, id=f"{block.page}:{block.line}-{' '.join(words)[:40]}")
    for block in BLOCKS
    for words in commands(block)
]


def test_every_page_has_blocks_of_both_kinds_or_says_so() -> None:
    assert [page.name for page in PAGES] == ["README.md", "gpu.md", "kind.md", "operating.md"]
    assert {block.marked for block in BLOCKS} == {True, False}
    assert len(EVERY) > 50


@pytest.mark.parametrize(("block", "words"), EVERY)
def test_a_command_is_one_that_there_is(
    block: Block, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words[0] in TOOLS, f"{words[0]} is not known to this test"
    if words[0] == "mailray":
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        parse(words[1:])
    for word in words:
        if word.startswith("k8s/"):
            assert (ROOT / word).exists(), word
    if words[:2] == ["kubectl", "apply"] and "-k" in words:
        folder = words[words.index("-k") + 1]
        assert folder.startswith("mine") or (ROOT / folder / "kustomization.yaml").is_file()


@pytest.mark.parametrize(
    "words",
    ["submit --moon -- train", "jobs lst", "submit -- train --nmae x", "submit -- tune trails=4"],
)
def test_a_command_that_there_is_not_does_not_parse(words: str) -> None:
    with pytest.raises((USAGE, ConfigError)):
        parse(words.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for target in re.findall(r"`((?:k8s|base|components|overlays|cluster)/[\w./-]+)`", text):
        assert (ROOT / target).exists() or (ROOT / "k8s" / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_needs_no_cluster_runs(page: Path, tmp_path: Path) -> None:
    unmarked = [block for block in BLOCKS if block.page == page.name and not block.marked]
    if not unmarked:
        return
    try:
        renderer()
    except ManifestError as error:
        pytest.skip(str(error))
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    programs = Path(sys.executable).parent
    kept = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": "/dev/null"}
    for block in unmarked:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{page.name}:{block.line}: {done.stderr}"


def test_the_overlay_of_ones_own_renders_from_the_registry_it_names(tmp_path: Path) -> None:
    try:
        renderer()
    except ManifestError as error:
        pytest.skip(str(error))
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    (block,) = [each for each in BLOCKS if each.page == "gpu.md" and not each.marked]
    loop = block.text.partition("kubectl")[0]
    subprocess.run(["bash", "-euc", loop], cwd=tmp_path, check=True)
    for kind in (".", "training", "study", "serving"):
        told = str(render(tmp_path / "mine" / kind))
        assert "'registry.example.com/mailray-cuda:0.1.0'" in told
        assert "'mailray-cuda" not in told.replace("'mailray-cuda'", "")
