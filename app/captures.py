"""`capture_text` and `capture_lines`: what a model reads, as trace files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnscope.app.failures import CommandError, is_debugging, one_line, print_error
from attnscope.app.outputs import check_free, make_folder
from attnscope.app.progress import watched
from attnscope.app.prompts import Prompt, read_prompts
from attnscope.app.screen import plain_table, screen
from attnscope.app.subjects import ModelChoice, load_model
from attnscope.probes import Collector, Subject, capture
from attnscope.traces import Trace

__all__ = ["CaptureRequest", "Captured", "capture_lines", "capture_text", "print_captured"]

_ENDING = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRequest:
    """What is to be captured of every prompt.

    Attributes:
        layers: Layer numbers, negative ones from the end; None for all.
        gradient: `loss` or `logit`; None for no gradient.
        hidden: Keep the hidden states that enter each layer, too.
        generate: Most tokens that the model may answer with first; 0 for no answer.
        force: Overwrite files.
        verify: Hold each trace against the model's own slow attention.
    """

    layers: Sequence[int] | None = None
    gradient: str | None = None
    hidden: bool = False
    generate: int = 0
    force: bool = False
    verify: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A trace file that was written.

    Attributes:
        path: Where it is.
        tokens: Its tokens.
        response: How many of them are the model's own words.
        layers: Its attention layers, of all stacks.
        size: Its bytes.
        missed: Attention that ran and is not in it.
    """

    path: Path
    tokens: int
    response: int
    layers: int
    size: int
    missed: str = ""


def capture_text(
    choice: ModelChoice, prompt: Prompt, output: Path, request: CaptureRequest
) -> list[Captured]:
    """Return what was captured of one text.

    Args:
        choice: The model.
        prompt: The text.
        output: A folder, or the trace file itself.
        request: What to capture.

    Raises:
        CommandError: The response is given and asked for, or the file stands already.
        CaptureError: Model and text do not fit.
        TraceError: The file cannot be written.
    """
    if not str(prompt.inputs).strip():
        raise CommandError("the text is empty")
    if request.generate and prompt.is_answered:
        raise CommandError("the response is given; --generate would write another one")
    is_file = output.suffix == _ENDING and not output.is_dir()
    path = output if is_file else output / f"{prompt.name}{_ENDING}"
    check_free([path], force=request.force)
    subject = load_model(choice)
    make_folder(path.parent)
    return [_capture(subject, prompt, path, request)]


def capture_lines(
    choice: ModelChoice, file: Path, output: Path, request: CaptureRequest
) -> tuple[list[Captured], int]:
    """Return what was captured of the lines of a file, and how many lines failed.

    What is wrong with a line is printed, and the rest goes on.

    Args:
        choice: The model.
        file: One JSON object per line.
        output: The folder of the traces.
        request: What to capture.

    Raises:
        CommandError: There is no line, or the folder cannot be made.
        CaptureError: The model cannot be loaded.
    """
    prompts, bad = read_prompts(file)
    for line in bad:
        print_error(line.reason, before=f"line {line.line} of {file}: ")
    if not prompts:
        return [], len(bad)
    subject, folder = load_model(choice), make_folder(output)
    done: list[Captured] = []
    for prompt in watched(prompts, "capturing"):
        try:
            done.append(_capture(subject, prompt, folder / f"{prompt.name}{_ENDING}", request))
        except Exception as error:  # whatever a model makes of one line, the others are worth it
            if is_debugging():
                raise
            print_error(one_line(error), before=f"line {prompt.line} of {file}: ")
    return done, len(bad) + len(prompts) - len(done)


def print_captured(captured: Sequence[Captured]) -> None:
    """Print a table of the files that were written, and what is not in them."""
    from rich.filesize import decimal

    table = plain_table("file", ">tokens", ">of response", ">layers", ">size")
    table.columns[0].overflow = "fold"
    for one in captured:
        counts = (f"{one.tokens:,}", f"{one.response:,}", f"{one.layers:,}")
        table.add_row(str(one.path), *counts, decimal(one.size))
    screen().print(table)
    for kinds in dict.fromkeys(one.missed for one in captured if one.missed):
        screen(errors=True).print(f"note: attention of {kinds} ran and is not in the traces")


def _capture(subject: Subject, prompt: Prompt, path: Path, request: CaptureRequest) -> Captured:
    check_free([path], force=request.force)
    inputs, response = prompt.inputs, prompt.response
    if request.generate and not prompt.is_answered:
        inputs = subject.generate(inputs, max_new_tokens=request.generate)
    recorder = Collector(hidden=request.hidden)
    trace: Trace = capture(
        subject,
        inputs,
        request.layers,
        request.gradient,
        recorder,
        response=response,
        verify=request.verify,
    )
    trace.save(path)
    proof = trace.card.verification
    if proof is not None and not proof.passed:
        raise CommandError(f"{path} was written, but does not prove itself: {proof.failures[0]}")
    return Captured(
        path=path,
        tokens=len(trace.tokens),
        response=len(trace.segments["response"]) if "response" in trace.segments else 0,
        layers=len(trace.sites),
        size=path.stat().st_size,
        missed=trace.provenance.notes.get("not captured", ""),
    )
