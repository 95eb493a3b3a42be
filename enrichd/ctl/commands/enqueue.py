"""`enrichctl enqueue`: one job from options, or many from a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import click

from enrichd.api.job_shapes import enqueued_of
from enrichd.ctl import render
from enrichd.ctl.choices import JOB_TYPE
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, command
from enrichd.ctl.job_lines import BadLine, JobLine, read_job_lines
from enrichd.ctl.json_input import read_payload
from enrichd.domain import payloads
from enrichd.domain.jobs import DEFAULT_MAX_RETRIES, DEFAULT_PRIORITY, Enqueued, Job, NewJob
from enrichd.errors import EnrichdError, FieldProblem, Invalid, InvalidFile
from enrichd.handlers.registry import load_plugins
from enrichd.queue.intake import row_of
from enrichd.store import job_reads
from enrichd.store.database import RACES

BATCH_LINES = 2_000
BATCH_BYTES = 8 * 1024 * 1024
BAD_LINES_MAX = 20


class EnqueueRaced(EnrichdError):
    """Somebody enqueued the same keys at the same time, in another order."""

    code = "enqueue_raced"


@command(
    name="enqueue",
    epilog="""\b
    Examples:
      enrichctl enqueue email_validation --payload '{"emails": ["ada@example.com"]}'
      enrichctl enqueue --from jobs.jsonl""",
)
@click.argument("job_type", metavar="[TYPE]", required=False, type=JOB_TYPE)
@click.option("--payload", metavar="JSON|@FILE|-", help="The payload; - reads standard input.")
@click.option("--from", "source", metavar="FILE", help="Enqueue every line of a JSON lines file.")
@click.option(
    "--priority", type=int, metavar="1-5", help=f"1 runs first. Default: {DEFAULT_PRIORITY}."
)
@click.option("--max-retries", type=int, metavar="N", help=f"Default: {DEFAULT_MAX_RETRIES}.")
@click.option("--delay", type=DURATION, metavar="TIME", help="Not before so long: 90s, 5m, 2d.")
@click.option("--at", metavar="ISO", help="Not before then: 2030-01-31T08:00:00Z.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated.")
@click.option("--webhook-url", metavar="URL", help="Where to report the end of the job.")
@click.option("--idempotency-key", metavar="TEXT", help="Enqueue only if it was not used before.")
@click.option("--provider", metavar="NAME", help="The lane, in place of the payload's providerId.")
@click.option("--id", "job_id", metavar="UUID", help="The job's id, chosen by you.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost at most; enqueue nothing.")
def enqueue_command(
    invocation: Invocation,
    job_type: str | None,
    payload: str | None,
    source: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Put a job on the queue, or all jobs of a file.

    Prints the job's id. A file goes in as a whole or, if a line is wrong, not at all. Its lines are
    objects with type and payload and, if wanted, workspaceId, id, priority, maxRetries, tags,
    webhookUrl, idempotencyKey, scheduledAt, delayMs, providerId.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    load_plugins(invocation.settings.plugins)
    if source is not None:
        if job_type or payload is not None or given or dry_run:
            raise click.UsageError("--from takes no TYPE and no job options: each line has its own")
        enqueue_file(invocation, source)
        return
    if job_type is None:
        raise click.UsageError(f"give a TYPE ({', '.join(payloads.MODELS)}) or --from FILE")
    payloads.model_for(job_type)
    if payload is None:
        raise click.UsageError("give --payload JSON, @FILE or - for standard input")
    new = new_job(invocation, job_type, payload, given)
    if dry_run:
        estimate_one(invocation, new)
    else:
        enqueue_one(invocation, new)


def new_job(invocation: Invocation, job_type: str, payload: str, given: dict[str, Any]) -> NewJob:
    """Return the job that the options describe. Raises Invalid."""
    return NewJob(
        type=job_type,
        payload=read_payload(payload),
        workspace_id=invocation.workspace,
        id=given_as(UUID, given.get("job_id"), "--id", "a UUID"),
        priority=given.get("priority", DEFAULT_PRIORITY),
        provider_id=given.get("provider"),
        max_retries=given.get("max_retries", DEFAULT_MAX_RETRIES),
        tags=given.get("tags", ()),
        webhook_url=given.get("webhook_url"),
        idempotency_key=given.get("idempotency_key"),
        scheduled_at=given_as(
            datetime.fromisoformat, given.get("at"), "--at", "a time such as 2030-01-31T08:00:00Z"
        ),
        delay_s=given.get("delay"),
    )


def given_as(parse: Callable[[str], Any], text: str | None, option: str, wanted: str) -> Any:
    """Return what an option's text stands for. Raises Invalid."""
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError:
        problem = f"{text[:60]!r} is not {wanted}"
        raise Invalid(f"{option}: {problem}", fields=[FieldProblem(option, problem)]) from None


def enqueue_one(invocation: Invocation, new: NewJob) -> None:
    """Enqueue one job and print its id."""
    # Checked before a database is reached for: what is wrong is wrong without one.
    row_of(new)

    async def work() -> tuple[Enqueued, Job | None]:
        async with invocation.session() as session:
            done = await session.queue.enqueue(new)
            if not invocation.is_json:
                return done, None
            async with session.database.connection() as conn:
                job = await job_reads.get(conn, workspace_id=new.workspace_id, job_id=done.id)
            return done, job

    done, job = invocation.run(work)
    if invocation.is_json:
        render.json_document(enqueued_of(done.id, done.is_new, job))
        return
    render.line(str(done.id))
    if not done.is_new:
        what = "idempotency key" if new.idempotency_key else "id"
        click.echo(f"already there: its {what} was used before; nothing was added", err=True)


def estimate_one(invocation: Invocation, new: NewJob) -> None:
    """Print what a job would cost at most; put nothing on the queue."""
    model = payloads.parse(new.type, row_of(new).payload)
    # Imported by whoever wants it: adapters and HTTP clients are half of a command's time.
    from enrichd.ctl.estimates import estimate_of, show_estimate

    show_estimate(invocation, new.type, invocation.run(lambda: estimate_of(invocation, model)))


Lines = list[JobLine | BadLine]


class WrongLines(Exception):
    """A batch that cannot go in: it ends the transaction, and is looked at after that."""

    def __init__(self, batch: Lines, refusal: Invalid | None = None) -> None:
        super().__init__("wrong lines")
        self.batch = batch
        self.refusal = refusal
        """What the queue or the database said, if the lines have the shape of jobs."""


@dataclass(slots=True)
class Tally:
    """What was done with the lines of a file."""

    lines: int = 0
    new: int = 0
    already_there: int = 0


def enqueue_file(invocation: Invocation, source: str) -> None:
    """Enqueue every job of a file, all or none, and print how many were new."""
    name = "standard input" if source == "-" else source
    with opened(source) as file:
        found = batches(read_job_lines(file, workspace_id=invocation.workspace))
        first = next(found, [])
        try:
            # A file that is wrong from its beginning is told without a database.
            if any(isinstance(line, BadLine) for line in first):
                raise WrongLines(first)
            tally = invocation.run(lambda: enqueue_batches(invocation, chain([first], found)))
        except WrongLines as wrong:
            raise bad_file(name, wrong, found) from wrong.refusal
        finally:
            render.progress("")
    if invocation.is_json:
        render.json_document(
            {"lines": tally.lines, "new": tally.new, "alreadyThere": tally.already_there}
        )
    else:
        there = f", {tally.already_there:,} were there already" if tally.already_there else ""
        jobs = "1 job" if tally.new == 1 else f"{tally.new:,} jobs"
        render.line(f"enqueued {jobs}{there}")


@contextlib.contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """Give the file or standard input. Raises InvalidFile."""
    if source == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - only opening is told of here
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidFile(f"cannot read {source}: {reason}") from error
    with file:
        yield file


def batches(lines: Iterator[JobLine | BadLine]) -> Iterator[Lines]:
    """Yield lines by the batch, bounded in number and bytes."""
    batch: Lines = []
    size_bytes = 0
    for line in lines:
        batch.append(line)
        size_bytes += line.size_bytes if isinstance(line, JobLine) else 0
        if len(batch) >= BATCH_LINES or size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


async def enqueue_batches(invocation: Invocation, found: Iterable[Lines]) -> Tally:
    """Enqueue all lines in one transaction. Raises WrongLines, and then it is rolled back."""
    tally = Tally()
    try:
        async with invocation.session() as session, session.database.transaction() as conn:
            for batch in found:
                jobs = [line.job for line in batch if isinstance(line, JobLine)]
                if len(jobs) < len(batch):
                    raise WrongLines(batch)
                try:
                    done = await session.queue.enqueue_many(jobs, conn=conn)
                except Invalid as error:
                    raise WrongLines(batch, error) from None
                new = sum(one.is_new for one in done)
                tally.lines += len(done)
                tally.new += new
                tally.already_there += len(done) - new
                render.progress(f"enqueueing: {tally.lines:,} lines")
    except RACES as error:
        raise EnqueueRaced(
            "others enqueued the same keys at the same time; nothing was enqueued",
            hint="Run it again: jobs that are there by then are not added twice.",
        ) from error
    return tally


def bad_file(name: str, wrong: WrongLines, rest: Iterator[Lines]) -> Invalid:
    """Return the error of a file with wrong lines, after a look for more of them in the rest."""
    problems = [*problems_of(wrong.batch)]
    if not problems and wrong.refusal is not None:
        return Invalid(
            f"{name}: one of lines {wrong.batch[0].number:,} to {wrong.batch[-1].number:,} was"
            f" refused, nothing was enqueued: {wrong.refusal.message}",
            hint=wrong.refusal.hint,
        )
    for batch in rest:
        if len(problems) > BAD_LINES_MAX:
            break
        problems += problems_of(batch)
    shown = problems[:BAD_LINES_MAX]
    count = "1 wrong line" if len(problems) == 1 else f"{len(problems)} wrong lines"
    if len(problems) > BAD_LINES_MAX:
        count = f"more than {BAD_LINES_MAX} wrong lines"
    message = f"{name} has {count}; nothing was enqueued:"
    return InvalidFile("\n  ".join([message, *map(str, shown)]), fields=shown)


def problems_of(lines: Lines) -> Iterator[FieldProblem]:
    """Yield what is wrong with each line."""
    for line in lines:
        if isinstance(line, BadLine):
            yield FieldProblem(f"line {line.number}", line.problem)
            continue
        try:
            row_of(line.job)
        except Invalid as error:
            hint = f". {error.hint}" if error.hint else ""
            yield FieldProblem(f"line {line.number}", f"{error.message}{hint}")
