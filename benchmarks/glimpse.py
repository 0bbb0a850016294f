"""How well the small LLaVA sees, and how often it makes objects up.

`python -m benchmarks.glimpse` asks it about held-out scenes, half of which keep the prior and half
of which break it: captions (CHAIR), the three polls (POPE), counts and relations. It writes
`glimpse.json`, the picture `glimpse.png`, and the tables of the model's card.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from attnscope.metrics import chair, confidence_table, pope
from attnscope.models.subjects import glimpse
from attnscope.models.subjects.glimpse import COMPANIONS, Question, Scene, present_objects
from attnscope.models.subjects.glimpse.polls import POLLS
from benchmarks.results import write_section

_DATA = Path(__file__).with_name("glimpse.json")
_PICTURE = Path(__file__).with_name("glimpse.png")
_CARD = Path(glimpse.__file__).with_name("README.md")
_SPLITS = ("test", "broken")
_SEED = 41

Asking = Callable[[Sequence[Scene], Sequence[str]], list[str]]


def caption_figures(ask: Asking, scenes: list[Scene]) -> dict[str, Any]:
    """Return CHAIR of greedy captions with intervals, and the share of made-up companions."""
    said = ask(scenes, ["describe the scene ."] * len(scenes))
    scores = chair(said, [present_objects(scene) for scene in scenes])
    made_up = [
        name in {COMPANIONS.get(leader) for leader in present_objects(scene)}
        for scene, names in zip(scenes, scores.hallucinated, strict=True)
        for name in names
    ]
    companions = sum(made_up) / max(1, len(made_up))
    return _intervals(scores) | {"made_up": len(made_up), "companions_of_made_up": companions}


def poll_figures(ask: Asking, scenes: list[Scene], kind: str) -> dict[str, Any]:
    """Return the POPE measures of one poll with intervals over scenes."""
    questions = glimpse.pope_questions(scenes, kind)
    asked = [scenes[question.scene] for question in questions]
    said = ask(asked, [question.text for question in questions])
    right, images = [q.answer for q in questions], [q.scene for q in questions]
    return _intervals(pope(said, right, images))


def answer_accuracy(
    ask: Asking, scenes: list[Scene], questions_on: Callable[[Scene], list[Question]]
) -> float:
    """Return the share of right answers to two random questions on each scene."""
    generator = np.random.default_rng(_SEED)
    chosen = [
        (scene, questions[index])
        for scene in scenes
        if (questions := questions_on(scene))
        for index in generator.integers(len(questions), size=2)
    ]
    said = ask([scene for scene, _ in chosen], [question.text for _, question in chosen])
    right = [answer == q.answer for answer, (_, q) in zip(said, chosen, strict=True)]
    return sum(right) / len(right)


def _counted(scene: Scene) -> list[Question]:
    """Return the counting questions whose answer is not zero: a zero would be too easy a guess."""
    return [question for question in glimpse.count_questions(scene) if question.answer != "zero"]


def figures(ask: Asking, scenes: list[Scene]) -> dict[str, Any]:
    """Return all figures of some scenes."""
    return {
        "captions": caption_figures(ask, scenes),
        "polls": {kind: poll_figures(ask, scenes, kind) for kind in POLLS},
        "count_accuracy": answer_accuracy(ask, scenes, _counted),
        "relation_accuracy": answer_accuracy(ask, scenes, glimpse.relation_questions),
    }


def matcher_figures(scenes: list[Scene]) -> dict[str, float]:
    """Return how well the matcher tells objects that are there from absent ones.

    `accuracy` is of the match head on the questions of the random poll; `separation` how often the
    cosine of a scene with its own caption exceeds that with the next scene's caption.
    """
    model: Any
    processor: Any
    model, processor = glimpse.load_matcher()
    questions = glimpse.pope_questions(scenes, "random")
    pictures = [glimpse.render(scene) for scene in scenes]
    right = []
    with torch.no_grad():
        for question in questions:
            inputs = processor(
                images=pictures[question.scene], text=question.text, return_tensors="pt"
            )
            matches = bool(model(**inputs).itm_score[0].argmax() == 1)
            right.append(matches == (question.answer == "yes"))
        inputs = processor(
            images=pictures,
            text=[glimpse.caption(scene) for scene in scenes],
            padding=True,
            return_tensors="pt",
        )
        cosines = model(**inputs, use_itm_head=False).itm_score
    separation = (cosines.diagonal() > cosines.roll(1, 1).diagonal()).float().mean().item()
    return {"accuracy": sum(right) / len(right), "separation": separation}


def _intervals(scores: Any) -> dict[str, Any]:
    table = confidence_table(scores)
    return {name: [round(float(x), 4) for x in row] for name, row in table.iterrows()}  # pyright: ignore[reportReturnType]


def table(data: dict[str, Any]) -> str:
    """Return the figures as Markdown: one row per measure, one column per kind of scene."""
    lines = ["| | prior kept | prior broken |", "| --- | --: | --: |"]
    rows = [
        ("captions: CHAIR_S", lambda part: _range(part["captions"]["chair_s"])),
        ("captions: CHAIR_I", lambda part: _range(part["captions"]["chair_i"])),
        ("captions: recall", lambda part: _range(part["captions"]["recall"])),
        ("captions: F1", lambda part: _range(part["captions"]["f1"])),
        (
            "made-up objects that are a missing companion",
            lambda part: (
                f"{part['captions']['companions_of_made_up']:.0%} of {part['captions']['made_up']}"
            ),
        ),
    ]
    for kind in POLLS:
        for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
            rows.append(
                (
                    f"POPE {kind}: {name.replace('_', ' ')}",
                    lambda part, kind=kind, name=name: _range(part["polls"][kind][name]),
                )
            )
    rows.append(("counts right (none is zero)", lambda part: f"{part['count_accuracy']:.1%}"))
    rows.append(("relations right", lambda part: f"{part['relation_accuracy']:.1%}"))
    rows.append(("matcher: presence right", lambda part: f"{part['matcher']['accuracy']:.1%}"))
    rows.append(
        ("matcher: own caption nearer", lambda part: f"{part['matcher']['separation']:.1%}")
    )
    for label, cell in rows:
        lines.append(f"| {label} | " + " | ".join(cell(data[split]) for split in _SPLITS) + " |")
    return "\n".join(lines)


def draw(scenes: list[Scene], path: Path) -> None:
    """Draw the pictures of some scenes side by side, three times enlarged."""
    from PIL import Image

    pictures = [glimpse.render(scene) for scene in scenes]
    side, gap = pictures[0].width * 3, 6
    sheet = Image.new("RGB", (len(pictures) * (side + gap) - gap, side), "white")
    for place, picture in enumerate(pictures):
        large = picture.resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(large, (place * (side + gap), 0))
    sheet.save(path, optimize=True)


def examples(ask: Asking, scenes: list[Scene]) -> str:
    """Return the captions of some scenes as a list, with what is not there in bold."""
    captions = ask(scenes, ["describe the scene ."] * len(scenes))
    lines = []
    for number, (scene, text) in enumerate(zip(scenes, captions, strict=True), start=1):
        for name in set(glimpse.mentioned_objects(text)) - present_objects(scene):
            text = text.replace(name, f"**{name}**")
        lines.append(f"{number}. {text}")
    return "\n".join(lines)


def _range(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def main(
    count: Annotated[int, typer.Option(help="Held-out scenes of each kind.")] = 200,
) -> None:
    """Ask about held-out scenes of both kinds, and write what came out."""
    model, processor = glimpse.load_subject()

    def ask(scenes: Sequence[Scene], questions: Sequence[str]) -> list[str]:
        return glimpse.ask(model, processor, scenes, questions)

    data: dict[str, Any] = {"scenes": count, "seed": _SEED}
    for split in _SPLITS:
        scenes = glimpse.sample_scenes(count, _SEED, split=split)
        data[split] = figures(ask, scenes) | {"matcher": matcher_figures(scenes)}
    shown = [scene for split in _SPLITS for scene in glimpse.sample_scenes(3, 0, split=split)]
    draw(shown, _PICTURE)
    _DATA.write_text(json.dumps(data, indent=1) + "\n")
    write_section("examples", examples(ask, shown), _CARD)
    write_section("figures", table(data), _CARD)


if __name__ == "__main__":
    typer.run(main)
