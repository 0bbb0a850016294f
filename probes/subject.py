"""`Subject`: a model that is held, with the tokenizer or processor that speaks for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.probes.encoding import (
    Chat,
    Encoded,
    Roles,
    as_batch_of_one,
    kinds_of_tokens,
    split_batch,
    token_sequence,
)
from attnscope.probes.errors import CaptureError
from attnscope.probes.images import image_segments, with_pictures

__all__ = ["Inputs", "Subject"]

Inputs = str | Chat | Mapping[str, Any] | Encoded


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and what turns text, chats and images into its inputs.

    Attributes:
        model: The model; it is never copied, and is left as it was found.
        processor: Its tokenizer, or the processor that holds one; None if only tensors are given.
        name: Where it came from, for a trace's provenance.
        revision: Which version of it.
    """

    model: nn.Module
    processor: Any = None
    name: str = ""
    revision: str = ""

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer, the processor's own where there is one; None if there is none."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def device(self) -> torch.device:
        """Return where the model's first parameter lies."""
        return next(
            (parameter.device for parameter in self.model.parameters()), torch.device("cpu")
        )

    @property
    def speaks_by_decoder(self) -> bool:
        """Return whether the model reads with an encoder and speaks with a decoder."""
        return bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))

    def encode(
        self, inputs: Inputs, *, response: str | None = None, images: Sequence[Any] = ()
    ) -> Encoded:
        """Return inputs as one unpadded batch of one, with segments.

        A chat's last assistant message is the segment `response`; earlier ones are `assistant`,
        the rest bears its role (`system`, user: `prompt`). In a text everything is `prompt` but
        the `response` given beside it.

        Args:
            inputs: A text, a chat, or the tensors that the model's forward takes.
            response: What follows a text, to be read as the model's own words.
            images: Pictures that a text or chat refers to.

        Raises:
            CaptureError: The inputs need a tokenizer that is not there, or are a batch of several.
        """
        if isinstance(inputs, Encoded):
            return inputs
        if isinstance(inputs, Mapping):
            return self._encode_tensors(inputs)
        if self.processor is None:
            raise CaptureError(
                f"{type(inputs).__name__} inputs need a tokenizer; give Subject(model, tokenizer) "
                "one, or the tensors that the model's forward takes"
            )
        if isinstance(inputs, str):
            return self._encode_text(inputs, response, images)
        return self._encode_chat(inputs, images)

    def encode_each(self, inputs: Mapping[str, Tensor]) -> Iterator[Encoded]:
        """Yield the items of a padded batch, each without its padding."""
        for single in split_batch(inputs):
            yield self._sequenced(single)

    def generate(self, inputs: Inputs, *, images: Sequence[Any] = (), **options: Any) -> Encoded:
        """Let the model answer, and return prompt and answer as one input to capture.

        The answer is the segment `response`. `options` go to the model's own `generate`; text is
        greedy unless they say otherwise.

        Raises:
            CaptureError: The model cannot generate, or generated nothing.
        """
        generate: Any = getattr(self.model, "generate", None)
        if generate is None:
            raise CaptureError(
                f"{type(self.model).__name__} has no generate(); capture a text with a response"
            )
        prompt = self._prompt(inputs, images)
        tensors = {name: value.to(self.device) for name, value in prompt.model_inputs.items()}
        with torch.no_grad():
            produced = generate(**tensors, **({"do_sample": False} | options))
        ids = produced if isinstance(produced, Tensor) else produced.sequences
        if self.speaks_by_decoder:
            return self._sequenced({**prompt.model_inputs, "decoder_input_ids": ids.cpu()})
        length = prompt.model_inputs["input_ids"].shape[1]
        if ids.shape[1] <= length:
            raise CaptureError(f"the model generated nothing after {length} prompt tokens")
        roles = _roles_of(prompt) | {"response": range(length, ids.shape[1])}
        inputs_after = {
            **prompt.model_inputs,
            **kinds_of_tokens(self.model, prompt.model_inputs, ids.shape[1]),
            "input_ids": ids.cpu(),
            "attention_mask": torch.ones_like(ids.cpu()),
        }
        return self._sequenced(inputs_after, roles)

    def _prompt(self, inputs: Inputs, images: Sequence[Any]) -> Encoded:
        if isinstance(inputs, str | Encoded | Mapping):
            return self.encode(inputs, images=images)
        return self._encode_chat(inputs, images, answer_next=True)

    # --- the three kinds of input -----------------------------------------------------------

    def _encode_tensors(self, inputs: Mapping[str, Any]) -> Encoded:
        tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        items = list(split_batch(tensors))
        if len(items) != 1:
            raise CaptureError(
                f"a trace is one sequence, and the inputs are a batch of {len(items)}; "
                "use capture_each(), which splits batches and strips padding"
            )
        return self._sequenced(items[0])

    def _encode_text(self, text: str, response: str | None, images: Sequence[Any]) -> Encoded:
        if images:
            return self._encode_pictured(
                text + (response or ""), None if response is None else text, images
            )
        prompt = self.tokenizer(text)["input_ids"]
        if response is None:
            return self._sequenced({"input_ids": as_batch_of_one(prompt)})
        if self.speaks_by_decoder:
            said = self.tokenizer(text_target=response)["input_ids"]
            start = self._decoder_start()
            decoder = as_batch_of_one([start, *said])
            return self._sequenced(
                {"input_ids": as_batch_of_one(prompt), "decoder_input_ids": decoder}
            )
        said = self.tokenizer(response, add_special_tokens=False)["input_ids"]
        roles = {"response": range(len(prompt), len(prompt) + len(said))}
        return self._sequenced({"input_ids": as_batch_of_one([*prompt, *said])}, roles)

    def _encode_chat(
        self, chat: Chat, images: Sequence[Any], *, answer_next: bool = False
    ) -> Encoded:
        messages = [dict(message) for message in chat]
        _check_chat(messages, self.processor)
        if images or any(not isinstance(message["content"], str) for message in messages):
            return self._encode_chat_with_images(messages, images, answer_next)
        full = self._render(messages, answer_next)
        roles: dict[str, range] = {}
        start = 0
        for number, message in enumerate(messages):
            spoken = message["role"] == "assistant"
            last = number == len(messages) - 1
            if spoken:
                opened = self._render(messages[:number], True)
                start = _shared(full, opened)
            stop = len(full) if last else _shared(full, self._render(messages[: number + 1], False))
            name = _role_name(message["role"], last)
            roles[name] = range(roles[name].start if name in roles else start, max(stop, start))
            start = max(stop, start)
        return self._sequenced({"input_ids": as_batch_of_one(full)}, roles)

    def _encode_chat_with_images(
        self, messages: list[dict[str, Any]], images: Sequence[Any], answer_next: bool
    ) -> Encoded:
        def rendered(told: list[dict[str, Any]], answer_next: bool) -> str:
            return self.processor.apply_chat_template(
                told, tokenize=False, add_generation_prompt=answer_next
            )

        answered = len(messages) > 1 and messages[-1]["role"] == "assistant"
        before = rendered(messages[:-1], True) if answered else None
        return self._encode_pictured(rendered(messages, answer_next), before, images)

    def _encode_pictured(self, text: str, before: str | None, images: Sequence[Any]) -> Encoded:
        """Return a text with its pictures; what follows `before`, where given, is the response.

        The processor is asked twice, because it alone knows how many tokens a picture takes.
        """
        whole = with_pictures(self.processor, text, images)
        if before is None:
            return self._encode_tensors(whole)
        alone = with_pictures(self.processor, before, images)
        ids, asked = (given["input_ids"][0].tolist() for given in (whole, alone))
        return self._sequenced(whole, {"response": range(_shared(ids, asked), len(ids))})

    def _render(self, messages: list[dict[str, Any]], answer_next: bool) -> list[int]:
        if not messages:
            return []
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer_next
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _sequenced(self, tensors: Mapping[str, Tensor], roles: Roles | None = None) -> Encoded:
        empty = [name for name, tensor in tensors.items() if not tensor.numel()]
        if empty:
            raise CaptureError(f"{', '.join(empty)} is empty: there is no token to capture")
        tensors = self._with_decoder_start(dict(tensors))
        if "input_ids" not in tensors and "decoder_input_ids" not in tensors:
            return Encoded(
                model_inputs=tensors,
                main_sequence="image" if "pixel_values" in tensors else "input",
            )
        sequences = {}
        if "decoder_input_ids" in tensors:
            sequences["decoder"] = token_sequence(
                "decoder", tensors["decoder_input_ids"], self.tokenizer
            )
        if "input_ids" in tensors:
            name = "encoder" if "decoder" in sequences else "text"
            pictures = image_segments(self.model, tensors)
            sequences[name] = token_sequence(
                name, tensors["input_ids"], self.tokenizer, roles=roles, images=pictures
            )
        main = "decoder" if "decoder" in sequences else "text"
        return Encoded(model_inputs=tensors, sequences=sequences, main_sequence=main)

    def _with_decoder_start(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give an encoder-decoder that was told nothing to say its start token."""
        if not self.speaks_by_decoder or "decoder_input_ids" in tensors or "labels" in tensors:
            return tensors
        return tensors | {"decoder_input_ids": as_batch_of_one([self._decoder_start()])}

    def _decoder_start(self) -> int:
        config: Any = self.model.config
        start = getattr(config, "decoder_start_token_id", None)
        return int(config.bos_token_id or 0) if start is None else int(start)


def _check_chat(messages: list[dict[str, Any]], processor: Any) -> None:
    if not messages or any(
        "role" not in message or "content" not in message for message in messages
    ):
        raise CaptureError(
            f"a chat is a list of messages with a role and content; got {messages!r}"
        )
    template = getattr(processor, "chat_template", None) or getattr(
        getattr(processor, "tokenizer", None), "chat_template", None
    )
    if template is None:
        raise CaptureError(
            "the tokenizer has no chat template; give a text, with response= for the model's words"
        )


def _role_name(role: str, last: bool) -> str:
    if role == "assistant":
        return "response" if last else "assistant"
    return "prompt" if role == "user" else role


def _shared(full: Sequence[int], part: Sequence[int]) -> int:
    """Return how far two token lists agree."""
    pairs = zip(full, part, strict=False)
    return next(
        (position for position, (one, other) in enumerate(pairs) if one != other),
        min(len(full), len(part)),
    )


def _roles_of(encoded: Encoded) -> dict[str, range]:
    sequence = encoded.sequences[encoded.main_sequence]
    roles: dict[str, range] = {}
    for segment in sequence.segments:
        if segment.name in ("system", "assistant"):
            roles[segment.name] = range(segment.start, segment.stop)
    return roles
