"""Which files are the channels of one case, by the endings that names commonly have."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

Folder = TypeVar("Folder", bound=Hashable)
Groups: TypeAlias = dict[str, dict[str, str]]

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


def group_channels(
    folders: Mapping[Folder, Iterable[str]], *, cases: Iterable[str] = (), numbered: bool = False
) -> dict[Folder, Groups]:
    """Names by case and channel; what is no channel stands alone, under its own name and the channel "".

    An ending counts only where it tells channels apart: where another name has the same case and another ending of the
    same kind, or where the case is known under the name without it. Four digits may count cases or slices as well: they
    tell channels only of known cases and where the endings of these come again, or, if nothing is known, where most
    cases have the same endings.

    Args:
        folders: the names of files without suffix, by folder.
        cases: names that are known to be cases, such as those of labels.
        numbered: whether it is known that four digits tell channels.

    Returns:
        for each folder the names of its cases by channel, channels in the order of their endings.
    """
    known = set(cases)
    names = {folder: tuple(found) for folder, found in folders.items()}
    told = _by_number(names, known, numbered=numbered)
    return {folder: _grouped(found, known, told.get(folder, set())) for folder, found in names.items()}


def _grouped(names: Sequence[str], known: set[str], numbered: set[str]) -> Groups:
    """The names of one folder; `numbered` are the cases whose channels are told by four digits."""
    found = {name: split_channel(name) for name in names}
    modalities: dict[str, set[str]] = defaultdict(set)
    for parts in found.values():
        if parts is not None and not parts[1].isdigit():
            modalities[parts[0]].add(parts[1])
    groups: Groups = defaultdict(dict)
    for name, parts in found.items():
        case, channel = parts or (name, "")
        several = case in numbered if channel.isdigit() else len(modalities[case]) > 1 or case in known
        if parts is not None and several and name not in known and case not in found:
            groups[case][channel] = name
        else:
            groups[name][""] = name
    return {case: dict(sorted(channels.items())) for case, channels in groups.items()}


def _by_number(names: Mapping[Folder, Sequence[str]], known: set[str], *, numbered: bool) -> dict[Folder, set[str]]:
    """By folder, the cases whose channels are told by four digits."""
    endings: dict[tuple[Folder, str], set[str]] = defaultdict(set)
    for folder, found in names.items():
        for name in found:
            if match := _NUMBER.fullmatch(name):
                endings[folder, match[1] or ""].add(match[2])
    several = {key for key, found in endings.items() if len(found) > 1}
    labeled = {key for key in endings if key[1] in known}
    counted = {match[1] or "" for name in known if (match := _NUMBER.fullmatch(name))}
    if numbered:
        chosen = several
    elif counted & {case for _, case in endings}:  # a label has a number of this kind in its own name
        chosen = labeled
    elif labeled:
        usual, _ = _most_common(endings[key] for key in labeled)
        chosen = labeled | {key for key, found in endings.items() if found & usual}
    else:
        usual, times = _most_common(endings.values())
        chosen = several if len(usual) > 1 and times >= 2 and len(endings) < 2 * times else set()
    told: dict[Folder, set[str]] = defaultdict(set)
    for folder, case in chosen:
        told[folder].add(case)
    return told


def _most_common(found: Iterable[set[str]]) -> tuple[frozenset[str], int]:
    counts = Counter(map(frozenset, found))
    return max(counts.items(), key=lambda item: (item[1], len(item[0])), default=(frozenset(), 0))


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
