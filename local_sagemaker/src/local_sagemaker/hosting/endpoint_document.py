"""The document of an endpoint: the response of DescribeEndpoint and, in private members, its fleets."""

from __future__ import annotations

from local_sagemaker.context import Context
from local_sagemaker.hosting.fleet_record import FleetRecord
from local_sagemaker.resources import ResourceKind
from local_sagemaker.store import Document

ENDPOINT = ResourceKind(
    resource_type="endpoint",
    prefix="Endpoint",
    listed_as="Endpoints",
    summary=("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus"),
    taken='Cannot create already existing endpoint "{arn}".',
    missing='Could not find endpoint "{arn}".',
)
_ROLES = frozenset({"_serving", "_next"})


class EndpointDocument:
    """One endpoint's document in the store. Every change is a transaction of its own."""

    def __init__(self, name: str, context: Context) -> None:
        self._name = name
        self._context = context

    def read(self) -> Document:
        """Raises LookupError where there is none."""
        document = self._context.store.get(ENDPOINT.resource_type, self._name)
        if document is None:
            raise LookupError(f"the endpoint {self._name} has no document")
        return document

    def fleet(self, identifier: str) -> FleetRecord:
        return fleet_of(self.read(), identifier)

    def set(self, **members: object) -> None:
        """Set members, or remove those that are None (except the fleets' roles)."""

        def change(document: Document) -> None:
            document.update(members, LastModifiedTime=self._context.clock())
            for member, value in members.items():
                if value is None and member not in _ROLES:
                    del document[member]

        self._context.store.update(ENDPOINT.resource_type, self._name, change)

    def put_fleet(self, record: FleetRecord) -> None:
        """Replace the record of a fleet."""

        def change(document: Document) -> None:
            document["_fleets"] = [*_others(document, record.id), record.dump()]

        self._context.store.update(ENDPOINT.resource_type, self._name, change)

    def drop_fleet(self, identifier: str) -> None:
        def change(document: Document) -> None:
            document["_fleets"] = _others(document, identifier)

        self._context.store.update(ENDPOINT.resource_type, self._name, change)

    def delete(self) -> None:
        self._context.store.delete(ENDPOINT.resource_type, self._name)


def fleet_of(document: Document, identifier: str) -> FleetRecord:
    return FleetRecord.load(next(item for item in document["_fleets"] if item["id"] == identifier))


def _others(document: Document, identifier: str) -> list[Document]:
    return [item for item in document["_fleets"] if item["id"] != identifier]
