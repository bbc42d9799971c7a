"""Commands about this device's peer: up, down, shell, doctor, completion, demo."""

from __future__ import annotations

import os
import sys

import click
from click.core import ParameterSource

from common.hints import PROGRAM, hint
from peer.cli.arguments import size
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import refuse_usage
from peer.cli.json_form import plain

_LISTEN_HELP = "The address for other peers: HOST:PORT, tcp://HOST:PORT or ipc:///PATH."


@command(
    "up",
    example="mini-torrent up mini-torrent://192.0.2.7:5000/KEY --listen 192.0.2.8:5100",
)
@click.argument("link", metavar="[LINK|TRACKER_INFO]", required=False)
@click.option(
    "--listen",
    metavar="ENDPOINT",
    envvar="MINI_TORRENT_LISTEN",
    show_envvar=True,
    help=_LISTEN_HELP + " Default: the address that reaches the tracker, and a free port.",
)
@click.option(
    "--advertise",
    metavar="HOST",
    envvar="MINI_TORRENT_ADVERTISE",
    show_envvar=True,
    help="The address or host name to announce to other peers, if not the listen address.",
)
@click.option(
    "--tracker",
    metavar="LINK|TRACKER_INFO",
    envvar="MINI_TORRENT_TRACKER",
    show_envvar=True,
    help="The same as the argument LINK.",
)
@click.option("--foreground", is_flag=True, help="Run in the foreground, until SIGTERM or Ctrl-C.")
@click.option(
    "--remember/--no-remember",
    default=True,
    help="Save these settings for the next start (default).",
)
@click.option("--upload-limit", metavar="SIZE", callback=size, help="Bytes a second; 0: no limit.")
@click.option("--download-limit", metavar="SIZE", callback=size, help="Bytes a second.")
@click.option("--upload-limit-per-user", metavar="SIZE", callback=size, help="Bytes a second.")
@click.option("--download-limit-per-user", metavar="SIZE", callback=size, help="Bytes a second.")
@click.option("--log-json", is_flag=True, default=None, help="Log one JSON object a line.")
@click.option(
    "--new-device-key",
    is_flag=True,
    help="Create a new device key, for a copied machine. Log in afterwards.",
)
def up(
    console: Console,
    link: str | None,
    foreground: bool,
    remember: bool,
    new_device_key: bool,
    **given: str | int | None,
) -> int:
    """Start this device's peer.

    The peer runs in the background until `down`. LINK is the tracker's link, or a tracker_info.txt
    with several trackers. It is saved, so that the next `up` needs no LINK. The peer also starts
    without a network, warns, and connects as soon as there is one.
    """
    from common.messages.control import NOT_LISTENING
    from peer.cli import daemon_process
    from peer.cli.up_options import check_same, checked

    if link is not None:
        source = click.get_current_context().get_parameter_source("tracker")
        if source is ParameterSource.COMMANDLINE and given["tracker"] != link:
            refuse_usage(
                "two trackers are given: LINK and --tracker", hint("give one of them", "up", link)
            )
        given["tracker"] = link
    options = checked(given, os.getcwd())
    if new_device_key:
        daemon_process.renew_device_key(console.home, options)
    if foreground:
        return daemon_process.run_foreground(
            console.home, options, verbose=console.verbose, remember=remember
        )
    status = daemon_process.running(console.home)
    already = status is not None
    if status is None:
        status = daemon_process.start(
            console.home,
            options,
            verbose=console.verbose,
            remember=remember,
            # Not with the secret of an invitation, which `ps` would show as long as the peer runs.
            as_copy=console.alone and not any("#" in word for word in sys.argv),
        )
    else:
        check_same(status, options)
    if console.as_json:
        console.json(plain(status))
    elif not console.quiet:
        ready = f"is already running (PID {status.pid})" if already else "ready"
        where = status.listen or NOT_LISTENING
        console.print_line(f"peer {ready}: {where} (tracker {status.tracker})")
        if new_device_key:
            text = hint("this machine has a new device key; log in", "login", "USER")
            console.print_line(console.hinted(text))
        console.warn_if_alone(status)
    return 0


@command("down", example="mini-torrent down")
def down(console: Console) -> None:
    """Stop this device's peer.

    The command waits until the process has ended. Unfinished downloads resume at the next `up`.
    """
    from common.messages.control import Done
    from peer.cli import daemon_process

    daemon_process.stop(console.home)
    console.done(Done("peer stopped", {"home": str(console.home), "running": False}))


@command("shell", example="mini-torrent shell 127.0.0.1:18000 tracker_info.txt")
@click.argument("listen", required=False)
@click.argument("tracker_info", required=False)
def shell(console: Console, listen: str | None, tracker_info: str | None) -> int:
    """Run the same commands at a prompt.

    If no peer runs, one is started, and stopped at the end. LISTEN is its address for other peers,
    TRACKER_INFO a tracker's link or a file with trackers.

    With commands from a pipe, `shell` waits for the downloads that they started, and exits with the
    code of the first command that failed.
    """
    from peer.cli.shell import run

    root = click.get_current_context().find_root()
    tracker = tracker_info or os.environ.get("MINI_TORRENT_TRACKER") or None
    return run(console, root, {"listen": listen, "tracker": tracker})


@command("doctor", example="mini-torrent doctor")
def doctor(console: Console) -> int:
    """Check for problems and suggest fixes."""
    import msgspec

    from peer.cli.doctor import findings
    from peer.cli.listings import checks_lines

    rows = [
        msgspec.structs.replace(row, hint=console.hinted(row.hint)) if row.hint else row
        for row in findings(console)
    ]
    if console.as_json:
        console.json(plain(rows))
    else:
        print("\n".join(checks_lines(rows)), flush=True)
    return 0 if all(row.ok for row in rows) else 1


@command("completion", example='eval "$(mini-torrent completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(console: Console, shell: str) -> None:
    """Print a shell completion script.

    It also completes options, groups and names of files.

    For bash and zsh, put the line below into .bashrc or .zshrc. For fish, write the output to
    ~/.config/fish/completions/mini-torrent.fish.
    """
    from common.cli.completion import script

    sys.stdout.write(script(shell, PROGRAM))


@command("demo", example="mini-torrent demo ~/film.mkv --peers 6")
@click.argument("path", required=False, type=click.Path(exists=True))
@click.option("--peers", type=click.IntRange(2, 32), default=4, show_default=True, metavar="N")
@click.option(
    "--size",
    metavar="SIZE",
    default="256M",
    show_default=True,
    callback=size,
    help="The size of the file that is made if there is no PATH.",
)
def demo(console: Console, path: str | None, peers: int, size: int) -> int:
    """Try a whole swarm on this machine.

    Starts a tracker and peers as real processes in a temporary directory, and sends one file to all
    of them. Nothing is left behind.
    """
    from peer.cli.demo.story import run

    return run(console, None if path is None else console.path(path), peers, size)


COMMANDS = (up, down, shell, doctor, completion, demo)
