"""What AWS's PyTorch training container does between the toolkit and the user's script."""

from sagemaker_training import entry_point, environment, runner  # type: ignore[import-untyped]


def main() -> None:
    """Run the user's script and keep its stderr as the failure reason."""
    job = environment.Environment()
    entry_point.run(
        uri=job.module_dir,
        user_entry_point=job.user_entry_point,
        args=job.to_cmd_args(),
        env_vars=job.to_env_vars(),
        capture_error=True,
        runner_type=runner.ProcessRunnerType,
    )
