"""One message of every kind, with every field filled in: what the golden bytes are of.

A message that gets a field gets it here too, at the end and with a default in its type, and the
golden file then shows that the bytes before it stayed as they were.
"""

from __future__ import annotations

from typing import Any

from common.messages import control, events, operator, peer, tracker
from common.messages.base import Refusal, Source
from common.messages.refusals import Code

DEVICE = bytes(range(32))
OTHER = bytes(range(32, 64))
CONTENT = bytes(range(64, 96))
TOPIC = bytes(range(96, 112))
DIGEST = bytes(range(128, 160))
TRACKER = bytes(range(160, 176))
TOKEN = b"a ticket's bytes"
MS = 1_900_000_000_123

REFUSAL = Refusal(Code.UNKNOWN_GROUP, "there is no such group", "see the groups")
SOURCE = Source(OTHER, "bob", "tcp://192.0.2.2:5001", False, 17)
FILE = tracker.FileRow(
    "film.mkv",
    CONTENT,
    1_048_577,
    1,
    3,
    524_288,
    "blake3",
    DIGEST,
    2,
    1,
    ["alice", "bob"],
    3,
    False,
    False,
)
ENTRY = events.LogEntry("films", 9, MS, 2, events.Joined("bob"))

COMMANDS: list[Any] = [
    tracker.Hello("mini-torrent"),
    tracker.CreateUser("alice", "a password"),
    tracker.Login("alice", "a password"),
    tracker.Logout(),
    tracker.ChangePassword("a password", "another password", True),
    tracker.ListDevices(DEVICE.hex()),
    tracker.ForgetDevice(OTHER),
    tracker.CreateGroup("films"),
    tracker.JoinGroup("films"),
    tracker.LeaveGroup("films"),
    tracker.ListGroups("films"),
    tracker.ListRequests("films", "bob"),
    tracker.ListMembers("films", "bob"),
    tracker.AcceptRequest("films", "bob"),
    tracker.RejectRequest("films", "bob"),
    tracker.RemoveMember("films", "bob"),
    tracker.Offer("films", "film.mkv", CONTENT, True, 3),
    tracker.PutManifest(CONTENT, 300_000, 131_072),
    tracker.StopShare("films", "film.mkv", 3),
    tracker.MyOffers("films/film.mkv@3"),
    tracker.ListFiles("films", "film.mkv@3", True),
    tracker.FindShare("films", "film.mkv", 3),
    tracker.GetSources("films", CONTENT),
    tracker.GetManifest("films", CONTENT, 131_072),
    tracker.Announce(
        "tcp://192.0.2.1:5001", [tracker.Leeching("films", CONTENT, 17)], bytes(16), 1 << 20, 5
    ),
    tracker.Depart(),
    tracker.GetTickets(["films"]),
    tracker.Follow(),
    tracker.GetDevices("films", DEVICE.hex()),
    tracker.EventsSince("films", 8),
    tracker.ProbeMe(),
    tracker.Withdraw("films", "film.mkv", 3),
    tracker.Invite("films", OTHER, 3, 86_400),
    tracker.ListInvitations("films", "abcdefgh"),
    tracker.RevokeInvitation("films", "abcdefgh"),
    tracker.Redeem(OTHER),
    tracker.Enter(OTHER, "bob", "a password", False),
    tracker.SetFollow("films", True, ["*.mkv"]),
    tracker.WhoHas("films", "film.mkv", 2, DEVICE.hex()),
]

_GROUP_STATE = tracker.GroupState("films", "alice", 2, TOPIC, DEVICE, 9, [("carol", 2)])

REPLIES: list[Any] = [
    REFUSAL,
    tracker.Done(),
    tracker.Welcome(
        TRACKER,
        [OTHER],
        "tcp://*:5001",
        MS,
        "alice",
        TOPIC,
        DEVICE,
        "192.0.2.1",
        True,
        ["tcp://192.0.2.1:5000", "tcp://192.0.2.2:5000"],
    ),
    tracker.LoggedIn("alice"),
    tracker.PasswordChanged(2),
    tracker.OwnDevices([tracker.OwnDevice(OTHER, MS, MS, True, "tcp://192.0.2.2:5001")], True),
    tracker.GroupRows([tracker.GroupRow("films", "alice", 2, "owner")], True),
    tracker.UserRows([tracker.UserRow("bob", "member", MS, 1, 2)], True),
    tracker.Offered(FILE, True),
    tracker.OfferRows([tracker.OfferRow("films", "film.mkv", CONTENT, 3)], True),
    tracker.FileRows([FILE], True),
    tracker.ShareFound(FILE, TOPIC, 300_000, [SOURCE], "alice", MS),
    tracker.Sources([SOURCE]),
    tracker.ManifestPart(300_000, 131_072),
    tracker.Announced(30.0, MS, [tracker.Head("films", 9, 2)], True),
    tracker.Tickets([tracker.TicketRow("films", TOKEN, MS)], MS),
    tracker.Following([_GROUP_STATE], MS, ["music"], [("films", 2)], ["films"]),
    tracker.DeviceRows([tracker.DeviceRow(OTHER, "bob")], 9, True),
    tracker.Events([ENTRY], 9, _GROUP_STATE),
    tracker.Probed("tcp://192.0.2.1:5001", True),
    tracker.Invited(
        tracker.InvitationRow("abcdefgh", "alice", MS, MS, 3, 1), "tcp://192.0.2.1:5000"
    ),
    tracker.InvitationRows([tracker.InvitationRow("abcdefgh", "alice", MS, MS, 3, 1)], True),
    tracker.Redeemed("films", "bob", "alice", True),
    tracker.Holders(
        FILE,
        [
            tracker.HolderRow(
                OTHER, "bob", tracker.HolderState.FETCHING, 2, MS, False, True, ["*.mkv"]
            )
        ],
        True,
    ),
]

GROUP_EVENTS: list[Any] = [
    events.Created("alice"),
    events.Requested("bob"),
    events.Rejected("bob"),
    events.Joined("bob", "alice"),
    events.Left("bob", 2),
    events.Removed("bob", 2),
    events.Owner("bob"),
    events.Device("bob", OTHER, True),
    events.Shared("alice", "film.mkv", CONTENT, 1_048_577, 1, "blake3", DIGEST, 3),
    events.Seeding("bob", "film.mkv", CONTENT, 3),
    events.Stopped("alice", "film.mkv", CONTENT, 3),
    events.Unshared("bob", "film.mkv", CONTENT, 3),
    events.Withdrawn("alice", "film.mkv", 3, True),
]

PUBLISHED: list[Any] = [
    ENTRY,
    events.GroupHead("films", 9, 2),
    events.NewKey("films", 3, bytes(range(32))),
    events.PeerUpdate("films", CONTENT, [SOURCE], [DEVICE]),
    events.Nudge(),
    events.Beat(TRACKER, MS, True),
]

PEER_ASKS: list[Any] = [
    peer.Open(7, "films", CONTENT, TOKEN),
    peer.Renew("films", TOKEN),
    peer.Request(7, [0, 1, 300], 524_288),
    peer.Credit(524_288),
    peer.Withdraw(7, [300]),
    peer.Close(7),
    peer.AskManifest(7, 131_072),
]

PEER_ANSWERS: list[Any] = [
    peer.Opened(7, False, MS),
    peer.Have(7, [0, 1, 300]),
    peer.OnItsWay(7, [0, 300]),
    peer.Piece(7, 300),
    peer.Declined(7, [300], True, 250),
    peer.Closed(7, REFUSAL),
    peer.Bulk(40_123, CONTENT, DEVICE),
    peer.ManifestBytes(7, 300_000, 131_072),
    REFUSAL,
]

IN_BULK: list[Any] = [peer.Pieces(7, 300, 4)]

ASKS: list[Any] = [
    control.Hello(),
    control.Status(),
    control.Down(),
    control.CreateUser("alice", "a password"),
    control.Login("alice", "a password"),
    control.Logout(),
    control.ChangePassword("a password", "another password", True),
    control.ListDevices(),
    control.ForgetDevice("20212223"),
    control.CreateGroup("films"),
    control.JoinGroup("films"),
    control.LeaveGroup("films"),
    control.ListGroups(),
    control.ListRequests("films"),
    control.ListMembers("films"),
    control.AcceptRequest("films", "bob"),
    control.RejectRequest("films", "bob"),
    control.RemoveMember("films", "bob"),
    control.UploadFile(
        "/films/film.mkv",
        "films",
        "film.mkv",
        "sha256",
        1_048_576,
        True,
        False,
        "follow",
        ["/films/blobs"],
        ["*.tmp"],
        True,
        True,
        True,
        3600.0,
    ),
    control.ListFiles("films", True),
    control.DownloadFile(
        "films",
        "film.mkv",
        "/films",
        False,
        "sequential",
        False,
        90.0,
        ["/old/film.mkv"],
        True,
        ["*.txt"],
        ["/bin/true", "--"],
    ),
    control.AwaitDownload("films", "/films/film.mkv"),
    control.ShowDownloads(),
    control.ListShares(),
    control.StopShare("films", "film.mkv"),
    control.Pause("films", "film.mkv"),
    control.Resume("films", "film.mkv"),
    control.Cancel("films", "film.mkv"),
    control.Clear(),
    control.WhySlow("films", "film.mkv"),
    control.PieceMap("films", "film.mkv"),
    control.QrCode("mini-torrent://192.0.2.1:5000/KEY#SECRET"),
    control.Metrics(),
    control.ReadFile("films", "pictures", "2026/a.jpg", "f00d", 4096, 65536, "ab" * 32),
    control.Verify("films", "film.mkv"),
    control.Move("films", "film.mkv", "/media/films/"),
    control.Watch("films"),
    control.Limit(5_242_880, 0, None, 1024, "08:00,5M 18:00,off"),
    control.Doctor(),
    control.Invite("films", 3, 86_400),
    control.ListInvites("films"),
    control.RevokeInvite("films", "abcdefgh"),
    control.Redeem("mini-torrent://192.0.2.1:5000/KEY#SECRET", "bob", "a password", False),
    control.OpenPage(),
    control.HangUp(True),
    control.WhoHas("films", "film.mkv@2"),
    control.AwaitCopies("films", "film.mkv@2", 3, 60.0),
    control.Follow("films", "/films", ["*.mkv"], 2),
    control.Unfollow("films", "/films"),
    control.ListFollows(),
    control.Withdraw("films", "film.mkv@3"),
    control.Info("films", "film.mkv@3", 20, 500),
    control.FreeSpace("/media/films"),
]

_ROW = control.FileRow(
    "film.mkv",
    1_048_577,
    1,
    3,
    524_288,
    "blake3",
    DIGEST.hex(),
    2,
    1,
    ["alice", "bob"],
    version=3,
    current=False,
    folder=False,
)

_HOLDER = control.HolderRow("bob", "KEY", "fetching", 2, "2030-03-17T17:46:40.123Z", 3, "20212223")

_FOLLOW = control.FollowRow(
    "films",
    "/films",
    ["*.mkv"],
    2,
    "2030-03-17T17:46:40.123Z",
    "waiting",
    "no space left",
    3,
    1,
    1,
    1,
    [control.FollowedShare("film.mkv", 2, "waiting", "/films/film.mkv", 3, 2, "no space left")],
)

ANSWERS: list[Any] = [
    control.Failed(Code.TAKEN, "there is one already", "choose another", 1),
    control.Done("done", {"group": "films", "user": "bob", "role": "none"}),
    control.Welcome("0.1.0", "0123456789abcdef"),
    control.NeedsConsent("you own films"),
    control.DoneAll("paused 1 download", [{"group": "films", "name": "film.mkv"}]),
    control.Begun("downloading film.mkv", "films", "/films/film.mkv", "film.mkv"),
    control.PageOpened("http://127.0.0.1:4321/", "c2VjcmV0"),
    control.StatusIs(
        "alice",
        True,
        "LINK",
        "tcp://192.0.2.1:5001",
        "KEY",
        3,
        1,
        4711,
        "none",
        "tcp://*:1",
        "h",
        "a",
        ["film in films: not mounted"],
        2,
        {"films": 2},
        ["music"],
        "20212223",
        "0.1.0",
        "/home/alice",
        1.5,
        2.5,
        7,
        [control.FetchingRow("bob", "KEY", 1.5, "20212223")],
        control.LimitsRow(1024),
        "in use",
    ),
    control.Groups([control.GroupRow("films", "alice", 2, "owner")]),
    control.Users([control.UserRow("bob", "member", "2030-03-17T17:46:40.123Z", 1, 2)]),
    control.Invited(
        "films",
        "abcdefgh",
        "mini-torrent://192.0.2.1:5000/KEY#SECRET",
        3,
        "2030-03-17T17:46:40.123Z",
        True,
    ),
    control.Invites(
        [
            control.InviteRow(
                "abcdefgh",
                "alice",
                "2030-03-17T17:46:40.123Z",
                "2030-03-17T17:46:40.123Z",
                3,
                1,
            )
        ]
    ),
    control.Redeemed("films", "bob", "alice", True),
    control.Devices(
        [
            control.DeviceRow(
                "20212223",
                "KEY",
                "2030-03-17T17:46:40.123Z",
                "2030-03-17T17:46:40.123Z",
                True,
                "tcp://192.0.2.2:5001",
                False,
            )
        ]
    ),
    control.LimitsAre(
        control.LimitsRow(
            1024, None, 2048, None, "08:00,1K 18:00,off", True, "2030-03-17T17:46:40Z"
        )
    ),
    control.Files([_ROW]),
    control.ShareInfo(
        "films",
        "film.mkv",
        3,
        True,
        [1, 3],
        1_048_577,
        1,
        3,
        524_288,
        "blake3",
        DIGEST.hex(),
        CONTENT.hex(),
        2,
        1,
        ["alice", "bob"],
        "alice",
        "2030-03-17T17:46:40.123Z",
        [control.HeldRow("shared", "/films/film.mkv", 1_048_577)],
        [control.EntryRow("film.mkv", 1_048_577, "file")],
        True,
    ),
    control.Downloads(
        [
            control.DownloadRow(
                "paused",
                "films",
                "film.mkv",
                "/films/film.mkv",
                3,
                2,
                1.5,
                0.5,
                [control.SourceEnd("bob", "tcp://192.0.2.2:5001")],
                "no room",
                2,
            )
        ]
    ),
    control.ShareRows(
        [
            control.ShareRow(
                "films",
                "film.mkv",
                2,
                "/films/film.mkv",
                3,
                "away",
                "not mounted",
                7,
                [control.FetchingRow("bob", "KEY", 1.5, "20212223")],
                "2030-01-01T00:00:00.000Z",
            )
        ]
    ),
    control.SourceRows(
        [
            control.SourceRow(
                "bob", "tcp://192.0.2.2:5001", True, 1.5, 3, 2, "good", "KEY", "20212223"
            )
        ]
    ),
    control.PieceMapIs([(1.0, 0.0, 3), (0.5, 0.25, 1)]),
    control.QrCodeIs(["101", "010", "111"]),
    control.MetricsAre("minitorrent_peer_shares 2.0\n"),
    control.FilePart(b"bytes", 70_000, "ab" * 32),
    control.Checks([control.CheckRow("clock", False, "a day off", "set it")]),
    control.Verified("films", "film.mkv", 2, "/films", 3, 2, [1], ["film.mkv"], 0.5),
    control.Uploaded(
        _ROW,
        0.5,
        True,
        False,
        ["joined as it was shared first"],
        [control.SkippedRow("a/socket", "a socket")],
        2,
        3,
        "2030-01-01T00:00:00.000Z",
    ),
    control.Planned(
        "films",
        "film.mkv",
        1_048_577,
        1,
        3,
        524_288,
        "blake3",
        "refused",
        "another content is shared",
        "share it under another name",
        "1 hidden file",
        [control.SkippedRow("a/socket", "a socket")],
        2,
        3,
    ),
    control.Downloaded(
        "films",
        "film.mkv",
        "/films/film.mkv",
        1_048_577,
        "blake3",
        DIGEST.hex(),
        0.5,
        2_097_154.0,
        1_000_000,
        48_577,
        [control.SourceUse("bob", "tcp://192.0.2.2:5001", 3)],
    ),
    control.Progress("downloading", 1, 2, 1.5, 0.5, 1, "a note"),
    control.Happened(9, "2030-03-17T17:46:40.123Z", "films", "joined", {"user": "bob"}),
    control.Alive(),
    control.Holders([_HOLDER]),
    control.Copies([_HOLDER], "1 copy", True),
    control.Follows([_FOLLOW], "following films"),
    control.SpaceIs("/media/films", "/media", 1_000_000),
]

OPERATOR_ASKS: list[Any] = [
    operator.Status("0123456789abcdef"),
    operator.Stop(),
    operator.ListUsers("bob", "o", True, 17),
    operator.SetDisabled("bob", True),
    operator.DeleteUser("bob"),
    operator.ResetPassword("bob", "a password"),
    operator.ListGroups("films", "f", 17),
    operator.DeleteGroup("films"),
    operator.SetRegistration(operator.Registration.INVITE),
    operator.Metrics(),
    operator.OpenPage(),
    operator.ListDevices("ab" * 32, "bob", True),
    operator.ListMembers("films"),
    operator.ListSwarms("films", "a film.mkv", 2),
    operator.GetLoad(),
    operator.GetHistory(),
    operator.ListLog(17),
]

_TIME = "2030-03-17T17:46:40.123Z"
OPERATOR_ANSWERS: list[Any] = [
    operator.Failed(Code.UNKNOWN_USER, "there is no such user", "see the users"),
    operator.StatusIs(
        running=True,
        link="mini-torrent://192.0.2.1:5000/KEY",
        pid=7,
        version="0.1.0",
        home="/home/t",
        uptime_s=1.5,
        users=2,
        users_online=1,
        devices=3,
        devices_online=1,
        groups=1,
        shares=4,
        log_head=9,
        database_bytes=4096,
        registration=operator.Registration.OPEN,
        trackers=2,
    ),
    operator.Users([operator.UserRow("bob", True, _TIME, _TIME, 2, 1, 3, 1, 4)], True),
    operator.Groups([operator.GroupRow("films", "alice", _TIME, 2, 1, 1, 4, 1_048_577, 9)], True),
    operator.RegistrationIs(operator.Registration.CLOSED, True),
    operator.Changed("bob is disabled", "bob", 1, 2),
    operator.MetricsAre("minitorrent_tracker_users 2.0\n"),
    operator.PageOpened("http://127.0.0.1:4321/", "a secret"),
    operator.Devices(
        [
            operator.DeviceRow(
                "ab" * 32, "bob", False, True, "tcp://192.0.2.1:5", _TIME, None, 1, 2, 1 << 20, 7
            )
        ],
        True,
    ),
    operator.Members([operator.MemberRow("bob", "member", _TIME, 2, 1, 1)]),
    operator.Swarms(
        [
            operator.SwarmRow(
                *("films", "a film.mkv", 2, _TIME, 1 << 30, 512, 3, 1, 1),
                [operator.FetchRow("bob", "ab" * 32, 17)],
            )
        ],
        operator.SwarmCursor("films", "a film.mkv", 2),
    ),
    operator.LoadIs(
        uptime_s=12.5,
        commands={"ok": 5},
        logins={"wrong": 1},
        bounds_s=[0.001],
        durations=[4, 5],
        commits=3,
        commits_s=0.01,
        commit_changes=2,
        queue=0,
        writable=True,
        loop_lag_s=0.001,
        database_bytes=4096,
        backup=_TIME,
        events=9,
        tickets=2,
        refusals={"wrong-credentials": 1},
        devices_online=2,
        received_bytes_per_s=1 << 20,
        sent_bytes_per_s=7,
    ),
    operator.HistoryIs(
        run="0badcafe",
        every_s=5.0,
        points=[
            operator.Point(1, 1_700_000_000_000, 2.5, 0.0, 0.01, None, 0, 0.0, 4096, 2, 1 << 20, 7)
        ],
    ),
    operator.Log([operator.LogRow(17, _TIME, "INFO", "tracker", "serving at tcp://192.0.2.1:1")]),
]

CONVERSATIONS: dict[str, tuple[Any, list[Any]]] = {
    "tracker-commands": (tracker.Command, COMMANDS),
    "tracker-replies": (tracker.Reply, REPLIES),
    "group-events": (events.GroupEvent, GROUP_EVENTS),
    "published": (events.Published, PUBLISHED),
    "peer-asks": (peer.ClientMessage, PEER_ASKS),
    "peer-answers": (peer.Answer, PEER_ANSWERS),
    "peer-bulk": (peer.Pieces, IN_BULK),
    "control-asks": (control.Command, ASKS),
    "control-answers": (control.Answer, ANSWERS),
    "control-operator-asks": (operator.Command, OPERATOR_ASKS),
    "control-operator-answers": (operator.Answer, OPERATOR_ANSWERS),
}
"""Each conversation with the union of its messages, and a sample of every member of it."""
