"""Results as tables on stdout."""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from schemas.jobs import Job, StepStatus
from schemas.reports import Measurement, Rate, Report

ROWS = {
    "asr_with_trigger": "ASR with trigger",
    "asr_without_trigger": "ASR without trigger",
    "clean_performance": "clean performance (exact match)",
    "token_agreement": "token agreement",
}
PLAIN_WIDTH = 140


def results_table(report: Report, ablations: Mapping[str, Report] | None = None) -> Table:
    """One row for each rate; the ablations add what their masking left behind."""
    columns: dict[str, Measurement] = {
        "before": report.evaluation.before,
        f"behind {report.guard.name}" if report.guard else "after": report.evaluation.after,
    }
    for masking, other in (ablations or {}).items():
        columns[f"after, masking: {masking}"] = other.evaluation.after
    table = Table(title="Evaluation (rate, successes/scored, 95 % interval, failed)")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for field, label in ROWS.items():
        table.add_row(label, *(rate_text(getattr(m, field)) for m in columns.values()))
    return table


def rate_text(rate: Rate | None) -> str:
    """`96.5 %  193/200\\n93.0 - 98.6 %, 0 failed`; a dash when it was not measured."""
    if rate is None:
        return "-"
    share = "no rate" if rate.rate is None else f"{100 * rate.rate:.1f} %"
    interval = "" if rate.ci95 is None else f"{100 * rate.ci95[0]:.1f} - {100 * rate.ci95[1]:.1f} %"
    rest = ", ".join(part for part in (interval, f"{rate.failed} failed") if part)
    return f"{share}  {rate.successes}/{rate.scored}\n{rest}"


def samples_text(report: Report) -> str:
    """What became of the training samples, in one line."""
    counts = report.samples
    text = (
        f"samples: {counts.total} total, {counts.rewritten} rewritten, "
        f"{counts.passed_through} passed through, {counts.quarantined} quarantined"
    )
    if counts.kept or counts.removed:
        text += f", {counts.kept} kept, {counts.removed} removed"
    relative = report.evaluation.relative_clean_performance
    return (
        text if relative is None else f"{text}; relative clean performance {100 * relative:.1f} %"
    )


def guard_text(report: Report) -> str | None:
    """What a guard detected and how long it took, in one line; None for jobs without one."""
    if report.guard is None:
        return None
    found, ratio = report.guard.detection, report.latency and report.latency.latency_ratio
    told = [f"{report.guard.name}: the projector still obeys the trigger; serve it guarded"]
    if found.auroc is not None:
        flagged = [found.true_positive_rate.rate, found.false_positive_rate.rate]
        shares = [f"{100 * share:.1f} %" for share in flagged if share is not None]
        told.append(f"AUROC {found.auroc:.3f}, flagged {' and '.join(shares)}")
    if ratio:
        told.append(f"{ratio:.2f} times the bare time")
    return "; ".join(told)


def jobs_table(jobs: Iterable[Job]) -> Table:
    """One row for each job."""
    table = Table("id", "status", "stage", "model", "attempt", "suffix")
    for job in jobs:
        stage = job.stage.value if job.stage else ""
        suffix = job.suffix or ""
        table.add_row(job.id, job.status.value, stage, job.model, str(job.attempt), suffix)
    return table


def job_table(job: Job) -> Table:
    """The stages of one job."""
    title = f"{job.id}: {job.status.value} (attempt {job.attempt})"
    table = Table("stage", "status", "done", title=title)
    for step in job.steps:
        known = step.total is not None and step.status is not StepStatus.PENDING
        done = f"{step.done}/{step.total} {step.unit or ''}" if known else ""
        status = f"{step.status.value} (reused)" if step.reused else step.status.value
        table.add_row(step.name.value, status, done)
    return table


def open_stdout() -> Console:
    """A console that does not fold tables when it writes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)
