"""Groups that the metrics of a peer name, and the labels that they must not have."""

from __future__ import annotations

from collections import Counter

from common.ids import GroupId
from common.metrics.families import OPEN_VALUES_MAX
from peer.metrics.families import FAMILIES
from peer.metrics.readings import NamedGroups
from peer.swarm.rate_limit import RateLimit, Rates
from peer.swarm.rate_limit import UserId as User


def test_h137_a_peer_in_many_groups_names_the_first_ones_for_good() -> None:
    named, counts = NamedGroups(), Counter[GroupId]()
    counts[GroupId("first")] = 1
    assert named.named(counts) == {"_other": 0, "first": 1}
    for number in range(500):
        counts[GroupId(f"g{number}")] = 1_000
    found = named.named(counts)
    assert len(found) == OPEN_VALUES_MAX + 1
    assert found["first"] == 1
    assert sum(found.values()) == sum(counts.values())
    before = found["_other"]
    counts[GroupId("g499")] += 5
    assert named.named(counts)["_other"] == before + 5  # never falls


def test_h138_groups_need_not_be_named() -> None:
    assert NamedGroups(most=0).named({GroupId("secret"): 5, GroupId("plan"): 2}) == {"_other": 7}


def test_h138_the_group_is_the_one_open_label() -> None:
    names = {label for family in FAMILIES for label in family.labels}
    assert not names & {"user", "device", "name", "share", "path", "endpoint", "address", "peer"}
    assert {
        label for family in FAMILIES for label, known in family.labels.items() if known is None
    } == {"group"}


def test_waiting_for_a_limit_is_counted_once_for_all_that_wait() -> None:
    limit = RateLimit(Rates(1_000.0))
    limit.take(User("anna"), 1_250, 10.0)  # a second in debt
    assert limit.ready_at(10.0) == 10.5  # it is looked at twice a second
    assert limit.ready_at(10.1) > 10.5
    assert limit.ready_at(10.1) > 10.5
    assert round(limit.throttled_s, 6) == 0.6
    limit.ready_at(50.0)
    assert round(limit.throttled_s, 6) == 0.6
