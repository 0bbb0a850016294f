"""Readings refuse what does not fit."""

import pytest
import torch

from attnscope.credit import CreditError, Readings


def test_shapes_are_those_of_the_mask():
    mask = torch.ones(2, 3, dtype=torch.bool)
    Readings(mask=mask, entropy=torch.zeros(2, 4), advantage=torch.zeros(2))
    Readings(mask=mask, advantage=torch.zeros(2, 3))
    with pytest.raises(CreditError, match=r"entropy has shape \(2, 3\).*need \(2, 4\)"):
        _unchecked(mask)


def _unchecked(mask):
    """Build readings whose shape annotations are not checked, as outside of the tests."""
    readings = object.__new__(Readings)
    fields = dict.fromkeys(Readings.__dataclass_fields__)
    for name, value in (fields | {"mask": mask, "entropy": torch.zeros(2, 3), "draw": 0}).items():
        object.__setattr__(readings, name, value)
    readings.__post_init__()
