"""What imbalance there is in the user's data and training, what it costs, and what to change.

Every measurement calls the very anchors, matching and losses that training uses.
"""
