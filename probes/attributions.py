"""`attribute`: how much each token of the input did for one target, by one of several methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from attnscope.metrics import Reading
from attnscope.probes.attention_credit import (
    attention_credit,
    gradient_rollout_credit,
    relevance_credit,
    rollout_credit,
    saliency_credit,
)
from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.forward import provenance
from attnscope.probes.input_credit import feature_ablation, integrated_gradients, occlusion
from attnscope.probes.presence import TokenPresence
from attnscope.probes.subject import Subject
from attnscope.probes.targets import Target
from attnscope.traces import Provenance, StoredReading, TokenSequence, Trace, TraceError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "ATTRIBUTIONS",
    "Attribution",
    "attribute",
    "compare_attributions",
    "with_attributions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The credit that a method gives each token of the input for one target.

    Attributes:
        method: Its name.
        reading: The credit, `(token,)`, NaN where the method can say nothing of a position; its
            options say how it was found.
        sequence: The tokens.
        target: The target, with its token fixed.
        provenance: Model and versions, and what the target is.
    """

    method: str
    reading: Reading
    sequence: TokenSequence
    target: Target
    provenance: Provenance

    @property
    def values(self) -> Float[Tensor, " token"]:
        """Return the credit of each token."""
        return self.reading.values


Method = Callable[..., Tensor]

_PAPERS = {
    "integrated_gradients": "Sundararajan et al. 2017, arXiv:1703.01365",
    "feature_ablation": "our reading",
    "occlusion": "Zeiler and Fergus 2014, arXiv:1311.2901",
    "attention": "our own measure",
    "rollout": "Abnar and Zuidema 2020, arXiv:2005.00928",
    "saliency": "our reading",
    "relevance": "Chefer et al. 2021, arXiv:2103.15679",
    "gradient_rollout": "our reading",
}

ATTRIBUTIONS: Mapping[str, Method] = MappingProxyType(
    {
        "integrated_gradients": integrated_gradients,
        "feature_ablation": feature_ablation,
        "occlusion": occlusion,
        "attention": attention_credit,
        "rollout": rollout_credit,
        "saliency": saliency_credit,
        "relevance": relevance_credit,
        "gradient_rollout": gradient_rollout_credit,
    }
)
"""The methods by name: functions of a `TokenPresence` and of their own options."""


def attribute(
    subject: Subject,
    encoded: Encoded,
    *,
    target: str | Target = "logit",
    method: str = "integrated_gradients",
    sequence: str | None = None,
    baseline: int | None = None,
    **options: object,
) -> Attribution:
    """Return the credit of each token of the input for one target.

    Methods that change the input (`integrated_gradients`, `feature_ablation`, `occlusion`) tell how
    the target moves; those that read attention (`attention`, `rollout`, `saliency`, `relevance`,
    `gradient_rollout`) tell what the query of the target draws on. Signs and scales differ, ranks
    can be compared: `compare_attributions`.

    Args:
        subject: The model.
        encoded: The input, from `subject.encode` or `subject.generate`.
        target: `"logit"`, `"loss"` or a target; the logit of one token is what methods agree on.
        method: A name of `ATTRIBUTIONS`.
        sequence: The tokens that get credit; by default those that the model reads.
        baseline: The token that stands for an absent one; None for the embedding 0. Patches of a
            picture become its mean color.
        options: The method's own.

    Raises:
        CaptureError: The method or the sequence is unknown, or the method cannot be asked of this
            model.

    Reference: the methods' own; `captum` is needed by those that change the input.

    Example:
        >>> from torch import nn
        >>> from attnscope.probes import Logit
        >>> class Sum(nn.Module):  # each position's logit is the sum of the embeddings so far
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding = nn.Embedding.from_pretrained(torch.tensor([[1.0], [2.0]]))
        ...     def get_input_embeddings(self):
        ...         return self.embedding
        ...     def forward(self, input_ids):
        ...         return self.embedding(input_ids).cumsum(1)
        >>> subject = Subject(Sum())
        >>> encoded = subject.encode({"input_ids": torch.tensor([[1, 0, 1]])})
        >>> attribute(subject, encoded, target=Logit(0), method="occlusion").values.tolist()
        [2.0, 1.0, 2.0]
    """
    presence = TokenPresence(subject, encoded, target=target, sequence=sequence, baseline=baseline)
    return attribution_of(presence, method, options)


def attribution_of(
    presence: TokenPresence, method: str, options: Mapping[str, object]
) -> Attribution:
    """Return what a method says of an input, target and baseline that are held together.

    Raises:
        CaptureError: There is no such method.
    """
    if method not in ATTRIBUTIONS:
        raise CaptureError(f"no attribution {method!r}; there are {sorted(ATTRIBUTIONS)}")
    values = ATTRIBUTIONS[method](presence, **options).float().cpu()
    source = provenance(presence.subject, presence.target, ())
    known = {
        "target": presence.target.name,
        "sequence": presence.sequence.name,
        "baseline": presence.baseline,
        "model": source.model,
    }
    return Attribution(
        method=method,
        reading=Reading(
            name=method,
            title=method.replace("_", " ").capitalize(),
            values=values.masked_fill(~presence.changeable, torch.nan),
            axes=("token",),
            paper=_PAPERS[method],
            coordinates={"token": presence.sequence.tokens},
            options=known | dict(options),
        ),
        sequence=presence.sequence,
        target=presence.target,
        provenance=source,
    )


def compare_attributions(*attributions: Attribution) -> "DataFrame":
    """Return the rank correlation of each two attributions of one target, a table by method.

    1 where two methods put the tokens in one order, -1 in the opposite one; NaN where one gives
    all tokens the same. Positions of which either says nothing are left out.

    Raises:
        CaptureError: They are not of the same tokens and target.
    """
    import pandas

    kinds = {(one.sequence.name, one.sequence.tokens, one.target.name) for one in attributions}
    if len(kinds) != 1:
        raise CaptureError(
            "attributions are compared on the same tokens and the same target; got "
            f"{[(one.method, one.sequence.name, one.target.name) for one in attributions]}"
        )
    credit = {one.method: one.values.numpy() for one in attributions}
    return pandas.DataFrame(credit).dropna().rank().corr()


def with_attributions(trace: Trace, *attributions: Attribution) -> Trace:
    """Return a trace that also holds what methods say of its tokens, and saves it.

    Each is one of `trace.readings`, by its method and target; its options tell sequence, baseline
    and model.

    Raises:
        TraceError: An attribution is of other tokens than the trace's.
    """
    added = {}
    for one in attributions:
        known = trace.sequences.get(one.sequence.name)
        if known is None or known.tokens != one.sequence.tokens:
            raise TraceError(
                f"{one.method} is of a sequence {one.sequence.name!r} with {len(one.sequence)} "
                f"tokens that this trace does not have; it has {list(trace.sequences)}"
            )
        added[f"{one.method} of {one.target.name}"] = StoredReading.of(one.reading)
    return replace(trace, readings={**trace.readings, **added})
