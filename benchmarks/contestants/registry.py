"""Contestants, in the order of a round."""

from __future__ import annotations

from benchmarks.contestants.aria2 import Aria2
from benchmarks.contestants.base import Contestant
from benchmarks.contestants.bittorrent import Libtorrent
from benchmarks.contestants.floor import Floor
from benchmarks.contestants.ours import CommandDownload, PromptDownload
from benchmarks.contestants.rsync import Rsync
from benchmarks.contestants.rtorrent import Rtorrent
from benchmarks.contestants.sharing import B3sum, UploadFile
from benchmarks.contestants.syncthing import Syncthing
from benchmarks.contestants.updating import NewVersion, ReuseDownload, RsyncUpdate
from benchmarks.contestants.web import B3SUM, SHA256, NginxCurl
from benchmarks.report import OURS
from benchmarks.workloads import Workload

_MOVERS: tuple[Contestant, ...] = (
    PromptDownload(),
    PromptDownload(f"{OURS}, Python alone", native=False),
    PromptDownload("mini-torrent, pieces of 4 MiB", piece_size="4M"),
    CommandDownload(),
    Floor(),
    Floor("floor (AES, BLAKE3, pwrite)", "aes"),
    Libtorrent(),
    Libtorrent("libtorrent, pieces as ours", as_ours=True),
    Rtorrent(),
    Aria2(),
    NginxCurl(*SHA256),
    NginxCurl(*B3SUM),
    Rsync(),
)
_UPDATERS: tuple[Contestant, ...] = (
    NewVersion(),
    NewVersion("mini-torrent, pieces of 64 KiB", piece_size="64K"),
    ReuseDownload(),
    RsyncUpdate(),
    RsyncUpdate("rsync, reads every file", "--ignore-times"),
    Syncthing(),
)
_SHARERS: tuple[Contestant, ...] = (
    UploadFile(),
    UploadFile(f"{OURS}, Python alone", native=False),
    B3sum(),
)


def contestants_for(workload: Workload) -> tuple[Contestant, ...]:
    """Return the contestants for `workload`; `skip_reason` excludes those that cannot run here."""
    if workload.update:
        return _UPDATERS
    return _MOVERS if workload.moved else _SHARERS
