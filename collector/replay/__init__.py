"""Exact gate activations from weights and inputs. NumPy only: no framework is imported here."""

from gatewatch.collector.replay.activations import ACTIVATIONS
from gatewatch.collector.replay.gru import GRUWeights, gru_from_keras, gru_from_torch, replay_gru
from gatewatch.collector.replay.lstm import LSTMWeights, lstm_from_keras, lstm_from_torch, replay_lstm
from gatewatch.collector.replay.recurrence import ReadAttribute, Replay

__all__ = [
    "ACTIVATIONS",
    "GRUWeights",
    "LSTMWeights",
    "ReadAttribute",
    "Replay",
    "gru_from_keras",
    "gru_from_torch",
    "lstm_from_keras",
    "lstm_from_torch",
    "replay_gru",
    "replay_lstm",
]
