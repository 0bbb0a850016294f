"""`RejectionDecoding`: the loop of saliency-guided rejection sampling, for `generate`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from attnscope.interventions.candidate_gradients import CandidateGradients
from attnscope.interventions.errors import InterventionError
from attnscope.interventions.rejection_step import (
    CandidateDrawing,
    RejectionStep,
    rejection_step,
)
from attnscope.metrics import saliency_threshold

__all__ = ["RejectionDecoding"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RejectionDecoding:
    """A decoding method for `generate(custom_generate=...)`.

    Attributes:
        gradients: What scores a candidate.
        alpha: Share of the recent mean score that a candidate has to reach.
        window: How far back the recent scores reach.
        candidates: How many of the likeliest tokens may be drawn.
        tries: How many are drawn at most.
        note: Takes each step.
    """

    gradients: CandidateGradients
    alpha: float
    window: int
    candidates: int
    tries: int
    note: Callable[[RejectionStep], None]

    def __call__(
        self,
        model: Any,
        input_ids: Int[Tensor, "row token"],
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        """Return the prompts with their answers, as transformers' own decoding methods do.

        Raises:
            InterventionError: Beams are asked for.
        """
        if (generation_config.num_beams or 1) > 1:
            raise InterventionError(
                "candidates are rejected one at a time; generate with num_beams=1, not "
                f"{generation_config.num_beams}"
            )
        padding, sample = generation_config._pad_token_tensor, generation_config.do_sample
        alive = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        history: list[list[float]] = [[] for _ in input_ids]
        output = model._prefill(input_ids, generation_config, model_kwargs)
        while True:
            model_kwargs = model._update_model_kwargs_for_generation(output, model_kwargs)
            with torch.enable_grad():
                logits = output.logits[:, -1].float()
            likely = logits_processor(input_ids, logits.detach().clone())
            drawing = CandidateDrawing(likely, self.candidates, sample)
            step = self._step(logits, drawing, alive, history)
            self.gradients.release(model_kwargs.get("past_key_values"))
            token = step.token if padding is None else step.token.where(alive, padding)
            input_ids = torch.cat([input_ids, token[:, None]], -1)
            alive = alive & ~stopping_criteria(input_ids, None)
            if not bool(alive.any()):
                return _result(input_ids, model_kwargs, generation_config)
            with self.gradients.hearing():
                output = _forward(model, input_ids, model_kwargs)

    def _step(
        self, logits: Tensor, drawing: CandidateDrawing, alive: Tensor, history: list[list[float]]
    ) -> RejectionStep:
        """Choose a token for each row that still speaks, and keep its score."""
        thresholds = [saliency_threshold(past, self.alpha, self.window) for past in history]
        threshold = torch.tensor(thresholds, device=logits.device)
        step = rejection_step(
            lambda tokens: self.gradients.scores(logits, tokens),
            drawing,
            threshold,
            alive,
            self.tries,
        )
        for row in alive.nonzero().flatten().tolist():
            history[row].append(float(step.score[row]))
        self.note(step)
        return step


def _forward(model: Any, input_ids: Tensor, model_kwargs: dict[str, Any]) -> Any:
    length = 1 if model_kwargs["use_cache"] else None
    given = model.prepare_inputs_for_generation(
        input_ids, next_sequence_length=length, **model_kwargs
    )
    return model(**given, return_dict=True)


def _result(ids: Tensor, model_kwargs: dict[str, Any], config: Any) -> Any:
    if not config.return_dict_in_generate:
        return ids
    from transformers.generation.utils import GenerateDecoderOnlyOutput

    return GenerateDecoderOnlyOutput(
        sequences=ids,  # type: ignore[arg-type]
        past_key_values=model_kwargs.get("past_key_values"),
    )
