import re

import pandas
import pytest
import torch

from attnscope.metrics import METRICS, measure
from attnscope.traces import open_trace


def rows(text):
    """Return the rows of a table that begin with a number, as words."""
    return [line.split() for line in text.splitlines() if re.match(r" *\d+ ", line)]


def test_a_head_level_reading_is_a_table_of_layers_and_heads(run, trace_file):
    result = run("measure", trace_file, "head_span")
    assert result.exit_code == 0, result.output
    shown = [[float(cell) for cell in row] for row in rows(result.stdout)]
    values = measure(open_trace(trace_file), "head_span").values
    assert [row[0] for row in shown] == [0, 1, 2]
    assert torch.allclose(torch.tensor([row[1:] for row in shown]), values.float(), atol=5e-4)
    assert f"Head span [{METRICS['head_span'].unit}]" in result.stdout
    assert "bounds: 0 or more" in result.stdout
    assert "arXiv:2510.13554" in result.stdout


def test_a_token_level_reading_is_the_mean_over_heads_beside_its_tokens(run, trace_file):
    result = run("measure", trace_file, "waad")
    trace = open_trace(trace_file)
    values = measure(trace, "waad").values.mean((0, 1))
    shown = rows(result.stdout)
    assert "mean over 12 heads" in result.stdout
    assert [row[1] for row in shown] == list(trace.tokens)
    assert [float(row[2]) for row in shown] == pytest.approx(values.tolist(), abs=5e-4)


def test_one_head_can_be_chosen(run, trace_file):
    result = run("measure", trace_file, "waad", "--head", "L1H2")
    values = measure(open_trace(trace_file), "waad").values[1, 2]
    assert "layer 1, head 2" in result.stdout
    assert [float(row[2]) for row in rows(result.stdout)] == pytest.approx(
        values.tolist(), abs=5e-4
    )


def test_the_highest_values_can_be_chosen(run, trace_file):
    result = run("measure", trace_file, "head_span", "--top", 3)
    reading = measure(open_trace(trace_file), "head_span")
    best = reading.values.flatten().topk(3)
    shown = rows(result.stdout)
    heads = [divmod(int(index), 4) for index in best.indices]
    assert [(int(row[0]), int(row[1])) for row in shown] == heads
    assert "the 3 highest of 12 values" in result.stdout


def test_options_reach_the_metrics_that_have_them(run, trace_file):
    result = run("measure", trace_file, "waad", "head_span", "--option", "window=2")
    assert result.exit_code == 0, result.output
    assert "bounds: 0 to 2; window 2" in result.stdout
    values = measure(open_trace(trace_file), "waad", window=2).values.mean((0, 1))
    shown = [float(row[2]) for row in rows(result.stdout)[:10]]
    assert shown == pytest.approx(values.tolist(), abs=5e-4)


def test_tables_hold_every_value_exactly(run, trace_file, tmp_path):
    csv, parquet = tmp_path / "new" / "out.csv", tmp_path / "new" / "out.parquet"
    result = run("measure", trace_file, "fai", "head_span", "--csv", csv, "--parquet", parquet)
    assert result.exit_code == 0, result.output
    trace = open_trace(trace_file)
    for table in (pandas.read_csv(csv), pandas.read_parquet(parquet)):
        assert list(table.columns) == ["metric", "layer", "head", "key", "key_text", "value"]
        assert table["key_text"].dropna().tolist()[:10] == list(trace.tokens)
        for name in ("fai", "head_span"):
            values = measure(trace, name).values.flatten()
            found = torch.tensor(list(table["value"][table["metric"] == name]), dtype=torch.float64)
            assert torch.equal(found.to(values.dtype).nan_to_num(-1), values.nan_to_num(-1))
    assert csv.read_text().splitlines()[1].startswith("fai,0,0,0,zero,")


def test_existing_tables_stay_unless_forced(run, trace_file, tmp_path):
    csv = tmp_path / "out.csv"
    csv.write_text("mine")
    result = run("measure", trace_file, "head_span", "--csv", csv)
    assert result.exit_code == 2
    assert "exists; --force overwrites it" in result.stderr
    assert csv.read_text() == "mine"
    assert run("measure", trace_file, "head_span", "--csv", csv, "--force").exit_code == 0
    assert csv.read_text().startswith("metric,layer,head,value")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("speed",), "error: no metric 'speed'; the catalog has ["),
        (("waad", "--option", "speed=3"), "error: no option speed; these metrics have ["),
        (("waad", "--option", "window"), "error: 'window' is no option; write name=value"),
        (
            ("waad", "--option", "window=wide"),
            "error: option window of waad cannot be 'wide'; it is 10",
        ),
        (("waad", "--option", "renormalize=3"), "error: option renormalize of waad cannot be 3"),
        (("waad", "--option", "window=0"), "error: "),
        (("fai", "--option", "queries=[99]"), "error: "),
        (("waad", "--head", "5"), "error: '5' is no head; write layer and head as in L5H1"),
        (("waad", "--head", "L9H0"), "error: waad has no layer 9; it has [0, 1, 2]"),
        (("local_waad", "--head", "L0H0"), "error: local_waad has no heads to show one of"),
        (("waad", "--stack", "vision"), "error: no stack 'vision'; this trace has ["),
        (("median_activation",), "error: median_activation at model.layers.0.self_attn needs"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(run, trace_file, words, message):
    result = run("measure", trace_file, *words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_a_damaged_tensor_is_told_when_it_is_read(run, trace_file, tmp_path):
    content = bytearray(trace_file.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    result = run("measure", damaged, "waad", "--csv", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert "is damaged: tensor" in result.stderr
    assert not (tmp_path / "out.csv").exists()
