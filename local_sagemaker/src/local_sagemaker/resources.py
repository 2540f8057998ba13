"""Stored resources: find, describe, list, create and delete of one kind of document, and of its tags.

Every resource of the SageMaker API is one JSON document in the store. Members that start with `_` are the
runtime's own and never reach a client.
"""

from __future__ import annotations

from dataclasses import dataclass

from local_sagemaker.context import Context, Request, Response
from local_sagemaker.errors import ApiError, ValidationError
from local_sagemaker.listing import select
from local_sagemaker.store import Change, Document, DocumentExistsError, DocumentMissingError
from local_sagemaker.tags import Tag, forget_tags, set_tags


@dataclass(frozen=True)
class ResourceKind:
    """How the API names one kind of resource.

    `resource_type` is the one in ARNs and the kind in the store. `prefix` starts the names of members:
    `Model` of `ModelName` and `ModelArn`. `listed_as` is the member of the List response that holds the
    summaries, and `summary` are their members. `taken` and `missing` are AWS's messages for a name that
    exists already or does not exist, with `{name}` and `{arn}`. `stored_name` is the document's
    member with its name in the store, where that is not the API's.
    """

    resource_type: str
    prefix: str
    listed_as: str
    summary: tuple[str, ...]
    taken: str
    missing: str
    taken_error: type[ApiError] = ValidationError
    stored_name: str | None = None
    sort_by: str = "CreationTime"
    sort_order: str = "Descending"

    @property
    def name(self) -> str:
        return f"{self.prefix}Name"

    @property
    def arn(self) -> str:
        return f"{self.prefix}Arn"

    @property
    def status(self) -> str:
        return f"{self.prefix}Status"


class Resources:
    """The resources of one kind. Safe to call from any thread."""

    def __init__(self, kind: ResourceKind, context: Context) -> None:
        self._kind = kind
        self._context = context

    # -- operations ------------------------------------------------------------------------------------------

    def describe(self, request: Request) -> Response:
        return self.find(request[self._kind.name])

    def list_page(self, request: Request) -> Response:
        kind = self._kind
        found, token = select(
            self._listed(request),
            request,
            name=kind.stored_name or kind.name,
            status=kind.status,
            sort_by=kind.sort_by,
            sort_order=kind.sort_order,
        )
        return {kind.listed_as: [self._summary(document) for document in found], "NextToken": token}

    def delete(self, request: Request) -> Response:
        self.remove(self.find(request[self._kind.name]))
        return {}

    # -- for other services ----------------------------------------------------------------------------------

    def arn(self, name: str) -> str:
        return self._context.arn(self._kind.resource_type, name)

    def find(self, name: str, error: type[ApiError] = ValidationError) -> Document:
        """The document of a name, or of an ARN where the API takes either. Raises `error`."""
        name = name_of(name)
        document = self._context.store.get(self._kind.resource_type, name)
        if document is None:
            raise self._missing(name, error)
        return document

    def add(self, name: str, document: Document, tags: list[Tag] | None) -> Response:
        """Store a new document with its ARN, and its tags; the Create response. Raises `taken_error`."""
        arn = self.arn(name)
        try:
            self._context.store.create(self._kind.resource_type, name, {**document, self._kind.arn: arn})
        except DocumentExistsError as error:
            raise self._taken(name) from error
        set_tags(self._context, arn, tags)
        return {self._kind.arn: arn}

    def change(self, name: str, change: Change) -> Document:
        """Apply a change in one transaction and return the document. Raises ValidationError."""
        try:
            return self._context.store.update(self._kind.resource_type, name, change)
        except DocumentMissingError as error:
            raise self._missing(name) from error

    def remove(self, document: Document) -> None:
        """Delete a document and its tags."""
        arn = document[self._kind.arn]
        self._context.store.delete(self._kind.resource_type, name_of(arn))
        forget_tags(self._context, arn)

    # -- what some kinds do in their own way -----------------------------------------------------------------

    def _listed(self, request: Request) -> list[Document]:  # noqa: ARG002 - for kinds with filters of their own
        """The documents that a List request chooses from."""
        return self._context.store.list(self._kind.resource_type)

    def _summary(self, document: Document) -> Document:
        return {member: document[member] for member in self._kind.summary if member in document}

    def _taken(self, name: str) -> ApiError:
        return self._kind.taken_error(self._kind.taken.format(name=name, arn=self.arn(name)))

    def _missing(self, name: str, error: type[ApiError] = ValidationError) -> ApiError:
        return error(self._kind.missing.format(name=name, arn=self.arn(name)))


def name_of(name_or_arn: str) -> str:
    """The name in the store, given as such or in an ARN: `pets`, or `pets/3` for a version in a group."""
    return name_or_arn.rpartition(":")[2].partition("/")[2] if ":" in name_or_arn else name_or_arn
