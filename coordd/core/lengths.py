"""Lengths of time as people write them: `1h30m`, `15m`, `4s`, `250ms`."""

from typing import Final

from coordd.core.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND

# Largest first.
UNITS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND}


def spell_length(length_ns: int) -> str:
    """Write ns as the configuration has them, exact down to a ms; a length below that in ns."""
    parts, rest_ns = [], length_ns
    for unit, unit_ns in UNITS.items():
        count, rest_ns = divmod(rest_ns, unit_ns)
        if count:
            parts.append(f"{count}{unit}")
    if parts:
        return "".join(parts)
    return f"{rest_ns}ns" if rest_ns else "0s"
