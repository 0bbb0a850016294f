"""Tiny random models, and what their attention gives under an intervention."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from attnscope.attention import AttentionOperator
from attnscope.interventions import intervening
from attnscope.probes import Encoded, Subject
from attnscope.probes.hearing import hearing
from benchmarks.tiny_models import tiny


@dataclass(frozen=True)
class Heard:
    """One attention call of the speaking stack."""

    attention: AttentionOperator
    value: Tensor
    output: Tensor


@cache
def _model(name: str):
    own_softmax = name in ("gpt-oss", "Gemma 2", "BLOOM")
    model, inputs = tiny(name, "eager" if own_softmax else "sdpa")
    inputs.pop("decoder_input_ids", None)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
    return model, inputs


@pytest.fixture
def made() -> Callable[[str], tuple[Subject, Encoded]]:
    """A subject and its input, by the name of the family."""

    def make(name: str) -> tuple[Subject, Encoded]:
        model, inputs = _model(name)
        subject = Subject(model)
        return subject, subject.encode(inputs)

    return make


@pytest.fixture
def heard() -> Callable[..., list[Heard]]:
    """What the speaking stack's calls give in one forward pass over an input."""

    def run(subject: Subject, encoded: Encoded, *interventions, prompt=None) -> list[Heard]:
        found: list[Heard] = []

        def listener(call):
            if call.attention.causal:
                found.append(Heard(call.attention, call.value, call.output))
            return call.output

        with ExitStack() as stack, torch.no_grad():
            stack.enter_context(intervening(subject, *interventions, encoded=prompt or encoded))
            stack.enter_context(hearing(subject.model, listener, lambda module: ()))
            subject.model(**encoded.model_inputs, use_cache=False)
        return found

    return run


@pytest.fixture
def answered() -> Callable[..., tuple[Tensor, Tensor]]:
    """The answer under an intervention: token ids, and the logits of each step."""

    def run(subject, encoded, *interventions, **options):
        given = dict(options.pop("inputs", None) or encoded.model_inputs)
        with intervening(subject, *interventions, encoded=encoded):
            produced = subject.model.generate(
                **given,
                **({"max_new_tokens": 5, "do_sample": False} | options),
                return_dict_in_generate=True,
                output_logits=True,
            )
        return produced.sequences, torch.stack(produced.logits, dim=1)

    return run
