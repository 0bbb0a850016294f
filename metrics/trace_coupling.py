"""`coupling_of`: the couplings of the rhythm in a captured response, as the paper takes them."""

import torch

from attnscope.metrics.coupling import RhythmCoupling, rhythm_coupling
from attnscope.metrics.errors import MetricError
from attnscope.metrics.measuring import readings_of
from attnscope.traces import Trace

__all__ = ["coupling_of"]


def coupling_of(
    trace: Trace, *, window: int = 10, quantile: float = 0.3, proximity: int = 4, heads: int = 20
) -> RhythmCoupling:
    """Return how WAAD peaks, FAI peaks, receiver heads and entropy go together in a response.

    FAI reaches from each token to the end of the response, as in the paper's analysis. Without a
    response segment all tokens are taken.

    Args:
        trace: One model's run, with token entropies.
        window: Distance at which WAAD clips.
        quantile: Share of the heads in the local group, and in the global group.
        proximity: Least distance in sentences that counts for receiver heads.
        heads: Number of receiver heads.

    Raises:
        MetricError: The trace holds no entropies, or its attention is no distribution along one
            sequence.

    Reference: Li et al. 2025, arXiv:2510.13554, table 2 and appendix A.1.
    """
    if trace.entropies is None:
        raise MetricError("coupling_of needs the token entropies; this trace was captured without")
    horizon = {"near": 0, "far": None}
    readings = readings_of(
        trace.observe(),
        ["local_waad", "global_fai", "receiver_fai"],
        {
            "local_waad": {"window": window, "quantile": quantile},
            "global_fai": {**horizon, "quantile": quantile},
            "receiver_fai": {**horizon, "proximity": proximity, "heads": heads},
        },
    )
    segments = trace.segments
    response = segments["response"] if "response" in segments else range(len(trace.tokens))
    positions = torch.tensor(list(response))
    return rhythm_coupling(
        *(readings[name].values[positions] for name in readings), entropy=trace.entropies[positions]
    )
