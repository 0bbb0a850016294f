"""Smaller trace files, from the command line."""

import pytest

from attnscope.metrics import measure
from attnscope.traces import open_trace


def test_the_smaller_file_says_what_it_lost(run, trace_file, tmp_path):
    file = tmp_path / "small.safetensors"
    result = run(
        "reduce", trace_file, "-o", file, "--top-k", 3, "--layers", "0,2", "--dtype", "float16",
        "--readings", "waad, fai",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "all but the 3 largest weights of each row" in text
    assert "lost: layers 1 of model.layers.self_attn" in text
    assert "precision: float16 factors" in text
    assert "kept: waad" in text
    small = open_trace(file)
    assert [site.layer for site in small.sites] == [0, 2]
    whole = measure(open_trace(trace_file).select(layers=[0, 2]), "waad")
    assert measure(small, "waad").values.equal(whole.values)
    shown = run("measure", file, "head_span")
    assert shown.exit_code == 2
    assert "needs whole rows" in shown.stderr
    assert run("measure", file, "waad").exit_code == 0
    assert run("reduce", trace_file, "-o", file, "--top-k", 3).exit_code == 2


def test_readings_only(run, trace_file, tmp_path):
    file = tmp_path / "readings.safetensors"
    words = ("--readings", "waad", "--readings-only")
    assert run("reduce", trace_file, "-o", file, *words).exit_code == 0
    assert open_trace(file).sites == ()
    assert "reading waad" in run("show", file).stdout
    assert run("measure", file, "waad").exit_code == 0
    refused = run("measure", file, "head_span")
    assert refused.exit_code == 2
    assert "keeps no attention" in refused.stderr


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ((), "nothing to reduce by"),
        (("--readings-only",), "would be empty"),
        (("--heads", "9"), "has 4, from 0"),
        (("--layers", "x"), "is no layer"),
    ],
)
def test_what_cannot_be_is_one_line(run, trace_file, tmp_path, words, fault):
    result = run("reduce", trace_file, "-o", tmp_path / "x.safetensors", *words)
    assert result.exit_code == 2
    assert fault in result.stderr
    assert not (tmp_path / "x.safetensors").exists()
