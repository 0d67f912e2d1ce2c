"""Defects in the log: where they happened, and nothing of what was said."""

import traceback


def describe_defect(error: BaseException) -> str:
    """The traceback without the errors' texts, which may quote a conversation or a secret."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{describe_defect(cause)}\nwhich led to:\n" if cause else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    within = "".join(f"\nwithin it:\n{describe_defect(each)}" for each in inner)
    return f"{before}{frames}{type(error).__module__}.{type(error).__qualname__}{within}"
