"""`study_hallucination`: pictures described with and without methods, scored, written and drawn."""

from collections.abc import Sequence
from pathlib import Path

from attnscope.app.answer_looks import check_heads
from attnscope.app.failures import CommandError
from attnscope.app.hallucination_files import study_facts, write_results
from attnscope.app.hallucination_methods import make_interventions
from attnscope.app.hallucination_scores import ScoreTable, caption_scores, poll_scores
from attnscope.app.hallucination_study import Study, Told, tell
from attnscope.app.outputs import check_free, make_folder
from attnscope.app.pictured_answers import (
    Decoding,
    answer,
    check_fits,
    check_pictured,
    pictured_prompt,
)
from attnscope.app.pictured_items import PicturedItem
from attnscope.app.progress import watched
from attnscope.app.screen import print_paths, screen
from attnscope.figures import TextTable, write_picture_report
from attnscope.probes import Subject

__all__ = ["score_tables", "study_hallucination"]

_FILES = ("results.json", "scores.csv", "answers.csv")
_ONE_TOKEN = Decoding(max_tokens=1)


def study_hallucination(
    subject: Subject, items: Sequence[PicturedItem], study: Study, folder: Path
) -> int:
    """Describe pictures in every way, print the scores, write them, and return how many failed.

    Args:
        subject: The model.
        items: The pictures.
        study: What is to be found out.
        folder: Where the files go.

    Raises:
        CommandError: The model reads no pictures, its processor does not fit it, a layer or head
            does not exist, no picture could be described, or files would be overwritten.
    """
    paths = {name: folder / name for name in _FILES}
    page = folder / "report.html"
    check_free([*paths.values(), page], force=study.force)
    check_pictured(subject)
    check_heads(subject, study.looking)
    _check_first(subject, items, study)
    make_folder(folder)
    jobs = list(enumerate(items))
    told = [
        tell(subject, item, study, is_shown=number < study.shown)
        for number, item in watched(jobs, "describing")
    ]
    good = [one for one in told if not one.error]
    if not good:
        raise CommandError(f"none of {len(told)} pictures could be described: {told[0].error}")
    tables = score_tables(good, study)
    for table in tables:
        screen().print(table.printed())
    if not tables:
        screen().print(f"{len(good)} pictures described; nothing is known of them to score")
    write_results(subject, told, tables, study, paths)
    _draw(subject, told, tables, study, page)
    print_paths([page, *paths.values()])
    return len(told) - len(good)


def score_tables(told: Sequence[Told], study: Study) -> list[ScoreTable]:
    """Return the scores of what can be scored: descriptions, and answers to questions."""
    known = [one for one in told if one.item.objects is not None]
    asked = [one for one in told if one.item.questions]
    tables, seed = [], study.decoding.seed
    if known:
        captions = {way: [one.captions[way] for one in known] for way in study.ways}
        truths = [one.item.objects or frozenset() for one in known]
        tables.append(caption_scores(captions, truths, study.names, seed))
    if asked:
        answers = {way: [text for one in asked for text in one.answers[way]] for way in study.ways}
        polls = [(poll, one.item.name) for one in asked for poll in one.item.questions]
        right, names = [poll.answer for poll, _ in polls], [name for _, name in polls]
        tables.append(poll_scores(answers, right, names, seed))
    return tables


def _check_first(subject: Subject, items: Sequence[PicturedItem], study: Study) -> None:
    """Try model, processor and methods on the first picture that can be given to the model."""
    faults: list[CommandError] = []
    for item in items:
        try:
            prompt = pictured_prompt(subject, item.open(), study.prompt)
        except CommandError as error:
            faults.append(error)
            continue
        check_fits(prompt)
        for parts in study.methods.values():
            answer(prompt, make_interventions(parts, prompt, study.settings), _ONE_TOKEN)
        return
    raise faults[0]


def _draw(
    subject: Subject, told: Sequence[Told], tables: Sequence[ScoreTable], study: Study, page: Path
) -> None:
    cards = [one.card for one in told if one.card is not None]
    scores = [
        TextTable(
            title=table.title,
            columns=("", "method", ">score", ">95 %", ">less plain", ">95 %"),
            rows=table.cells(),
        )
        for table in tables
    ]
    write_picture_report(
        page,
        f"What {subject.name} says of {len(told):,} pictures",
        facts=study_facts(subject, study, told),
        tables=scores,
        pictures=cards,
    )
