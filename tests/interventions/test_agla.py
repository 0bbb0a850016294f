"""AGLA against a loop that runs both prompts again for every token."""

import pytest
import torch

from attnscope.interventions import (
    AGLA,
    SGRS,
    HeadScaling,
    InterventionError,
    assembled_logits,
    intervening,
    mask_image,
    match_image,
    match_probability,
)
from attnscope.probes import Subject
from benchmarks.tiny_models import tiny

FAMILIES = ("LLaVA", "Qwen2-VL")
QUIET = {"pad_token_id": 0, "eos_token_id": 97, "do_sample": False}


def masked(inputs):
    return inputs | {"pixel_values": inputs["pixel_values"] * (inputs["pixel_values"] > 0)}


def logits_of(model, inputs, ids):
    longer = inputs | {"input_ids": ids}
    if "mm_token_type_ids" in inputs:
        longer["mm_token_type_ids"] = (ids == 98).int()
    with torch.no_grad():
        return model(**longer).logits[:, -1]


def slow(model, inputs, alpha, beta, tokens):
    ids = inputs["input_ids"]
    for _ in range(tokens):
        global_logits = logits_of(model, inputs, ids)
        local_logits = logits_of(model, masked(inputs), ids)
        kept = global_logits.softmax(-1) >= beta * global_logits.softmax(-1).max()
        summed = (global_logits + alpha * local_logits).where(kept, torch.tensor(-torch.inf))
        ids = torch.cat([ids, summed.argmax(-1, keepdim=True)], 1)
    return ids


def test_the_case_worked_by_hand():
    original, local = torch.tensor([2.0, 1.8, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    found = assembled_logits(original, local)
    torch.testing.assert_close(found, torch.tensor([2.0, 7.8, -torch.inf]))
    torch.testing.assert_close(
        found.softmax(-1), torch.tensor([0.00302, 0.99698, 0.0]), atol=1e-5, rtol=0
    )
    alone = assembled_logits(torch.tensor([2.0, 1.0, 0.0]), local)
    assert alone.isfinite().tolist() == [True, False, False]


def test_branches_that_agree_sharpen_by_a_third():
    logits = torch.tensor([1.0, 0.5, -2.0])
    found = assembled_logits(logits, logits, beta=0.0)
    torch.testing.assert_close(found.softmax(-1), (3 * logits).softmax(-1))


def test_a_forbidden_token_stays_forbidden():
    found = assembled_logits(
        torch.tensor([-torch.inf, 1.0]), torch.tensor([torch.inf, 0.0]), beta=0.0
    )
    assert found.tolist() == [-torch.inf, 1.0]


@pytest.mark.parametrize("beta", [-0.1, 1.5])
def test_beta_is_a_share(beta):
    with pytest.raises(InterventionError, match="from 0 to 1"):
        assembled_logits(torch.zeros(2), torch.zeros(2), beta=beta)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.5), (2.0, 0.0)])
def test_greedy_decoding_equals_the_slow_loop(family, alpha, beta):
    model, inputs = tiny(family)
    processor = AGLA(model, inputs, masked(inputs), alpha, beta)
    found = model.generate(**inputs, logits_processor=[processor], max_new_tokens=6, **QUIET)
    assert found.tolist() == slow(model, inputs, alpha, beta, 6).tolist()


def test_it_changes_what_is_said():
    model, inputs = tiny("LLaVA")
    plain = model.generate(**inputs, max_new_tokens=6, **QUIET)
    processor = AGLA(model, inputs, masked(inputs), 2.0, 0.0)
    found = model.generate(**inputs, logits_processor=[processor], max_new_tokens=6, **QUIET)
    assert found.tolist() != plain.tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_alpha_0_is_plain_decoding(family, beams):
    model, inputs = tiny(family)
    options = QUIET | {"max_new_tokens": 5, "num_beams": beams}
    plain = model.generate(**inputs, **options)
    processor = AGLA(model, inputs, masked(inputs), alpha=0.0, beta=0.0)
    assert model.generate(**inputs, logits_processor=[processor], **options).tolist() == (
        plain.tolist()
    )


def test_beams_score_what_one_pass_over_the_answer_scores():
    model, inputs = tiny("LLaVA")
    processor = AGLA(model, inputs, masked(inputs), 1.0, 0.0)
    found = model.generate(
        **inputs, logits_processor=[processor], max_new_tokens=4, num_beams=3,
        length_penalty=0.0, return_dict_in_generate=True, output_scores=True, **QUIET,
    )  # fmt: skip
    ids, start = found.sequences, inputs["input_ids"].shape[1]
    total = 0.0
    for end in range(start, ids.shape[1]):
        both = [logits_of(model, given, ids[:, :end]) for given in (inputs, masked(inputs))]
        total += float((both[0] + both[1]).log_softmax(-1)[0, ids[0, end]])
    assert float(found.sequences_scores[0]) == pytest.approx(total, abs=1e-4)


def test_several_sampled_answers_come_from_the_assembled_distribution():
    model, inputs = tiny("LLaVA")
    processor = AGLA(model, inputs, masked(inputs))
    options = QUIET | {"do_sample": True, "max_new_tokens": 3, "num_return_sequences": 4}
    torch.manual_seed(0)
    found = model.generate(
        **inputs, logits_processor=[processor], return_dict_in_generate=True, output_scores=True,
        top_k=0, **options,
    )  # fmt: skip
    for step, scores in enumerate(found.scores):
        ids = found.sequences[:, : inputs["input_ids"].shape[1] + step]
        for row in range(4):
            both = [
                logits_of(model, given, ids[row : row + 1]) for given in (inputs, masked(inputs))
            ]
            expected = assembled_logits(*both).softmax(-1)[0]
            torch.testing.assert_close(scores[row].exp(), expected, atol=1e-5, rtol=1e-4)


def test_a_batch_of_two_pictures_equals_each_alone():
    model, inputs = tiny("LLaVA")
    other = inputs | {"pixel_values": -3 * inputs["pixel_values"]}
    both = {name: torch.cat([inputs[name], other[name]]) for name in inputs}
    alone = [
        model.generate(
            **given, logits_processor=[AGLA(model, given, masked(given))], max_new_tokens=4, **QUIET
        )
        for given in (inputs, other)
    ]
    together = model.generate(
        **both, logits_processor=[AGLA(model, both, masked(both))], max_new_tokens=4, **QUIET
    )
    assert together.tolist() == torch.cat(alone).tolist()


def test_it_refuses_prompts_without_pictures_and_models_that_see_none():
    model, inputs = tiny("LLaVA")
    text = {"input_ids": inputs["input_ids"]}
    with pytest.raises(InterventionError, match="compares a picture"):
        AGLA(model, inputs, text)
    blind, words = tiny("Llama")
    with pytest.raises(InterventionError, match=r"takes no \['pixel_values'\]"):
        AGLA(blind, words, words | {"pixel_values": inputs["pixel_values"]})
    with pytest.raises(InterventionError, match="input_ids"):
        AGLA(model, {"pixel_values": inputs["pixel_values"]}, inputs)


def test_intervening_joins_it_to_generate_and_takes_it_off():
    model, inputs = tiny("LLaVA")
    subject, method = Subject(model), AGLA(model, inputs, masked(inputs))
    with intervening(subject, method):
        found = subject.generate(inputs, max_new_tokens=5, pad_token_id=0, eos_token_id=97)
    ids = list(found.sequences["text"].ids)
    assert ids == slow(model, inputs, 2.0, 0.5, 5)[0].tolist()
    assert "generate" not in vars(model)
    other = Subject(tiny("LLaVA")[0])
    with pytest.raises(InterventionError, match="another"), intervening(other, method):
        pass


def test_the_second_branch_runs_without_the_other_methods():
    model, inputs = tiny("LLaVA")
    subject, scaling = Subject(model), HeadScaling(factor=0.0, heads=[0, 1])
    with intervening(subject, scaling, AGLA(model, inputs, masked(inputs), 1.0, 0.0)):
        found = model.generate(
            **inputs, max_new_tokens=2, return_dict_in_generate=True, output_scores=True, **QUIET
        )
    ids = found.sequences[:, :-1]
    with intervening(subject, scaling):
        scaled = logits_of(model, inputs, ids)
    expected = (scaled + logits_of(model, masked(inputs), ids)).log_softmax(-1)
    torch.testing.assert_close(found.scores[1], expected, atol=1e-5, rtol=1e-4)


def test_it_composes_with_rejection_sampling():
    model, inputs = tiny("LLaVA")
    subject, rejection = Subject(model), SGRS(alpha=0.0)
    methods = (AGLA(model, inputs, masked(inputs)), rejection)
    with intervening(subject, *methods, encoded=subject.encode(inputs)):
        found = model.generate(**inputs, max_new_tokens=5, **QUIET)
    assert found.tolist() == slow(model, inputs, 2.0, 0.5, 5).tolist()
    assert len(rejection.steps) == 5


def test_from_a_picture_and_a_question_to_an_answer():
    from attnscope.models.subjects.glimpse import (
        build_matcher,
        build_matcher_processor,
        build_processor,
        build_subject,
        matcher_config,
        question_chat,
        render,
        sample_scenes,
        subject_config,
    )

    model = build_subject(subject_config(tower=1, layers=2, hidden=32, heads=2), seed=0).eval()
    judge = build_matcher(matcher_config(layers=2, hidden=32, heads=2), seed=0)
    processor, question = build_processor(), "is there a cat in the image ?"
    image = render(sample_scenes(1, seed=0)[0])
    judge = Subject(judge, build_matcher_processor())
    match = match_image(judge, image, question, similarity=match_probability)
    prompt = processor.apply_chat_template(question_chat(question), add_generation_prompt=True)
    inputs, local = (
        dict(processor(text=[prompt], images=[seen], return_tensors="pt"))
        for seen in (image, mask_image(image, match))
    )
    assert not torch.equal(inputs["pixel_values"], local["pixel_values"])
    method = AGLA(model, inputs, local, beta=0.0)
    with intervening(Subject(model, processor), method):
        found = model.generate(**inputs, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert found.shape[1] == inputs["input_ids"].shape[1] + 3
