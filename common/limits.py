"""Limits of the system, each with its unit and its reason.

A bound that two sides must agree on is part of the protocol (docs/protocol.md names it); the others
may be changed by configuration where a module says so.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# -- pieces and manifests (protocol) ------------------------------------------------------------

PIECE_LENGTH_DEFAULT = 256 * KIB  # a crowd needs many pieces; smaller ones cost more messages
PIECE_LENGTH_GROWN = 2 * MIB  # of large contents by default; no message has more data
PIECES_WANTED = 512  # pieces grow only beyond that count: a swarm needs many to pass on
PIECE_LENGTH_MIN = 16 * KIB  # smaller ones cost too many messages
PIECE_LENGTH_MAX = 4 * MIB  # a piece is one message, and a message is buffered whole
RUN_BYTES = 2 * MIB  # adjacent pieces that go in one message, on bulk connections
ON_ITS_WAY_MAX = 32 * MIB  # to one requester: 300 ms of 1 Gbit/s: the data in flight on a long path
PIECES_MAX = 1 << 21  # 4 TiB of grown pieces; a bitfield of 256 KiB
ALIKE_PIECES_MAX = 1 << 18  # searched for equal ones: some 30 MiB of digests for a moment
FILE_PATTERNS_MAX = 64  # of one command that fetches some files of a folder
REUSE_PATHS_MAX = 64  # files and folders that one download looks through
ENTRIES_MAX = 200_000  # files and folders in one share
TIMES_MAX = 2 * ENTRIES_MAX  # of these, and of the folders on the way to them
CONTENT_BYTES_MAX = 1 << 53  # sizes stay exact in JSON readers that know only doubles
COUNT_MAX = (1 << 53) - 1  # such writers make a float of larger ones, which is no count
MANIFEST_BYTES_MAX = 96 * MIB  # PIECES_MAX digests of 32 bytes, and the entries' paths
MANIFEST_PART_BYTES = 128 * KIB  # moved in parts that fit a small message limit

# -- messages (protocol) ------------------------------------------------------------------------

COMMAND_BYTES_MAX = 192 * KIB  # at the tracker's and a serving peer's ROUTER: a manifest part fits
BODY_BYTES_MAX = 4 * MIB  # one decoded body, e.g. a list of members
REPLY_BYTES_MAX = PIECE_LENGTH_MAX + 64 * KIB  # at a DEALER: the largest piece, and its frames
EVENT_BYTES_MAX = 64 * KIB  # one event on PUB
CONTROL_BYTES_MAX = 16 * MIB  # a listing of everything to our own command line
TOKEN_BYTES_MAX = 1 * KIB  # at a serving peer's bulk ROUTER: a handshake, and one proof
HEAD_FRAMES = 3  # signature, request id, body; data follows in one frame, or
DATA_FRAMES_MAX = 32  # for pieces on slow links: signs of life pass between frames, not within
REQUEST_ID_BYTES = 8
ROUTING_ID_BYTES = 17  # chosen at random by the connecting side, so it cannot be guessed
PIECES_PER_REQUEST_MAX = 512  # indexes in one request, cancel or have message
LISTING_MAX = 20_000  # rows in one answer
GROUPS_LISTED_MAX = 50_000  # groups that a peer takes from a tracker: 8 MiB to the command line
DEVICES_PER_GROUP_MAX = 100_000  # that a peer keeps of one group: some 25 MiB
SOURCES_MAX = 50  # sources in one answer or update; more cost more than they bring

# -- connections --------------------------------------------------------------------------------

HANDSHAKE_IVL_MS = 4_000  # a half-open connection is closed within 5 s
HEARTBEAT_IVL_MS = 5_000
HEARTBEAT_TIMEOUT_MS = 15_000  # a one-way loss is noticed within 20 s
HEARTBEAT_TTL_MS = 15_000
# To a tracker, where they would cost more than all the rest: only the device sends them.
TRACKER_HEARTBEAT_IVL_MS = 10_000
TRACKER_HEARTBEAT_TTL_MS = 30_000  # a device that is silent for longer has gone
TRACKER_HANDSHAKE_IVL_MS = 15_000  # at the device: after a restart it waits for thousands of others
KEEPALIVE_IDLE_S = 60  # until the kernel asks a silent connection, at sockets without heartbeats
KEEPALIVE_IVL_S = 15
KEEPALIVE_PROBES = 4
RECONNECT_IVL_MS = 100  # doubled at each try up to the maximum; libzmq adds the jitter
RECONNECT_IVL_MAX_MS = 5_000
TRACKER_ADDRESSES_MAX = 16  # of trackers with one key: in a link, and that a peer remembers
TRACKER_BACKLOG = 4_096  # a restarted tracker is met by all peers at once
CONNECTIONS_MAX = 50_000  # to one socket, if there are enough descriptors
UNFINISHED_BYTES_MAX = 16 * MIB  # of a message that does not end; several of the longest there are
NOT_READING_S = 20.0  # a connection that takes none of its queued bytes for that long is closed
REPLIES_QUEUED_MAX = 300  # for one device; one that reads has no more than its open commands
UNFINISHED_BYTES_ALL_MAX = 256 * MIB  # of all connections together; those with most are cut first
SUBSCRIBER_BYTES_MAX = 1 * KIB  # a frame from a subscriber: a topic of 16 bytes, or its handshake
SUBSCRIPTIONS_BYTES_MAX = 128 * KIB  # from one: 2,400 topics, some 50 times that in memory
SUBSCRIPTIONS_BYTES_ALL_MAX = 8 * MIB  # from all, beyond what each is allowed freely

# -- trust --------------------------------------------------------------------------------------

TICKET_LIFE_S = 600  # how long a removed member could fetch from a peer without a tracker
CLOCK_SKEW_S = 30  # error of a peer's estimate of the tracker's time
SEALED_BYTES_MAX = 256 * 1024 * MIB  # with one key of AES-GCM; TLS stops at about as much
USER_ID_MAX = 64
PASSWORD_CHARACTERS_MIN = 6  # of a new one: guesses are slowed to 8,700 a day, not to none
PASSWORD_BYTES_MAX = 1_024
EVENT_KEY_BYTES = 32
REKEYS_MAX = 6  # fresh keys of a group for lost devices: all members ask for each of them, …
REKEYS_S = 60.0  # … so there are at most that many in this time; the rest get the next key

# -- presence -----------------------------------------------------------------------------------

LEASE_S = 30.0  # a silent device counts as online that long
SEEN_MARK_S = 600  # how often the presence of an online device is recorded
RENEW_S = 10.0  # and renews three times within it
COALESCE_S = 0.1  # peer-set changes of one share are gathered that long
BEACON_S = 2.0  # the tracker's sign of life, with the head of the active groups
BEACON_TAIL_S = 60.0  # for how long after its last event a group's head is repeated

# -- downloads and serving ----------------------------------------------------------------------

BUFFER_BYTES = 64 * MIB  # requested, received and unverified bytes of one download
SOURCES_USED = 20
DOWNLOADS_AT_ONCE = 32  # with progress; each may take BUFFER_BYTES. The others queue
DOWNLOADS_OPEN_MAX = 256  # with those that stand still; three or four descriptors each
DOWNLOAD_STILL_S = 60.0  # after that long without a verified piece, it holds up no other one
DOWNLOADS_LISTED_MAX = 1_000  # complete ones of a user; the oldest leave the list, not the disk

# -- the tracker --------------------------------------------------------------------------------

GROUPS_PER_USER_MAX = 200  # each is a topic to follow, a ticket to renew and a row in every answer
MEMBERS_PER_GROUP_MAX = 10_000  # their devices are known to every serving peer of the group
REQUESTS_PER_GROUP_MAX = 1_000  # strangers must not fill an owner's list without end
REQUESTS_PER_USER_MAX = 100
INVITATIONS_OPEN_MAX = 100  # of a group: an owner can look through as many
INVITATIONS_KEPT_MAX = 200  # with those that are used up, which a repeated join still finds
INVITATION_USES_MAX = MEMBERS_PER_GROUP_MAX  # more people cannot join
INVITATION_S = 7 * 86_400  # unless its maker wants another time, …
INVITATION_S_MIN = 1  # … which is the shortest duration that can be written, …
INVITATION_S_MAX = 366 * 86_400  # … and so short that a forgotten one ends
INVITATIONS_TRIED_BURST = 10  # wrong ones of a device at once: a person mistypes a few, …
INVITATIONS_TRIED_RATE = 1 / 30  # … and a second in the long run
INVITATIONS_TRIED_NETWORK_BURST = 100  # the same of a network: a class sits behind one address
INVITATIONS_TRIED_NETWORK_RATE = 1.0
REQUEST_BURST = 10  # join requests of a user at once: each is two entries …
REQUEST_S = 10.0  # … of a log if it is withdrawn again; later one in that time
DEVICES_PER_USER_MAX = 100
SHARES_PER_GROUP_MAX = LISTING_MAX
GLOBS_MAX = 16  # patterns of one follow, …
GLOB_CHARACTERS_MAX = 100  # … so that a page of followers stays below BODY_BYTES_MAX
OFFERS_PER_DEVICE_MAX = LISTING_MAX
VERSION_MAX = 1_000_000_000  # of a name: a version every second for 30 years
VERSIONS_AHEAD_MAX = 10_000  # by which an offer may exceed what a restored tracker knows
VERSIONS_PER_NAME_MAX = 32  # on record, offered or not: a month of nightly versions
NAMES_WITHDRAWN_MAX = 2_000  # remembered in a group, so that a device that was away learns of it
UPLOADS_PER_DEVICE_MAX = 2  # manifests on their way in
UPLOAD_BYTES_MAX = 256 * MIB  # memory for all manifests on their way in
UPLOAD_BYTES_PER_USER_MAX = 32 * MIB  # of that, for a user with more than one of them
UPLOAD_IDLE_S = 60.0  # an upload that gets no whole part that long is dropped
UPLOAD_S = 600.0  # time for an upload in all, …
UPLOAD_RATE_MIN = 64 * KIB  # … and one second more for each of these bytes
UNSHARED_MANIFEST_LIFE_S = (
    600  # a manifest that no share names is kept that long for the offer to follow
)
MANIFESTS_SHOWN_MAX = 20_000  # remembered senders of manifests; beyond, one may be asked for again
UNSHARED_MANIFEST_BYTES_MAX = 1024 * MIB  # disk that manifests without a share may take
COMMAND_QUEUE_MAX = 10_000  # commands that wait to be decided; some 20 MiB
COMMANDS_PER_DEVICE_MAX = 256  # of these, a device's
COMMANDS_PER_BATCH_MAX = 256  # committed together; bounds how long a command waits for others
COMMAND_RATE = 300.0  # commands a second of one device in the long run …
COMMAND_BURST = 600.0  # … and at once; a start with 200 groups needs about 500
PASSWORD_QUEUE_MAX = 32  # passwords that wait to be hashed: about 3 s of one core
PASSWORD_PLACES_EACH = 2  # of each user, waiting or at work: the next one is ready in time
# What one user may add to the tracker's disk: at once, and a second in the long run. Each is paid
# for when it comes about, together with its end, which is free.
ENTRIES_BURST = 40_000  # of groups' logs: 20,000 shares, or 100 logins of a user of 200 groups
ENTRIES_RATE = 4.0  # 350,000 a day, of which each group keeps the latest
GROUPS_BURST = 200  # made: as many as a user may be in
GROUPS_RATE = 1 / 60  # names of 1,600 groups that are gone stay for a day at most
OFFERS_BURST = 20_000  # of a further device, without an entry: a device that has just got them all
OFFERS_RATE = 2.0
OFFERS_PER_USER_MAX = 200_000  # also of devices that the user is not logged in on
MANIFEST_BYTES_PER_USER_MAX = 2048 * MIB  # of all that a user offers: 60 TiB in pieces of 1 MiB
SHARES_OF_ONE_TIMES_FREE = 3  # a member lists no more of a group than 3 times what is left free
ACCOUNTS_MAX = 200_000  # some 100 MiB of the tracker's memory
LOG_ENTRIES_MAX = 2_000  # of a group's log: what a peer may miss and still get entry by entry; …
LOG_ENTRIES_KEPT = 1_000  # … beyond, the oldest go until so many are left: two pages
LOG_TRIM_MAX = 10_000  # entries that go at once: a log of an earlier release may have millions
PROBE_S = 4.0  # a tested device answers in that time over any usable network
PROBE_BURST = 4.0  # tests of a user's devices at once, …
PROBE_RATE = 1 / 15  # … and a second in the long run: enough for a person who mends a network
PROBES_MAX = 16  # at a time, of all users: each takes a few descriptors
HOUSEKEEPING_S = 60.0  # how often expired state is deleted
RECEIPT_LIFE_S = 600  # for how long a repeated command is recognised as one that was done
TOMBSTONE_LIFE_S = 86_400  # removals, and the heads of dissolved groups' logs, are kept that long
RATE_MIN = 1 * KIB  # bytes a second: below, a piece takes minutes, and 5 is a mistyped 5M
RATE_MAX = 1024 * 1024 * MIB  # bytes a second: beyond any network
TIMETABLE_SLOTS_MAX = 200  # an hour's grid of a week; more are a mistake

# -- reading while a file is fetched ------------------------------------------------------------

READERS_MAX = 32  # at a time; each keeps one piece in memory
READ_AHEAD_BYTES = 32 * MIB  # fetched before all else: 2 s of 125 Mbit/s, or 10 s of a film
READ_TAIL_BYTES = 1 * MIB  # of the end of a file, fetched with its beginning: indexes stand there
READER_IDLE_S = 60.0  # a reader of the command line that asks for nothing ends; it may come back
READS_BYTES_MAX = 16 * 1024 * MIB  # disk that the downloads of readers keep
READ_WAIT_S = 60.0  # a request over HTTP waits for a piece that long

# -- the page and the HTTP API of a peer --------------------------------------------------------

PAGE_SECRET_S = 60.0  # a page is open by then; the secret in its address is worth nothing later
PAGE_IDLE_S = 12 * 3600.0  # a page that is open over night asks for nothing; one in use renews it
PAGE_SESSIONS_MAX = 64  # pages of one user; the one used longest ago ends first
HTTP_BODY_BYTES_MAX = 1 * MIB  # a command with its longest paths takes far less
HTTP_CONNECTIONS_MAX = 128  # a browser opens 6 for a page
HTTP_REQUEST_S = 30.0  # for a request to come whole, also through ssh on a slow line
HTTP_COMMANDS_MAX = 64  # at a time, as on the control socket
EVENT_STREAMS_MAX = 32  # each page has one
EVENTS_KEPT = 1_000  # which a stream that was interrupted can still get
EVENT_BACKLOG_MAX = 2_000  # messages for one reader that does not read; then it is let go
EVENT_BEAT_S = 15.0  # between comments on an idle stream, so that its end is noticed
