"""`chair`: how many of the objects that captions mention are not in the picture."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnscope.metrics.errors import MetricError
from attnscope.metrics.object_mentions import (
    Synonyms,
    caption_words,
    known_objects,
    mentioned_objects,
    spelled,
)

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["CaptionScores", "chair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionScores:
    """What captions mention and what of it is there, caption by caption.

    Attributes:
        mentioned: The objects that each caption mentions, one entry for each mention.
        truths: The objects that are in each picture.
        words: The number of words of each caption.
    """

    mentioned: tuple[tuple[str, ...], ...]
    truths: tuple[frozenset[str], ...]
    words: tuple[int, ...]

    @property
    def hallucinated(self) -> tuple[tuple[str, ...], ...]:
        """Return the mentions of each caption whose object is not in the picture."""
        pairs = zip(self.mentioned, self.truths, strict=True)
        return tuple(tuple(name for name in said if name not in true) for said, true in pairs)

    @property
    def counts(self) -> Mapping[str, Tensor]:
        """Return what was counted in each caption: vectors by name, one entry per caption."""
        found = [
            len(set(said) & true) for said, true in zip(self.mentioned, self.truths, strict=True)
        ]
        return {
            "captions": torch.ones(len(self.words)),
            "words": torch.tensor(self.words),
            "mentions": torch.tensor([len(said) for said in self.mentioned]),
            "hallucinations": torch.tensor([len(names) for names in self.hallucinated]),
            "hallucinating": torch.tensor([bool(names) for names in self.hallucinated]),
            "objects": torch.tensor([len(true) for true in self.truths]),
            "found": torch.tensor(found),
        }

    def measures_of(self, totals: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the measures from sums of the counts; 0 / 0 is NaN."""
        chair_i = totals["hallucinations"] / totals["mentions"]
        recall = totals["found"] / totals["objects"]
        both = 1 - chair_i + recall
        return {
            "chair_s": totals["hallucinating"] / totals["captions"],
            "chair_i": chair_i,
            "recall": recall,
            "f1": torch.where(both == 0, 0.0, 2 * (1 - chair_i) * recall / both),
            "length": totals["words"] / totals["captions"],
        }

    @property
    def measures(self) -> dict[str, float]:
        """Return the measures of all captions, by name."""
        totals = {name: column.double().sum() for name, column in self.counts.items()}
        return {name: float(value) for name, value in self.measures_of(totals).items()}

    def to_pandas(self) -> "DataFrame":
        """Return a table with one row per caption: its counts, and what it made up."""
        import pandas

        columns = {name: column.int().numpy() for name, column in self.counts.items()}
        made_up = [", ".join(names) for names in self.hallucinated]
        table = pandas.DataFrame(columns | {"made_up": made_up}).drop(columns="captions")
        return table.rename_axis("caption")


def chair(
    captions: Sequence[str],
    truths: Sequence[Collection[str]],
    synonyms: Synonyms | None = None,
) -> CaptionScores:
    """Return the object hallucination of captions: CHAIR_S, CHAIR_I, recall, F1 and length.

    - `chair_s`: captions that mention an object that is not in the picture / captions.
    - `chair_i`: mentions of such objects / mentions of objects. An object named twice counts twice.
    - `recall`: different objects of the pictures that their captions mention / objects there.
    - `f1`: harmonic mean of `1 - chair_i` and `recall`.
    - `length`: words per caption.

    All but the length lie between 0 and 1; of the first two 0 is best. A caption without words, or
    without an object, hallucinates nothing and stays in the count of captions. `chair_i` is NaN
    where no caption mentions an object, `recall` where no picture holds one. An object outside the
    table is never found, so it is neither right nor wrong.

    Args:
        captions: One text per picture.
        truths: The objects in each picture, under names of the table.
        synonyms: The object that each name stands for, as `read_synonyms` gives them; by default
            the objects that some picture holds, each under its own name only.

    Raises:
        MetricError: Captions and truths differ in number, there are none, or a truth is not in
            the table.

    Reference: Rohrbach et al. 2018, arXiv:1809.02156, equations 1 and 2; repeated mentions and
        recall over all pictures together are those of the public scoring; `f1` is our reading.

    Example:
        >>> captions = ["A dog and a cat on a bench.", "A dog."]
        >>> scores = chair(captions, [{"dog", "bench"}, {"dog", "cat"}])
        >>> scores.hallucinated
        (('cat',), ())
        >>> {name: round(value, 4) for name, value in scores.measures.items()}
        {'chair_s': 0.5, 'chair_i': 0.25, 'recall': 0.75, 'f1': 0.75, 'length': 5.0}
    """
    if len(captions) != len(truths) or not captions:
        raise MetricError(
            f"chair needs the objects of each caption's picture; got {len(captions)} captions and "
            f"{len(truths)} sets of objects"
        )
    strings = [objects for objects in truths if isinstance(objects, str)]
    if strings:
        raise MetricError(f"the objects of a picture are a set of names; got {strings[0]!r}")
    table = synonyms
    if table is None:
        table = {spelled(name): name for objects in truths for name in objects}
    return CaptionScores(
        mentioned=tuple(mentioned_objects(caption, table) for caption in captions),
        truths=tuple(known_objects(objects, synonyms) for objects in truths),
        words=tuple(len(caption_words(caption)) for caption in captions),
    )
