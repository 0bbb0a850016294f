"""Every architecture that the README names keeps one contract, or is refused by name."""

import pytest

from benchmarks.families import check
from benchmarks.tiny_models import FAMILIES

REFUSED = ("RWKV", "XLNet")


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_captured_maps_equal_eager_maps_and_the_model_is_left_alone(name):
    outcome = check(name)
    assert not outcome.refusal
    assert outcome.sites >= 2
    assert outcome.error <= 1e-5
    assert outcome.logits_error <= 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_no_adapter_knows_is_refused_by_name(name):
    outcome = check(name)
    assert "no adapter hears the attention of" in outcome.refusal
    assert outcome.sites == 0
