"""`SiteNamer`: which site an attention call belongs to, and which sequences it reads."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from attnscope.attention import AttentionOperator, SoftmaxAttention
from attnscope.probes.attention_call import AttentionCall
from attnscope.probes.axis_sequence import axis_sequence
from attnscope.probes.encoding import Encoded
from attnscope.probes.errors import CaptureError
from attnscope.probes.images import patch_sequence
from attnscope.probes.module_paths import module_paths
from attnscope.traces import Observation, Site, TokenSequence

__all__ = ["SiteNamer"]

_VISION = re.compile(r"(^|\.)(vision|visual|image|vit|pixel)\w*(\.|$)", re.IGNORECASE)
_CROSS = re.compile(r"cross|encoder_attn|encdecattention|enc_dec", re.IGNORECASE)


class SiteNamer:
    """Names the sites of one forward pass, and builds their observations.

    Args:
        model: The model, whose module paths name the sites.
        encoded: The input, whose sequences are known.
        layers: Layer numbers to record; None for all.
        names: `(stack, layer)` of modules whose path does not tell them by its first number.
    """

    def __init__(
        self,
        model: nn.Module,
        encoded: Encoded,
        layers: Sequence[int] | None,
        names: Mapping[nn.Module, tuple[str, int]],
    ) -> None:
        self._config = getattr(model, "config", None)
        self._paths = module_paths(model)
        self._encoded = encoded
        self._layers = None if layers is None else list(layers)
        self._calls: Counter[str] = Counter()
        self._found: set[int] = set()
        self._names = names
        self._counts = _layer_counts([*map(split_path, self._paths.values()), *names.values()])
        self.sequences: dict[str, TokenSequence] = {}
        self.heard: dict[str, None] = {}
        self._stacks: dict[str, None] = {}
        self._main: tuple[str, bool] | None = None

    # --- which sites ------------------------------------------------------------------------

    def _name(self, module: nn.Module) -> tuple[str, int]:
        return self._names.get(module) or split_path(self._paths[module])

    def wants(self, module: nn.Module) -> bool:
        """Return whether the site of a module is to be recorded."""
        if self._layers is None:
            return True
        stack, layer = self._name(module)
        count = self._counts.get(stack, layer + 1)
        asked = {wanted for wanted in self._layers if layer == wanted + count * (wanted < 0)}
        self._found |= asked
        return bool(asked)

    def hear(self, module: nn.Module) -> None:
        """Remember that a module's attention was seen."""
        self.heard[self._paths[module]] = None
        self._stacks[self._name(module)[0]] = None

    def require_layers(self) -> None:
        """Refuse a request for layers that no stack has.

        Raises:
            CaptureError: A layer number was asked for that nothing bears.
        """
        missing = sorted(set(self._layers or ()) - self._found)
        if missing or self._layers == []:
            counts = {stack: self._counts.get(stack, 1) for stack in self._stacks}
            raise CaptureError(
                f"no layer {missing or 'asked for'} exists; layers by stack: {counts}"
            )

    def blocks(self) -> dict[str, nn.Module]:
        """Return the module of each layer, whose input is the residual stream, by its path."""
        return {path: module for module, path in self._paths.items() if re.search(r"\.\d+$", path)}

    # --- the main sequence ------------------------------------------------------------------

    def main_sequence(self) -> str:
        """Return the sequence that the model speaks, or the first that was seen."""
        known = self._encoded.main_sequence
        if known in self.sequences or known in self._encoded.sequences:
            return known
        return self._main[0] if self._main else next(iter(self.sequences), known)

    @property
    def main_is_causal(self) -> bool:
        """Return whether the main sequence is read causally, so that logits are of next tokens."""
        return self._main is not None and self._main[1]

    # --- observations -----------------------------------------------------------------------

    def observations(self, call: AttentionCall, hidden: dict[str, Tensor]) -> list[Observation]:
        """Return what a call shows: one observation per item of the module's batch.

        A vision tower may see several pictures as a batch, or call its attention once for each;
        a module that reads the text again is one more layer, with the weights of the first.
        """
        path = self._paths[call.module]
        self.hear(call.module)
        batch, earlier = call.attention.shape[0], self._calls[path]
        self._calls[path] += batch
        if batch == 1 and self._role(path, cross=False) != "image":
            return [self._observation(call, 0, None, hidden, repeat=earlier)]
        several = batch > 1 or earlier > 0
        return [
            self._observation(call, item, earlier + item if several else None, hidden)
            for item in range(batch)
        ]

    def _observation(
        self,
        call: AttentionCall,
        item: int,
        number: int | None,
        hidden: dict[str, Tensor],
        repeat: int = 0,
    ) -> Observation:
        path = self._paths[call.module]
        stack, layer = self._name(call.module)
        suffix = "" if number is None else f"[{number}]"
        if call.laid_out:
            queries, keys = self._laid_out(call)
            attention = call.attention.item(item)
        else:
            queries, keys, attention = self._guessed(call, path, item, number)
        self._note_main(queries.name, causal=attention.causal)
        return Observation(
            site=Site(
                stack=stack + suffix,
                layer=layer + repeat,
                path=path + suffix,
                query_sequence=queries.name,
                key_sequence=keys.name,
            ),
            attention=attention,
            queries=queries,
            keys=keys,
            value=call.value[item].detach(),
            hidden=_hidden_of(path, hidden, item, attention.queries),
        )

    def _laid_out(self, call: AttentionCall) -> tuple[TokenSequence, TokenSequence]:
        """Return the sequences of a call whose operator says what its axes are."""
        attention, known = call.attention, {**self._encoded.sequences, **self.sequences}
        queries = axis_sequence(attention.query_axis, attention.queries, call.grid, known)
        known[queries.name] = self.sequences[queries.name] = queries
        keys = axis_sequence(attention.key_axis, attention.keys, call.key_grid, known)
        self.sequences[keys.name] = keys
        return queries, keys

    def _guessed(
        self, call: AttentionCall, path: str, item: int, number: int | None
    ) -> tuple[TokenSequence, TokenSequence, AttentionOperator]:
        """Return the sequences that the module's path tells, and the operator over them."""
        cross = bool(
            _CROSS.search(
                path.rsplit(".", 2)[-2] + path.rsplit(".", 1)[-1] if "." in path else path
            )
        )
        cross = cross or bool(getattr(call.module, "is_cross_attention", False))
        queries = self._sequence(path, call.attention.queries, number, cross=False)
        keys = self._sequence(path, call.attention.keys, number, cross=True) if cross else queries
        if len(keys) != call.attention.keys:
            keys = self._sequence(path, call.attention.keys, number, cross=True)
            cross = True
        attention = cast("SoftmaxAttention", call.attention)  # who needs to be told is of this kind
        axis = "memory" if cross else keys.axis
        return queries, keys, attention.item(item, query_axis=queries.axis, key_axis=axis)

    def _note_main(self, name: str, *, causal: bool) -> None:
        speaks = name == self._encoded.main_sequence
        if self._main is None or (speaks and not self._main[1]):
            self._main = (name, causal)

    def _sequence(
        self, path: str, length: int, number: int | None, *, cross: bool
    ) -> TokenSequence:
        name = self._role(path, cross=cross)
        if number is not None and name == "image":
            name = f"image {number}"
        known = self.sequences.get(name) or self._encoded.sequences.get(name)
        if known is not None and len(known) != length:
            name = f"{name} of {split_path(path)[0]}{' keys' if cross else ''}"
            known = self.sequences.get(name)
        if known is not None and len(known) != length:
            name = f"{name}, {length}"
            known = self.sequences.get(name)
        if known is None:
            known = self._new_sequence(name, length)
        self.sequences[name] = known
        return known

    def _role(self, path: str, *, cross: bool) -> str:
        known = self._encoded.sequences
        if "decoder" in known:
            parts = path.split(".")
            in_decoder = any(part.startswith("decoder") for part in parts)
            return "decoder" if in_decoder and not cross else "encoder"
        if _VISION.search(path) or "text" not in known:
            return self._encoded.main_sequence if "text" not in known else "image"
        return "memory" if cross else "text"

    def _new_sequence(self, name: str, length: int) -> TokenSequence:
        if name.startswith("image"):
            return patch_sequence(name, length, self._config, self._encoded.model_inputs)
        audio = (
            "input_features" in self._encoded.model_inputs
            or "input_values" in self._encoded.model_inputs
        )
        axis = "frame" if audio and name != "decoder" else "token"
        return TokenSequence(name=name, tokens=tuple(str(i) for i in range(length)), axis=axis)


def split_path(path: str) -> tuple[str, int]:
    """Return the stack and the layer number of a module path.

    Example:
        >>> split_path("model.layers.3.self_attn")
        ('model.layers.self_attn', 3)
    """
    parts = path.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        return path, 0
    place = numbers[0]
    return ".".join(parts[:place] + parts[place + 1 :]), int(parts[place])


def _layer_counts(names: Sequence[tuple[str, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for stack, layer in names:
        counts[stack] = max(counts.get(stack, 0), layer + 1)
    return counts


def _hidden_of(
    path: str, hidden: Mapping[str, Tensor], item: int, queries: int
) -> Float[Tensor, "position width"] | None:
    """Return what entered the layer of a module, a state per query; None where it is not told.

    Some layers take pictures without a batch axis, one after the other, and some a plane of them.
    """
    held = [block for block in hidden if path.startswith(block + ".")]
    if not held:
        return None
    state = hidden[max(held, key=len)].detach()
    if state.ndim == 2:
        return state if len(state) == queries else None
    states = state[min(item, len(state) - 1)].flatten(0, -2)
    return states if state.ndim == 3 or len(states) == queries else None
