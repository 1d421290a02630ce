"""Exact gate activations from weights and inputs. NumPy only: no framework is imported here."""

from collector.replay.activations import ACTIVATIONS
from collector.replay.cells import GRUWeights, LSTMWeights, Replay, replay_gru, replay_lstm

__all__ = ["ACTIVATIONS", "GRUWeights", "LSTMWeights", "Replay", "replay_gru", "replay_lstm"]
