"""Every overlay rendered once, and what the manifests are checked against."""

import importlib.metadata
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from cluster.kuberay import Document, Schema, load_schemas
from cluster.manifests import ManifestError, Setting, example_secrets, render, renderer

ROOT = Path(__file__).parents[2]
CRDS = ROOT.parent / "shared" / "k8s-schemas" / "kuberay"

Render = Callable[[str], list[Document]]


@pytest.fixture(scope="session")
def rendered() -> Render:
    """The documents of a folder in `k8s/overlays`; not to be changed."""
    try:
        renderer()
    except ManifestError as error:
        pytest.skip(str(error))
    return cache(lambda name: render(ROOT / "k8s" / "overlays" / name))


@pytest.fixture(scope="session")
def schemas() -> dict[str, Schema]:
    """KubeRay's, by kind."""
    if not CRDS.is_dir():
        pytest.skip("KubeRay's CRDs are not in ../shared/k8s-schemas")
    return load_schemas(CRDS)


@pytest.fixture(scope="session")
def setting(schemas: dict[str, Schema]) -> Setting:
    """All that can be checked."""
    return Setting(
        schemas=schemas,
        secrets=example_secrets(ROOT / "k8s"),
        ray=importlib.metadata.version("ray"),
        version=importlib.metadata.version("mailray"),
    )


@pytest.fixture
def composed(tmp_path: Path, rendered: Render) -> Callable[..., list[Document]]:
    """A folder of `k8s/` with components added, as a user would write it; `rendered` may skip."""

    def build(resource: str, *components: str) -> list[Document]:
        shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
        folder = tmp_path / "own"
        folder.mkdir()
        parts = "".join(f"  - ../k8s/components/{name}\n" for name in components)
        (folder / "kustomization.yaml").write_text(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
            f"resources: [../k8s/{resource}]\ncomponents:\n{parts}"
        )
        return render(folder)

    return build
