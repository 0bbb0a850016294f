"""Calibrations are kept in a file that says what it is."""

import json

import pytest
import torch

from attnscope.credit import REV, CreditError, calibration_of, load_calibration

SPANS = torch.tensor([[1.0, 9.0, 2.0], [5.0, torch.nan, 3.0]])


def test_a_saved_calibration_is_the_same(tmp_path):
    made = calibration_of(SPANS, (3, 5), REV).with_receivers(SPANS, count=2)
    made.save(tmp_path / "heads.json")
    found = load_calibration(tmp_path / "heads.json")
    assert found.layers == (3, 5)
    torch.testing.assert_close(found.spans, SPANS, equal_nan=True)
    for name in ("local_heads", "global_heads", "receiver_heads"):
        assert torch.equal(found.group(name), made.group(name))
    assert found.local_heads.tolist() == [[True, False, True], [False, False, False]]
    assert found.receiver_heads.tolist() == [[False, True, False], [True, False, False]]


def test_receiver_heads_may_be_unknown(tmp_path):
    calibration_of(SPANS, (3, 5), REV).save(tmp_path / "heads.json")
    assert load_calibration(tmp_path / "heads.json").receiver_heads is None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("no json", "is no head calibration"),
        ("[]", "is no head calibration"),
        (json.dumps({"format": "attnscope head calibration", "version": 9}), "version 9; this"),
        (json.dumps({"format": "other", "version": 1}), "holds 'other', version 1"),
    ],
)
def test_other_files_are_refused(tmp_path, content, error):
    (tmp_path / "heads.json").write_text(content)
    with pytest.raises(CreditError, match=error):
        load_calibration(tmp_path / "heads.json")


def test_ranking_by_a_quantile_is_the_preset_s(tmp_path):
    wide = calibration_of(torch.arange(10.0)[None], (0,), REV.changed(quantile=0.5))
    assert int(wide.local_heads.sum()) == int(wide.global_heads.sum()) == 5
