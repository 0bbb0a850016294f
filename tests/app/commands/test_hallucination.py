"""Pictures described with and without methods, from the command line, by tiny random models."""

import csv
import json
import re
import shutil
from typing import Any

import pytest
import torch

from attnscope.app.failures import CommandError
from attnscope.app.pictured_answers import pictured_prompt
from attnscope.models.subjects import glimpse
from attnscope.probes import load

METHODS = ("vhr", "locore", "paint", "var", "agla", "sgrs", "locore+sgrs")
SCENES = glimpse.sample_scenes(3, 0, split="broken")


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A tiny random LLaVA that reads glimpse's pictures."""
    folder = tmp_path_factory.mktemp("llava")
    config = glimpse.subject_config(tower=2, layers=2, hidden=16, heads=2)
    model = glimpse.build_subject(config, seed=0)
    with torch.no_grad():  # larger than at birth, so that attention is anything but even
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)
    model.generation_config.eos_token_id = None
    model.generation_config.suppress_tokens = list(range(8))
    model.save_pretrained(folder)
    glimpse.build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def matcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matcher")
    glimpse.build_matcher(glimpse.matcher_config(hidden=16, heads=2), seed=0).save_pretrained(
        folder
    )
    glimpse.build_matcher_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three scenes, all known of them and a question on each; no picture; and a bad line."""
    folder = tmp_path_factory.mktemp("dataset")
    lines = []
    for number, scene in enumerate(SCENES):
        glimpse.render(scene).save(folder / f"{number}.png")
        asked = [{"text": "is there a red ring ?", "answer": "no"}]
        known = sorted(glimpse.present_objects(scene))
        lines.append({"image": f"{number}.png", "objects": known, "questions": asked})
    (folder / "broken.png").write_bytes(b"no picture")
    lines.append({"image": "broken.png", "objects": ["red star"]})
    file = folder / "pictures.jsonl"
    file.write_text("\n".join([*map(json.dumps, lines), '{"image": 3}']) + "\n")
    return file


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    file = tmp_path_factory.mktemp("names") / "names.txt"
    words = glimpse.build_processor().tokenizer.get_vocab()
    table = [*glimpse.OBJECTS, *(word for word in sorted(words) if word.isalpha())]
    file.write_text("\n".join(table))
    return file


@pytest.fixture(scope="module")
def study(run, llava, matcher, dataset, names, tmp_path_factory):
    """One run with every method: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("study") / "new"
    methods = (word for name in METHODS for word in ("--method", name))
    settings = (
        "vhr.alpha=3", "var.dimensions=0,3", "var.tau=1.5", "var.least_mass=0", "var.rho=0",
        f"agla.matcher={matcher}",
    )  # fmt: skip
    result = run(
        "hallucination", llava, "--dataset", dataset, *methods,
        *(word for text in settings for word in ("--set", text)),
        "--synonyms", names, "--prompt", "describe the scene .", "--max-tokens", 6,
        "--show", 1, "-o", folder,
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    return folder, result


def test_it_scores_every_method_beside_plain_decoding(study):
    folder, result = study
    text = result.stdout
    assert "CHAIR_I" in text
    assert "3 yes-or-no questions on 3 pictures" in text
    with (folder / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} == {"plain", *METHODS}
    assert {row["table"] for row in rows} == {"chair", "pope"}
    assert all((row["difference"] == "") == (row["method"] == "plain") for row in rows
               if row["value"])  # fmt: skip
    length = [row for row in rows if row["measure"] == "length"]
    assert float(length[0]["value"]) == 6
    assert max(map(len, text.split("written:")[0].splitlines())) <= 100


def test_a_picture_that_fails_is_told_and_the_rest_goes_on(study):
    folder, result = study
    assert "broken.png is no picture that can be read" in result.stderr
    assert "line 5 of" in result.stderr
    assert "2 of 5 pictures failed" in result.stderr
    results = json.loads((folder / "results.json").read_text())
    entries = {entry["name"]: entry for entry in results["pictures"]}
    assert list(entries["broken.png"]) == ["name", "error"]
    assert set(entries["0.png"]["captions"]) == {"plain", *METHODS}
    assert entries["0.png"]["words"]["plain"]["T-VHD"][0] > 0
    assert entries["1.png"]["words"] == {}
    assert {path.name for path in folder.iterdir()} == {
        "results.json", "scores.csv", "answers.csv", "report.html",
    }  # fmt: skip


def test_a_method_changes_what_is_said(study):
    results = json.loads((study[0] / "results.json").read_text())
    said = [entry["captions"] for entry in results["pictures"] if "captions" in entry]
    assert any(one["vhr"] != one["plain"] for one in said)


def test_the_page_marks_made_up_words_and_holds_every_answer(study):
    page = (study[0] / "report.html").read_text()
    results = json.loads((study[0] / "results.json").read_text())
    first = results["pictures"][0]
    assert page.count('<div class="answer">') == len(first["captions"])
    spoken = re.findall(r'<p class="said">(.*?)</p>', page)[0]
    words = re.findall(r">([^<]+)</button>", spoken)
    assert " ".join(words) == first["captions"]["plain"]
    marked = re.findall(r'made-up"[^>]*>([^<]+)</button>', spoken)
    assert {word for name in first["made_up"]["plain"] for word in name.split()} == set(marked)
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page)[0])
    assert data["grid"] == [8, 8]
    assert len(data["measures"]["attention to the image"]) == 6
    assert "Plotly" not in page


def test_a_folder_with_annotations_of_coco(run, llava, dataset, tmp_path):
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({
        "images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "1.png"}],
        "annotations": [{"image_id": 1, "category_id": 5}],
        "categories": [{"id": 5, "name": "red star"}],
    }))  # fmt: skip
    words = ("--images", dataset.parent, "--annotations", file, "--max-tokens", 2, "--show", 0)
    result = run("hallucination", llava, *words, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Descriptions of 2 pictures" in result.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["objects"] for entry in results["pictures"]] == [["red star"], []]
    again = run("hallucination", llava, *words, "-o", tmp_path / "out")
    assert again.exit_code == 2
    assert "--force overwrites" in again.stderr


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--method", "opera"), "no method 'opera'; there are vhr, locore"),
        (("--method", "vhr", "--set", "vhr.gamma=2"), "vhr has no 'gamma'; it has alpha"),
        (("--method", "vhr", "--set", "vhr.alpha=two"), "a number is needed, not 'two'"),
        (("--method", "vhr", "--set", "alpha=2"), "write one as in vhr.alpha=2"),
        (("--method", "vhr", "--set", "paint.beta=1"), "of a method that is not run"),
        (("--method", "locore", "--set", "locore.normalize=x"), "one of raw, renorm, log"),
        (("--method", "var"), "published are llava-1.5-7b 1415,2533"),
        (("--method", "agla"), "agla.matcher="),
        (("--method", "vhr", "--set", "vhr.layers=7"), "no layer 7"),
        (("--layers", "2"), "no layer 2; the language model of"),
        (("--heads", "0,9"), "no head 9"),
        (("--scenes", "2"), "one of them"),
    ],
)
def test_what_cannot_be_is_one_line(run, llava, dataset, tmp_path, words, fault):
    given = ("--images", dataset.parent, "-o", tmp_path / "out")
    result = run("hallucination", llava, *given, *words)
    assert result.exit_code == 2, result.output
    assert fault in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_pictures_none_of_which_can_be_read_are_one_line(run, llava, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    result = run("hallucination", llava, "--images", folder, "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert "torn.jpg cannot be read as a picture" in result.stderr
    assert not (tmp_path / "out").exists()
    result = run("hallucination", llava, "--images", tmp_path / "none", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "none' of pictures" in result.stderr
    file = tmp_path / "pictures.jsonl"
    file.write_text('{"image": "missing.png"}')
    result = run("hallucination", llava, "--dataset", file, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "missing.png cannot be read as a picture" in result.stderr


def test_a_text_only_model_is_refused(run, model_folder, dataset, tmp_path):
    result = run("hallucination", model_folder, "--images", dataset.parent, "-o", tmp_path / "x")
    assert result.exit_code == 2
    assert "reads no pictures" in result.stderr


def test_a_processor_that_disagrees_with_its_model_is_refused(run, llava, dataset, tmp_path):
    folder = tmp_path / "llava"
    shutil.copytree(llava, folder)
    processor = glimpse.build_processor()
    processor.patch_size = 16
    processor.save_pretrained(folder)
    words = ("--images", dataset.parent, "-o", tmp_path / "x")
    result = run("hallucination", folder, *words)
    assert result.exit_code == 2
    assert "16 image tokens" in result.stderr
    config = json.loads((folder / "config.json").read_text())
    config["image_token_index"] = config["image_token_id"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    result = run("hallucination", folder, *words)
    assert result.exit_code == 2
    assert "takes token 9 for a picture" in result.stderr
    assert "writes token 4" in result.stderr


def test_a_prompt_without_image_tokens_is_refused(run, llava, dataset, tmp_path):
    folder = tmp_path / "llava"
    shutil.copytree(llava, folder)
    (folder / "chat_template.jinja").write_text("{{- messages[0]['content'][1]['text'] -}}")
    result = run("hallucination", folder, "--images", dataset.parent, "-o", tmp_path / "x")
    assert result.exit_code == 2
    assert "LlavaProcessor takes neither this text nor these pictures" in result.stderr
    assert "Found total 0 <image> tokens" in result.stderr


def test_a_prompt_whose_image_is_no_token_of_the_model_is_refused(llava):
    subject = load(llava)
    config: Any = subject.model.config
    config.image_token_index = 2
    with pytest.raises(CommandError, match="none of its 71 tokens is 2"):
        pictured_prompt(subject, glimpse.render(SCENES[0]), "describe the scene .")


def test_pictures_of_which_nothing_is_known_are_only_described(run, llava, dataset, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(dataset.parent / "0.png", folder)
    words = ("--images", folder, "--max-tokens", 3, "--layers", "-1", "--heads", "1")
    result = run("hallucination", llava, *words, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "nothing is known of them to score" in result.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "made-up" not in re.findall(r'<p class="said">(.*?)</p>', page)[0]
    assert (tmp_path / "out" / "scores.csv").read_text().startswith("measure,method")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[]", 'an object with an "image"'),
        ('{"image": "0.png", "object": []}', "no key 'object'"),
        ('{"image": "0.png", "objects": "dog"}', "is a list of names"),
        ('{"image": "0.png", "questions": [{"text": "?", "answer": "maybe"}]}', '"yes"'),
        ("{", "no JSON"),
    ],
)
def test_a_bad_line_of_a_dataset_is_told(run, llava, tmp_path, line, fault):
    file = tmp_path / "pictures.jsonl"
    file.write_text(line)
    result = run("hallucination", llava, "--dataset", file, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert fault in result.stderr
