"""The choice of the proxy, which Ray Serve reads from the environment."""

import os

import pytest

from serving.proxy import in_front


def serve_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}


def test_haproxy_is_chosen_for_the_time_of_the_block_with_a_place_of_its_own() -> None:
    before = serve_settings()
    with in_front("haproxy"):
        first = serve_settings()
        assert first["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        with pytest.MonkeyPatch.context() as patch:
            for name in first:
                patch.delenv(name)
            with in_front("haproxy"):
                second = serve_settings()
    shared = {name for name in first if first[name] == second[name]}
    assert not {name for name in shared if name.endswith(("PORT", "PATH", "LOC", "BASE", "FILE"))}
    assert serve_settings() == before


def test_what_an_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", "9999")
    with in_front("haproxy"):
        assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] == "9999"
    assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] == "9999"


def test_rays_own_proxy_needs_nothing() -> None:
    before = serve_settings()
    with in_front("ray"):
        assert serve_settings() == before
