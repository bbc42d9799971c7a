"""Stand-ins for programs of the system, for tests that put them on the path.

`SYSTEMCTL` runs the command of the unit of a peer. `SLURM` has the programs of a cluster whose
nodes ``n1``, ``n2`` and ``node1`` are folders in ``$FAKE_ROOT``; ``/local`` is in those folders.
"""

from __future__ import annotations

from pathlib import Path


def write_program(path: Path, text: str) -> None:
    """Write an executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


SYSTEMCTL = """#!/bin/sh
# The word in $here/fails fails, as without a bus.
here=$(dirname "$0") unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/mini-torrent.service
while case $1 in --*) ;; *) false ;; esac; do shift; done
echo "$*" >> "$here/calls"
if grep -qsx "$1" "$here/fails"; then echo "Failed to connect to bus" >&2; exit 1; fi
end() {
    [ -s "$here/pid" ] || return 0
    pid=$(cat "$here/pid"); kill "$pid" || true
    while kill -0 "$pid" 2>&-; do sleep 0.02; done
    : > "$here/pid"
}
begin() {
    eval "setsid $(sed -n 's/^ExecStart=//p' "$unit") >/dev/null 2>&1 &"
    echo $! > "$here/pid"
    asks=$(sed -n 's/^ExecStart=\\(.*\\) up --foreground/\\1 status/p' "$unit")
    until eval "$asks" >/dev/null 2>&1; do kill -0 "$(cat "$here/pid")" || exit 1; done
}
case "$1 $2" in
    "enable --now") [ -s "$here/pid" ] || begin ;;
    restart*) end; begin ;;
    stop*|"disable --now") end ;;
    show*) cat "$here/pid" 2>&- || echo 0 ;;
esac
"""

NOTHING = "#!/bin/sh\n"

SLURM = {
    "srun": """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
for node in n1 n2; do
    (
        words=()
        for word in "$@"; do words+=("${word/#\\/local\\//$FAKE_ROOT/$node/local/}"); done
        export SLURMD_NODENAME=$node MT_BCAST_HOME=$FAKE_ROOT/$node/peer
        exec "${words[@]}"
    ) &
    tasks+=($!)
done
code=0
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit $code
""",
    "scontrol": """#!/bin/sh
[ "$*" = "show hostnames n[1-2]" ] && printf 'n1\\nn2\\n'
""",
    "sbatch": """#!/bin/sh
export SLURM_JOB_COMMENT="${1#--comment=}" MT_PATH="$PATH"
node=$FAKE_ROOT/node1
export MT_HOME="$node/var/lib/mini-torrent/peer" MT_FOLDER="$node/local/shared"
exec "$FAKE_PROLOG"
""",
    "runuser": """#!/bin/sh
shift 3
exec "$@"
""",
}
