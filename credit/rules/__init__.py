"""Credit rules: each turns the readings of a batch of responses into token weights."""

from attnscope.credit.rules.coupled import Coupled
from attnscope.credit.rules.entropy import Entropy, EntropyMask
from attnscope.credit.rules.entropy_shaped import EntropyShaped
from attnscope.credit.rules.global_anchor import Global, Receiver
from attnscope.credit.rules.local import Local
from attnscope.credit.rules.low_probability import LowProbability
from attnscope.credit.rules.position_matched import PositionMatched
from attnscope.credit.rules.random_share import RandomShare
from attnscope.credit.rules.redistribution import Redistributed
from attnscope.credit.rules.shuffled_heads import ShuffledHeads
from attnscope.credit.rules.token_class import TokenClass
from attnscope.credit.rules.uniform import Uniform

__all__ = [
    "Coupled",
    "Entropy",
    "EntropyMask",
    "EntropyShaped",
    "Global",
    "Local",
    "LowProbability",
    "PositionMatched",
    "RandomShare",
    "Receiver",
    "Redistributed",
    "ShuffledHeads",
    "TokenClass",
    "Uniform",
]
