"""Which files are the channels of one case, by the endings that names commonly have."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

_NUMBER = re.compile(r"(?:(.+)[-_.])?(\d{4})")
_MODALITIES = (
    *("t1", "t1ce", "t1c", "t1gd", "t1n", "t1w", "t2", "t2f", "t2w", "flair", "pd", "swi"),
    *("adc", "dwi", "hbv", "dce", "ct", "pet", "mr"),
)
_SAME = {"t1gd": "t1ce", "t1c": "t1ce", "t1n": "t1", "t1w": "t1", "t2w": "t2", "t2f": "flair"}
_MODALITY = re.compile(rf"(?:(.+)[-_.])?({'|'.join(sorted(_MODALITIES, key=len, reverse=True))})", re.IGNORECASE)


def split_channel(name: str) -> tuple[str, str] | None:
    """The case and the channel that a name without suffix tells: `p1_0000`, `p1_flair`; a bare `flair` has the case "".

    None if it has no ending of a channel.
    """
    for pattern in (_NUMBER, _MODALITY):
        if match := pattern.fullmatch(name):
            return match[1] or "", match[2].lower()
    return None


def group_channels(names: Iterable[str], *, cases: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """Names by case and channel; what is no channel stands alone, under its own name and the channel "".

    An ending counts only where it tells channels apart: where another name has the same case and another ending of the
    same kind, or where the case is known under the name without it.

    Args:
        names: of the files of one folder, without suffix.
        cases: names that are known to be cases, such as those of labels.

    Returns:
        for each case its names by channel, channels in the order of their endings.
    """
    known = set(cases)
    found = {name: split_channel(name) for name in names}
    kinds: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for parts in found.values():
        if parts is not None:
            kinds[parts[0], parts[1].isdigit()].add(parts[1])
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for name, parts in found.items():
        several = parts is not None and len(kinds[parts[0], parts[1].isdigit()]) > 1
        if parts is not None and name not in known and (several or parts[0] in known):
            groups[parts[0]][parts[1]] = name
        else:
            groups[name][""] = name
    return {case: dict(sorted(channels.items())) for case, channels in groups.items()}


def in_order(found: Mapping[str, str], wanted: Sequence[str]) -> list[str] | None:
    """The names of a case's channels in the order that a network wants.

    Args:
        found: names by channel, as `group_channels` gives them.
        wanted: what the network's channels are called.

    Returns:
        the names as they come where either side does not say which channel is which; None if they are others than
        those that are wanted.
    """
    plain = {_same(channel): name for channel, name in found.items()}
    order = [_same(channel) for channel in wanted]
    told = all(_MODALITY.fullmatch(channel) for channel in (*plain, *order))
    if not told or not order or len(plain) < len(found) or len(set(order)) < len(order):
        return list(found.values())
    return [plain[channel] for channel in order] if set(plain) == set(order) else None


def _same(channel: str) -> str:
    """One of the names that a channel goes by."""
    return _SAME.get(channel.lower(), channel.lower())
