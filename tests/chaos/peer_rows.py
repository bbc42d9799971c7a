"""The long rows of the peers: hundreds of kills, five seeders, loss in one direction, a soak."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.crowd import Noise
from tests.chaos.stage import Stage
from tests.support.faults import (
    MIB,
    Fetch,
    begin,
    behind,
    events_port,
    faults,
    fetch,
    frozen,
    open_descriptors,
    resident_bytes,
    settle,
)
from tests.support.faulty_link import SourceLine, TrackerLine, links
from tests.support.processes import Person, Swarm
from tests.support.tamper import plug
from tests.support.waiting import wait_for

NOTICED_S = 40.0
MOVED_S = 5.0


def f03_a_downloader_killed_200_times_never_lies(stage: Stage) -> str:
    """Half of the kills are pulled plugs: what was not synced is lost, in any choice."""
    kills, done, undone = stage.count(200), 0, 0
    with stage.swarm() as swarm:
        alice = settle(swarm, "alice", "--upload-limit", "12M")
        unsynced = swarm.root / "unsynced"
        with faults(plug=str(unsynced)):
            bob = settle(swarm, "bob")
            group = alice.group_with(bob)
            download = begin(alice, bob, 40 * MIB, group=group)
            for _ in range(kills):
                threading.Event().wait(stage.rng.uniform(0.0, 2.4))
                if download.state == "complete":
                    download.finishes()
                    done += 1
                    download = begin(alice, bob, 40 * MIB, group=group)
                bob.kill()
                download.never_lies()
                synced = _synced(download)
                if stage.rng.random() < 0.5:
                    undone += plug.pull(unsynced, stage.rng)
                else:
                    unsynced.write_bytes(b"")
                with frozen(
                    alice.pid
                ):  # no source can give it anything: its pieces are those that it kept
                    bob.up()
                    wait_for(
                        lambda s=synced, d=download: (
                            d.state == "complete" or d.verified >= s * 16384
                        ),
                        "what was synced",
                    )
            download.finishes()
    return f"{kills} kills, {undone} writes undone, {done + 1} downloads of 40 MiB"


def _synced(download: Fetch) -> int:
    """The pieces that the journal names; 0 when it is gone, since the download is complete."""
    found = sorted((download.who.home / "journals").iterdir())
    return max(0, (found[0].stat().st_size - 40) // 8) if found else 0


def f05_one_of_five_seeders_frozen_costs_no_more_than_its_part(stage: Stage) -> str:
    """The rate after five seconds stays above 70 % of what four give."""
    with stage.swarm() as swarm:
        people = [settle(swarm, f"s{number}", "--upload-limit", "3M") for number in range(5)]
        bob = settle(swarm, "bob")
        group = people[0].group_with(bob, *people[1:])
        path = swarm.file(200 * MIB)
        for each in people:
            each.share(path, group)
        download = fetch(bob, group, path)
        download.until(15 * MIB)
        with frozen(people[2].pid):
            threading.Event().wait(MOVED_S)
            began, had = time.monotonic(), download.verified
            threading.Event().wait(6.0)
            rate = (download.verified - had) / (time.monotonic() - began)
        download.finishes()
    share = rate / (4 * 3_000_000)
    assert share > 0.7, f"{share:.0%} of four"
    return f"{share:.0%} of what four give"


def f11_loss_in_one_direction_is_noticed(stage: Stage) -> str:
    """Messages of a source and of the tracker no longer arrive; those to them do."""
    with stage.swarm() as swarm, links() as line:
        link = SourceLine(line)
        alice = behind(swarm, link, "alice", "--upload-limit", "2M")
        cut = TrackerLine(line, swarm.tracker.link, events_port(swarm))
        bob = settle(swarm, "bob", tracker=cut.link)
        download = begin(alice, bob, 24 * MIB)
        download.until(MIB)
        began = time.monotonic()
        for each in (link, cut):
            each.hold_down()

        def lost() -> bool:
            rows = bob.json("why-slow", download.group, download.name)
            return not any(row["verdict"].startswith("open") for row in rows)

        wait_for(lost, "the loss of the source", patience_s=NOTICED_S)
        source_s = time.monotonic() - began
        wait_for(lambda: not bob.status()["connected"], "that of the tracker", patience_s=NOTICED_S)
        tracker_s = time.monotonic() - began
        assert tracker_s < NOTICED_S
        for each in (link, cut):
            each.heal()
        download.finishes(patience_s=90.0)
    return f"of a source after {source_s:.0f} s, of the tracker after {tracker_s:.0f} s"


def f16_tens_of_thousands_of_events_while_a_subscriber_stands_still(stage: Stage) -> str:
    """More than all queues on the way hold, and than the log keeps: it goes on from a snapshot
    afterwards, and others never waited."""
    count = stage.count(20_000)
    with stage.swarm() as swarm:
        alice, bob = settle(swarm, "alice"), settle(swarm, "bob")
        noise = Noise(alice, bob)
        watched, behind = noise.watched_by(alice), noise.followed_by(bob)
        with frozen(behind.pid), frozen(bob.pid):
            noise.make(count)
            noise.heard_by(watched)
        noise.heard_by(behind)
        wait_for(lambda: bob.status()["connected"], "the other one's peer")
        noise.close()
    return f"{count} events"


# -- the soak -------------------------------------------------------------------------------------


SHORT_MEMORY = {
    "RECEIPT_LIFE_S": 10,
    "UNSHARED_MANIFEST_LIFE_S": 10,
    "TOMBSTONE_LIFE_S": 10,
    "DOWNLOADS_LISTED_MAX": 10,
    "MANIFESTS_SHOWN_MAX": 50,
}
GROWN_MAX = MIB // 2
FILLING_MAX = 3 * MIB  # caches fill for a quarter of an hour
FILLED_S = 900.0
POOLS_MAX = 4 * MIB  # freed memory that the allocator keeps goes up and down by that much


@dataclass
class Curve:
    """Memory and descriptors of one process over time."""

    name: str
    pid: int
    usage: Path
    at: list[float] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def look(self) -> None:
        told = (self.usage / str(self.pid)).read_text("ascii")
        self.at.append(time.monotonic())
        self.used.append(int(told or 0))
        self.resident.append(resident_bytes(self.pid))
        self.descriptors.append(open_descriptors(self.pid))

    def slope(self) -> tuple[float, float]:
        """Growth of what is used in an hour, over the second half, as a part of what is resident;
        and its standard error."""
        half = len(self.at) // 2
        x, y, whole = self.at[half:], self.used[half:], statistics.fmean(self.resident[half:])
        slope, _ = statistics.linear_regression(x, y)
        mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
        off = [b - (mean_y + slope * (a - mean_x)) for a, b in zip(x, y, strict=True)]
        spread = sum((a - mean_x) ** 2 for a in x)
        error = (sum(o * o for o in off) / max(1, len(x) - 2) / spread) ** 0.5
        return slope * 3600 / whole, error * 3600 / whole

    def faults(self, most: float) -> list[str]:
        """Growth in the second half: of used memory beyond ``most`` bytes and one per cent an
        hour, of the highest resident memory, and of open descriptors."""
        slope, error = self.slope()
        grown, opened = _rise(self.used), _rise(self.descriptors)
        half = len(self.resident) // 2
        higher = _top(self.resident[half:]) - _top(self.resident[:half])
        found = []
        if slope - 3 * error > 0.01 and grown > most:
            found.append(f"{self.name} uses {grown / MIB:.2f} MiB more")
        if higher > POOLS_MAX:
            found.append(f"{self.name} takes {higher / MIB:.2f} MiB more at most")
        if opened > 4:
            found.append(f"{self.name} has {opened:.0f} descriptors more")
        return found

    def __str__(self) -> str:
        slope, error = self.slope()
        half = len(self.resident) // 2
        tops = [_top(part) / MIB for part in (self.resident[:half], self.resident[half:])]
        return (
            f"{self.name} {slope:+.1%} ± {2 * error:.1%}/h, "
            f"at most {tops[0]:.1f} and {tops[1]:.1f} MiB"
        )


def _rise(values: list[int]) -> float:
    """From the third quarter's beginning to the last one's end, by medians of a tenth: what is
    open or held in passing does not count."""
    half = values[len(values) // 2 :]
    tenth = max(1, len(half) // 10)
    return statistics.median(half[-tenth:]) - statistics.median(half[:tenth])


def _top(values: list[int]) -> int:
    """The most, but for one look in fifty."""
    return sorted(values)[max(0, len(values) - 1 - len(values) // 50)]


def f10_memory_and_descriptors_stay_where_they_are(stage: Stage) -> str:
    """Minutes of sharing, fetching, cancelling and failing connections, looked at once a round.

    Times and numbers up to which something is kept are smaller than in the product: what grows
    in the second half grows for ever. ``--soak`` makes it longer, and the judgement finer.
    """
    with stage.swarm() as swarm, links() as line:
        usage = swarm.folder()
        with faults(limits=SHORT_MEMORY, usage=str(usage)):
            swarm.tracker.kill()
            swarm.tracker.start()
            bob, carol = settle(swarm, "bob"), settle(swarm, "carol")
            link = SourceLine(line)
            alice = behind(swarm, link, "alice", limits=SHORT_MEMORY, usage=str(usage))
        group = alice.group_with(bob, carol)
        curves = [Curve("tracker", swarm.tracker.process.pid, usage)]
        curves += [Curve(who.name, who.pid, usage) for who in (alice, bob, carol)]
        rounds, began = 0, time.monotonic()
        while time.monotonic() < began + stage.soak_s or rounds < 8:
            _round(swarm, group, alice, bob, carol)
            link.reset()
            rounds += 1
            for curve in curves:
                curve.look()
        # A short run cannot tell one per cent an hour from a page more or less.
        most = GROWN_MAX if stage.soak_s >= FILLED_S else FILLING_MAX
        faulty = [fault for curve in curves for fault in curve.faults(most)]
        notes = "; ".join(str(curve) for curve in curves)
        assert not faulty, "; ".join([*faulty, notes])
    return f"{rounds} rounds; used in the second half: {notes}"


def _round(swarm: Swarm, group: str, alice: Person, bob: Person, carol: Person) -> None:
    """The events of a day, once."""
    path = swarm.file(4 * MIB)
    alice.share(path, group, "--piece-size", "64K")
    downloads = [fetch(who, group, path) for who in (bob, carol)]
    given_up = fetch(carol, group, path)
    carol.run("cancel", group, given_up.target)
    for download in downloads:
        wait_for(lambda d=download: d.state in ("complete", ""), "an end")
        download.never_lies()
    for who in (alice, bob, carol):
        who.run("stop-share", group, path.name)
        who.run("list-files", group)
        who.run("download-file", group, "nothing of that name", swarm.root)
    for target in (path, *(d.target for d in (*downloads, given_up))):
        target.unlink(missing_ok=True)
