"""`demonstrate`: the shipped models at work on what they were not trained on, as figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnscope.app.glimpsed import describe_scene, glimpse_paths
from attnscope.app.outputs import check_free, check_no_pictures, make_folder
from attnscope.app.progress import watched
from attnscope.app.rhythm_tables import print_heads, print_tokens, rhythm_readings
from attnscope.app.screen import plain_table, print_paths, screen, visible
from attnscope.app.subjects import ModelChoice, load_model
from attnscope.figures import save_figures, write_report
from attnscope.models.subjects.countdown import Problem, prompt_chat, sample_problems, verify
from attnscope.probes import Subject, capture
from attnscope.traces import Trace

__all__ = ["demonstrate"]

_SUBJECT = "countdown"
_LONGEST_RESPONSE = 448
_LONGEST_SHOWN = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """One problem, what the model made of it, and where its trace is."""

    number: int
    problem: Problem
    trace: Trace
    path: Path

    @property
    def response(self) -> str:
        """Return the words of the response, without the token that ends it."""
        runs = (run for run in self.trace.segments if run.name == "response")
        return " ".join(self.trace.tokens[place] for run in runs for place in run.positions)

    @property
    def is_solved(self) -> bool:
        """Return whether the answer is right, by exact arithmetic."""
        return verify(self.problem, self.response)


def demonstrate(folder: Path, *, count: int, seed: int, force: bool) -> None:
    """Let one model solve problems and the other see, and draw what their attention did.

    Args:
        folder: Where report, figures and traces go.
        count: How many held-out problems.
        seed: Which ones.
        force: Overwrite the files of an earlier demonstration.

    Raises:
        CommandError: The weights are not there, or files would be overwritten.
        TraceError: A file cannot be written.
    """
    paths = [folder / f"problem-{number}.safetensors" for number in range(1, count + 1)]
    page, pictures = folder / "report.html", folder / "figures"
    check_free([*paths, page, *glimpse_paths(folder)], force=force)
    check_no_pictures(pictures, force=force)
    subject = load_model(ModelChoice(name=_SUBJECT))
    make_folder(folder)
    problems = sample_problems(count, seed, numbers=3, split="test")
    jobs = list(enumerate(zip(problems, paths, strict=True), start=1))
    attempts = [_attempt(subject, *job) for job in watched(jobs, "solving")]
    _print_attempts(attempts)
    shown = max(attempts, key=_worth_showing)
    _print_shown(shown)
    written = [write_report(shown.trace, page, title=f"countdown: {shown.problem}")]
    written += save_figures(shown.trace, pictures)
    print_paths([*written, *paths, *describe_scene(folder, seed)])


def _worth_showing(attempt: _Attempt) -> tuple[bool, bool, int]:
    """Return a key that puts solved problems first, of these the longest that fits the screen."""
    length = len(attempt.trace.tokens)
    fits = length <= _LONGEST_SHOWN
    return attempt.is_solved, fits, length if fits else -length


def _attempt(subject: Subject, number: int, job: tuple[Problem, Path]) -> _Attempt:
    problem, path = job
    answered = subject.generate(prompt_chat(problem), max_new_tokens=_LONGEST_RESPONSE)
    trace: Trace = capture(subject, answered)
    trace.save(path)
    return _Attempt(number=number, problem=problem, trace=trace, path=path)


def _print_attempts(attempts: Sequence[_Attempt]) -> None:
    table = plain_table(">#", "problem", ">response tokens", "answer", "solved")
    for attempt in attempts:
        _, _, answer = attempt.response.partition("answer ")
        length = str(len(attempt.response.split()))
        solved = "yes" if attempt.is_solved else "no"
        cells = (str(attempt.number), str(attempt.problem), length)
        table.add_row(*cells, visible(answer) or "none", solved)
    solved = sum(attempt.is_solved for attempt in attempts)
    screen().print(f"{_SUBJECT} on problems that it was not trained on", style="bold")
    screen().print(table)
    screen().print(
        f"{solved} of {len(attempts)} solved; every answer is checked by exact arithmetic"
    )


def _print_shown(attempt: _Attempt) -> None:
    console = screen()
    verdict = "solved" if attempt.is_solved else "not solved"
    console.print(f"\nProblem {attempt.number}: {attempt.problem} ({verdict})", style="bold")
    console.print(visible(attempt.response))
    readings = rhythm_readings(attempt.trace)
    print_heads(readings)
    print_tokens(readings, attempt.trace)
