"""What operators are told."""


class CannotGoOn(Exception):
    """Why a start or a command of the operator ends: a sentence for them. The exit status is 1."""
