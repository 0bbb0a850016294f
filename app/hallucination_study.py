"""`tell`: one picture, described and asked about in every way of decoding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attnscope.app.answer_looks import Looking, look_at, marked, mentions_of, seen_picture
from attnscope.app.failures import is_debugging, one_line, print_error
from attnscope.app.hallucination_methods import PLAIN, Settings, make_interventions
from attnscope.app.hallucination_scores import made_up
from attnscope.app.pictured_answers import (
    Decoding,
    PicturedPrompt,
    answer,
    pictured_prompt,
    said,
)
from attnscope.app.pictured_items import PicturedItem
from attnscope.figures import AnsweredPicture, PictureAnswer
from attnscope.probes import Encoded, Subject

__all__ = ["Study", "Told", "tell"]

_POLL_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is to be found out.

    Attributes:
        methods: The parts of each method, by the name that tables show.
        settings: Options of the parts.
        prompt: What asks for a description.
        decoding: How answers are decoded.
        names: The object that each name stands for; empty where no objects are known.
        shown: How many pictures the page shows.
        looking: Whose attention it shows.
        force: Overwrite files.
    """

    methods: Mapping[str, Sequence[str]]
    settings: Settings
    prompt: str
    decoding: Decoding
    names: Mapping[str, str]
    shown: int = 8
    looking: Looking = field(default_factory=Looking)
    force: bool = False

    @property
    def ways(self) -> dict[str, Sequence[str]]:
        """Return the parts of each way of decoding, plain decoding first."""
        return {PLAIN: (), **self.methods}


@dataclass(slots=True, kw_only=True)
class Told:
    """What was said of a picture.

    Attributes:
        item: The picture.
        captions: Its description by each way of decoding.
        answers: The answers to its questions by each way.
        error: Why there are none.
        card: What is drawn of it, where it is shown.
    """

    item: PicturedItem
    captions: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=dict)
    error: str = ""
    card: AnsweredPicture | None = None


def tell(subject: Subject, item: PicturedItem, study: Study, *, is_shown: bool) -> Told:
    """Return what was said of a picture; whatever goes wrong with one, the others are worth it."""
    told = Told(item=item)
    try:
        _tell(subject, told, study, is_shown)
    except Exception as error:
        if is_debugging():
            raise
        told = Told(item=item, error=one_line(error))
        print_error(told.error, before=f"{item.name}: ")
    return told


def _tell(subject: Subject, told: Told, study: Study, is_shown: bool) -> None:
    picture = told.item.open()
    prompt = pictured_prompt(subject, picture, study.prompt)
    polls = [pictured_prompt(subject, picture, poll.text) for poll in told.item.questions]
    short = Decoding(max_tokens=_POLL_TOKENS, seed=study.decoding.seed)
    drawn: dict[str, PictureAnswer] = {}
    for way, parts in study.ways.items():
        interventions = make_interventions(parts, prompt, study.settings)
        answered = answer(prompt, interventions, study.decoding)
        told.captions[way] = said(prompt, answered)
        told.answers[way] = [
            said(poll, answer(poll, make_interventions(parts, poll, study.settings), short))
            for poll in polls
        ]
        if is_shown:
            look = look_at(prompt, answered, interventions, study.looking)
            if look is not None:
                drawn[way] = _marked(look, prompt, answered, (told.item, study))
    if is_shown:
        told.card = AnsweredPicture(
            name=told.item.name,
            picture=seen_picture(prompt),
            answers=drawn,
            note=_note(told.item),
        )


def _marked(
    look: PictureAnswer,
    prompt: PicturedPrompt,
    answered: Encoded,
    about: tuple[PicturedItem, Study],
) -> PictureAnswer:
    """Return an answer with the words marked that name something, there or made up."""
    item, study = about
    if item.objects is None:
        return look
    wrong = made_up(said(prompt, answered), item.objects, study.names)
    return marked(look, mentions_of(prompt, answered, study.names), wrong)


def _note(item: PicturedItem) -> str:
    return "" if item.objects is None else f"In it: {', '.join(sorted(item.objects)) or 'nothing'}."
