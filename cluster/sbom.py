"""What an image is made of, as CycloneDX 1.6: each Python package, and each of Debian's.

python -m cluster.sbom > sbom.json    # in the image it lies at /opt/mailray/sbom.json

Nothing but the standard library, so that no package is in the image for its own listing.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DISTRIBUTION = "mailray"


def bill(os_release: Path = Path("/etc/os-release")) -> dict[str, Any]:
    """The bill of materials of this environment, with no time and no serial number: two builds of
    the same packages have the same bill."""
    own = _python(distribution(DISTRIBUTION))
    others = {item["bom-ref"]: item for item in map(_python, distributions())}
    others.pop(own["bom-ref"], None)
    parts = [*others.values(), *_debian(os_release)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own | {"type": "application"}},
        "components": sorted(parts, key=lambda item: str(item["bom-ref"])),
    }


def _python(package: Distribution) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()  # as the purl spec wants it
    item = _component("pypi", name, package.version)
    if "License-Expression" in package.metadata:
        item["licenses"] = [{"expression": package.metadata["License-Expression"]}]
    return item


def _debian(os_release: Path) -> Iterable[dict[str, Any]]:
    if shutil.which("dpkg-query") is None or not os_release.is_file():
        return
    fields = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    distro = f"{fields['ID']}-{fields.get('VERSION_ID', '')}".replace('"', "")
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for line in listed.splitlines():
        name, version, architecture = line.split()
        suffix = f"?arch={architecture}&distro={distro}"
        yield _component("deb/debian", name, version, suffix)


def _component(kind: str, name: str, version: str, suffix: str = "") -> dict[str, Any]:
    purl = f"pkg:{kind}/{quote(name)}@{quote(version)}{suffix}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
