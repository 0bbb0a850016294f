import math

import pytest

from attnscope.app.credit_request import CreditRequest
from attnscope.app.credited import credit_traces
from attnscope.app.pages.credit import advantages_of


def test_weights_are_those_of_the_rule(open_page, store):
    page = open_page("credit", trace="b.safetensors", rule="global")
    table = page.dataframe[-1].value
    request = CreditRequest(rule="global", advantages=(1.0,))
    (response,) = credit_traces([store / "b.safetensors"], request).responses
    assert table["weight"].tolist() == pytest.approx(response.weights)
    assert table["position"].tolist() == list(response.positions)
    assert page.multiselect[0].value == ["b.safetensors"]


def test_only_answered_traces_can_be_chosen(open_page):
    page = open_page("credit")
    assert page.multiselect[0].options == ["a.safetensors", "b.safetensors"]


def test_settings_reach_the_rule(open_page):
    page = open_page("credit", trace="a.safetensors", rule="global")
    page.number_input[0].set_value(0.2)
    page.number_input[1].set_value(3.0).run()
    weights = page.dataframe[-1].value["weight"]
    assert weights.max() == 3.0
    assert (weights > 1).sum() == round(0.2 * len(weights))


def test_a_setting_that_a_rule_lacks_is_a_message(open_page):
    page = open_page("credit", trace="a.safetensors", rule="uniform")
    page.number_input[0].set_value(0.2).run()
    assert page.error
    assert not page.exception


def test_group_advantages_have_no_mean_and_keep_the_order():
    advantages = advantages_of([1.0, 0.0, 0.0, 1.0], grouped=True)
    assert math.isclose(sum(advantages), 0, abs_tol=1e-9)
    assert advantages[0] == advantages[3] > 0 > advantages[1]
    assert advantages_of([2.0], grouped=True) == [0.0]
    assert advantages_of([2.0, 1.0], grouped=False) == [2.0, 1.0]
    assert advantages_of([], grouped=True) == []
