"""Exact gate activations from weights and inputs. NumPy only: no framework is imported here."""

from gatewatch.collector.replay.activations import ACTIVATIONS
from gatewatch.collector.replay.recurrence import GRUWeights, LSTMWeights, Replay, replay_gru, replay_lstm

__all__ = ["ACTIVATIONS", "GRUWeights", "LSTMWeights", "Replay", "replay_gru", "replay_lstm"]
