"""The command line: everything that a person types or sees.

``main`` is the entry point, the ``…_commands`` are its subcommands, ``shell`` runs them at a
prompt,
and ``daemon_process`` starts and stops a peer. The command line talks to the running peer over
the control socket. Not here: the swarm (see peer.swarm).
"""

from peer.cli.main import main, root, run

__all__ = ["main", "root", "run"]
