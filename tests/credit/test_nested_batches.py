"""Nested tensors as verl hands them around, by hand and as verl gave them."""

import pytest
import torch

from attnscope.credit import Credit, CreditError, Readings, riding
from attnscope.credit.nested_batches import credited, model_batch, nested_readings, readings_from
from tests.credit.recorded import RULE, lengths_of, recorded
from tests.verl import samples


def nested(*rows):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def rows_of(tensor):
    return [row.tolist() for row in tensor.unbind()]


MASK = nested([1, 1], [1, 0, 1])


def test_packed_sequences_are_found_by_their_lengths():
    ids = torch.tensor(
        [[11, 12, 13, 21, 22, 23, 24, 0, 0]]
    )  # two sequences, two columns of padding
    batch = model_batch(ids, MASK, None, [3, 4])
    (first, second) = batch.layout.stretches
    assert (first.start, first.stop, first.first, first.end) == (0, 3, 1, 3)
    assert (second.start, second.stop, second.first, second.end) == (3, 7, 4, 7)
    assert batch.layout.mask.tolist() == [[True, True, False], [True, False, True]]
    assert batch.response_ids.tolist() == [[12, 13, -1], [22, 23, 24]]


def test_padded_rows_hold_one_sequence_each():
    ids = torch.tensor([[11, 12, 13, 0], [21, 22, 23, 24]])
    batch = model_batch(ids, MASK, (ids > 0).long(), [3, 4])
    assert [(own.row, own.first, own.end) for own in batch.layout.stretches] == [
        (0, 1, 3),
        (1, 1, 4),
    ]
    assert batch.layout.mask.tolist() == [[True, True, False], [True, False, True]]


@pytest.mark.parametrize("packed", [True, False])
def test_readings_travel_by_token_and_come_back(packed):
    nan = torch.nan
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7]]) if packed else torch.ones(2, 4).long()
    attended = None if packed else torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    batch = model_batch(ids, MASK, attended, [3, 4])
    readings = Readings(
        mask=batch.layout.mask,
        local_waad=torch.tensor([[0.1, 0.2, 0.3, nan], [0.4, 0.5, 0.6, 0.7]]),
        global_fai=torch.tensor([[1.0, 2.0, nan], [3.0, 4.0, nan]]),
    )
    spread = nested_readings(readings, batch, ("local_waad", "global_fai"), [3, 4])
    assert rows_of(spread["local_waad"])[0] == pytest.approx([0.1, 0.2, 0.3])  # by row, one earlier
    assert rows_of(spread["global_fai"])[0] == pytest.approx([nan, 1.0, 2.0], nan_ok=True)
    assert rows_of(spread["global_fai"])[1] == pytest.approx([nan, 3.0, 4.0, nan], nan_ok=True)
    found = readings_from(spread, {}, MASK)
    torch.testing.assert_close(found.local_waad, readings.local_waad, equal_nan=True)
    torch.testing.assert_close(found.global_fai, readings.global_fai, equal_nan=True)
    assert torch.equal(found.mask, readings.mask)


def test_facts_of_tokens_are_padded_by_their_kind():
    facts = {
        "entropy": nested([0.5, 0.6], [0.1, 0.2, 0.3]),
        "ids": nested([7, 8], [4, 5, 6]),
        "advantage": nested([2.0, 2.0], [-1.0, -1.0, -1.0]),
    }
    found = readings_from({}, facts, MASK, draw=3)
    assert found.entropy[0].tolist() == pytest.approx([0.5, 0.6, torch.nan, torch.nan], nan_ok=True)
    assert found.entropy.shape == (2, 4)  # the row of the last token is not known
    assert found.ids.tolist() == [[7, 8, -1], [4, 5, 6]]
    assert found.advantage.tolist() == [[2.0, 2.0, 0.0], [-1.0, -1.0, -1.0]]
    assert found.draw == 3


def test_a_response_without_a_prompt_has_no_row_before_it():
    found = readings_from({"local_waad": nested([0.1, 0.2], [0.4, 0.5, 0.6, 0.7])}, {}, MASK)
    assert found.local_waad[0].tolist() == pytest.approx(
        [torch.nan, 0.1, 0.2, torch.nan], nan_ok=True
    )


def test_weights_of_one_change_nothing_and_gaps_keep_what_they_have():
    advantages = nested([2.0, 3.0], [-1.0, 7.0, -1.0])
    mask = torch.tensor([[True, True, False], [True, False, True]])
    ones = Credit(weights=mask.float(), mask=mask)
    assert torch.equal(credited(ones, advantages).values(), advantages.values())
    half = Credit(weights=0.5 * mask, mask=mask)
    assert rows_of(credited(half, advantages)) == [[1.0, 1.5], [-0.5, 7.0, -0.5]]
    with pytest.raises(CreditError, match="1 responses have advantages, 2 weights"):
        credited(half, nested([1.0]))


@pytest.mark.parametrize("packed", [True, False])
def test_a_policy_is_read_as_verl_read_it(packed):
    batch, plan = recorded()
    policy, lengths = samples.policy(), lengths_of(batch["input_ids"])
    if packed:
        ids, attended = batch["input_ids"].values()[None], None
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
    else:
        ids = torch.nn.utils.rnn.pad_sequence(batch["input_ids"].unbind(), batch_first=True)
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
        attended = (positions < torch.tensor(lengths)[:, None]).long()
    layout = model_batch(ids, batch["response_mask"], attended, lengths)
    with torch.no_grad(), riding(policy, layout, plan) as ride:
        policy(input_ids=ids, attention_mask=attended, position_ids=positions, use_cache=False)
    found = nested_readings(ride.readings(), layout, plan.attention, lengths)
    for name in plan.attention:
        torch.testing.assert_close(
            found[name].values(),
            batch[f"credit_{name}"].values(),
            equal_nan=True,
            atol=1e-5,
            rtol=1e-5,
        )


def test_the_recorded_batch_gets_the_advantages_that_it_got_in_verl():
    batch, plan = recorded()
    measured = {name: batch[f"credit_{name}"] for name in plan.attention}
    readings = readings_from(measured, {"advantage": batch["returns"]}, batch["response_mask"])
    credit = RULE.assign(readings)
    found = credited(credit, batch["returns"])  # of GRPO: the advantages before the weights
    assert torch.equal(found.values(), batch["advantages"].values())
    assert not torch.equal(found.values(), batch["returns"].values())
    assert lengths_of(found) == lengths_of(batch["responses"])
    assert (batch["response_mask"].values() == 0).sum() == 3  # a tool's tokens are among them
