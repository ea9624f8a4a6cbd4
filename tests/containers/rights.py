"""What a container may do, asked inside of it."""

from tests.containers.engine import podman

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def check_rights(container: str, user: int) -> None:
    """It is this user, it has and can get no rights, and its own files cannot be written."""
    status = podman("exec", container, "cat", "/proc/1/status").splitlines()
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in status)}
    assert set(fields["Uid"]) == {str(user)}
    for kind in CAPABILITIES:
        assert int(fields[kind][0], 16) == 0, kind
    assert fields["NoNewPrivs"] == ["1"]
    assert fields["Seccomp"] == ["2"], "filtered"
    assert "ro" in mounts(container)["/"]


def mounts(container: str) -> dict[str, list[str]]:
    """The options of each mount, by its path."""
    lines = podman("exec", container, "cat", "/proc/1/mounts").splitlines()
    return {line.split()[1]: line.split()[3].split(",") for line in lines}
