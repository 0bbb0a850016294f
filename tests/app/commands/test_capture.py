import json

import pytest
import torch

from attnscope.traces import open_trace

TEXT = ("--text", "zero one two three")


def lines(path, *entries):
    path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries))
    return path


def test_a_text_becomes_a_trace_and_a_row_of_a_table(run, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("capture", model_folder, *TEXT, "--response", "four five", "-o", "out")
    assert result.exit_code == 0, result.output
    trace = open_trace(tmp_path / "out" / "1.safetensors")
    assert trace.tokens == ("zero", "one", "two", "three", "four", "five")
    assert trace.segments["response"] == [4, 5]
    assert [site.layer for site in trace.sites] == [0, 1, 2]
    row = next(line for line in result.stdout.splitlines() if "1.safetensors" in line)
    assert row.split()[1:4] == ["6", "2", "3"]
    assert not result.stderr


def test_the_output_of_a_text_may_be_the_file_itself(run, model_folder, tmp_path):
    path = tmp_path / "new" / "run.safetensors"
    assert run("capture", model_folder, *TEXT, "-o", path).exit_code == 0
    assert path.is_file()


def test_layers_gradient_hidden_states_and_dtype_are_as_asked(run, model_folder, tmp_path):
    path = tmp_path / "run.safetensors"
    wanted = ("--layers", "-1", "--gradient", "loss", "--hidden", "--dtype", "float64")
    result = run("capture", model_folder, *TEXT, *wanted, "-o", path)
    assert result.exit_code == 0, result.output
    trace = open_trace(path)
    (observation,) = trace.observations
    assert observation.site.layer == 2
    assert observation.gradient is not None
    assert observation.hidden is not None
    assert observation.hidden.dtype == torch.float64
    assert trace.provenance.gradient_target == "loss"


def test_the_model_answers_first_when_asked(run, model_folder, tmp_path):
    path = tmp_path / "run.safetensors"
    assert run("capture", model_folder, *TEXT, "--generate", 3, "-o", path).exit_code == 0
    assert open_trace(path).segments["response"] == [4, 5, 6]


def test_every_line_of_a_file_becomes_a_trace(run, model_folder, tmp_path):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    file = lines(
        tmp_path / "in.jsonl",
        {"text": "zero one", "id": "first"},
        {"text": "one", "response": "two"},
        {"messages": chat},
        {"messages": chat[:1], "id": 9},
    )
    result = run("capture", model_folder, "--file", file, "--generate", 2, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    traces = {path.stem: open_trace(path) for path in (tmp_path / "out").iterdir()}
    assert {name: trace.tokens[-1] for name, trace in traces.items()}.keys() == {
        "first",
        "2",
        "3",
        "9",
    }
    assert len(traces["first"].segments["response"]) == 2
    assert len(traces["2"].tokens) == 2  # its own response, none generated
    assert traces["3"].tokens[-1] == "two"
    assert traces["9"].segments["response"] == [4, 5]  # behind <bos> <user> one <assistant>


def test_bad_lines_are_told_the_rest_goes_on_and_the_code_is_one(run, model_folder, tmp_path):
    file = lines(
        tmp_path / "in.jsonl",
        {"text": "one"},
        "{oops",
        {"text": "one", "id": "../up"},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        {"text": "two", "id": "last"},
    )
    result = run("capture", model_folder, "--file", file, "-o", tmp_path / "out")
    assert result.exit_code == 1
    told = result.stderr.splitlines()
    assert told[0].startswith(f"error: line 2 of {file}: is not JSON")
    assert told[1] == f"error: line 3 of {file}: has the id '../up', which cannot name a file"
    assert told[2].startswith(f"error: line 4 of {file}: ")
    assert told[3:] == ["error: 3 of 5 lines failed"]
    assert {path.name for path in tmp_path.rglob("*.safetensors")} == {
        "1.safetensors",
        "last.safetensors",
    }
    assert "last.safetensors" in result.stdout


def test_only_bad_lines_need_no_model(run, tmp_path):
    file = lines(tmp_path / "in.jsonl", "{oops")
    result = run("capture", "./nowhere", "--file", file, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "line 1" in result.stderr
    assert not (tmp_path / "out").exists()


def test_existing_files_stay_unless_forced(run, model_folder, tmp_path):
    path = tmp_path / "1.safetensors"
    path.write_text("mine")
    result = run("capture", model_folder, *TEXT, "-o", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"error: {path} exists; --force overwrites it\n"
    file = lines(tmp_path / "in.jsonl", {"text": "one"}, {"text": "two"})
    result = run("capture", model_folder, "--file", file, "-o", tmp_path)
    assert result.exit_code == 1
    assert f"line 1 of {file}: {path} exists" in result.stderr
    assert path.read_text() == "mine"
    assert (tmp_path / "2.safetensors").exists()
    assert run("capture", model_folder, *TEXT, "-o", tmp_path, "--force").exit_code == 0
    assert len(open_trace(path).tokens) == 4


def test_nothing_is_written_through_a_link(run, model_folder, tmp_path):
    (tmp_path / "1.safetensors").symlink_to(tmp_path / "victim")
    result = run("capture", model_folder, *TEXT, "-o", tmp_path, "--force")
    assert result.exit_code == 2
    assert "is a link" in result.stderr
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "error: give --text (and --response), --file, or a dataset; one of them"),
        (
            (*TEXT, "--file", "x.jsonl"),
            "error: give --text (and --response), --file, or a dataset; one of them",
        ),
        (("--file", "/nowhere/x.jsonl"), "error: /nowhere/x.jsonl: No such file or directory"),
        (("--text", ""), "error: the text is empty"),
        ((*TEXT, "--layers", "7"), "error: no layer [7] exists; layers by stack: "),
        ((*TEXT, "--layers", "x"), "error: 'x' is no layer; write layers as in 0,4-8,-1"),
        (
            (*TEXT, "--response", "a", "--generate", 3),
            "error: the response is given; --generate would",
        ),
        ((*TEXT, "--dtype", "int7"), "error: no dtype 'int7'; there are auto, bfloat16, "),
        ((*TEXT, "--device", "abacus"), "error: no device 'abacus' here: "),
    ],
)
def test_what_cannot_be_captured_is_one_clear_line(run, model_folder, tmp_path, words, message):
    result = run("capture", model_folder, *words, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_missing_model_folder_is_told_without_asking_a_hub(run, tmp_path):
    result = run("capture", tmp_path / "nowhere", *TEXT, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"error: no folder '{tmp_path / 'nowhere'}'; a model is a folder, "
    )


def test_an_empty_model_folder_is_told(run, tmp_path):
    (tmp_path / "model").mkdir()
    result = run("capture", tmp_path / "model", *TEXT, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "is no folder from which a configuration can be loaded" in result.stderr
    assert result.stderr.count("\n") == 1


def test_code_that_comes_with_a_model_is_not_run_unasked(run, model_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    result = run("capture", folder, *TEXT, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "trust_remote_code" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_a_shipped_model_has_no_revisions(run, tmp_path):
    result = run("capture", "countdown", *TEXT, "--revision", "v1", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "countdown comes with attnscope and has no revisions" in result.stderr
