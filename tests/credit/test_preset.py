"""Presets: both versions of the text, and how to change them."""

import pytest

from attnscope.credit import REV, V1, CreditError


def test_the_two_versions_differ_in_horizon_and_sign_rule():
    assert (V1.rhythm.near, V1.rhythm.far, V1.rhythm.scales_negative) == (10, 50, False)
    assert (REV.rhythm.near, REV.rhythm.far, REV.rhythm.scales_negative) == (10, 100, True)
    assert V1.amplification == REV.amplification == 1.5
    assert V1.rhythm.share == REV.rhythm.share == 0.4
    assert V1.rhythm.window == REV.rhythm.window == 10


def test_fields_of_the_rhythm_and_of_the_preset_are_changed_alike():
    changed = REV.changed(window=5, share=0.2, amplification=2.0)
    assert (changed.rhythm.window, changed.rhythm.share, changed.amplification) == (5, 0.2, 2.0)
    assert REV.rhythm.window == 10


def test_unknown_fields_and_negative_weights_are_refused():
    with pytest.raises(CreditError, match=r"a preset has no \['windows'\]"):
        REV.changed(windows=5)
    with pytest.raises(CreditError, match="amplification is -1"):
        REV.changed(amplification=-1.0)


def test_layers_are_taken_of_those_with_softmax_attention():
    assert REV.layers_among(tuple(range(28))) == (9, 11, 14, 16, 18)
    assert REV.changed(layers=(2, 5)).layers_among(tuple(range(6))) == (2, 5)
    with pytest.raises(CreditError, match=r"layers \[9\] cannot be read"):
        REV.changed(layers=(2, 9)).layers_among(tuple(range(6)))
