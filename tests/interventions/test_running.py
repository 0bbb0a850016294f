"""Every intervention: caches, batches, beams, one pass over all, identity, order, restoration."""

import pytest
import torch

from attnscope import capture
from attnscope.interventions import (
    PAINT,
    VAR,
    VHR,
    ActivationEdit,
    EdgeKnockout,
    HeadAblation,
    HeadScaling,
    InterventionError,
    LocoRE,
    intervening,
    post_softmax_renorm,
    pre_softmax_log,
)
from attnscope.probes import Subject
from attnscope.probes.hearing import changes_on

_VAR = {"dimensions": list(range(32)), "tau": 2.8, "rho": 0.0, "least_mass": 0.0}
TEXT = {
    "scaling": HeadScaling(heads=[0, -1], factor=3.0, layers=[-1]),
    "ablation": HeadAblation(heads=[1]),
    "knockout": EdgeKnockout(queries="response", keys=[0, 1, 2], heads=[0, 2]),
    "raw knockout": EdgeKnockout(queries="prompt", keys=[1, 3], renormalized=False),
    "LocoRE": LocoRE(beta=4.0, window=3),
    "LocoRE renorm": LocoRE(beta=4.0, window=3, normalize=post_softmax_renorm),
    "LocoRE log": LocoRE(beta=4.0, normalize=pre_softmax_log, layers=[0]),
    "edit": ActivationEdit(dimensions=[3, -1], values=[5.0, -5.0]),
}
IMAGE = {
    "VHR": VHR(alpha=3.0, layers=[0, 1]),
    "VAR": VAR(**_VAR, removed=0.9, layers=[0, 1]),
    "VAR, each step": VAR(**_VAR, removed=0.9, layers=[0, 1], each_step=True),
    "PAINT": PAINT(alpha=2.0, beta=1.0),
    "LocoRE of all words": LocoRE(beta=4.0, counts_prompt=True),
    "knockout of the image": EdgeKnockout(queries="response", keys="image"),
    "all": (VHR(layers=[0]), PAINT(), VAR(**_VAR, layers=[0, 1]), LocoRE(beta=2.0)),
}
CASES = [(family, name) for family in ("Llama", "GPT-2") for name in TEXT]
CASES += [("Mistral", name) for name in ("scaling", "LocoRE", "LocoRE renorm")]
CASES += [("LLaVA", name) for name in IMAGE]
CASES += [("Qwen2-VL", name) for name in ("VHR", "VAR")]
CASES += [("T5", "scaling"), ("T5", "edit"), ("gpt-oss", "LocoRE log"), ("Gemma 2", "LocoRE")]
CASES += [("BLOOM", name) for name in ("scaling", "knockout", "raw knockout", "LocoRE")]


def _of(name):
    found = (TEXT | IMAGE)[name]
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_cache_changes_nothing_and_the_intervention_something(made, answered, family, name):
    subject, encoded = made(family)
    cached, cached_logits = answered(subject, encoded, *_of(name))
    fresh, fresh_logits = answered(subject, encoded, *_of(name), use_cache=False)
    _, plain_logits = answered(subject, encoded)
    assert cached.tolist() == fresh.tolist()
    torch.testing.assert_close(cached_logits, fresh_logits, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(cached_logits, plain_logits, atol=1e-3)


@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
def test_one_pass_over_prompt_and_answer_is_the_steps_one_by_one(made, answered, name):
    subject, encoded = made("LLaVA")
    ids, logits = answered(subject, encoded, *_of(name))
    whole = {**encoded.model_inputs, "input_ids": ids}
    with intervening(subject, *_of(name), encoded=encoded), torch.no_grad():
        read = subject.model(**whole).logits
    length = len(encoded)
    torch.testing.assert_close(read[:, length - 1 : -1], logits, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "name"), [("Llama", name) for name in TEXT] + [("GPT-2", "LocoRE")]
)
def test_a_left_padded_batch_is_its_items(made, answered, family, name):
    subject, encoded = made(family)
    short = subject.encode({"input_ids": encoded.model_inputs["input_ids"][:, 4:11]})
    padding = len(encoded) - len(short)
    ids = torch.cat(
        [encoded.model_inputs["input_ids"],
         torch.nn.functional.pad(short.model_inputs["input_ids"], (padding, 0))]
    )  # fmt: skip
    mask = torch.ones_like(ids)
    mask[1, :padding] = 0
    both = {"input_ids": ids, "attention_mask": mask}
    _, batch = answered(subject, [encoded, short], *_of(name), inputs=both)
    for row, single in enumerate((encoded, short)):
        _, alone = answered(subject, single, *_of(name))
        torch.testing.assert_close(batch[row], alone[0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["VHR", "VAR", "PAINT", "all"])
def test_a_batch_of_pictures_is_its_items(made, answered, name):
    subject, one = made("LLaVA")
    ids = one.model_inputs["input_ids"]
    torch.manual_seed(1)
    words = torch.cat([ids[:, 20:23], ids[:, 2:18], ids[:, 24:]], dim=1)[:, -32:]
    other = subject.encode({"input_ids": words, "pixel_values": torch.randn(1, 3, 24, 24)})
    padding = ids.shape[1] - words.shape[1]
    short = torch.nn.functional.pad(words, (padding, 0))
    mask = torch.ones_like(ids).repeat(2, 1)
    mask[1, :padding] = 0
    both = {
        "input_ids": torch.cat([ids, short]),
        "attention_mask": mask,
        "pixel_values": torch.cat([each.model_inputs["pixel_values"] for each in (one, other)]),
    }
    _, batch = answered(subject, [one, other], *_of(name), inputs=both)
    for row, single in enumerate((one, other)):
        _, alone = answered(subject, single, *_of(name))
        torch.testing.assert_close(batch[row], alone[0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["VHR", "VAR", "PAINT", "LocoRE", "knockout"])
def test_beams_with_and_without_a_cache_agree(made, answered, name):
    subject, encoded = made("LLaVA")
    cached, _ = answered(subject, encoded, *_of(name), num_beams=3)
    fresh, _ = answered(subject, encoded, *_of(name), num_beams=3, use_cache=False)
    assert cached.tolist() == fresh.tolist()


def test_drawn_answers_follow_their_own_prompt(made, answered):
    subject, encoded = made("LLaVA")
    options = {"do_sample": True, "num_return_sequences": 3}
    torch.manual_seed(3)
    cached, _ = answered(subject, encoded, *_of("all"), **options)
    torch.manual_seed(3)
    fresh, _ = answered(subject, encoded, *_of("all"), use_cache=False, **options)
    assert cached.tolist() == fresh.tolist()


def test_a_static_cache_is_refused_in_words(made, answered):
    subject, encoded = made("Llama")
    with pytest.raises(InterventionError, match="cache_implementation"):
        answered(subject, encoded, *_of("LocoRE"), cache_implementation="static")


@pytest.mark.parametrize(
    "nothing",
    [
        HeadScaling(factor=1.0),
        LocoRE(beta=0.0),
        VHR(alpha=1.0),
        VAR(dimensions=[0], removed=0.0),
        PAINT(alpha=0.0, beta=0.0),
    ],
)
def test_settings_without_effect_leave_the_model_alone_to_the_bit(made, nothing):
    subject, encoded = made("LLaVA")
    with torch.no_grad():
        plain = subject.model(**encoded.model_inputs).logits
        with intervening(subject, nothing, encoded=encoded):
            assert torch.equal(subject.model(**encoded.model_inputs).logits, plain)


def test_interventions_act_in_the_order_given(made, heard):
    subject, encoded = made("Llama")
    plain = heard(subject, encoded)[0].output
    double, ablate = (
        HeadScaling(factor=2.0),
        HeadAblation(heads=[0], mean={0: torch.ones(1, plain.shape[-1])}),
    )
    first = heard(subject, encoded, double, ablate)[0].output
    last = heard(subject, encoded, ablate, double)[0].output
    assert first[0, 0].unique().tolist() == [1.0]
    assert last[0, 0].unique().tolist() == [2.0]
    assert torch.equal(first[:, 1:], plain[:, 1:] * 2)


def test_the_model_is_restored_even_after_an_error(made):
    subject, encoded = made("LLaVA")
    model = subject.model

    def state():
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        flags = model.generation_config.disable_compile
        return hooks, repr(model.config), flags, changes_on(model), torch.is_grad_enabled()

    before = state()
    during = []

    def break_off():
        with intervening(subject, *_of("all"), encoded=encoded):
            during.append(state())
            model(**encoded.model_inputs)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        break_off()
    assert during != [before]
    assert state() == before


def test_a_capture_shows_the_changed_model_and_says_so(made):
    subject, encoded = made("LLaVA")
    with intervening(subject, EdgeKnockout(queries="prompt", keys="image"), encoded=encoded):
        trace = capture(subject, encoded)
    assert "EdgeKnockout" in trace.provenance.notes["interventions"]
    assert "interventions" not in capture(subject, encoded).provenance.notes
    image = encoded.sequences["text"].segments["image"]
    prompt = encoded.sequences["text"].segments["prompt"]
    stack = next(site.stack for site in trace.sites if "language" in site.path)
    rows = trace.attention[stack, 0].rows(prompt)
    assert rows[..., image].abs().max() == 0
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]))


def test_a_trace_of_a_changed_model_is_saved_and_opened(made, tmp_path):
    from attnscope import open_trace

    subject, encoded = made("LLaVA")
    changes = (LocoRE(beta=1.0, normalize=post_softmax_renorm), *_of("VAR"), *_of("knockout"))
    with intervening(subject, *changes, encoded=encoded):
        trace = capture(subject, encoded)
    trace.save(tmp_path / "changed.safetensors")
    again = open_trace(tmp_path / "changed.safetensors")
    for site in trace.sites:
        one, other = (each.attention[site.stack, site.layer].dense() for each in (trace, again))
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (HeadScaling(factor=2.0, layers=[7]), "no layer 7: .* has layers 0 to 1, or -2 to -1"),
        (HeadScaling(factor=2.0, stack="nowhere"), "no stack 'nowhere' in this model; it has"),
        (HeadScaling(factor=2.0, heads=[9]), "no head 9 in layer 0 .* heads are 0 to 3"),
        (EdgeKnockout(queries="system", keys="prompt"), "no system segment in the input; it has"),
        (VHR(), "VHR needs image tokens, and input 0 has none"),
        (PAINT(), "PAINT needs image tokens"),
        (VAR(dimensions=[0]), "VAR needs image tokens"),
        (HeadAblation(mean={0: torch.zeros(4, 8)}, layers=[0, 1]), r"no mean for layers \[1\]"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_exists(made, intervention, message):
    subject, encoded = made("Llama")
    with (
        pytest.raises(InterventionError, match=message),
        intervening(subject, intervention, encoded=encoded),
    ):
        subject.model(**encoded.model_inputs)


def test_a_method_that_needs_the_input_says_so(made):
    subject, encoded = made("Llama")
    with pytest.raises(InterventionError, match="encoded="), intervening(subject, LocoRE()):
        pass
    with (
        pytest.raises(InterventionError, match="encoded="),
        intervening(subject, EdgeKnockout(queries="response", keys=[0])),
    ):
        subject.model(**encoded.model_inputs)


def test_another_input_than_announced_is_refused(made):
    subject, encoded = made("Llama")
    other = {"input_ids": encoded.model_inputs["input_ids"] + 1}
    with (
        pytest.raises(InterventionError, match="row 0 of the model's input"),
        intervening(subject, LocoRE(), encoded=encoded),
    ):
        subject.model(**other)


def test_attention_that_nobody_hears_is_no_silent_success(made):
    class _Attention(torch.nn.Module):
        def forward(self, x):
            return x

    class Deaf(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"attn": _Attention()})])

        def forward(self, x):
            return self.layers[0]["attn"](x)

    subject = Subject(Deaf())
    with (
        pytest.raises(InterventionError, match="never heard"),
        intervening(subject, HeadScaling(factor=2.0)),
    ):
        subject.model(torch.zeros(1, 2))
