"""The processor: pictures to pixels, words to tokens, and one `<image>` token for each patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnscope.models.subjects.glimpse.scenes import CANVAS
from attnscope.models.subjects.glimpse.tasks import vocabulary_sources

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN, IMAGE = "<pad>", "<bos>", "<eos>", "<unk>", "<image>"
ROLES = ("system", "user", "assistant")
SPECIAL = (PAD, BOS, EOS, UNKNOWN, IMAGE, *(f"<{role}>" for role in ROLES))
PATCH = 8
PATCHES = (CANVAS // PATCH) ** 2
CONTEXT_LENGTH = 512
MEAN, SPREAD = 0.4, 0.25
"""What pixels between 0 and 1 are normalised with, in all three channels."""

CHAT_TEMPLATE = """\
{{- '<bos>' -}}
{%- for message in messages -%}
{{- ' <' + message['role'] + '>' -}}
{%- if message['content'] is string -%}{{- ' ' + message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{{- ' <image>' if part['type'] == 'image' else ' ' + part['text'] -}}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{- ' <eos>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ' <assistant>' -}}{%- endif -%}
"""


def vocabulary() -> dict[str, int]:
    """Return every token with its id: special tokens, then words by the alphabet."""
    words = sorted(set(" ".join(vocabulary_sources()).split()))
    return {token: index for index, token in enumerate((*SPECIAL, *words))}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer, which pads on the left and adds no token by itself."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(WordLevel(vocabulary(), unk_token=UNKNOWN))
    engine.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=engine,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, *(f"<{role}>" for role in ROLES)],
        padding_side="left",
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaProcessor:
    """Return the processor, which puts `PATCHES` image tokens where a chat has an image."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    side = {"height": CANVAS, "width": CANVAS}
    pictures = CLIPImageProcessor(
        size=side, crop_size=side, image_mean=[MEAN] * 3, image_std=[SPREAD] * 3
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )
