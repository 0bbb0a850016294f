"""A trace file against its model, from the command line."""

from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM

from attnscope.attention import SoftmaxAttention
from attnscope.traces import open_trace


def test_a_trace_passes_against_its_model(run, trace_file, model_folder):
    result = run("verify", trace_file, "--model", model_folder, "--rows", "4", "--layers", "0,-1")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["ok", "layer", "order", "the", "trace"] in lines
    assert any(
        line[:3] == ["ok", "weights", "of"] or line[:2] == ["ok", "weights"] for line in lines
    )
    assert "passed of" in result.stdout
    assert "layers.1." not in result.stdout


def test_the_model_that_the_trace_names_is_the_default(run, trace_file, model_folder, tmp_path):
    trace = open_trace(trace_file)
    named = replace(trace, provenance=replace(trace.provenance, model=str(model_folder)))
    named.save(tmp_path / "named.safetensors")
    assert run("verify", tmp_path / "named.safetensors", "--rows", "2").exit_code == 0
    nameless = replace(trace, provenance=replace(trace.provenance, model=""))
    nameless.save(tmp_path / "nameless.safetensors")
    result = run("verify", tmp_path / "nameless.safetensors")
    assert result.exit_code == 2
    assert "names no model; give --model" in result.stderr


def test_another_checkpoint_and_another_scale_fail(run, trace_file, model_folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    model.save_pretrained(tmp_path / "stale")
    result = run("verify", trace_file, "--model", tmp_path / "stale", "--rows", "2")
    assert result.exit_code == 1
    assert "another checkpoint" in " ".join(result.stdout.split())
    trace = open_trace(trace_file)
    seen = trace.observations[0]
    whole = seen.attention
    wrong = SoftmaxAttention(whole.query, whole.key, whole.scale * 2, mask=whole.mask)
    first = replace(seen, attention=wrong)
    planted = replace(trace, observations=[first, *trace.observations[1:]])
    planted.save(tmp_path / "planted.safetensors")
    result = run("verify", tmp_path / "planted.safetensors", "--model", model_folder)
    assert result.exit_code == 1
    assert "FAILED" in result.stdout


def test_a_capture_proves_itself_and_show_tells(run, model_folder, tmp_path):
    file = tmp_path / "t.safetensors"
    result = run("capture", model_folder, "--text", "zero one two", "--verify", "-o", file)
    assert result.exit_code == 0, result.output
    shown = " ".join(run("show", file).stdout.split())
    assert "card: model.layers.self_attn: SoftmaxAttention: weights after softmax" in shown
    assert "verified: passed of" in shown
