"""Every family of timm that the README names keeps one contract, or is refused by name."""

import re

import pytest

from benchmarks.timm_families import check
from benchmarks.timm_models import TIMM_FAMILIES

REFUSED = {
    "CoaT": r"serial_blocks1\.0\.factoratt_crpe \(FactorAttnConvRelPosEnc\)",
    "EfficientViT (MIT)": r"stages\.2\.blocks\.1\.context_module\.main \(LiteMLA\)",
    "EfficientViT (MSRA)": r"stages\.0\.blocks\.0\.mixer\.m\.attn \(CascadedGroupAttention\)",
    "MobileViT V2": r"stages\.2\.1\.transformer\.0\.attn \(LinearSelfAttention\)",
    "SwiftFormer": r"stages\.0\.blocks\.2\.attn \(EfficientAdditiveAttention\)",
    "LambdaNet": r"stages\.2\.1\.self_attn \(LambdaLayer\)",
    "PoolFormer": "no adapter hears the attention of MetaFormer",
}


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("name", [name for name in TIMM_FAMILIES if name not in REFUSED])
def test_captured_maps_equal_the_modules_own_and_the_model_is_left_alone(name):
    outcome = check(name)
    assert not outcome.refusal
    assert outcome.sites >= 1
    assert outcome.error <= 5e-5
    assert outcome.logits_error <= 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_a_family_without_maps_is_refused_by_the_name_of_its_module(name):
    outcome = check(name)
    assert outcome.sites == 0
    assert re.search(REFUSED[name], outcome.refusal)
