"""A small trained LLaVA that sees scenes of coloured shapes, with priors that can mislead it."""

from attnscope.models.subjects.glimpse.architecture import (
    WEIGHTS,
    build_subject,
    load_subject,
    subject_config,
)
from attnscope.models.subjects.glimpse.asking import ask, describe
from attnscope.models.subjects.glimpse.drawing import render
from attnscope.models.subjects.glimpse.matcher import (
    MATCHER_WEIGHTS,
    build_matcher,
    build_matcher_processor,
    load_matcher,
    matcher_config,
)
from attnscope.models.subjects.glimpse.polls import PopeQuestion, pope_questions
from attnscope.models.subjects.glimpse.processor import build_processor
from attnscope.models.subjects.glimpse.scenes import (
    COMPANIONS,
    OBJECTS,
    Scene,
    SceneObject,
    present_objects,
    sample_scenes,
)
from attnscope.models.subjects.glimpse.tasks import (
    Question,
    caption,
    count_questions,
    describe_prompt,
    mentioned_objects,
    question_chat,
    relation_questions,
)

__all__ = [
    "COMPANIONS",
    "MATCHER_WEIGHTS",
    "OBJECTS",
    "WEIGHTS",
    "PopeQuestion",
    "Question",
    "Scene",
    "SceneObject",
    "ask",
    "build_matcher",
    "build_matcher_processor",
    "build_processor",
    "build_subject",
    "caption",
    "count_questions",
    "describe",
    "describe_prompt",
    "load_matcher",
    "load_subject",
    "matcher_config",
    "mentioned_objects",
    "pope_questions",
    "present_objects",
    "question_chat",
    "relation_questions",
    "render",
    "sample_scenes",
    "subject_config",
]
