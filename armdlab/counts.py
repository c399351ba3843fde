"""Which numbers may count something, and which may be a seed of chance?"""

from __future__ import annotations

import operator


def is_whole(value: object) -> bool:
    """Whether it is an integer, of Python or of NumPy; True and False are none.

    >>> is_whole(8), is_whole(8.0), is_whole(True)
    (True, False, False)
    """
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def at_least_one(name: str, value: object) -> int:
    """The value as Python's int.

    Raises:
        ValueError: if it is no whole number of at least 1; the message gives its name.
    """
    if not is_whole(value) or operator.index(value) < 1:
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
    return operator.index(value)


def seed_for_torch(seed: object) -> int:
    """The seed as Python's int.

    Raises:
        ValueError: if it is none that torch takes.
    """
    if not is_whole(seed) or not -(2**63) <= operator.index(seed) < 2**64:
        raise ValueError(f"seed={seed!r} must be a whole number from -2**63 to 2**64 - 1; choose another, such as 0")
    return operator.index(seed)
