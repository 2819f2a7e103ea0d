"""The tables at the end of the check, in Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.sections import Result
from hearback.engine.io import atomic_write, write_json


def write(folder: Path, about: Mapping[str, Any], results: Sequence[Result]) -> list[Path]:
    """Write gpu_check.md and gpu_check.json to a folder; return their paths."""
    markdown, values = folder / "gpu_check.md", folder / "gpu_check.json"
    with atomic_write(markdown) as temporary:
        temporary.write_text(as_markdown(about, results), encoding="utf-8")
    write_json(values, as_json(about, results))
    return [markdown, values]


def as_json(about: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Return all findings as JSON values; `about` describes the run."""
    return {
        **about,
        "passed": passed(results),
        "seconds": round(sum(result.seconds for result in results), 1),
        "sections": [
            {
                "name": result.section.name,
                "title": result.section.title,
                "outcome": result.outcome,
                "seconds": round(result.seconds, 1),
                "limit": round(result.limit, 1),
                "checks": [asdict(check) for check in result.record.checks],
                "rows": result.record.rows,
                "notes": result.record.notes,
            }
            for result in results
        ],
    }


def passed(results: Sequence[Result]) -> bool:
    """Return whether all sections passed."""
    return all(result.outcome == "passed" for result in results)


def as_markdown(about: Mapping[str, Any], results: Sequence[Result]) -> str:
    """Return all findings: the run, the sections, failed checks, then the sections' tables."""
    seconds = sum(result.seconds for result in results)
    parts = [
        "# GPU check",
        "\n".join(f"- {name}: {value}" for name, value in about.items()),
        table([_section_row(result) for result in results]),
        f"{seconds:.0f} s in all. **{'All passed.' if passed(results) else 'Not all passed.'}**",
    ]
    for result in results:
        record = result.record
        if not (record.checks or record.rows or record.notes):
            continue
        parts.append(f"## {result.section.title}")
        if record.notes:
            parts.append("\n".join(record.notes))
        if record.rows:
            parts.append(table(record.rows))
        if record.checks:
            parts.append(table([_check_row(asdict(check)) for check in record.checks]))
    return "\n\n".join(parts) + "\n"


def _section_row(result: Result) -> dict[str, Any]:
    checks = result.record.checks
    n_passed = sum(check.passed for check in checks)
    return {
        "section": result.section.title,
        "outcome": result.outcome,
        "checks passed": f"{n_passed} of {len(checks)}",
        "seconds": f"{result.seconds:.0f} of {result.limit:.0f}",
    }


def _check_row(check: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "check": check["name"],
        "measured": check["measured"],
        "required": check["required"],
        "": "ok" if check["passed"] else "**failed**",
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table; their columns are those of any row, in order."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(name)) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:  # noqa: ANN401  (any JSON value)
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
