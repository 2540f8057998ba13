"""The endpoint operations. They return at once; `running_endpoint` carries them out in the background."""

from __future__ import annotations

import threading

from local_sagemaker.context import ACCOUNT, Context, Request, Response
from local_sagemaker.errors import ValidationError
from local_sagemaker.hosting import capture, deployment
from local_sagemaker.hosting.alarms import Alarms
from local_sagemaker.hosting.configs import EndpointConfigs
from local_sagemaker.hosting.endpoint_document import ENDPOINT, fleet_of
from local_sagemaker.hosting.fleet_record import FleetRecord, VariantRecord, new_fleet, retain
from local_sagemaker.hosting.launch import Launcher
from local_sagemaker.hosting.models import Models, container_of
from local_sagemaker.hosting.router import Router
from local_sagemaker.hosting.running_endpoint import RunningEndpoint
from local_sagemaker.image_environments import Images
from local_sagemaker.resources import Resources
from local_sagemaker.store import Change, Document


class Endpoints(Resources):
    """The endpoint operations, and the running endpoints by name."""

    def __init__(
        self,
        context: Context,
        models: Models,
        configs: EndpointConfigs,
        *,
        images: Images,
        launcher: Launcher,
        alarms: Alarms,
    ) -> None:
        super().__init__(ENDPOINT, context)
        self._models = models
        self._configs = configs
        self._images = images
        self._launcher = launcher
        self._alarms = alarms
        self._lock = threading.Lock()
        self._running: dict[str, RunningEndpoint] = {}

    def resume(self) -> None:
        for document in self._context.store.list(ENDPOINT.resource_type):
            self._alarms.restore(document.get("_alarms", []))
            self._endpoint(document["EndpointName"]).resume()

    def close(self) -> None:
        with self._lock:
            threads = [threading.Thread(target=endpoint.close) for endpoint in self._running.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def router(self, name: str) -> Router:
        """Where invocations of an endpoint go. Raises ValidationError while it does not serve."""
        endpoint = self._running.get(name)
        if endpoint is None or not endpoint.router.serving:
            raise ValidationError(f"Endpoint {name} of account {ACCOUNT} not found.")
        return endpoint.router

    def create(self, request: Request) -> Response:
        name = request["EndpointName"]
        if self._context.store.get(ENDPOINT.resource_type, name) is not None:
            raise self._taken(name)
        fleet = self._plan(request["EndpointConfigName"])
        now = self._context.clock()
        document = {
            "EndpointName": name,
            "EndpointConfigName": fleet.config,
            "EndpointStatus": "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
            "_fleets": [fleet.dump()],
            "_serving": None,
            "_next": fleet.id,
        }
        if "DeploymentConfig" in request:
            document["LastDeploymentConfig"] = request["DeploymentConfig"]
        response = self.add(name, document, request.get("Tags"))
        self._endpoint(name).deploy()
        return response

    def describe(self, request: Request) -> Response:
        document = self.find(request["EndpointName"])
        fleets = {item["id"]: FleetRecord.load(item) for item in document["_fleets"]}
        shown = fleets.get(document["_serving"] or document["_next"])
        response = {key: value for key, value in document.items() if not key.startswith("_")}
        if shown is not None and document["EndpointStatus"] != "Creating":
            response["ProductionVariants"] = [variant.describe() for variant in shown.variants]
        if shown is not None and shown.capture:
            response["DataCaptureConfig"] = capture.describe(shown.capture)
        if document["_serving"] and document["_next"] in fleets:
            response["PendingDeploymentSummary"] = _pending(fleets[document["_next"]], document)
        return response

    def update(self, request: Request) -> Response:
        name = request["EndpointName"]
        current = self.find(name)
        fleet = self._plan(request["EndpointConfigName"])
        self._configs.find(current["EndpointConfigName"])  # AWS cannot update when the old one was deleted
        if request.get("RetainAllVariantProperties"):
            excluded = [
                item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])
            ]
            retain(fleet, _serving(current), excluded)
        config = request.get("DeploymentConfig")
        if config is None and request.get("RetainDeploymentConfig"):
            config = current.get("LastDeploymentConfig")
        deployment.plan(config, fleet.instance_count)
        alarms = deployment.alarm_names(config)
        self._alarms.check(alarms)

        def begin(document: Document) -> None:
            document["_fleets"] = [*document["_fleets"], fleet.dump()]
            document["_next"] = fleet.id
            document["_deployment"] = config
            document["_alarms"] = self._alarms.dump(alarms)
            if config is not None:
                document["LastDeploymentConfig"] = config

        self._start_update(name, begin)
        self._endpoint(name).deploy()
        return {"EndpointArn": current["EndpointArn"]}

    def scale(self, request: Request) -> Response:
        name = request["EndpointName"]
        current = self.find(name)
        asked = {item["VariantName"]: item for item in request["DesiredWeightsAndCapacities"]}
        unknown = asked.keys() - {variant.name for variant in _serving(current).variants}
        if unknown:
            raise ValidationError(f"The endpoint {name} has no variant {', '.join(sorted(unknown))}.")
        if any(item.get("DesiredInstanceCount") == 0 for item in asked.values()):
            raise ValidationError("DesiredInstanceCount must be at least 1.")

        def begin(document: Document) -> None:
            record = _serving(document)
            for variant in record.variants:
                _desire(variant, asked.get(variant.name, {}))
            document["_fleets"] = [record.dump()]

        self._start_update(name, begin)
        self._endpoint(name).scale()
        return {"EndpointArn": current["EndpointArn"]}

    def delete(self, request: Request) -> Response:
        """Begin to delete an endpoint; the running endpoint ends with its document."""
        name = request["EndpointName"]
        self._start_transition(name, "Deleting", {"InService", "Failed", "OutOfService"}, lambda _: None)
        self._endpoint(name).remove()
        return {}

    def _start_update(self, name: str, change: Change) -> None:
        self._start_transition(name, "Updating", {"InService"}, change)

    def _start_transition(self, name: str, status: str, allowed: set[str], change: Change) -> None:
        """Set the status and apply `change` in one step. Raises ValidationError in a status that is not
        allowed.
        """
        arn = self.arn(name)

        def begin(document: Document) -> None:
            found = document["EndpointStatus"]
            if found in {"Creating", "Updating", "RollingBack", "Deleting"}:
                raise ValidationError(f'Cannot update in-progress endpoint "{arn}".')
            if found not in allowed:
                raise ValidationError(
                    f'Cannot update endpoint "{arn}" in the status {found}: delete it and create it again.'
                )
            change(document)
            document.pop("FailureReason", None)
            document["EndpointStatus"] = status
            document["LastModifiedTime"] = document["_update_started"] = self._context.clock()

        self.change(name, begin)

    def _plan(self, config_name: str) -> FleetRecord:
        """The fleet of a configuration whose models and images are all there. Raises ValidationError."""
        config = self._configs.find(config_name)
        names = {variant["ModelName"] for variant in config["ProductionVariants"]}
        containers = {name: container_of(self._models.find(name)) for name in names}
        for container in containers.values():
            self._images.resolve(container["Image"])
        return new_fleet(config, containers, self._context.clock())

    def _endpoint(self, name: str) -> RunningEndpoint:
        with self._lock:
            if name not in self._running:
                self._running[name] = RunningEndpoint(name, self._context, self._launcher, self._alarms)
            return self._running[name]


def _serving(document: Document) -> FleetRecord:
    return fleet_of(document, document["_serving"])


def _desire(variant: VariantRecord, asked: Document) -> None:
    variant.desired_weight = asked.get("DesiredWeight", variant.desired_weight)
    variant.desired_count = asked.get("DesiredInstanceCount", variant.desired_count)


def _pending(fleet: FleetRecord, document: Document) -> Document:
    started = document["_update_started"]
    status = document.get("_phase", {"Status": "Creating", "StartTime": started})
    variants = [variant.describe() | {"VariantStatus": [status]} for variant in fleet.variants]
    return {"EndpointConfigName": fleet.config, "ProductionVariants": variants, "StartTime": started}
