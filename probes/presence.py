"""`TokenPresence`: what a target is when some tokens of the input are there in part only."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.forward import forward
from attnscope.probes.picture_presence import blended_pictures, picture_runs
from attnscope.probes.recorder import capture
from attnscope.probes.subject import Subject
from attnscope.probes.targets import Logit, Target, resolve_target
from attnscope.traces import TokenSequence, Trace

__all__ = ["TokenPresence"]


class TokenPresence:
    """A target as a function of how far each token is there: 1 is the input, 0 the baseline.

    A token of text is `baseline + presence (embedding - baseline)`, where the embedding enters the
    model; a patch of a picture goes from the picture's mean color to itself. Between 0 and 1 lies
    the straight line that integrated gradients follow; at 0 and 1 it is ablation. So one function
    serves every method that asks what the model does without something.

    `TokenPresence(...)(presence)` takes `(case, token)` and returns one number per case. Cases run
    one after the other; gradients by the presence pass. The model is left as it was.

    Args:
        subject: The model.
        encoded: The input, from `subject.encode`.
        target: `"logit"`, `"loss"` or a target. A logit without a token is that of the token most
            likely for the whole input, whatever is taken away.
        sequence: Name of the sequence whose tokens may go; by default the one that is read: the
            encoder's, the text, or a picture's patches.
        baseline: The token that stands for an absent one (a padding token, say); None for the
            embedding 0. A model that begins with a norm without bias (RMSNorm, as Llama and Qwen)
            sees the direction of an embedding however short it is: there 0 is no neighbor of a
            little, and integrated gradients need a token.

    Attributes:
        sequence: The tokens that may go.
        target: The target, with its token fixed.
        changeable: Which tokens the presence can change: all of a text, and patches of pictures
            whose pixels can be told apart. The others are as they are, whatever is asked.

    Raises:
        CaptureError: There is no such sequence, or its tokens enter the model in no way known here.

    Example:
        >>> class Sum(nn.Module):  # each position's logit is the sum of the embeddings so far
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding = nn.Embedding.from_pretrained(torch.tensor([[1.0], [2.0]]))
        ...     def get_input_embeddings(self):
        ...         return self.embedding
        ...     def forward(self, input_ids):
        ...         return self.embedding(input_ids).cumsum(1)
        >>> subject = Subject(Sum())
        >>> encoded = subject.encode({"input_ids": torch.tensor([[1, 0, 1]])})
        >>> presence = TokenPresence(subject, encoded, target=Logit(0))
        >>> presence(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.5]])).tolist()
        [5.0, 3.0]
    """

    def __init__(
        self,
        subject: Subject,
        encoded: Encoded,
        *,
        target: str | Target = "logit",
        sequence: str | None = None,
        baseline: int | None = None,
    ) -> None:
        self.subject, self.encoded, self.baseline = subject, encoded, baseline
        seen = _sequences(subject, encoded)
        name = _read(encoded, seen) if sequence is None else sequence
        if name not in seen:
            raise CaptureError(f"no sequence {name!r} in this input; there are {sorted(seen)}")
        self.sequence = seen[name]
        self._spoken = seen.get(encoded.main_sequence, self.sequence)
        self._patches = picture_runs(self.sequence, encoded.model_inputs)
        self._embeddings = _embeddings(subject.model) if self.sequence.ids is not None else []
        if not self._embeddings and not self._patches:
            raise CaptureError(
                f"the positions of {name!r} are neither tokens with an embedding nor patches of "
                f"pixel_values {_shape(encoded)}"
            )
        self.changeable = self._changeable()
        self.target = resolve_target(target)
        if isinstance(self.target, Logit) and self.target.token is None:
            with torch.no_grad():
                row = self._logits(self.whole[0])[self.target.position]
            self.target = replace(self.target, token=int(row.argmax()))

    @property
    def whole(self) -> Float[Tensor, "1 token"]:
        """Return the presence of the whole input: 1 for each token."""
        parameter = next(self.subject.model.parameters(), torch.zeros(()))
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        return torch.ones(1, len(self.sequence), dtype=dtype, device=self.subject.device)

    def __call__(self, presence: Float[Tensor, "case token"]) -> Float[Tensor, " case"]:
        """Return the target of each case.

        Raises:
            CaptureError: There is not one number per token, or the model gives no logits.
        """
        if presence.shape[-1] != len(self.sequence):
            raise CaptureError(
                f"presence has {presence.shape[-1]} numbers per case; sequence "
                f"{self.sequence.name!r} has {len(self.sequence)} tokens"
            )
        return torch.stack([self.target(self._logits(row), self._spoken) for row in presence])

    def _logits(self, presence: Float[Tensor, " token"]) -> Tensor:
        model = self.subject.model
        pixels = {"pixel_values": self._pixels(presence)} if self._patches else {}
        inputs = {**self.encoded.model_inputs, **pixels}
        with ExitStack() as stack:
            stack.callback(model.train, model.training)
            model.eval()
            if self._embeddings:
                stack.enter_context(self._blending(presence))
            encoded = replace(self.encoded, model_inputs=inputs)
            logits = forward(self.subject, encoded, keep_logits=True)
        if logits is None:
            raise CaptureError(f"{type(model).__name__} gives no logits to take a target of")
        return logits

    @contextmanager
    def _blending(self, presence: Float[Tensor, " token"]) -> Iterator[None]:
        """Blend what the embedding gives for the sequence with the baseline."""
        ids = torch.tensor(self.sequence.ids)
        met: list[int] = []

        def blend(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            asked = args[0].reshape(-1) if args else None
            if asked is None or len(asked) != len(ids) or not torch.equal(asked.cpu(), ids):
                return None
            met.append(1)
            absent = torch.zeros_like(output)
            if self.baseline is not None:
                absent = module(torch.full_like(args[0], self.baseline)).detach()
            return torch.lerp(absent, output, presence.to(output)[None, :, None])

        with ExitStack() as stack:
            for embedding in self._embeddings:
                stack.callback(embedding.register_forward_hook(blend).remove)
            yield
        if not met:
            raise CaptureError(
                f"the embedding of {type(self.subject.model).__name__} was not asked for the "
                f"tokens of {self.sequence.name!r}, so that none can be taken away"
            )

    def _pixels(self, presence: Float[Tensor, " token"]) -> Tensor:
        """Return the pictures, each patch between itself and the mean color."""
        pixels = self.encoded.model_inputs["pixel_values"].to(self.subject.device)
        shares = [presence[run.start : run.stop] for run in self._patches]
        return blended_pictures(pixels, self._patches, shares)

    def _changeable(self) -> Bool[Tensor, " token"]:
        known = torch.full((len(self.sequence),), bool(self._embeddings))
        for run in self.sequence.segments:
            if run.name == "image":
                known[run.start : run.stop] = bool(self._patches)
        return known


def _sequences(subject: Subject, encoded: Encoded) -> Mapping[str, TokenSequence]:
    """Return the sequences of an input; those of pictures are only known when the model runs."""
    if encoded.sequences:
        return encoded.sequences
    trace: Trace = capture(subject, encoded, layers=[0])
    return trace.sequences


def _read(encoded: Encoded, seen: Mapping[str, TokenSequence]) -> str:
    if "encoder" in seen:
        return "encoder"
    return encoded.main_sequence if encoded.main_sequence in seen else next(iter(seen))


def _embeddings(model: nn.Module) -> list[nn.Module]:
    """Return the embeddings of a model's parts: an encoder's may be another module than its own.

    Raises:
        CaptureError: No part says by which embedding its tokens enter.
    """
    found: dict[nn.Module, None] = {}
    for module in model.modules():
        get: Any = getattr(module, "get_input_embeddings", None)
        try:
            embedding = get() if callable(get) else None
        except (AttributeError, NotImplementedError):  # a part that takes no tokens
            continue
        if isinstance(embedding, nn.Embedding):
            found[embedding] = None
    if not found:
        raise CaptureError(
            f"{type(model).__name__} has no get_input_embeddings(), by which its tokens enter"
        )
    return list(found)


def _shape(encoded: Encoded) -> tuple[int, ...] | None:
    pixels = encoded.model_inputs.get("pixel_values")
    return None if pixels is None else tuple(pixels.shape)
