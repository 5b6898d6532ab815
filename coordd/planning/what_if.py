"""What if: rules that differ from the configuration's.

Owns: what a factor does. Must not know: traces, or runs.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from coordd.core.rules import LimitRule, PoolRule, Rules

__all__ = ["scaled"]


def scaled(rules: Rules, factors: Mapping[str, float]) -> Rules:
    """Return the rules with every window, or the capacity, of what is named times a factor, at least 1.

    Args:   factors: by endpoint (then of all its credentials, too) or pool.
    Raises: ValueError if a name is neither.
    """
    limits, pools = dict(rules.limits), dict(rules.pools)
    for name, factor in factors.items():
        endpoints = [each for each in limits if each == name or each.startswith(f"{name}@")]
        if not endpoints and name not in pools:
            known = ", ".join([*limits, *pools]) or "none"
            raise ValueError(f"there is no endpoint and no pool {name!r}; there are: {known}")
        for endpoint in endpoints:
            limits[endpoint] = _scaled_limit(limits[endpoint], factor)
        if not endpoints:
            pools[name] = _scaled_pool(pools[name], factor)
    return replace(rules, limits=limits, pools=pools)


def _scaled_limit(rule: LimitRule, factor: float) -> LimitRule:
    windows = {length_ns: _times(limit, factor) for length_ns, limit in rule.windows.items()}
    return replace(rule, windows=windows)


def _scaled_pool(rule: PoolRule, factor: float) -> PoolRule:
    if rule.limit is not None:
        return replace(rule, limit=_scaled_limit(rule.limit, factor))
    return replace(
        rule,
        capacity=_times(rule.capacity, factor),
        capacity_min=_times(rule.capacity_min, factor) if rule.capacity_min else 0,
        capacity_max=_times(rule.capacity_max, factor) if rule.capacity_max else 0,
    )


def _times(count: int, factor: float) -> int:
    return max(1, round(count * factor))
