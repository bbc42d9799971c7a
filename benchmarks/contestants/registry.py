"""Everyone who takes part, in the order of a round."""

from __future__ import annotations

from benchmarks.contestants.base import Contestant
from benchmarks.contestants.bittorrent import Libtorrent
from benchmarks.contestants.floor import Floor
from benchmarks.contestants.ours import AtThePrompt, OneCommand
from benchmarks.contestants.rsync import Rsync
from benchmarks.contestants.web import NginxCurl

CONTESTANTS: tuple[Contestant, ...] = (
    AtThePrompt(),
    OneCommand(),
    Floor(),
    Libtorrent(),
    NginxCurl("sha256sum"),
    NginxCurl("b3sum"),
    Rsync(),
)
