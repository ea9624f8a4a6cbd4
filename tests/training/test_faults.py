"""What is said of a forward pass that does not fit."""

import pytest

from training.faults import out_of_memory


@pytest.mark.parametrize(
    ("tokens", "largest", "fits"), [(8192, 4000, 4000), (8192, 0, 4096), (4000, 8192, 2000)]
)
def test_out_of_memory_names_what_would_fit(tokens: int, largest: int, fits: int) -> None:
    message = str(out_of_memory(tokens, largest))
    assert f"batching.micro_tokens={fits} would fit" in message
    assert f"{tokens:,} tokens" in message
