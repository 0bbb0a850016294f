import re

import pytest

from attnscope.traces import open_trace


@pytest.fixture(scope="module")
def demo(run, tmp_path_factory):
    """Return the folder of one demonstration, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    result = run("demo", "-o", folder, "--problems", 2)
    assert result.exit_code == 0, result.output
    return folder, result.stdout


def test_it_ends_with_the_paths_of_all_that_it_wrote(demo):
    folder, text = demo
    paths = {str(path) for path in folder.rglob("*") if path.is_file()}
    assert set(text.split("written:")[1].split()) == paths
    assert {f"{folder}/{n}" for n in ("report.html", "problem-1.safetensors")} < paths
    assert sum(path.endswith(".png") for path in paths) > 3


def test_it_says_whether_each_problem_was_solved(demo):
    folder, text = demo
    problems = re.findall(
        r"^ *\d +(numbers \d+ \d+ \d+ target \d+) .* (yes|no) *$", text, re.MULTILINE
    )
    assert len(problems) == 2
    solved = sum(verdict == "yes" for _, verdict in problems)
    assert f"{solved} of 2 solved" in text
    trace = open_trace(folder / "problem-2.safetensors")
    assert problems[1][0] in " ".join(trace.tokens)
    assert trace.provenance.model == "countdown"
    assert "response" in trace.segments


def test_it_prints_every_head_with_its_group_and_every_token_with_its_marks(demo):
    folder, text = demo
    heads = re.findall(r"(L\dH\d) +([\d.]+) +([\d.]+) +([\d.]+)(?: +(local|global))?", text)
    assert len({head[0] for head in heads}) == 36
    assert (
        sum(head[4] == "local" for head in heads)
        == sum(head[4] == "global" for head in heads)
        == 11
    )
    (shown,) = re.findall(r"^Problem (\d):", text, re.MULTILINE)
    trace = open_trace(folder / f"problem-{shown}.safetensors")
    tokens = text.split("Tokens of the response")[1].split("WAAD     how")[0]
    row = r"(?:^|  )(\d+) +(\S+) +[\d.]+ +(?:[\d.e-]+|-) +[\d.e-]+"
    places = {int(place): token for place, token in re.findall(row, tokens, re.MULTILINE)}
    assert places == {place: trace.tokens[place] for place in trace.segments["response"]}
    assert {"preplan", "anchor"} <= set(tokens.split())


def test_it_fits_a_hundred_columns(demo):
    _, text = demo
    assert max(map(len, text.split("written:")[0].splitlines())) <= 100


def test_it_overwrites_nothing_unasked(demo, run):
    folder, _ = demo
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    result = run("demo", "-o", folder)
    assert result.exit_code == 2
    assert "exists; --force overwrites it" in result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_weights_that_are_missing_are_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr("attnscope.models.subjects.countdown.WEIGHTS", tmp_path / "nowhere")
    result = run("demo", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: this installation lacks the weights of countdown")
    assert not (tmp_path / "out").exists()


def test_it_lets_the_model_that_sees_describe_a_picture(demo):
    folder, text = demo
    page = (folder / "picture.html").read_text()
    trace = open_trace(folder / "picture.safetensors")
    assert trace.provenance.model == "glimpse"
    words = [trace.tokens[place] for place in trace.segments["response"]]
    assert " ".join(words) in " ".join(text.split())
    assert page.count('class="token') == len(words)
    wrong = text.split("not in the picture: ")[1].splitlines()[0]
    shown = re.findall(r'made-up" title="not in the picture">(\w+)<', page)
    assert set(wrong.replace(",", "").split()) == set(
        shown or ["none", "of", "what", "it", "names"]
    )
