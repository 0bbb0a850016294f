"""`rhythm_coupling`: whether WAAD, FAI and entropy peak together more often than by chance."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from attnscope.metrics.peaks import local_peaks

__all__ = ["Coupling", "RhythmCoupling", "rhythm_coupling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """A statistic beside what chance gives.

    Attributes:
        observed: The statistic; NaN where there is no peak to take it of.
        chance: Its expectation without any coupling.
    """

    observed: float
    chance: float

    @property
    def lift(self) -> float:
        """Return `(observed - chance) / chance`: 0 at chance, 1 at twice; NaN where chance is 0."""
        return (self.observed - self.chance) / self.chance if self.chance else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class RhythmCoupling:
    """The three couplings of the preplan-and-anchor rhythm.

    Attributes:
        entropy_at_waad_peaks: Mean token entropy at WAAD peaks, against the mean over all tokens.
        receiver_peaks_on_fai_peaks: Share of the receiver heads' FAI peaks that are FAI peaks of
            the global heads too, against the share of FAI peaks among all tokens.
        fai_peaks_after_waad_peaks: Share of FAI peaks that stand at a WAAD peak or right behind
            one, against the same share for FAI peaks put anywhere.
    """

    entropy_at_waad_peaks: Coupling
    receiver_peaks_on_fai_peaks: Coupling
    fai_peaks_after_waad_peaks: Coupling


def rhythm_coupling(
    waad: Float[Tensor, " token"],
    fai: Float[Tensor, " token"],
    receiver_fai: Float[Tensor, " token"],
    entropy: Float[Tensor, " token"],
) -> RhythmCoupling:
    """Return how WAAD peaks, FAI peaks, receiver heads and entropy go together in one response.

    Peaks are strict local maxima, and a FAI peak at t "coincides with or follows" a WAAD peak when
    one stands at t or t - 1 (both are our reading). The last baseline is the exact expectation of
    what the paper estimates by shuffling the FAI peaks.

    Args:
        waad: WAAD of the local heads at the response's tokens.
        fai: FAI of the global heads, best with an open horizon (`near=0, far=None`), as in the
            paper's analysis.
        receiver_fai: FAI of the receiver heads.
        entropy: Entropy of the distribution that each token was drawn from.

    Reference: Li et al. 2025, arXiv:2510.13554, table 2 and appendix A.1.

    Example:
        >>> import torch
        >>> waad = torch.tensor([0.0, 2.0, 0.0, 0.0, 1.0, 0.0])  # peaks at 1 and 4
        >>> fai = torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0, 0.0])  # peak at 2, right behind 1
        >>> entropy = torch.tensor([1.0, 3.0, 1.0, 1.0, 2.0, 1.0])
        >>> coupling = rhythm_coupling(waad, fai, fai, entropy)
        >>> coupling.entropy_at_waad_peaks
        Coupling(observed=2.5, chance=1.5)
        >>> coupling.fai_peaks_after_waad_peaks.observed  # and 4 of 6 places are such places
        1.0
        >>> round(coupling.fai_peaks_after_waad_peaks.lift, 4)
        0.5
    """
    waad_peaks, fai_peaks = local_peaks(waad), local_peaks(fai)
    at_or_after = waad_peaks | pad(waad_peaks[:-1], (1, 0))
    defined = ~entropy.isnan()
    return RhythmCoupling(
        entropy_at_waad_peaks=Coupling(
            observed=float(entropy[waad_peaks & defined].mean()),
            chance=float(entropy[defined].mean()),
        ),
        receiver_peaks_on_fai_peaks=_share_on(local_peaks(receiver_fai), fai_peaks),
        fai_peaks_after_waad_peaks=_share_on(fai_peaks, at_or_after),
    )


def _share_on(peaks: Bool[Tensor, " token"], places: Bool[Tensor, " token"]) -> Coupling:
    return Coupling(
        observed=float(places[peaks].float().mean()), chance=float(places.float().mean())
    )
