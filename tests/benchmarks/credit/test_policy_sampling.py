"""The policy's fast sampling against the library's own forward pass."""

import torch

from benchmarks.credit.policy import build_policy, load_policy, save_policy
from benchmarks.credit.sampling import decoder_of, respond
from benchmarks.credit.task import EOS, LONGEST, PAD, PROMPT, TOKENS


def small_prompts(rows=12):
    return torch.randint(0, 40, (rows, PROMPT), generator=torch.Generator().manual_seed(0))


def draws(rows=12, seed=1):
    return torch.rand(rows, LONGEST, generator=torch.Generator().manual_seed(seed))


def lively():
    """A policy that is sure of something, as untrained ones are not."""
    policy = build_policy(3)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(3)
    return policy.eval()


@torch.no_grad()
def test_the_decoder_gives_the_logits_of_the_library():
    policy = lively()
    ids = torch.randint(0, len(TOKENS), (3, 20), generator=torch.Generator().manual_seed(2))
    expected = policy(input_ids=ids).logits
    decoder = decoder_of(policy)
    cache = decoder.cache(3, 20)
    for column in range(20):
        logits = decoder.logits(ids[:, column], column, cache)
        torch.testing.assert_close(logits, expected[:, column], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_responses_are_drawn_from_the_policys_distribution():
    policy, prompts = lively(), small_prompts()
    responses = respond(policy, prompts, draws())
    logits = policy(input_ids=torch.cat([prompts, responses], 1)).logits[:, PROMPT - 1 : -1]
    logits[..., PAD] = -torch.inf
    below = logits.double().softmax(-1).cumsum(-1)
    for row, response in enumerate(responses.tolist()):
        length = response.index(PAD) if PAD in response else LONGEST
        assert EOS not in response[: length - 1]
        assert length == LONGEST or response[length - 1] == EOS
        assert set(response[length:]) <= {PAD}
        for place, token in enumerate(response[:length]):
            high = float(below[row, place, token])
            low = float(below[row, place, token - 1]) if token else 0.0
            assert low - 1e-4 <= float(draws()[row, place]) <= high + 1e-4


def test_a_row_does_not_depend_on_the_rows_beside_it():
    policy, prompts = lively(), small_prompts()
    together = respond(policy, prompts, draws())
    alone = respond(policy, prompts[4:6], draws()[4:6])
    assert torch.equal(alone, together[4:6])


def test_the_same_draws_give_the_same_responses_and_others_do_not():
    policy, prompts = lively(), small_prompts()
    first = respond(policy, prompts, draws())
    assert torch.equal(first, respond(policy, prompts, draws()))
    assert not torch.equal(first, respond(policy, prompts, draws(seed=2)))


def test_weights_come_back_in_half_precision(tmp_path):
    policy = build_policy(1)
    save_policy(policy, tmp_path / "policy.safetensors")
    loaded = load_policy(tmp_path / "policy.safetensors")
    for one, other in zip(policy.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one.half().float(), other)
    assert (tmp_path / "policy.safetensors").stat().st_size < 1_000_000
