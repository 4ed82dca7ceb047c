"""What to say of a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean "enet"?', or what there is where nothing is near."""
    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; there are {', '.join(known)}" if known else "; it has none"
