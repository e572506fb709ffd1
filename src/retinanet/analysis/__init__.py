"""Measure faults and imbalance in a dataset and a model: what they cost, and what to change.

Every measurement calls the same anchor, matching and loss functions as training.
"""
