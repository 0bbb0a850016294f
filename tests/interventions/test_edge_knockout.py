import pytest
import torch

from attnscope.interventions import EdgeKnockout


def _cut(pattern, queries, keys, *, renormalized):
    new = pattern.clone()
    for query in queries:
        new[..., query, list(keys)] = 0
        if renormalized:
            new[..., query, :] /= new[..., query, :].sum(-1, keepdim=True)
    return new


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "gpt-oss", "Gemma 2", "BLOOM"])
@pytest.mark.parametrize("renormalized", [True, False])
def test_output_and_operator_are_those_of_the_cut_map(made, heard, family, renormalized):
    subject, encoded = made(family)
    plain = heard(subject, encoded)[0]
    cut = EdgeKnockout(
        queries=[5, 6, 9], keys=[1, 4], heads=[0, -1], layers=[0], renormalized=renormalized
    )
    changed = heard(subject, encoded, cut)[0]
    before = plain.attention.dense()
    mass = before.sum(-1, keepdim=True)
    expected = _cut(before / mass, [5, 6, 9], [1, 4], renormalized=renormalized) * mass
    expected[:, [1, 2]] = before[:, [1, 2]]
    if family == "gpt-oss" and renormalized:  # what is cut goes to the learned sink, too
        sinks = 1 - mass[:, [0, -1]][:, :, [5, 6, 9]]
        rows = before[:, [0, -1]][:, :, [5, 6, 9]].clone()
        rows[..., [1, 4]] = 0
        expected[:, [[0], [3]], [5, 6, 9]] = rows / (rows.sum(-1, keepdim=True) + sinks)
    torch.testing.assert_close(changed.attention.dense(), expected, atol=1e-5, rtol=1e-4)
    value = plain.value.repeat_interleave(expected.shape[1] // plain.value.shape[1], dim=1)
    torch.testing.assert_close(changed.output, expected @ value, atol=1e-4, rtol=1e-3)
    kept = [query for query in range(len(encoded)) if query not in (5, 6, 9)]
    assert torch.equal(changed.output[:, :, kept], plain.output[:, :, kept])
    assert torch.equal(changed.output[:, [1, 2]], plain.output[:, [1, 2]])


def test_a_row_that_loses_all_its_keys_reads_zeros(made, heard):
    subject, encoded = made("Llama")
    for second in ((), (EdgeKnockout(queries=[1], keys=[0, 1], layers=[0]),)):
        cuts = EdgeKnockout(queries=[0], keys=[0], layers=[0]), *second
        changed = heard(subject, encoded, *cuts)[0]
        for row in range(len(cuts)):
            assert changed.output[:, :, row].abs().max() == 0
            assert changed.attention.rows([row]).abs().max() == 0


def test_two_knockouts_are_one_of_both(made, heard):
    subject, encoded = made("Llama")
    one = EdgeKnockout(queries=[7, 8], keys=[1], layers=[0])
    other = EdgeKnockout(queries=[7, 8], keys=[3], layers=[0])
    both = EdgeKnockout(queries=[7, 8], keys=[1, 3], layers=[0])
    expected, found = heard(subject, encoded, both)[0], heard(subject, encoded, one, other)[0]
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.attention.dense(), expected.attention.dense())


def test_a_knockout_of_nothing_visible_is_exact(made, heard):
    subject, encoded = made("Llama")
    cut = EdgeKnockout(queries="response", keys=[0])
    assert torch.equal(heard(subject, encoded, cut)[0].output, heard(subject, encoded)[0].output)
