"""The commands behind make's targets: `python -m demo demo`, `up`, `down`, `trigger` and so on."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from demo import downloads, services
from demo.chaos.chaos import run_chaos
from demo.drills.drills import run_drills
from demo.drills.interventions import run_interventions
from demo.drills.world import own_settings
from demo.opening import open_signed_in
from demo.outcome import say
from demo.pipelines import arranged
from demo.run import (
    Demo,
    chosen_pipeline,
    log_in,
    run_by_asset,
    run_demo,
    show_addresses,
    start_services,
    stop_run,
    watch_run,
)
from demo.settings import DemoError, Settings, existing, last_choice, number, read_choice, read_settings
from demo.supervisor import PartState

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def stop_services(settings: Settings, out: Console) -> None:
    stopped = services.stop(settings)
    say(out, f"  stopped: {', '.join(stopped)}" if stopped else "  nothing was running")


def demo_command(settings: Settings, out: Console) -> bool:
    demo = Demo(settings, read_choice(os.environ), out)
    try:
        succeeded = run_demo(demo, end_earlier=True)
    finally:
        if os.environ.get("KEEP") == "0":
            stop_services(settings, out)
    return succeeded


def up_command(settings: Settings, out: Console) -> bool:
    demo = Demo(settings, last_choice(settings.choice), out)
    start_services(demo)
    with log_in(demo):
        pass
    return True


def open_command(settings: Settings, out: Console) -> bool:
    """Airflow in the browser, signed in; starts what does not run."""
    demo = Demo(settings, last_choice(settings.choice), out)
    start_services(demo)
    with log_in(demo) as api:
        url, token = str(api.client.base_url), api.token
    say(out, f"  opening {url} by an address that works once:")

    def show(address: str) -> None:
        say(out, f"  {address}")
        webbrowser.open(address)

    return open_signed_in(url, token, show)


def watch_command(settings: Settings, out: Console) -> bool:
    return watch_run(of_pipeline(settings, out))


def stop_run_command(settings: Settings, out: Console) -> bool:
    return stop_run(of_pipeline(settings, out))


def chosen(settings: Settings, out: Console) -> Demo:
    """What the last `make demo` chose, but for what is given now."""
    return Demo(settings, read_choice(os.environ, last_choice(settings.choice)), out)


def of_pipeline(settings: Settings, out: Console) -> Demo:
    """The same, with the names of its pipeline."""
    demo = chosen(settings, out)
    demo.names = chosen_pipeline(demo)
    return demo


def trigger_command(settings: Settings, out: Console) -> bool:
    """Another run with what the last `make demo` chose, but for what is given now."""
    return run_demo(chosen(settings, out), end_earlier=False)


def trigger_asset_command(settings: Settings, out: Console) -> bool:
    """A run by an update of the dataset's asset, with the pipeline file's own values."""
    demo = Demo(settings, last_choice(settings.choice), out)
    return run_by_asset(demo)


def drills_command(settings: Settings, out: Console) -> bool:
    return run_drills(own_settings(settings, "drills"), out)


def interventions_command(settings: Settings, out: Console) -> bool:
    return run_interventions(own_settings(settings, "interventions"), out)


def chaos_command(settings: Settings, out: Console) -> bool:
    runs, seed = (number(os.environ, name, default) for name, default in (("N", 3), ("SEED", 1)))
    return run_chaos(own_settings(settings, "chaos"), out, runs, seed)


def down_command(settings: Settings, out: Console) -> bool:
    stop_services(settings, out)
    return True


def status_command(settings: Settings, out: Console) -> bool:
    """A line for each part; True where all of them run."""
    state, complete = services.states(settings), services.supervised(settings)
    say(out, f"  {'supervisor':17}{'runs' if complete else 'does not run'}")
    for name in services.PARTS:
        part = state.parts.get(name, PartState())
        complete = complete and part.up
        status = "has ended" if part.status == "ready" and not part.running else part.status
        process = f", process {part.identity.pid}" if part.identity and part.running else ""
        again = f", ended {part.deaths} times, last with {part.exit}" if part.deaths else ""
        say(out, f"  {name:17}{status}{process}{again}")
    show_addresses(settings, out)
    if not complete:
        say(out, f"Not everything is running: make up starts it. Logs: {settings.logs}")
    return complete


def download_bar(out: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=out
    )


def dataset_command(settings: Settings, out: Console) -> bool:
    """The user's images as a dataset, or, without DATA, Udacity's."""
    source = existing(os.environ, "DATA")
    if source is not None:
        return arranged(source, settings.local / "datasets" / source.name, os.environ.get("SPLIT"))
    with download_bar(out) as bar:
        task = bar.add_task("dogImages", total=None)
        folder = downloads.fetch_dataset(
            settings.local, lambda done, total: bar.update(task, completed=done, total=total or None)
        )
    out.print(f"Checked: {folder}\nUse it: make demo DATA={folder}", highlight=False, soft_wrap=True)
    return True


def weights_command(settings: Settings, out: Console) -> bool:
    arch = read_choice(os.environ).arch
    url = downloads.weights_url(settings.environments / "training" / "bin" / "python", arch)
    with download_bar(out) as bar:
        task = bar.add_task(arch, total=None)
        path = downloads.fetch_weights(
            settings.local, url, lambda done, total: bar.update(task, completed=done, total=total or None)
        )
    out.print(
        f"Checked: {path}\nUse them: make demo WEIGHTS={path} ARCH={arch}", highlight=False, soft_wrap=True
    )
    return True


COMMANDS: dict[str, Callable[[Settings, Console], bool]] = {
    "demo": demo_command,
    "up": up_command,
    "down": down_command,
    "drills": drills_command,
    "chaos": chaos_command,
    "interventions": interventions_command,
    "trigger": trigger_command,
    "watch": watch_command,
    "stop-run": stop_run_command,
    "open": open_command,
    "trigger-asset": trigger_asset_command,
    "status": status_command,
    "dataset": dataset_command,
    "weights": weights_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="See `make help` for the variables.")
    parser.add_argument("command", choices=list(COMMANDS))
    command = parser.parse_args(arguments).command
    try:
        return 0 if COMMANDS[command](read_settings(os.environ), Console()) else 1
    except DemoError as error:
        print(f"\nFailed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nDetached. What was started goes on: make watch comes back to a run, make stop-run stops it, "
            "make status shows what runs, make down stops everything.",
            file=sys.stderr,
        )
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
