"""`token_advantages`: the whole of token credit in one call, for any training loop."""

from jaxtyping import Float
from torch import Tensor, nn

from attnscope.credit.extra_forward import read_responses
from attnscope.credit.head_calibration import HeadCalibration
from attnscope.credit.reading_plan import plan_for
from attnscope.credit.rule import Rule
from attnscope.credit.token_batch import TokenBatch

__all__ = ["token_advantages"]


def token_advantages(
    policy: nn.Module,
    batch: TokenBatch,
    advantage: Float[Tensor, " batch"] | Float[Tensor, "batch response"],
    rule: Rule,
    *,
    calibration: HeadCalibration | None = None,
    micro_batch: int = 8,
) -> Float[Tensor, "batch response"]:
    """Return the advantage of each response token, 0 outside of the mask.

    One forward pass of the policy over the finished responses, before its update. A packed batch's
    advantages go back to their places with `batch.layout.to_tokens`.

    Args:
        policy: The model that wrote the responses, a model of transformers.
        batch: `completion_batch(...)` or `packed_batch(...)`.
        advantage: Advantages of the responses, or of their tokens.
        rule: The credit rule.
        calibration: The heads of each group; by default they are ranked by this batch.
        micro_batch: Sequences per forward pass.

    Raises:
        CreditError: The policy's attention cannot be read, or the rule lacks a reading.
    """
    plan = plan_for(rule, calibration)
    readings = read_responses(policy, batch, plan, micro_batch=micro_batch, advantage=advantage)
    return rule.assign(readings).apply(advantage)
