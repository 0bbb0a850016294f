"""Rewards per token, for loops that compute returns or advantages from them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["implicit_rewards", "redistributed_shares", "returns_to_go"]


def redistributed_shares(
    received: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    share: float = 0.5,
) -> Float[Tensor, "batch response"]:
    """Return the part of a response's score that each token earns; they sum to 1.

    ``s_t = share a_t + (1 - share) 1[t last]``, a being the attention to the response, divided by
    its sum. Times the score these are the rewards ``r_t`` of the source; being a potential-based
    shaping they keep the optimal policy. Where nothing was received the last token earns all.
    Zero for an empty response.

    Args:
        received: Attention that the last row of a reward model's last layer gives each token, the
            mean over its heads; or the column means of the policy's own attention ("ABC-D").
        mask: The response's tokens.
        share: beta, the share of the score that is spread over the tokens.

    Reference: Chan et al. 2024, arXiv:2402.00782.

    Example:
        >>> received = torch.tensor([[1.0, 3.0, 9.0]])
        >>> mask = torch.tensor([[True, True, False]])
        >>> redistributed_shares(received, mask).tolist()  # 0.5 / 4, 0.5 * 3 / 4 + 0.5
        [[0.125, 0.875, 0.0]]
    """
    inside = torch.where(mask, received, 0).nan_to_num(nan=0.0)
    total = inside.sum(-1, keepdim=True)
    last = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)
    spread = torch.where(total > 0, inside / total, last.to(inside.dtype))
    return share * spread + (1 - share) * last


def returns_to_go(rewards: Float[Tensor, "batch response"]) -> Float[Tensor, "batch response"]:
    """Return the sum of each token's reward and all later ones.

    Example:
        >>> returns_to_go(torch.tensor([[1.0, 0.0, 2.0]])).tolist()
        [[3.0, 2.0, 2.0]]
    """
    return rewards.flip(-1).cumsum(-1).flip(-1)


def implicit_rewards(
    log_probability: Float[Tensor, "batch response"],
    reference: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    *,
    scale: float = 0.05,
    bound: float = 0.05,
) -> Float[Tensor, "batch response"]:
    """Return the implicit reward of a preference-tuned model, token by token.

    ``r_t = scale clip(log pi_dpo(t) - log pi_ref(t), -bound, bound)``, to be added to the outcome's
    reward and the KL penalty; 0 outside of the mask.

    Args:
        log_probability: Log-probabilities of the tokens under the preference-tuned model.
        reference: The same under the model that it was tuned from.
        mask: The response's tokens.
        scale: Factor of the clipped difference.
        bound: Where the difference is clipped (that it is the difference, not the product, that is
            clipped is our reading).

    Reference: Zhong et al. 2024, arXiv:2404.18922, "RTO"; values of its released script.

    Example:
        >>> tuned, reference = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.02, -3.0]])
        >>> rewards = implicit_rewards(tuned, reference, torch.tensor([[True, True]]))
        >>> [round(float(x), 5) for x in rewards[0]]
        [0.001, 0.0025]
    """
    difference = (log_probability - reference).detach().clamp(-bound, bound)
    return torch.where(mask, scale * difference, 0)
