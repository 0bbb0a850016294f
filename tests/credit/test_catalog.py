"""The catalog of rules."""

import pytest

from attnscope.credit import RULES, CreditError, find_rule


def test_every_rule_says_where_it_comes_from_and_how_it_is_known():
    assert all(entry.name == name for name, entry in RULES.items())
    assert all(entry.source and entry.evidence for entry in RULES.values())


def test_an_unknown_rule_is_refused_with_what_exists():
    with pytest.raises(CreditError, match=r"no credit rule 'couple'.*'coupled'"):
        find_rule("couple")
