"""SageMaker Debugger: rules and the system sampler run as processes beside a training job."""
