"""The SageMaker API on this machine: jobs, endpoints and the model registry; S3 and others by moto.

`python -m local_sagemaker` starts it; `operations` names every operation and the service behind it.

Layers, from top to bottom. A module or folder imports only from layers below its own, never from its own:

    __main__
    access
    operations, gateway
    training, tuning, registry, aws_services
    debugging, hosting
    processing
    jobs
    channels
    resources                     one kind of stored document: create, describe, list, delete
    tags
    listing
    s3, protocol, image_environments, logs, iam_state, startup
    context, patterns, processes, wsgi
    archives
    paths
    store, errors, shim
"""
