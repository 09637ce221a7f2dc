"""A base model for problems in words."""

# Tokens of a response at most: the longest solutions have about 90.
MAX_RESPONSE = 112
