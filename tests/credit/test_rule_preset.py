import pytest

from attnscope.credit import (
    RULES,
    V1,
    AmplifyingRule,
    CreditError,
    PositionMatched,
    Uniform,
    bottom_share,
    with_preset,
)

AMPLIFYING = sorted(
    name for name, entry in RULES.items() if isinstance(entry.make(), AmplifyingRule)
)


@pytest.mark.parametrize("name", AMPLIFYING)
def test_every_amplifying_rule_takes_another_preset(name):
    rule = RULES[name].make()
    changed = with_preset(rule, lambda preset: preset.changed(share=0.25, amplification=3.0))
    assert changed.preset.rhythm.share == 0.25
    assert changed.preset.amplification == 3.0
    assert type(changed) is type(rule)
    assert changed.needs == rule.needs


def test_what_is_not_changed_stays():
    rule = with_preset(
        RULES["bottom_global"].make(), lambda preset: preset.changed(scales_negative=False)
    )
    assert rule.preset.select is bottom_share
    control = RULES["position_matched"].make()
    assert isinstance(control, PositionMatched)
    moved = with_preset(control, lambda _: V1)
    assert moved.preset is V1
    assert moved.rule.preset is V1


def test_a_rule_without_a_preset_is_told():
    with pytest.raises(CreditError, match="Uniform has no preset"):
        with_preset(Uniform(), lambda preset: preset)
