import pytest


def test_it_tells_model_tokens_and_layers(run, trace_file, model_folder):
    result = run("show", trace_file)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    flat = " ".join(" ".join(line) for line in lines)
    assert "Qwen3ForCausalLM" in flat
    assert "float32" in flat
    assert "log-probabilities, entropies" in flat
    assert ["prompt", "0", "2", "3", "zero", "one", "two"] in lines
    assert [
        "response",
        "3",
        "9",
        "7",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "one",
        "two",
    ] in lines
    stack = next(line for line in lines if line[:1] == ["model.layers.self_attn"])
    assert stack[1:6] == ["0-2", "4", "10", "x", "10"]
    assert stack[6:] == ["SoftmaxAttention,", "causal", "none"]


def test_it_reads_no_attention(run, trace_file, tmp_path):
    content = bytearray(trace_file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + len(content[header:]) // 2] ^= 1  # damages a factor
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    assert run("show", damaged).exit_code == 0


@pytest.mark.parametrize("command", ["show", "measure", "report"])
def test_what_is_no_trace_is_one_clear_line(run, trace_file, tmp_path, command):
    content = trace_file.read_bytes()
    cut, noise = tmp_path / "cut.safetensors", tmp_path / "noise.safetensors"
    cut.write_bytes(content[:-100])
    noise.write_bytes(b"\x08" + b"\0" * 30)
    missing = tmp_path / "missing.safetensors"
    more = (
        ["waad"]
        if command == "measure"
        else ["-o", tmp_path / "x.html"]
        if command == "report"
        else []
    )
    for path, reason in ((cut, "is cut off"), (noise, "not a trace"), (missing, "no such file")):
        result = run(command, path, *more)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {path}: ")
        assert reason in result.stderr
        assert result.stderr.count("\n") == 1
        assert not result.stdout
    assert not (tmp_path / "x.html").exists()
