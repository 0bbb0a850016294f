"""A small trained reasoner that searches in words for a way to reach a target with + - * /."""

from attnscope.models.subjects.countdown.decoder import (
    FLIGHT,
    WEIGHTS,
    build_subject,
    load_subject,
    subject_config,
)
from attnscope.models.subjects.countdown.sampling import sample_problems, split_of
from attnscope.models.subjects.countdown.solutions import write_solution
from attnscope.models.subjects.countdown.task import Problem, Step, reachable, solve, verify
from attnscope.models.subjects.countdown.tokenizer import (
    build_tokenizer,
    prompt_chat,
    prompt_text,
    prompt_text_with_system,
)

__all__ = [
    "FLIGHT",
    "WEIGHTS",
    "Problem",
    "Step",
    "build_subject",
    "build_tokenizer",
    "load_subject",
    "prompt_chat",
    "prompt_text",
    "prompt_text_with_system",
    "reachable",
    "sample_problems",
    "solve",
    "split_of",
    "subject_config",
    "verify",
    "write_solution",
]
