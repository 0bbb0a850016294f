"""The three couplings against counting by hand."""

import math

import pytest
import torch

from attnscope.metrics import rhythm_coupling
from attnscope.metrics.coupling import Coupling
from tests.metrics.patterns import NAN, close, normal


def peaks(series: list[float]) -> list[int]:
    return [i for i in range(1, len(series) - 1) if series[i - 1] < series[i] > series[i + 1]]


def test_the_case_worked_by_hand() -> None:
    waad = torch.tensor([0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])  # peaks at 1 and 4
    fai = torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 2.0, 0.0])  # peaks at 2 and 6
    receiver = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # peak at 2
    entropy = torch.tensor([NAN, 3.0, 1.0, 1.0, 2.0, 1.0, 1.0, 5.0])
    found = rhythm_coupling(waad, fai, receiver, entropy)
    assert found.entropy_at_waad_peaks == Coupling(observed=2.5, chance=2.0)
    assert found.receiver_peaks_on_fai_peaks == Coupling(observed=1.0, chance=0.25)
    assert found.receiver_peaks_on_fai_peaks.lift == 3.0
    assert found.fai_peaks_after_waad_peaks == Coupling(observed=0.5, chance=0.5)  # 1, 2, 4, 5 of 8


def test_chance_is_what_shuffled_peaks_give_on_average() -> None:
    waad, fai, entropy = normal(0, 60), normal(1, 60), normal(2, 60).abs()
    found = rhythm_coupling(waad, fai, fai, entropy).fai_peaks_after_waad_peaks
    places = {p + step for p in peaks(waad.tolist()) for step in (0, 1)}
    fai_peaks = peaks(fai.tolist())
    observed = sum(p in places for p in fai_peaks) / len(fai_peaks)
    close(torch.tensor(found.observed), observed)
    shuffles = [torch.randperm(60, generator=torch.Generator().manual_seed(i)) for i in range(300)]
    hits = [
        sum(p in places for p in order[: len(fai_peaks)].tolist()) / len(fai_peaks)
        for order in shuffles
    ]
    assert found.chance == pytest.approx(sum(hits) / len(hits), abs=0.03)


def test_without_peaks_nothing_is_claimed() -> None:
    flat = torch.ones(6)
    found = rhythm_coupling(flat, flat, flat, flat)
    assert math.isnan(found.entropy_at_waad_peaks.observed)
    assert math.isnan(found.receiver_peaks_on_fai_peaks.lift)
    assert found.fai_peaks_after_waad_peaks.chance == 0
