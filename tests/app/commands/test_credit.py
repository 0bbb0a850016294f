import json
import re

import pandas
import pytest
import torch

from attnscope.credit import REV, RULES, Coupled, calibrate_traces, plan_for, trace_readings
from attnscope.traces import open_trace

SMALL = ("--near", 1, "--far", 3)
PRESET = REV.changed(near=1, far=3)


@pytest.fixture(scope="module")
def traces(run, model_folder, tmp_path_factory):
    """Two responses of the tiny model, of seven and of four tokens."""
    folder = tmp_path_factory.mktemp("credit")
    answers = ("three four five six seven one two", "seven <user> one two")
    for name, answer in zip(("a", "b"), answers, strict=True):
        words = ("--text", "zero one two", "--response", answer)
        assert (
            run("capture", model_folder, *words, "-o", folder / f"{name}.safetensors").exit_code
            == 0
        )
    return folder / "a.safetensors", folder / "b.safetensors"


def weights_of(paths, rule):
    opened = [open_trace(path) for path in paths]
    readings = trace_readings(opened, plan_for(rule))
    return rule.assign(readings).weights[readings.mask].tolist()


def test_files_hold_the_weights_of_the_library(run, traces, tmp_path):
    table, record = tmp_path / "new" / "credit.csv", tmp_path / "credit.json"
    result = run("credit", *traces, *SMALL, "--csv", table, "--json", record)
    assert result.exit_code == 0, result.output
    rule = Coupled(preset=PRESET)
    expected = weights_of(traces, rule)
    assert len(expected) == 11
    assert len(set(expected)) > 1
    frame = pandas.read_csv(table)
    assert list(frame) == ["trace", "position", "token", "weight", "role", "waad", "fai"]
    assert frame.weight.tolist() == expected
    assert frame.position.tolist() == [*range(3, 10), *range(3, 7)]
    assert frame.trace.nunique() == 2
    content = json.loads(record.read_text())
    assert [w for one in content["responses"] for w in one["weights"]] == expected
    assert "horizon 1 to 3" in content["settings"]
    heads = calibrate_traces([open_trace(path) for path in traces], PRESET)
    named = re.findall(r"L(\d+)H(\d+)", content["local heads"])
    places = [(heads.layers[row], head) for row, head in heads.local_heads.nonzero().tolist()]
    assert [tuple(map(int, pair)) for pair in named] == places
    assert content["responses"][0]["fai"][-1] is None  # no later token reads the last one


def test_the_screen_shows_text_roles_and_the_heaviest_tokens(run, traces):
    result = run("credit", *traces, *SMALL, "--top", 3)
    assert result.exit_code == 0, result.output
    assert "Credit by coupled" in result.stdout
    assert "arXiv:2510.13554" in result.stdout
    assert "own row" in result.stdout
    assert "the 3 heaviest of 7 tokens" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if re.match(r" +\d+ +\w", line)]
    ranked = sorted(weights_of(traces, Coupled(preset=PRESET))[:7])
    assert sorted(float(row[2]) for row in rows[:3]) == ranked[-3:]


@pytest.mark.parametrize("name", sorted(set(RULES) - {"redistributed", "receiver"}))
def test_every_rule_of_the_catalog_can_be_asked_for(run, traces, name):
    result = run("credit", *traces, "--rule", name, "--advantage", 1.0)
    assert result.exit_code == 0, result.output
    assert f"Credit by {name}" in result.stdout


def test_settings_go_to_the_rule_or_its_preset(run, traces, tmp_path):
    path = tmp_path / "credit.csv"
    words = ("--rule", "global", "--preset", "v1", "--advantage", 1, "--advantage", -1)
    numbers = ("--share", 0.5, "--amplification", 3, "--layers", "-2", "--option", "quantile=0.25")
    result = run("credit", *traces, *words, *numbers, *SMALL, "--csv", path)
    assert result.exit_code == 0, result.output
    assert "layers: 1" in result.stdout
    assert "nonnegative advantages" in result.stdout
    frame = pandas.read_csv(path)
    assert sorted(set(frame.weight[:7])) == [1.0, 3.0]
    assert set(frame.weight[7:]) == {1.0}
    assert frame.advantage.tolist() == [*frame.weight[:7], *([-1.0] * 4)]
    result = run(
        "credit", *traces, "--rule", "uniform", "--option", "factor=2", "--csv", path, "--force"
    )
    assert result.exit_code == 0, result.output
    assert set(pandas.read_csv(path).weight) == {2.0}


def test_rows_decide_by_which_row_a_token_is_judged(run, traces, tmp_path):
    found = []
    for rows in ("own", "emitting"):
        path = tmp_path / f"{rows}.csv"
        assert (
            run("credit", *traces, "--rule", "local", "--rows", rows, "--csv", path).exit_code == 0
        )
        found.append(pandas.read_csv(path))
    own, emitting = found
    assert own.waad[0] == pytest.approx(emitting.waad[1])
    assert own.weight.tolist() != emitting.weight.tolist()


def test_a_calibration_names_the_heads(run, traces, tmp_path):
    heads = calibrate_traces([open_trace(traces[0])], REV.changed(layers=(0,)))
    named = heads.with_receivers(torch.arange(4.0)[None], count=1)
    named.save(tmp_path / "heads.json")
    words = ("--rule", "receiver", "--calibration", tmp_path / "heads.json", *SMALL)
    result = run("credit", *traces, *words)
    assert result.exit_code == 0, result.output
    assert "receiver heads: L0H3" in result.stdout
    result = run("credit", *traces, *words, "--layers", "0")
    assert "the calibration names the layers" in result.stderr


def test_a_page_is_drawn_without_scripts_and_with_every_token_escaped(run, traces, tmp_path):
    page = tmp_path / "page.html"
    result = run("credit", *traces, *SMALL, "--out", page)
    assert result.exit_code == 0, result.output
    assert str(page) in result.stdout.split("written:")[1]
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert "<user>" not in text
    assert "&lt;user&gt;" in text
    assert text.count("Weight of each token") == 2
    assert "introductory" in text
    again = run("credit", *traces, "--out", page)
    assert again.exit_code == 2
    assert again.stderr == f"error: {page} exists; --force overwrites it\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--rule", "nope"), "no credit rule 'nope'; the catalog has ['bottom_coupled'"),
        (("--rule", "redistributed"), "a reward model, of which a policy's trace knows nothing"),
        (("--rule", "receiver"), "give a calibration that names them"),
        (("--rule", "uniform", "--share", "0.2"), "has no share; its numbers are ['factor']"),
        (("--rule", "uniform", "--preset", "v1"), "Uniform has no preset"),
        (("--preset", "v1"), "looks at the sign of the advantage (preset v1"),
        (("--rule", "entropy_shaped"), "looks at the sign of the advantage; give --advantage"),
        (("--layers", "9"), "no layer 9; the traces hold [0, 1, 2]"),
        (("--layers", "-4"), "no layer -4"),
        (("--option", "back_share"), "write name=number"),
        (("--option", "look_back=1.5"), "look_back is a whole number, as 3, not 1.5"),
        (("--option", "window=true"), "write name=number"),
        (("--near", "5", "--far", "2"), "horizon runs from 5 to 2"),
        (("--advantage", "1", "--advantage", "1", "--advantage", "1"), "3 advantages for 2 traces"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(run, traces, words, told):
    result = run("credit", *traces, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


def test_a_trace_without_a_response_is_told(run, model_folder, traces, tmp_path):
    path = tmp_path / "prompt.safetensors"
    assert run("capture", model_folder, "--text", "zero one two", "-o", path).exit_code == 0
    result = run("credit", traces[0], path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path} has no response; its segments are")
