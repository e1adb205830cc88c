"""Lines that commands print for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core.scan_warnings import EXPLAINED
from scanning.core.texts import printable, watch_and_bucket
from scanning.core.verify import Fault
from scanning.runtime.manual_scan import VerificationResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scanning.core.types import ScanCounts, ScanResult
    from scanning.core.verify import Findings
    from scanning.runtime.manual_scan import Result

_FAULTS = {
    Fault.LOST: "segments lost or broken",
    Fault.ENTRY: "segments described wrongly",
    Fault.HIDDEN: "rows hidden by a digest",
    Fault.DIGEST: "digests that do not fit their rows",
    Fault.STRING: "documented states missing or wrong",
    Fault.COUNT: "the number of objects noted wrongly",
}


def event_line(event: Mapping[str, Any]) -> str:
    """Write one notification."""
    bucket = event["bucket"]
    shown = watch_and_bucket(event.get("watch", bucket), bucket)
    return f"{event['event_type']:<8}  {shown}  {printable(event['key'])}  {event['size']} bytes"


def result_line(result: Result) -> str:
    """Say how a manual scan went."""
    if isinstance(result, VerificationResult):
        return _verification_line(result)
    return _scan_line(result)


def _scan_line(result: ScanResult) -> str:
    if not result.ok:
        return f"{result.title}: FAILED after {result.duration_s:.2f} s: {result.error}"
    line = f"{result.title}: {_counts(result.counts)}, {result.duration_s:.2f} s"
    for warning in result.warnings:
        examples = ", ".join(warning.examples)
        line += f"; {warning.count} {EXPLAINED[warning.kind].meaning} ({examples})"
    if result.held is not None:
        line += f"; {result.held.missing} missing, held until somebody confirms the deletion"
    if result.held_times is not None:
        line += f"; of {result.held_times.moved} only the time moved, held until somebody chooses"
    return line


def _verification_line(verified: VerificationResult) -> str:
    result, findings = verified.result, verified.findings
    if verified.is_repaired:
        return f"{_scan_line(result)}; {_findings(findings, 'repaired')}"
    if not result.ok:
        return f"{_scan_line(result)}; {_findings(findings, 'found')}"
    return (
        f"{result.title}: {findings.segments} segments compared with {_counts(result.counts)}, "
        f"{result.duration_s:.2f} s; {_findings(findings, 'found')}"
    )


def _counts(counts: ScanCounts) -> str:
    return (
        f"{counts.objects} objects, {counts.created} created, {counts.updated} updated, "
        f"{counts.detected} detected, {counts.deleted} deleted"
    )


def _findings(findings: Findings, verb: str) -> str:
    if not findings.wrong:
        return "nothing is wrong"
    kinds = [
        f"{number} {_FAULTS[fault]}{_examples(findings.examples[fault])}"
        for fault, number in findings.wrong.items()
    ]
    return f"{verb}: {', '.join(kinds)}"


def _examples(keys: list[str]) -> str:
    return f" ({', '.join(map(printable, keys))})" if keys else ""
