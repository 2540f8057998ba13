"""moto's IAM roles and customer-managed policies, kept in the store so that they survive a restart."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from moto.iam.models import AWSManagedPolicy, IAMBackend, ManagedPolicy, Role, iam_backends

from local_sagemaker.context import ACCOUNT
from local_sagemaker.store import DocumentExistsError, Store

_KIND = "iam"
_ROLE_FIELDS = (
    "assume_role_policy_document",
    "path",
    "description",
    "tags",
    "max_session_duration",
    "policies",
    "permissions_boundary_arn",
)

Record = dict[str, Any]


def save_iam(store: Store) -> None:
    """Write all roles and policies."""
    backend = _backend()
    document = {
        "policies": [
            {"name": policy.name, "path": policy.path, "document": _document(policy)}
            for policy in backend.managed_policies.values()
            if _is_own(policy)
        ],
        "roles": [_role_record(role) for role in backend.roles.values()],
    }
    try:
        store.create(_KIND, ACCOUNT, document)
    except DocumentExistsError:
        store.update(_KIND, ACCOUNT, lambda body: body.update(document))


def restore_iam(store: Store) -> None:
    """Replace moto's roles and policies by the saved ones."""
    document = store.get(_KIND, ACCOUNT) or {"policies": [], "roles": []}
    backend = _backend()
    backend.roles.clear()
    for arn in [arn for arn, policy in backend.managed_policies.items() if _is_own(policy)]:
        del backend.managed_policies[arn]
    for record in document["policies"]:
        policy = ManagedPolicy(
            record["name"],
            account_id=ACCOUNT,
            region=backend.region_name,
            path=record["path"],
            document=record["document"],
        )
        backend.managed_policies[policy.arn] = policy
    for record in document["roles"]:
        _restore_role(backend, record)


def _backend() -> IAMBackend:
    return iam_backends[ACCOUNT]["aws"]


def _document(policy: ManagedPolicy) -> str:
    """The text of the policy's default version; older versions are not kept."""
    document: str = next(
        version.document for version in policy.versions if version.version_id == policy.default_version_id
    )
    return document


def _is_own(policy: ManagedPolicy) -> bool:
    return not isinstance(policy, AWSManagedPolicy)


def _role_record(role: Role) -> Record:
    return {
        "id": role.id,
        "name": role.name,
        "created": role.create_date.isoformat(),
        "attached": list(role.managed_policies),
        "fields": {field: getattr(role, field) for field in _ROLE_FIELDS},
    }


def _restore_role(backend: IAMBackend, record: Record) -> None:
    fields = record["fields"]
    role = Role(
        account_id=ACCOUNT,
        partition=backend.partition,
        role_id=record["id"],
        name=record["name"],
        assume_role_policy_document=fields["assume_role_policy_document"],
        path=fields["path"],
        permissions_boundary=fields["permissions_boundary_arn"],
        description=fields["description"],
        tags=fields["tags"],
        max_session_duration=fields["max_session_duration"],
    )
    role.policies = fields["policies"]
    role.create_date = datetime.fromisoformat(record["created"])
    backend.roles[role.id] = role
    for arn in record["attached"]:
        backend.managed_policies[arn].attach_to(role)
