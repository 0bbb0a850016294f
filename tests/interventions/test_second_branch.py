"""A second branch against running its whole prompt again at every step."""

import pytest
import torch

from attnscope.interventions.errors import InterventionError
from attnscope.interventions.second_branch import SecondBranch
from benchmarks.tiny_models import tiny

FAMILIES = ("LLaVA", "Qwen2-VL")


def other_picture(inputs):
    return inputs | {"pixel_values": inputs["pixel_values"].flip(-1) * 0.5}


def again(model, inputs, answer):
    """The logits after an answer, from one pass over everything."""
    ids = torch.cat([inputs["input_ids"], answer], 1)
    longer = inputs | {"input_ids": ids}
    if "mm_token_type_ids" in inputs:
        longer["mm_token_type_ids"] = (ids == 98).int()
    with torch.no_grad():
        return model(**longer).logits[:, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_equals_running_its_own_prompt_again(family):
    model, inputs = tiny(family)
    other = other_picture(inputs)
    branch = SecondBranch(model, inputs["input_ids"], other)
    answer = torch.randint(3, 80, (1, 4))
    for length in range(5):
        ids = torch.cat([inputs["input_ids"], answer[:, :length]], 1)
        expected = again(model, other, answer[:, :length])
        torch.testing.assert_close(branch.logits(ids), expected, atol=1e-5, rtol=1e-4)


def test_its_prompt_may_be_of_another_length():
    model, inputs = tiny("LLaVA")
    longer = {
        "input_ids": torch.cat([inputs["input_ids"], torch.tensor([[7, 8]])], 1),
        "pixel_values": inputs["pixel_values"],
    }
    branch = SecondBranch(model, inputs["input_ids"], longer)
    branch.logits(inputs["input_ids"])
    ids = torch.cat([inputs["input_ids"], torch.tensor([[11]])], 1)
    expected = again(model, longer, torch.tensor([[11]]))
    torch.testing.assert_close(branch.logits(ids), expected, atol=1e-5, rtol=1e-4)


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
    branch, answer = SecondBranch(model, both["input_ids"], both), torch.tensor([[9, 4], [5, 6]])
    for length in range(3):
        heard = branch.logits(torch.cat([both["input_ids"], answer[:, :length]], 1))
        alone = [
            again(model, inputs, answer[:1, :length]),
            again(model, short, answer[1:, :length]),
        ]
        torch.testing.assert_close(heard, torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_may_be_repeated_and_permuted(family):
    model, inputs = tiny(family)
    other = other_picture(inputs)
    branch = SecondBranch(model, inputs["input_ids"], other)
    prompt = inputs["input_ids"].repeat(3, 1)
    first = torch.tensor([[11], [12], [13]])
    branch.logits(prompt)
    branch.logits(torch.cat([prompt, first], 1))
    answers = torch.cat([first[[2, 0, 2]], torch.tensor([[5], [6], [7]])], 1)
    heard = branch.logits(torch.cat([prompt, answers], 1))
    expected = torch.cat([again(model, other, answer[None]) for answer in answers])
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=1e-4)


def test_equal_answers_to_different_pictures_are_not_exchanged():
    model, inputs = tiny("LLaVA")
    both = {
        "input_ids": inputs["input_ids"].repeat(2, 1),
        "pixel_values": torch.cat([inputs["pixel_values"], -2 * inputs["pixel_values"]]),
    }
    branch = SecondBranch(model, both["input_ids"], both)
    prompt = both["input_ids"].repeat_interleave(2, 0)
    branch.logits(prompt)
    branch.logits(torch.cat([prompt, torch.tensor([[4], [5], [4], [5]])], 1))
    ids = torch.cat([prompt, torch.tensor([[5, 9], [4, 9], [5, 9], [4, 9]])], 1)
    heard = branch.logits(ids)
    answers = torch.tensor([[5, 9], [4, 9]])
    for item in range(2):
        alone = {name: tensor[item : item + 1] for name, tensor in both.items()}
        expected = torch.cat([again(model, alone, answer[None]) for answer in answers])
        torch.testing.assert_close(heard[2 * item :][:2], expected, atol=1e-5, rtol=1e-4)


def test_it_begins_anew_on_the_first_prompt():
    model, inputs = tiny("LLaVA")
    branch = SecondBranch(model, inputs["input_ids"], other_picture(inputs))
    first = branch.logits(inputs["input_ids"])
    branch.logits(torch.cat([inputs["input_ids"], torch.tensor([[5]])], 1))
    assert torch.equal(branch.logits(inputs["input_ids"]), first)


def test_it_refuses_what_it_cannot_follow():
    model, inputs = tiny("LLaVA")
    ids = inputs["input_ids"]
    branch = SecondBranch(model, ids, inputs)
    with pytest.raises(InterventionError, match="another prompt"):
        branch.logits(ids.flip(1))
    branch.logits(ids)
    with pytest.raises(InterventionError, match="one token a step"):
        branch.logits(torch.cat([ids, torch.tensor([[5, 6]])], 1))
    with pytest.raises(InterventionError, match="continue none"):
        branch.logits(torch.cat([ids.flip(1), torch.tensor([[5]])], 1)[:, : ids.shape[1] + 1])
    with pytest.raises(InterventionError, match="of 1 rows"):
        SecondBranch(model, ids, {"input_ids": ids.repeat(2, 1)})
    with pytest.raises(InterventionError, match=r"takes no \['colour'\]"):
        SecondBranch(model, ids, inputs | {"colour": ids})


def test_it_refuses_models_that_it_cannot_follow():
    with pytest.raises(InterventionError, match="reads with an encoder"):
        SecondBranch(tiny("T5")[0], torch.ones(1, 2, dtype=torch.long), {})
    with pytest.raises(InterventionError, match="does not generate"):
        SecondBranch(tiny("ViT")[0], torch.ones(1, 2, dtype=torch.long), {})
