"""`prefix_value_advantages`: credit where the responses of one prompt part ways."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnscope.credit.errors import CreditError

__all__ = ["prefix_value_advantages"]


def prefix_value_advantages(
    ids: Int[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    rewards: Float[Tensor, " batch"],
    group: int,
    *,
    epsilon: float = 1e-4,
) -> Float[Tensor, "batch response"]:
    """Return advantages with a temporal difference at the tokens at which a group branches.

    ``A_t = ((r - mean) + V(prefix with t) - V(prefix before t)) / (std + epsilon)``: the value of a
    prefix is the mean reward of the group's responses that share it. No model is asked. Where a
    response goes its own way the difference is 0 and the plain group advantage is left. Outside of
    the mask it is 0.

    Args:
        ids: Vocabulary ids of the responses' tokens.
        mask: Which are tokens, without gaps.
        rewards: One reward per response.
        group: Number of responses to each prompt; they stand together.
        epsilon: Keeps a group of equal rewards from dividing by 0.

    Raises:
        CreditError: The batch is not made of whole groups.

    Reference: Tran et al. 2025, arXiv:2509.18314, "TEMPO", read second-hand; the standard deviation
        (over n - 1) and epsilon are those of common GRPO code.

    Example:
        >>> ids = torch.tensor([[5, 7], [5, 8]])  # they part at the second token
        >>> rewards = torch.tensor([1.0, 0.0])
        >>> values = prefix_value_advantages(ids, torch.ones(2, 2).bool(), rewards, group=2)
        >>> (values / values[0, 0]).round(decimals=4).tolist()  # 0.5, 0.5 + 0.5; -0.5, -0.5 - 0.5
        [[1.0, 2.0], [-1.0, -2.0]]
    """
    if group < 2 or len(ids) % group:
        raise CreditError(f"{len(ids)} responses are not whole groups of {group} (two at least)")
    values = _prefix_values(ids, mask, rewards, group)
    grouped = rewards.reshape(-1, group)
    deviation = grouped.std(-1).repeat_interleave(group)
    mean = grouped.mean(-1).repeat_interleave(group)
    difference = values[:, 1:] - values[:, :-1]
    advantage = ((rewards - mean).unsqueeze(1) + difference) / (deviation + epsilon).unsqueeze(1)
    return torch.where(mask, advantage, 0)


def _prefix_values(
    ids: Int[Tensor, "batch response"], mask: Tensor, rewards: Tensor, group: int
) -> Float[Tensor, "batch response+1"]:
    """Return the mean reward of the responses that share each prefix, the empty one first."""
    members = ids.masked_fill(~mask, -1).reshape(-1, group, ids.shape[-1])
    same = (members.unsqueeze(1) == members.unsqueeze(2)).long().cumprod(-1).float()
    always = torch.ones_like(same[..., :1])
    shared = torch.cat([always, same], dim=-1)  # prompt, member, other member, prefix length
    values = torch.einsum("pmol,po->pml", shared, rewards.reshape(-1, group).float())
    return (values / shared.sum(2)).reshape(len(ids), -1)
