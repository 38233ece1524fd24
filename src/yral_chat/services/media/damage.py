"""What the readers of files say to each other; the public functions turn it into a refusal (contract section 12.1)."""


class Damaged(Exception):
    """The bytes are not what they claim to be: truncated, contradictory, or of a kind that is not taken."""
