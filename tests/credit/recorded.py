"""A step of verl with coupled credit, as `tests/verl/record.py` recorded it."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from attnscope.credit import HeadCalibration, plan_for, rule_named

RULE = rule_named("coupled", numbers={"near": 1, "far": 6})


def recorded():
    """Return the nested tensors of the batch by name, and the plan that it was read by."""
    with safe_open(Path(__file__).parent / "verl_batch.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        layers = tuple(json.loads(file.metadata()["layers"]))
    names = {name.partition(".")[0] for name in tensors if "." in name}
    batch = {
        name: torch.nested.nested_tensor_from_jagged(
            tensors[f"{name}.values"], tensors[f"{name}.offsets"]
        )
        for name in names
    }
    heads = {name: tensors[name] for name in ("spans", "local_heads", "global_heads")}
    return batch, plan_for(RULE, HeadCalibration(layers=layers, **heads))


def lengths_of(nested):
    return nested.offsets().diff().tolist()
