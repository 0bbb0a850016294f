"""What the small LLaVA says of held-out scenes in each way of decoding, kept line by line."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnscope.interventions import intervening
from attnscope.metrics import CaptionScores, PollScores, chair, pope
from attnscope.models.subjects.glimpse import (
    OBJECTS,
    Scene,
    pope_questions,
    present_objects,
    sample_scenes,
)
from attnscope.models.subjects.glimpse.polls import POLLS
from attnscope.models.subjects.glimpse.tasks import DESCRIBE
from attnscope.probes import Subject
from benchmarks.hallucination_ways import WAYS, Batch
from benchmarks.resumed_lines import add_line, read_lines

__all__ = ["Scope", "WayScores", "held_out", "run_way", "scenes_of", "scores_of"]

_PART = 25
_CAPTION, _ANSWER = 64, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much is run.

    Attributes:
        scenes: Scenes for each seed, half of them breaking the prior.
        seeds: How many draws of scenes.
        folder: Where the lines are kept.
    """

    scenes: int
    seeds: int
    folder: Path

    def parts(self) -> Iterator[tuple[int, int, list[Scene]]]:
        """Yield seed, number of the first scene, and scenes of each part."""
        for seed in range(self.seeds):
            scenes = held_out(self.scenes, seed)
            for start in range(0, len(scenes), _PART):
                yield seed, start, scenes[start : start + _PART]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayScores:
    """What came of one way of decoding, over all seeds.

    Attributes:
        captions: CHAIR.
        polls: POPE, one for each poll.
        milliseconds: Processor time of a generated token of the captions, prompt and all.
    """

    captions: CaptionScores
    polls: Mapping[str, PollScores]
    milliseconds: float


def held_out(count: int, seed: int) -> list[Scene]:
    """Return held-out scenes: one that keeps the prior, one that breaks it, and so on."""
    halves = [
        sample_scenes((count + 1) // 2, seed + 100, split=split) for split in ("test", "broken")
    ]
    return [scene for pair in zip(*halves, strict=True) for scene in pair][:count]


def run_way(
    subject: Subject, matcher: Subject, dimensions: Sequence[int], way: str, scope: Scope
) -> list[dict[str, Any]]:
    """Return what was said in one way, a part at a time; parts that are kept are not run again."""
    path = scope.folder / f"{'_'.join(re.findall(r'[a-z0-9]+', way.lower()))}.jsonl"
    kept = {(entry["seed"], entry["start"], entry["stop"]): entry for entry in read_lines(path)}
    found = []
    for seed, start, scenes in scope.parts():
        key = (seed, start, start + len(scenes))
        if key not in kept:
            kept[key] = _run_part((subject, matcher, dimensions), way, key, scenes)
            add_line(path, kept[key])
        found.append(kept[key])
    return found


def scores_of(entries: Sequence[Mapping[str, Any]]) -> WayScores:
    """Return the scores of what was said in one way."""
    captions = [text for entry in entries for text in entry["captions"]]
    answers = [said for entry in entries for said in _answers_by_scene(entry)]
    scenes = [scene for entry in entries for scene in scenes_of(entry)]
    polls = {}
    for kind in POLLS:
        questions = pope_questions(scenes, kind)
        polls[kind] = pope(
            [answers[question.scene][question.text] for question in questions],
            [question.answer for question in questions],
            [question.scene for question in questions],
        )
    return WayScores(
        captions=chair(captions, [*map(present_objects, scenes)], {name: name for name in OBJECTS}),
        polls=polls,
        milliseconds=1e3 * _sum(entries, "seconds") / _sum(entries, "tokens"),
    )


def scenes_of(entry: Mapping[str, Any]) -> list[Scene]:
    """Return the scenes that an entry is about: a seed's first ones are always the same."""
    return held_out(entry["stop"], entry["seed"])[entry["start"] :]


def questions_on(scenes: Sequence[Scene]) -> list[tuple[int, str]]:
    """Return the number of a scene and a question, each question of the three polls once."""
    asked = {
        (question.scene, question.text): None
        for kind in POLLS
        for question in pope_questions(scenes, kind)
    }
    return sorted(asked)


def _answers_by_scene(entry: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the answers to each scene's questions by their text, which a line need not repeat."""
    scenes = scenes_of(entry)
    found: list[dict[str, str]] = [{} for _ in scenes]
    for (number, text), answer in zip(questions_on(scenes), entry["answers"], strict=True):
        found[number][text] = answer
    return found


def _run_part(
    held: tuple[Subject, Subject, Sequence[int]],
    way: str,
    key: tuple[int, int, int],
    scenes: Sequence[Scene],
) -> dict[str, Any]:
    subject = held[0]
    torch.manual_seed(1000 * key[0] + key[1])
    started = time.process_time()
    captions, tokens = _said(Batch(subject, scenes, [DESCRIBE] * len(scenes)), held, way, _CAPTION)
    seconds = time.process_time() - started
    asked = questions_on(scenes)
    answers: list[str] = []
    for start in range(0, len(asked), 4 * _PART):
        part = asked[start : start + 4 * _PART]
        batch = Batch(subject, [scenes[number] for number, _ in part], [text for _, text in part])
        answers += _said(batch, held, way, _ANSWER)[0]
    return {
        "seed": key[0],
        "start": key[1],
        "stop": key[2],
        "captions": captions,
        "answers": answers,
        "seconds": round(seconds, 4),
        "tokens": tokens,
    }


def _said(
    batch: Batch, held: tuple[Subject, Subject, Sequence[int]], way: str, longest: int
) -> tuple[list[str], int]:
    """Return the answers of a batch, and of how many tokens they are."""
    subject, matcher, dimensions = held
    model: Any = subject.model
    options = {"do_sample": False, "max_new_tokens": longest} | dict(WAYS[way].options)
    interventions = WAYS[way].make(batch, matcher, dimensions)
    with intervening(subject, *interventions, encoded=batch.inputs), torch.no_grad():
        produced = model.generate(**batch.tensors, **options)
    said = produced[:, batch.tensors["input_ids"].shape[1] :]
    tokens = int((said != subject.tokenizer.pad_token_id).sum())
    return subject.tokenizer.batch_decode(said, skip_special_tokens=True), tokens


def _sum(entries: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(entry[name] for entry in entries)
