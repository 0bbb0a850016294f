"""What a capture of each sequence alone reads: the reference that batches are held to."""

import torch

from attnscope.metrics import group_mean
from attnscope.probes import Measuring, Subject, capture


def alone(policy, batch, plan, calibration):
    """Return the readings of each response, from captures of one unpadded sequence at a time."""
    rows, width = batch.layout.mask.shape
    waad = torch.full((rows, width + 1), torch.nan)
    fai, entropy = torch.full((rows, width), torch.nan), torch.full((rows, width + 1), torch.nan)
    spans = torch.full((rows, *calibration.spans.shape), torch.nan)
    for number, own in enumerate(batch.layout.stretches):
        count, first, end = own.end - own.first, own.first - own.start, own.end - own.start
        if not count:
            continue
        tokens = {"input_ids": batch.ids[own.row : own.row + 1, own.start : own.stop]}
        readings = capture(
            Subject(policy), tokens, calibration.layers, into=measuring(plan, range(first, end))
        )
        before = max(first - 1, 0)
        local = group_mean(readings["waad"].values, calibration.local_heads)[before:end]
        waad[number, first - before == 0 : count + 1] = local
        received = group_mean(readings["fai"].values, calibration.global_heads)
        fai[number, :count] = received[first:end]
        spans[number] = readings["head_span"].values
        known = capture(Subject(policy), tokens).entropies
        entropy[number, :count] = known[first:end]
    return {"local_waad": waad, "global_fai": fai, "entropy": entropy, "spans": spans}


def measuring(plan, response):
    rhythm = plan.preset.rhythm
    return Measuring(
        "waad",
        "fai",
        "head_span",
        options={
            "waad": {"window": rhythm.window},
            "fai": {"near": rhythm.near, "far": rhythm.far, "queries": response},
            "head_span": {"queries": response},
        },
    )


def held_to(readings, expected, tolerance=1e-5):
    """Compare readings with the reference, entropies as far as they were read."""
    for name in ("local_waad", "global_fai"):
        torch.testing.assert_close(
            getattr(readings, name), expected[name], atol=tolerance, rtol=tolerance, equal_nan=True
        )
    if readings.entropy is not None:
        read = torch.where(expected["entropy"].isnan(), torch.nan, readings.entropy)
        torch.testing.assert_close(
            read, expected["entropy"], atol=tolerance, rtol=tolerance, equal_nan=True
        )
