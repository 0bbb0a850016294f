"""Credit: token weights for reinforcement learning, from attention and other readings."""

from attnscope.credit.assignment import Credit
from attnscope.credit.bottom import bottom_share
from attnscope.credit.catalog import RULES, CatalogedRule, find_rule
from attnscope.credit.configured_rule import rule_named
from attnscope.credit.errors import CreditError
from attnscope.credit.extra_forward import calibrate, read_responses
from attnscope.credit.flight_recorder import FlightRecorder, read_flight, recording_callback
from attnscope.credit.head_calibration import HeadCalibration, calibration_of, load_calibration
from attnscope.credit.head_recorder import mean_spans
from attnscope.credit.layout import Layout, Stretch
from attnscope.credit.normalization import mean_one, unnormalized
from attnscope.credit.prefix_values import prefix_value_advantages
from attnscope.credit.preset import REV, V1, Preset
from attnscope.credit.reading_plan import ReadingPlan, plan_for
from attnscope.credit.readings import Readings
from attnscope.credit.ride import Ride, riding
from attnscope.credit.row_alignment import emitting_row, own_row
from attnscope.credit.rule import AmplifyingRule, Rule
from attnscope.credit.rule_preset import with_preset
from attnscope.credit.rules import (
    Coupled,
    Entropy,
    EntropyMask,
    EntropyShaped,
    Global,
    Local,
    LowProbability,
    PositionMatched,
    RandomShare,
    Receiver,
    Redistributed,
    ShuffledHeads,
    TokenClass,
    Uniform,
)
from attnscope.credit.stored_responses import calibrate_traces, trace_readings
from attnscope.credit.thresholds import (
    FixedThreshold,
    largest_change,
    nearest_change,
    response_median,
)
from attnscope.credit.token_batch import (
    TokenBatch,
    completion_batch,
    packed_batch,
    padded_batch,
)
from attnscope.credit.token_credit import token_advantages
from attnscope.credit.token_rewards import implicit_rewards, redistributed_shares, returns_to_go
from attnscope.credit.trl_riding_trainer import credit_riding
from attnscope.credit.trl_trainer import credit_aware
from attnscope.credit.verl_trainer import verl_credit_trainer

__all__ = [
    "REV",
    "RULES",
    "V1",
    "AmplifyingRule",
    "CatalogedRule",
    "Coupled",
    "Credit",
    "CreditError",
    "Entropy",
    "EntropyMask",
    "EntropyShaped",
    "FixedThreshold",
    "FlightRecorder",
    "Global",
    "HeadCalibration",
    "Layout",
    "Local",
    "LowProbability",
    "PositionMatched",
    "Preset",
    "RandomShare",
    "ReadingPlan",
    "Readings",
    "Receiver",
    "Redistributed",
    "Ride",
    "Rule",
    "ShuffledHeads",
    "Stretch",
    "TokenBatch",
    "TokenClass",
    "Uniform",
    "bottom_share",
    "calibrate",
    "calibrate_traces",
    "calibration_of",
    "completion_batch",
    "credit_aware",
    "credit_riding",
    "emitting_row",
    "find_rule",
    "implicit_rewards",
    "largest_change",
    "load_calibration",
    "mean_one",
    "mean_spans",
    "nearest_change",
    "own_row",
    "packed_batch",
    "padded_batch",
    "plan_for",
    "prefix_value_advantages",
    "read_flight",
    "read_responses",
    "recording_callback",
    "redistributed_shares",
    "response_median",
    "returns_to_go",
    "riding",
    "rule_named",
    "token_advantages",
    "trace_readings",
    "unnormalized",
    "verl_credit_trainer",
    "with_preset",
]
