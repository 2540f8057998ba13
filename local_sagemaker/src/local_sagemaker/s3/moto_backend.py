"""moto's S3 in this process: its buckets and keys, as JSON records and back.

A key's content is in a blob, not in its record.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from moto.core.utils import utcnow
from moto.s3.models import (
    CorsRule,
    FakeBucket,
    FakeDeleteMarker,
    FakeKey,
    FakeMultipart,
    S3Backend,
    s3_backends,
)
from moto.utilities.utils import LowercaseDict

from local_sagemaker.context import ACCOUNT
from local_sagemaker.s3.blobs import BlobReader

Record = dict[str, Any]
Version: TypeAlias = Any  # FakeKey or FakeDeleteMarker, which have no types to rely on

_KEY_FIELDS = (  # moto's attributes that are text, numbers, booleans or None
    "website_redirect_location",
    "checksum_algorithm",
    "checksum_value",
    "checksum_type",
    "checksum_parts",
    "encryption",
    "kms_key_id",
    "bucket_key_enabled",
    "lock_mode",
    "lock_legal_status",
    "lock_until",
    "contentsize",
    "_etag",
    "_version_id",
    "_is_versioned",
    "_storage_class",
)
_BUCKET_FIELDS = ("versioning_status", "encryption", "ownership_rule", "object_lock_enabled")


def s3_backend() -> S3Backend:
    """moto's S3 of the one account."""
    return s3_backends[ACCOUNT]["aws"]


def key_versions(bucket: str, key: str) -> list[Version]:
    """moto's versions of a key, oldest first; none where the bucket does not exist."""
    found = s3_backend().buckets.get(bucket)
    return [] if found is None else list(found.keys.getlist(key, []))


def blob_of(version: Version) -> Path | None:
    """The file with the version's content; None for a delete marker, or while it is only in memory."""
    buffer = getattr(version, "_value_buffer", None)
    return buffer.path if isinstance(buffer, BlobReader) else None


def attach_blob(key: FakeKey, blob: Path) -> None:
    """Make a key read its content from a blob, and free its memory."""
    with key.lock:
        held, key._value_buffer = key._value_buffer, BlobReader(blob)
        held.close()
    if key.multipart is not None:
        key.multipart.dispose()
        key.multipart = None


def add_key(bucket: FakeBucket, name: str, etag: str, blob: Path) -> FakeKey:
    """Put a blob into a bucket as moto's PutObject would. `etag` is without quotes."""
    record = {
        "last_modified": utcnow().isoformat(),
        "contentsize": blob.stat().st_size,
        "_etag": etag,
        "_is_versioned": bucket.is_versioned,
        "_version_id": str(uuid.uuid4()) if bucket.is_versioned else "null",
    }
    older = bucket.keys.getlist(name, []) if bucket.is_versioned else []
    key = restore_version(bucket.name, name, record, blob, None)
    s3_backend().tagger.delete_all_tags_for_resource(key.arn)  # those of the object that this one replaces
    bucket.keys.setlist(name, [*older, key])
    return key


def add_uploaded_key(bucket: FakeBucket, upload: FakeMultipart, etag: str, blob: Path) -> FakeKey:
    """Put a blob into a bucket as moto's CompleteMultipartUpload would, and end the upload."""
    key = add_key(bucket, upload.key_name, etag, blob)
    key.set_storage_class(upload.storage)
    key.encryption, key.kms_key_id = upload.sse_encryption, upload.kms_key_id
    key.set_metadata(upload.metadata)
    _tag(key, upload.tags)
    del bucket.multiparts[upload.id]
    return key


def version_record(version: Version) -> Record:
    record: Record = {"last_modified": version.last_modified.isoformat(), "_version_id": version._version_id}
    if isinstance(version, FakeDeleteMarker):
        return record
    record |= {"_etag": version.etag.strip('"')}
    record |= {field: getattr(version, field, None) for field in _KEY_FIELDS}
    tags = s3_backend().tagger.get_tag_dict_for_resource(version.arn)
    return record | {"metadata": dict(version.metadata), "tags": tags}


def restore_version(
    bucket: str, name: str, record: Record, blob: Path | None, older: Version | None
) -> Version:
    """moto's object for a record; without a blob it is a delete marker over the `older` version."""
    version = _delete_marker(older) if blob is None else _key(bucket, name, record, blob)
    version.last_modified = datetime.fromisoformat(record["last_modified"])
    version._version_id = record["_version_id"]
    return version


def _delete_marker(older: Version | None) -> FakeDeleteMarker:
    if older is None:
        raise ValueError("a delete marker needs the version before it, and its row has none")
    return FakeDeleteMarker(key=older)


def _key(bucket: str, name: str, record: Record, blob: Path) -> FakeKey:
    backend = s3_backend()
    key = FakeKey(name, b"", account_id=ACCOUNT, region_name=backend.region_name, bucket_name=bucket)
    for field in _KEY_FIELDS:
        if field in record:
            setattr(key, field, record[field])
    if "metadata" in record:
        key._metadata = LowercaseDict()
        key._metadata.update(record["metadata"])
    _tag(key, record.get("tags"))
    attach_blob(key, blob)
    return key


def _tag(resource: FakeKey | FakeBucket, tags: dict[str, str] | None) -> None:
    if tags:
        tagger = s3_backend().tagger
        tagger.tag_resource(resource.arn, tagger.convert_dict_to_tags_input(tags))


def bucket_record(bucket: FakeBucket) -> Record:
    record: Record = {field: getattr(bucket, field) for field in _BUCKET_FIELDS}
    return record | {
        "region": bucket.region_name,
        "created": bucket.creation_date.isoformat(),
        "policy": None if bucket.policy is None else bucket.policy.decode(),
        "tags": s3_backend().tagger.get_tag_dict_for_resource(bucket.arn),
        "cors": [vars(rule) for rule in bucket.cors],
    }


def restore_bucket(name: str, record: Record) -> None:
    """Create the bucket in moto, without its keys."""
    backend = s3_backend()
    bucket = FakeBucket(name, account_id=ACCOUNT, region_name=record["region"])
    for field in _BUCKET_FIELDS:
        setattr(bucket, field, record[field])
    bucket.creation_date = datetime.fromisoformat(record["created"])
    bucket.policy = None if record["policy"] is None else record["policy"].encode()
    for rule in record.get("cors", ()):
        bucket.cors.append(restored := CorsRule(None, None))
        vars(restored).update(rule)
    backend.buckets[name] = bucket
    _tag(bucket, record["tags"])
