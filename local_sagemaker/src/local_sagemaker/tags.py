"""Tags of SageMaker resources: AddTags, ListTags and DeleteTags for any resource in the store."""

from __future__ import annotations

from local_sagemaker.context import ACCOUNT, Context, Request, Response
from local_sagemaker.errors import ResourceLimitExceededError, ResourceNotFoundError
from local_sagemaker.listing import page
from local_sagemaker.store import DocumentExistsError

KIND = "tags"
_MAX_TAGS = 50  # per resource, an AWS quota
_PAGE = 50

Tag = dict[str, str]


def set_tags(context: Context, arn: str, tags: list[Tag] | None) -> None:
    """Replace a resource's tags."""
    try:
        context.store.create(KIND, arn, {"Arn": arn, "Tags": tags or []})
    except DocumentExistsError:
        context.store.update(KIND, arn, lambda document: document.update(Tags=tags or []))


def forget_tags(context: Context, arn: str) -> None:
    """Delete a resource's tags."""
    context.store.delete(KIND, arn)


class Tags:
    """The tag operations. A resource is known by its ARN, whose resource type is the kind in the store."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def add(self, request: Request) -> Response:
        arn = self._known(request["ResourceArn"])
        tags = {tag["Key"]: tag["Value"] for tag in self._tags(arn)}
        tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        if len(tags) > _MAX_TAGS:
            raise ResourceLimitExceededError(f"{arn} would have {len(tags)} tags; {_MAX_TAGS} are allowed")
        set_tags(self._context, arn, [{"Key": key, "Value": value} for key, value in tags.items()])
        return {"Tags": self._tags(arn)}

    def list_tags(self, request: Request) -> Response:
        tags = self._tags(self._known(request["ResourceArn"]))
        shown, token = page(tags, request, _PAGE)
        return {"Tags": shown, "NextToken": token}

    def delete(self, request: Request) -> Response:
        arn = self._known(request["ResourceArn"])
        gone = set(request["TagKeys"])
        set_tags(self._context, arn, [tag for tag in self._tags(arn) if tag["Key"] not in gone])
        return {}

    def _tags(self, arn: str) -> list[Tag]:
        document = self._context.store.get(KIND, arn)
        return [] if document is None else document["Tags"]

    def _known(self, arn: str) -> str:
        """The ARN of a resource that is in the store. Raises ResourceNotFoundError for others."""
        kind, _, name = arn.rpartition(":")[2].partition("/")
        if not self._is_ours(arn) or self._context.store.get(kind, name) is None:
            raise ResourceNotFoundError(f"Could not find resource {arn} in account {ACCOUNT}")
        return arn

    def _is_ours(self, arn: str) -> bool:
        return arn.startswith(self._context.arn("", "").removesuffix("/"))
