"""Rejection sampling against dense attention and a backward pass over everything."""

import pytest
import torch

from attnscope.interventions import (
    SGRS,
    InterventionError,
    LocoRE,
    after_image,
    intervening,
    saliency_layers,
)
from attnscope.metrics import saliency_threshold
from attnscope.probes import Subject
from benchmarks.tiny_models import tiny

QUIET = {"pad_token_id": 0, "eos_token_id": 97, "do_sample": False, "max_new_tokens": 6}
LAYERS = [0, 1]


def dense_score(model, inputs, ids, candidate, *, first_key, row=-1, norm="row"):
    """S(c) from the maps and gradients of one pass over the whole prefix, eager and dense."""
    longer = inputs | {"input_ids": ids}
    if "mm_token_type_ids" in inputs:
        longer["mm_token_type_ids"] = (ids == 98).int()
    output = model(**longer, output_attentions=True)
    loss = -output.logits[0, -1].log_softmax(-1)[candidate]
    maps = [output.attentions[layer] for layer in LAYERS]
    found = []
    for pattern, slope in zip(maps, torch.autograd.grad(loss, maps), strict=True):
        summed = (pattern * slope).abs().sum(1)[0].tril().detach()
        length = {"row": summed[row].norm(), "matrix": summed.norm(), None: torch.tensor(1.0)}
        found.append((summed[row] / length[norm])[first_key:].mean())
    return float(torch.stack(found).mean())


def decoded(family, encoded=None, inputs=None, model=None, **settings):
    own, given = tiny(family)
    model, inputs = model or own, inputs or given
    options = QUIET | settings.pop("options", {})
    method = SGRS(layers=LAYERS, **settings)
    subject = Subject(model)
    with intervening(subject, method, encoded=encoded or subject.encode(inputs)):
        ids = model.generate(**inputs, **options)
    return model, inputs, ids, method.steps


@pytest.mark.parametrize("family", ["LLaVA", "Qwen2-VL"])
@pytest.mark.parametrize("norm", ["row", None])
def test_scores_equal_the_whole_prefix_differentiated_densely(family, norm):
    _, inputs, ids, steps = decoded(family, alpha=0.9, norm=norm)
    eager, _ = tiny(family, "eager")
    start = inputs["input_ids"].shape[1]
    assert len(steps) == 6
    assert bool(steps[0].score.isnan())
    for number, step in enumerate(steps[1:], start + 1):
        expected = dense_score(
            eager, inputs, ids[:, :number], int(step.token), first_key=start, norm=norm
        )
        assert float(step.score) == pytest.approx(expected, rel=1e-3)


def test_the_paper_s_keys_begin_behind_the_image():
    _, inputs, ids, steps = decoded("LLaVA", keys=after_image)
    eager, _ = tiny("LLaVA", "eager")
    start = inputs["input_ids"].shape[1]
    expected = dense_score(eager, inputs, ids[:, : start + 1], int(steps[1].token), first_key=18)
    assert float(steps[1].score) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("norm", ["row", "matrix"])
def test_without_a_cache_scores_are_the_dense_ones_too(norm):
    _, inputs, ids, steps = decoded("LLaVA", norm=norm, options={"use_cache": False})
    eager, _ = tiny("LLaVA", "eager")
    start = inputs["input_ids"].shape[1]
    for number, step in enumerate(steps[1:], start + 1):
        expected = dense_score(
            eager, inputs, ids[:, :number], int(step.token), first_key=start, norm=norm
        )
        assert float(step.score) == pytest.approx(expected, rel=1e-3)


def test_the_norm_of_a_map_is_refused_on_a_cache():
    with pytest.raises(InterventionError, match="use_cache=False"):
        decoded("LLaVA", norm="matrix")


def test_the_published_row_has_no_gradient():
    """The candidate's own row stands behind the logits that predict it."""
    model, inputs = tiny("LLaVA", "eager")
    candidate = 11
    ids = torch.cat([inputs["input_ids"], torch.tensor([[candidate]])], 1)
    output = model(**inputs | {"input_ids": ids}, output_attentions=True)
    loss = -output.logits[0, -2].log_softmax(-1)[candidate]
    for slope in torch.autograd.grad(loss, output.attentions):
        assert bool((slope[:, :, -1] == 0).all())
        assert bool((slope[:, :, -2] != 0).any())


@pytest.mark.parametrize("family", ["LLaVA", "Qwen2-VL"])
def test_alpha_0_takes_the_first_draw(family):
    model, inputs, ids, steps = decoded(family, alpha=0.0)
    assert ids.tolist() == model.generate(**inputs, **QUIET).tolist()
    assert [int(step.tried) for step in steps] == [1] * 6
    assert all(bool(step.accepted) for step in steps)


def test_thresholds_follow_the_accepted_scores():
    _, _, _, steps = decoded("LLaVA", alpha=1.2, window=1)
    past = []
    for step in steps:
        assert float(step.threshold) == pytest.approx(saliency_threshold(past, 1.2, 1), rel=1e-5)
        assert bool(step.accepted) == (
            float(step.threshold) == 0 or float(step.score) >= float(step.threshold)
        )
        past.append(float(step.score))
    assert any(int(step.tried) > 1 for step in steps)


def test_a_padded_batch_equals_its_items():
    model, inputs = tiny("LLaVA")
    short = {"input_ids": inputs["input_ids"][:, 2:], "pixel_values": inputs["pixel_values"] * 2}
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), short["input_ids"]], 1)
    both = {
        "input_ids": torch.cat([inputs["input_ids"], padded]),
        "pixel_values": torch.cat([inputs["pixel_values"], short["pixel_values"]]),
        "attention_mask": torch.ones(2, inputs["input_ids"].shape[1], dtype=torch.long),
    }
    both["attention_mask"][1, :2] = 0
    subject = Subject(model)
    encoded = [subject.encode(inputs), subject.encode(short)]
    _, _, ids, steps = decoded("LLaVA", encoded, both, model, alpha=1.0)
    for row, given in enumerate((inputs, short)):
        _, _, alone, own = decoded("LLaVA", None, given, model, alpha=1.0)
        assert ids[row, -6:].tolist() == alone[0, -6:].tolist()
        for together, single in zip(steps[1:], own[1:], strict=True):
            assert float(together.score[row]) == pytest.approx(float(single.score), rel=1e-3)
            assert int(together.tried[row]) == int(single.tried)


def test_sampled_answers_stop_where_they_end():
    torch.manual_seed(1)
    options = {"do_sample": True, "num_return_sequences": 3, "eos_token_id": list(range(3, 40))}
    _, inputs, ids, steps = decoded("LLaVA", options=options)
    answers = ids[:, inputs["input_ids"].shape[1] :]
    for row, answer in enumerate(answers.tolist()):
        ended = [place for place, token in enumerate(answer) if 3 <= token < 40]
        if ended:
            assert set(answer[ended[0] + 1 :]) <= {0}
            assert all(int(step.tried[row]) == 0 for step in steps[ended[0] + 1 :])


def test_it_composes_with_local_coherence():
    """The paper's whole method: scores are those of the attention that LocoRE leaves behind."""
    model, inputs = tiny("LLaVA")
    subject = Subject(model)
    encoded, start = subject.encode(inputs), inputs["input_ids"].shape[1]
    method = SGRS(layers=LAYERS, alpha=0.0)
    with intervening(subject, LocoRE(beta=2.0), method, encoded=encoded):
        ids = model.generate(**inputs, **QUIET)
    with intervening(subject, LocoRE(beta=2.0), encoded=encoded):
        assert ids.tolist() == model.generate(**inputs, **QUIET).tolist()
    eager, _ = tiny("LLaVA", "eager")
    plain = dense_score(eager, inputs, ids[:, :-1], int(ids[0, -1]), first_key=start)
    assert float(method.steps[-1].score) != pytest.approx(plain, rel=1e-3)


def test_the_model_is_left_as_it_was():
    model, inputs, _, _ = decoded("LLaVA")
    assert "generate" not in vars(model)
    assert all(parameter.grad is None for parameter in model.parameters())
    options = {"return_dict_in_generate": True}
    _, _, found, _ = decoded("LLaVA", None, inputs, model, options=options)
    assert not any(layer.keys.requires_grad for layer in found.past_key_values.layers)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"tries": 0}, "tries"),
        ({"options": {"num_beams": 2}}, "num_beams=1"),
        ({"options": {"streamer": object()}}, "streamer"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(InterventionError, match=message):
        decoded("LLaVA", **settings)


def test_layers_out_of_range_and_models_with_an_encoder_are_refused():
    model, inputs = tiny("LLaVA")
    subject = Subject(model)
    with (
        pytest.raises(InterventionError, match="no layer 9"),
        intervening(subject, SGRS(layers=[9]), encoded=subject.encode(inputs)),
    ):
        pass
    reader, pair = tiny("T5")
    subject = Subject(reader)
    with (
        pytest.raises(InterventionError, match="reads with an encoder"),
        intervening(subject, SGRS(), encoded=subject.encode(pair)),
    ):
        pass


def test_target_layers_scale_with_the_depth():
    assert saliency_layers(32) == [6, 7, 8]
    assert saliency_layers(64) == [12, 14, 16]
    assert saliency_layers(4) == [0, 1]
