"""The peer of our own making reads what the metrics read, and leaves the model as it was."""

import torch

from attnscope.probes import Measuring, Subject, capture
from benchmarks.capture import COLUMNS
from benchmarks.peers import blockwise_dense


def test_blocks_of_dense_rows_give_what_the_metrics_give():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
    ).eval()
    tokens = torch.randint(0, 50, (1, 300), generator=torch.Generator().manual_seed(1))
    theirs = blockwise_dense(model, tokens, columns=True)
    ours = capture(Subject(model), {"input_ids": tokens}, into=Measuring(*COLUMNS))
    assert set(theirs) == set(COLUMNS)
    for name, values in theirs.items():
        torch.testing.assert_close(
            values, ours[name].values, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name
        )
    assert set(blockwise_dense(model, tokens)) < set(COLUMNS)
    assert model.config._attn_implementation == "sdpa"
