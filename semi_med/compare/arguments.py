"""Options that take several values after one flag: `--methods a b c`, as well as `--methods a,b` and the flag twice."""

from __future__ import annotations

from collections.abc import Sequence

SEVERAL = ("--methods", "--labeled", "--set", "--format")
_COMMAS = ("--methods", "--labeled", "--format")  # a setting's value may hold commas


def spread(arguments: Sequence[str]) -> list[str]:
    """The same arguments with one flag for each value, as a parser of options wants them.

    What follows a flag of `SEVERAL` belongs to it up to the next word that begins with a dash.
    """
    result: list[str] = []
    flag = ""
    for position, word in enumerate(arguments):
        if word == "--":
            return [*result, *arguments[position:]]
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            flag = name if name in SEVERAL else ""
            if not flag:
                result.append(word)
            elif equals:
                result += _pairs(flag, value)
            elif position + 1 == len(arguments) or arguments[position + 1].startswith("-"):
                result.append(word)  # without a value: the parser says so
        elif flag:
            result += _pairs(flag, word)
        else:
            result.append(word)
    return result


def _pairs(flag: str, text: str) -> list[str]:
    values = [part for part in text.split(",") if part] if flag in _COMMAS else [text]
    return [word for value in values for word in (flag, value)]
