"""Training: it learns, stops and resumes without a trace, and writes weights that load."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from attnscope.models.subjects.countdown import load_subject
from attnscope.models.subjects.countdown.batches import IGNORED, stream_batches
from attnscope.models.subjects.countdown.tokenizer import build_tokenizer
from attnscope.models.subjects.countdown.train import (
    Settings,
    export_weights,
    held_out_loss,
    resume_run,
    save_checkpoint,
    start_run,
    train,
)
from attnscope.models.subjects.optimizers import schedule_factor

TINY = Settings(
    steps=12,
    tokens_per_batch=512,
    pool_size=40,
    layers=2,
    hidden=32,
    heads=2,
    half_precision=False,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep tiny steps from waiting for threads that others need."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_dozen_steps_lower_the_loss() -> None:
    run = start_run(replace(TINY, steps=40))
    losses = list(train(run, replace(TINY, steps=40)))
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert 0 < held_out_loss(run.model, TINY) < losses[0]


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = start_run(TINY)
    list(train(whole, TINY))
    broken = start_run(TINY)
    list(islice(train(broken, TINY), 5))
    save_checkpoint(broken, tmp_path / "state.pt")
    resumed = resume_run(TINY, tmp_path / "state.pt")
    assert resumed.step == 5
    list(train(resumed, TINY))
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight)


def test_exported_weights_load_and_agree_up_to_bfloat16(tmp_path: Path) -> None:
    run = start_run(TINY)
    export_weights(run.model, tmp_path / "weights")
    model, tokenizer = load_subject(tmp_path / "weights")
    tokens = torch.tensor([tokenizer.encode("<bos> <user> numbers 3 7 8 target 29 <assistant>")])
    with torch.no_grad():
        expected, found = run.model(tokens).logits, model(tokens).logits
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_labels_count_the_response_alone() -> None:
    tokenizer = build_tokenizer()
    batch = next(stream_batches(0, split="train", tokens_per_batch=512, pool_size=20))
    for tokens, labels in zip(batch.tokens, batch.labels, strict=True):
        words = tokenizer.convert_ids_to_tokens(tokens.tolist())
        counted = [word for word, label in zip(words, labels, strict=True) if label != IGNORED]
        assert counted == words[words.index("<assistant>") + 1 : words.index("<eos>") + 1]


def test_batches_go_on_from_the_position_that_a_batch_names() -> None:
    streamed = stream_batches(0, split="train", tokens_per_batch=2048, pool_size=40)
    batches = list(islice(streamed, 6))
    pool, index = batches[4].pool, batches[4].index
    again = next(
        stream_batches(
            0, split="train", tokens_per_batch=2048, pool_size=40, pool=pool, index=index
        )
    )
    assert torch.equal(again.tokens, batches[5].tokens)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.02), (49, 1), (600, 1), (800, 0.5), (1000, 0)])
def test_the_learning_rate_rises_stays_and_falls(step: int, factor: float) -> None:
    assert schedule_factor(step, 1000) == pytest.approx(factor)
