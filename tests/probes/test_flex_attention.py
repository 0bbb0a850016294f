"""The adapter for plain torch where a module asks for flex attention."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from attnscope import capture
from attnscope.attention import DenseBias, RelativeBias
from attnscope.probes import CaptureError, Subject
from attnscope.probes.adapters.flex_rules import FlexFunctions
from tests.probes.adapter_contract import AdapterCase, AdapterContract

WIDTH, LENGTH = 16, 11
DOCUMENT = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
TABLE = torch.randn(2, LENGTH, LENGTH, generator=torch.Generator().manual_seed(3))
SLOPES = torch.tensor([0.5, 0.25])


@pytest.fixture(autouse=True)
def uncompiled():
    """Torch warns that flex attention is slow where it is not compiled."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without")
        yield


class Flexible(nn.Module):
    """Self-attention through flex attention, with its functions as given."""

    def __init__(self, *, kv_heads=2, mask=None, function=flex_attention, **options):
        super().__init__()
        self.q = nn.Linear(WIDTH, WIDTH)
        self.kv = nn.Linear(WIDTH, 2 * kv_heads * 8)
        self.kv_heads, self.mask, self.function, self.options = kv_heads, mask, function, options

    def forward(self, x):
        q = self.q(x).unflatten(-1, (2, 8)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, self.kv_heads, 8)).permute(2, 0, 3, 1, 4)
        mask = self.mask if isinstance(self.mask, BlockMask) else block_mask(self.mask)
        z = self.function(q, k, v, block_mask=mask, **self.options)
        return x + z.transpose(1, 2).flatten(2)


def block_mask(function, heads=None, length=LENGTH):
    if function is None:
        return None
    return create_block_mask(function, None, heads, length, length, device="cpu")


def model_of(**options):
    torch.manual_seed(0)
    return nn.Sequential(Flexible(**options), Flexible(**options)).eval()


def inputs_of(length=LENGTH):
    return {"input": torch.randn(1, length, WIDTH, generator=torch.Generator().manual_seed(1))}


def slow_maps(model, inputs):
    """Return the maps entry by entry, as torch describes flex attention."""
    maps, x = [], inputs["input"]
    for layer in model:
        q = layer.q(x).unflatten(-1, (2, 8)).transpose(1, 2)[0]
        k, v = layer.kv(x).unflatten(-1, (2, layer.kv_heads, 8)).permute(2, 0, 3, 1, 4)[:, 0]
        k, v = (part.repeat_interleave(2 // layer.kv_heads, 0) for part in (k, v))
        scores = q @ k.mT * layer.options.get("scale", 1 / math.sqrt(8))
        change = layer.options.get("score_mod") or (lambda s, *places: s)
        mask = getattr(layer.mask, "mask_mod", layer.mask) or (lambda *places: torch.tensor(True))
        for place in torch.cartesian_prod(*map(torch.arange, scores.shape)):
            h, i, j = place
            b = torch.tensor(0)
            changed = change(scores[h, i, j], b, h, i, j)
            scores[h, i, j] = changed if bool(mask(b, h, i, j)) else -torch.inf
        pattern = scores.softmax(-1).nan_to_num(0)
        maps.append(pattern)
        x = x + (pattern @ v).transpose(0, 1).reshape(1, -1, WIDTH)
    return maps


def causal(b, h, q, k):
    return q >= k


def capped(s, b, h, q, k):
    return 2.0 * torch.tanh(s / 2.0)


CASES = {
    "nothing": {},
    "causal": {"mask": causal},
    "grouped": {"mask": causal, "kv_heads": 1, "enable_gqa": True},
    "scaled": {"mask": causal, "scale": 0.1},
    "window": {"mask": lambda b, h, q, k: (q >= k) & (q - k < 3)},
    "documents": {"mask": lambda b, h, q, k: (q >= k) & (DOCUMENT[q] == DOCUMENT[k])},
    "holes": {"mask": lambda b, h, q, k: (q >= k) & (q - k != 1)},
    "a mask per head": {"mask": block_mask(lambda b, h, q, k: (q - k) * (1 - 2 * h) >= 0, heads=2)},
    "rows that see nothing": {"mask": lambda b, h, q, k: q > k},
    "alibi": {"mask": causal, "score_mod": lambda s, b, h, q, k: s + SLOPES[h] * (k - q)},
    "a table": {"score_mod": lambda s, b, h, q, k: s + TABLE[h, q, k]},
    "soft-cap": {"mask": causal, "score_mod": capped},
    "factor": {"mask": causal, "score_mod": lambda s, b, h, q, k: s * 1.5},
    "soft-cap and bias": {
        "score_mod": lambda s, b, h, q, k: capped(s, b, h, q, k) + 0.125 * (q - k)
    },
    "hidden by the score": {
        "score_mod": lambda s, b, h, q, k: torch.where(q >= k, s + 0.5 * (k - q), -torch.inf)
    },
    "compiled": {"mask": causal, "function": torch.compile(flex_attention, backend="eager")},
}


def case_of(name):
    model, inputs = model_of(**CASES[name]), inputs_of()
    with torch.no_grad():
        maps = slow_maps(model, inputs)
    return AdapterCase(model=model, inputs=inputs, maps=maps, exact=False)


class TestFlexible(AdapterContract):
    @pytest.fixture(params=["grouped", "documents", "soft-cap and bias", "compiled"])
    def case(self, request):
        return case_of(request.param)

    def test_gradients_are_those_of_the_heads_outputs(self, case):
        """On a CPU torch itself has none for flex attention, and says so."""
        with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
            capture(Subject(case.model), case.inputs, gradient="logit")


@pytest.mark.parametrize("name", CASES)
def test_the_functions_give_the_map_that_torch_describes(name):
    AdapterContract().test_maps_are_those_that_the_model_is_known_to_compute(case_of(name))


def seen(model, length=LENGTH):
    return capture(Subject(model), inputs_of(length)).observations[0].attention


def seen_in(name):
    return seen(model_of(**CASES[name]))


@pytest.mark.parametrize(
    ("mask", "before", "after", "segments"),
    [("causal", None, 0, False), ("window", 2, 0, False), ("documents", 3, 0, True)],
)
def test_masks_are_kept_as_rules(mask, before, after, segments):
    found = seen_in(mask).mask
    assert (found.before, found.after) == (before, after)
    assert (found.query_segment is not None) == segments
    assert found.allowed is None


def test_a_bias_of_the_distance_is_kept_by_distances():
    assert isinstance(seen_in("alibi").bias, RelativeBias)
    assert isinstance(seen_in("a table").bias, DenseBias)
    assert seen_in("soft-cap and bias").softcap == pytest.approx(2)


def test_rules_of_a_long_text_hold_no_map(monkeypatch):
    """Two thousand tokens of two documents, although only 4096 entries may be kept one by one."""
    monkeypatch.setattr("attnscope.probes.adapters.flex_rules._ENTRY_BY_ENTRY", 4096)
    functions = FlexFunctions(
        score=lambda s, b, h, q, k: s - 0.5 * (q - k),
        mask=lambda b, h, q, k: (q >= k) & ((q < 700) == (k < 700)),
        shape=(1, 1, 2000, 2000),
        device=torch.device("cpu"),
    )
    rules = functions.rules()
    assert rules.mask.query_segment is not None
    assert rules.mask.query_segment.flatten().bincount().tolist() == [700, 1300]
    assert isinstance(rules.bias, RelativeBias)


def test_what_follows_no_rule_is_kept_while_it_is_short(monkeypatch):
    monkeypatch.setattr("attnscope.probes.adapters.flex_rules._ENTRY_BY_ENTRY", 100)
    with pytest.raises(CaptureError, match=r"11 x 11 entries are too many to keep"):
        seen_in("a table")


def test_scores_that_are_bent_otherwise_are_refused():
    with pytest.raises(CaptureError, match="neither by a bias nor a factor nor a soft-cap"):
        seen(model_of(score_mod=lambda s, b, h, q, k: s * s))


def test_blocks_that_are_not_listed_are_not_read():
    """As by the compiled kernels: of two blocks of 128, each query reads the first."""
    counts = torch.ones(1, 1, 2, dtype=torch.int32)
    listed = BlockMask.from_kv_blocks(
        counts, torch.zeros(1, 1, 2, 2, dtype=torch.int32), BLOCK_SIZE=128
    )
    model = nn.Sequential(Flexible(mask=listed)).eval()
    attention = seen(model, 256)
    assert attention.dense()[..., 128:].abs().max() == 0
    torch.testing.assert_close(attention.row_mass(), torch.ones(2, 256))


def test_the_log_normalizer_that_a_module_asks_for_is_the_kernels():
    from torch.nn.attention.flex_attention import AuxRequest

    def keeps(q, k, v, **options):
        z, aux = flex_attention(q, k, v, return_aux=AuxRequest(lse=True), **options)
        kept.append(aux.lse)
        return z

    kept = []
    model = nn.Sequential(Flexible(mask=causal, function=keeps)).eval()
    with torch.no_grad():
        model(**inputs_of())
    capture(Subject(model), inputs_of())
    torch.testing.assert_close(kept[1], kept[0])
