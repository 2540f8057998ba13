"""An endpoint at run time: its router, its fleets, and the transition in progress.

The endpoint's document is the desired state: `_serving` names the fleet with the traffic, `_next` the fleet
that is to replace it; other fleets of `_fleets` are to be deleted. A transition reaches that state and then
updates the document, in an order that lets a restarted runtime continue from any point.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable

from local_sagemaker import processes
from local_sagemaker.context import Context
from local_sagemaker.hosting import deployment
from local_sagemaker.hosting.alarms import Alarms
from local_sagemaker.hosting.deployment import DeploymentInterruptedError, RolledBackError
from local_sagemaker.hosting.endpoint_document import ENDPOINT, EndpointDocument, fleet_of
from local_sagemaker.hosting.fleet import Fleet, FleetFailedError, FleetInterruptedError
from local_sagemaker.hosting.fleet_record import new_instances
from local_sagemaker.hosting.launch import Launcher
from local_sagemaker.hosting.router import Router
from local_sagemaker.store import Document
from local_sagemaker.tags import forget_tags

logger = logging.getLogger(__name__)

JOIN_SECONDS = 15.0  # for a step that cannot be interrupted: ending processes, a download, pip


class RunningEndpoint:
    """One endpoint. Transitions run in a thread, one at a time."""

    def __init__(self, name: str, context: Context, launcher: Launcher, alarms: Alarms) -> None:
        self.name = name
        self.router = Router()
        self._context = context
        self._launcher = launcher
        self._alarms = alarms
        self._document = EndpointDocument(name, context)
        self._fleets: dict[str, Fleet] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def deploy(self) -> None:
        """Put `_next` into service, in the background."""
        self._begin(self._deploy)

    def scale(self) -> None:
        """Bring the serving fleet to its desired weights and instance counts, in the background."""
        self._begin(self._scale)

    def remove(self) -> None:
        """Stop everything and delete the endpoint, in the background."""
        self._begin(self._remove)

    def resume(self) -> None:
        """After a restart: start the document's fleets, and continue an interrupted transition."""
        status = self._document.read()["EndpointStatus"]
        if status == "Deleting":
            self.remove()
        elif status != "Failed":
            self._begin(self._resume)

    def close(self) -> None:
        """The runtime ends: interrupt a transition and stop the processes, without changing the document."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)
        self.router.set_traffic([])
        for fleet in list(self._fleets.values()):
            fleet.close()

    def _begin(self, transition: Callable[[], None]) -> None:
        """Start a transition; while the runtime ends, it is left to the next runtime."""
        if self._closing.is_set():
            return

        def run() -> None:
            try:
                transition()
            except (FleetInterruptedError, DeploymentInterruptedError):
                logger.info(
                    "Endpoint %s: interrupted, continues when the runtime is started again", self.name
                )
            except Exception as error:
                if not self._closing.is_set():
                    self._abandon(f"{type(error).__name__}: {error}")
                raise

        self._thread = threading.Thread(target=run, name=f"endpoint-{self.name}", daemon=True)
        self._thread.start()

    def _resume(self) -> None:
        document = self._document.read()
        wanted = {document["_serving"], document["_next"]}
        self._discard_strays(wanted)
        self._document.set(_fleets=[item for item in document["_fleets"] if item["id"] in wanted])
        serving = self._fleet(document["_serving"])
        if serving is None and document["_next"] is None:
            self._document.set(EndpointStatus="Failed")
            return
        if serving is not None:
            try:
                serving.start()
            except FleetFailedError as error:
                self._document.set(EndpointStatus="OutOfService", FailureReason=str(error))
                return
            self.router.set_traffic([(serving, 1.0)])
        if document["_next"]:
            self._deploy()
        elif document["EndpointStatus"] == "Updating":
            self._scale()
        else:
            self._document.set(EndpointStatus="InService", FailureReason=document.get("FailureReason"))

    def _deploy(self) -> None:
        document = self._document.read()
        config = document.get("_deployment")
        old, new = self._fleet(document["_serving"]), self._fleet(document["_next"])
        if new is None:
            return
        try:
            new.start()
            new.wait_ready()
            if old is not None:
                self._shift(old, new, config)
        except (FleetFailedError, RolledBackError) as error:
            self._give_up(old, new, str(error))
            return
        self.router.set_traffic([(new, 1.0)])
        self._document.set(
            _serving=new.record.id, _next=None, _phase=None, EndpointConfigName=new.record.config
        )
        if old is not None:
            self._retire(old)
        self._document.set(EndpointStatus="InService", FailureReason=None, _deployment=None)

    def _shift(self, old: Fleet, new: Fleet, config: Document | None) -> None:
        """Shift the traffic by the deployment's steps, then keep the old fleet for the termination wait.

        Raises RolledBackError, also for an alarm in state ALARM before any traffic has moved.
        """
        names = deployment.alarm_names(config)

        def set_share(share: float) -> None:
            self.router.set_traffic([(old, 1.0 - share), (new, share)])
            message = f"{share:.0%} of the traffic goes to the new fleet"
            self._document.set(
                _phase={"Status": "Baking", "StatusMessage": message, "StartTime": self._context.clock()}
            )

        steps = deployment.plan(config, new.record.instance_count)
        deployment.shift(steps, set_share, lambda: self._alarms.firing(names), self._closing)
        deployment.hold(deployment.termination_wait(config), self._closing)

    def _give_up(self, old: Fleet | None, new: Fleet, reason: str) -> None:
        logger.warning("Endpoint %s: %s", self.name, reason)
        if old is not None:
            self.router.set_traffic([(old, 1.0)])
        rolling_back = {"EndpointStatus": "RollingBack"} if old else {}
        self._document.set(_next=None, _phase=None, FailureReason=reason, **rolling_back)
        self._retire(new)
        self._document.set(EndpointStatus="InService" if old else "Failed", _deployment=None)

    def _abandon(self, reason: str) -> None:
        """After an unexpected error: return to the state before the transition, so that no client waits."""
        document = self._document.read()
        old, new = self._fleet(document["_serving"]), self._fleet(document["_next"])
        if new is not None:
            self._give_up(old, new, reason)
        else:
            self._document.set(EndpointStatus="InService" if old else "Failed", FailureReason=reason)

    def _scale(self) -> None:
        document = self._document.read()
        fleet = self._fleet(document["_serving"])
        if fleet is None:
            return
        asked = fleet_of(document, fleet.record.id)
        for variant, wanted in zip(fleet.record.variants, asked.variants, strict=True):
            variant.desired_count, variant.desired_weight = wanted.desired_count, wanted.desired_weight
        reason = None
        try:
            self._grow(fleet)
        except FleetFailedError as error:
            reason = str(error)
            self._undo_growth(fleet)
        for variant in fleet.record.variants:
            surplus = variant.instances[variant.desired_count :]
            fleet.shrink(variant.name, surplus)
            variant.instances = variant.instances[: variant.desired_count]
            variant.weight = variant.desired_weight
        self._document.put_fleet(fleet.record)
        self._document.set(EndpointStatus="InService", FailureReason=reason)

    def _grow(self, fleet: Fleet) -> None:
        for variant in fleet.record.variants:
            missing = variant.desired_count - len(variant.instances)
            if missing > 0:
                variant.pending = variant.pending or new_instances(missing)
        self._document.put_fleet(fleet.record)
        for variant in fleet.record.variants:
            fleet.grow(variant, variant.pending)
        if added := [name for variant in fleet.record.variants for name in variant.pending]:
            fleet.wait_ready(added)
        for variant in fleet.record.variants:
            variant.instances, variant.pending = [*variant.instances, *variant.pending], []

    def _undo_growth(self, fleet: Fleet) -> None:
        for variant in fleet.record.variants:
            fleet.shrink(variant.name, variant.pending)
            variant.pending = []
            variant.desired_count, variant.desired_weight = len(variant.instances), variant.weight

    def _remove(self) -> None:
        self.router.set_traffic([])
        for fleet in list(self._fleets.values()):
            fleet.retire()
        self._fleets.clear()
        self._discard_strays(set())
        shutil.rmtree(self._launcher.folder(self.name), ignore_errors=True)
        forget_tags(self._context, self._context.arn(ENDPOINT.resource_type, self.name))
        self._document.delete()

    def _discard_strays(self, wanted: set[str | None]) -> None:
        """End processes of an earlier runtime whose fleets are not wanted any more."""
        for folder in self._launcher.folder(self.name).glob("fleet-*"):
            if folder.name in wanted:
                continue
            for attempt in folder.glob("*/i-*/*"):
                process = processes.find(attempt)
                if process is not None and process.running():
                    process.stop(0.0)
            shutil.rmtree(folder, ignore_errors=True)

    def _retire(self, fleet: Fleet) -> None:
        fleet.retire()
        self._fleets.pop(fleet.record.id, None)
        self._document.drop_fleet(fleet.record.id)

    def _fleet(self, identifier: str | None) -> Fleet | None:
        """The fleet with this id, created from the document on first use."""
        if identifier is None:
            return None
        if identifier not in self._fleets:
            record = self._document.fleet(identifier)
            self._fleets[identifier] = Fleet(
                record, self.name, self._launcher, self.router.gate, self._closing
            )
        return self._fleets[identifier]
