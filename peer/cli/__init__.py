"""The command line: everything that a person types or sees.

``program`` is the command itself, the ``…_commands`` its subcommands, ``shell`` the same at a
prompt, ``launch`` what starts and ends a peer. It talks to the running peer over the control socket
and knows nothing of the swarm.
"""

from peer.cli.main import main, root, run

__all__ = ["main", "root", "run"]
