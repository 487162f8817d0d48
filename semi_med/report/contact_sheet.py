"""A page of thumbnails of a data set, so that a person sees a flip, a shift or a wrong window at a glance."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from semi_med.data.overview import overview
from semi_med.data.thumbnails import GAP, SIDE, colour_of
from semi_med.data.validation import CaseVerdict, Findings
from semi_med.errors import InputError
from semi_med.files import write_atomically

SHEET_SUFFIXES = (".html", ".png")
_COLUMNS = 3
_CAPTION = 34  # pixels
_MOST_WARNINGS = 4  # of one case


def check_sheet_name(path: str | Path) -> Path:
    """The path of a contact sheet, refused before any work if it cannot be one.

    Raises:
        InputError: code SETTING.
    """
    path = Path(path)
    if path.suffix.lower() not in SHEET_SUFFIXES:
        raise InputError("a name that ends in .html or .png was wanted", where=path, fix="Rename it.", code="SETTING")
    return path


def write_contact_sheet(path: str | Path, findings: Findings, *, title: str) -> Path:
    """Write the thumbnails that a validation kept as one page: HTML with everything in it, or one PNG.

    Args:
        path: ends in .html or .png.
        findings: of a validation whose `look` was `semi_med.data.thumbnails.thumbnails`.
        title: heading.

    Raises:
        InputError: the name or the folder cannot be used.
    """
    path = check_sheet_name(path)
    shown = [verdict for verdict in findings.verdicts if verdict.kept is not None or verdict.errors]
    if path.suffix.lower() == ".png":
        write_atomically(path, _png(shown, title=title))
        return path
    environment = Environment(loader=PackageLoader("semi_med", "report"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("contact_sheet.html").render(
        title=title,
        overview=overview(findings.verdicts),
        problems=[
            {"code": p.code, "where": p.where or "", "problem": p.problem, "fix": p.fix or ""}
            for p in findings.problems
        ],
        notes=findings.notes,
        shown=sum(verdict.kept is not None for verdict in shown),
        total=len(findings.verdicts),
        key=[(value, "#{:02x}{:02x}{:02x}".format(*colour_of(value))) for value in _classes(findings.verdicts)],
        tiles=[_tile(verdict) for verdict in shown],
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_atomically(path, page)
    return path


def _classes(verdicts: Sequence[CaseVerdict]) -> list[int]:
    labels = (verdict.facts.get(verdict.label) for verdict in verdicts if verdict.label is not None)
    return sorted({value for facts in labels if facts for value, n in (facts.values or {}).items() if n and value})


def _tile(verdict: CaseVerdict) -> dict[str, Any]:
    return {
        "name": _name(verdict),
        "verdict": verdict.verdict,
        "picture": base64.b64encode(verdict.kept).decode() if verdict.kept is not None else None,
        "facts": _facts(verdict),
        "errors": [f"{error.code}: {error.problem}" for error in verdict.errors],
        "warnings": [text for text in verdict.warnings if "PICTURE:" not in text][:_MOST_WARNINGS],
    }


def _name(verdict: CaseVerdict) -> str:
    return f"{verdict.section}: {verdict.case}" if verdict.section else verdict.case


def _facts(verdict: CaseVerdict) -> str:
    """Shape, spacing, orientation and classes in one line."""
    parts = []
    if facts := verdict.facts.get(verdict.images[0]):
        parts.append(" x ".join(str(size) for size in facts.shape))
        if facts.orientation is not None:
            parts += [" x ".join(f"{size:.3g}" for size in facts.spacing) + " mm", facts.orientation]
    label = verdict.facts.get(verdict.label) if verdict.label else None
    if label is not None:
        values = [str(value) for value, number in (label.values or {}).items() if number and value]
        parts.append(f"label {', '.join(values[:8]) or 'empty'}")
    return " · ".join(parts)


def _png(verdicts: Sequence[CaseVerdict], *, title: str) -> bytes:
    """All strips in columns, each over its caption."""
    from PIL import Image, ImageDraw

    strips = [Image.open(io.BytesIO(v.kept)) if v.kept is not None else None for v in verdicts]
    width = max([strip.width for strip in strips if strip is not None], default=3 * SIDE + 2 * GAP)
    columns = min(_COLUMNS * max(1, round(520 / width)), max(1, len(strips)))
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * (width + 8), 30 + rows * (SIDE + _CAPTION)), (20, 23, 26))
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 8), title, fill="white", font_size=15)
    for number, (verdict, strip) in enumerate(zip(verdicts, strips, strict=True)):
        left, top = (number % columns) * (width + 8), 30 + (number // columns) * (SIDE + _CAPTION)
        if strip is not None:
            sheet.paste(strip, (left, top))
        colour = {"refused": (255, 139, 107), "odd": (230, 200, 120)}.get(verdict.verdict, (230, 233, 236))
        codes = ", ".join(dict.fromkeys(error.code for error in verdict.errors))
        lines = [_cut(draw, _name(verdict), width), _cut(draw, codes or _facts(verdict), width)]
        for line, text in enumerate(lines):
            draw.text((left + 3, top + SIDE + 2 + 14 * line), text, fill=colour, font_size=11)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _cut(draw: Any, text: str, width: int) -> str:
    while text and draw.textlength(text, font_size=11) > width - 6:
        text = text[:-2]
    return text
