"""Read from a run's history in Temporal how long each activity waited for its start, and how long it took."""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.client import Client


@dataclass(frozen=True)
class CompletedActivity:
    """One activity of a run. Its moments are in seconds of the wall clock."""

    activity: str
    scheduled: float
    started: float
    completed: float


async def attempts_of(client: Client, run: str) -> list[CompletedActivity]:
    """Return the completed activities of the newest run under this id, in order."""
    names: dict[int, tuple[str, float]] = {}
    started: dict[int, float] = {}
    attempts = []
    async for event in client.get_workflow_handle(run).fetch_history_events():
        moment = _seconds(event.event_time)
        if event.HasField("activity_task_scheduled_event_attributes"):
            kind = event.activity_task_scheduled_event_attributes.activity_type.name
            names[event.event_id] = (kind, moment)
        elif event.HasField("activity_task_started_event_attributes"):
            started[event.activity_task_started_event_attributes.scheduled_event_id] = moment
        elif event.HasField("activity_task_completed_event_attributes"):
            of = event.activity_task_completed_event_attributes.scheduled_event_id
            kind, scheduled = names[of]
            attempts.append(
                CompletedActivity(activity=kind, scheduled=scheduled, started=started[of], completed=moment)
            )
    return attempts


def _seconds(moment: Timestamp) -> float:
    return moment.seconds + moment.nanos / 1e9
