"""Consumer groups: behaviours 25 to 29."""

import os
import threading
import time

from .base import SUBSCRIPTION, Client, behaviour, batch, expect, fresh, name


@behaviour(25, "MEMBER_ID_REQUIRED is for JoinGroup v4 and later, without member id and instance id")
def member_id_required(c):
    for version in range(0, 10):
        group = fresh(f"required-{version}")
        c.coordinator(group)
        answer = c.join(group, version, retry=False)
        while name(answer["ErrorCode"]) == "COORDINATOR_LOAD_IN_PROGRESS":
            time.sleep(0.1)
            answer = c.join(group, version, retry=False)
        if version < 4:
            expect(answer["ErrorCode"], "NONE", what=f"v{version}")
        else:
            expect(answer["ErrorCode"], "MEMBER_ID_REQUIRED", what=f"v{version}")
            assert answer["MemberId"], "no member id to come back with"
            answer = c.join(group, version, retry=False, MemberId=answer["MemberId"])
            expect(answer["ErrorCode"], "NONE", what=f"v{version} with its id")
        assert answer["Leader"] == answer["MemberId"] and answer["GenerationId"] == 1, answer
        if version >= 5:
            static = c.join(fresh("static"), version, retry=False, GroupInstanceId="one")
            expect(static["ErrorCode"], "NONE", what=f"v{version} with an instance id")


@behaviour(26, "metadata and assignments are opaque, whatever the protocol type; who is left out gets an empty one")
def opaque(c):
    group = fresh("opaque")
    c.coordinator(group)
    noise = os.urandom(5000)
    kind = {"ProtocolType": "connect"}
    one = c.join(group, protocols=[("mine", noise), ("other", b"")], **kind)
    c.sync(group, one["GenerationId"], one["MemberId"], [(one["MemberId"], b"alone")])
    with Client(c.broker, c.schemas) as d:
        second = {}
        joining = threading.Thread(target=lambda: second.update(d.join(group, protocols=[("mine", b"second")], **kind)))
        joining.start()
        _until(lambda: name(c.heartbeat(group, one["GenerationId"], one["MemberId"])) == "REBALANCE_IN_PROGRESS")
        again = c.join(group, protocols=[("mine", noise), ("other", b"")], MemberId=one["MemberId"], **kind)
        joining.join()
        assert again["ProtocolName"] == "mine", again
        told = {m["MemberId"]: m["Metadata"] for m in again["Members"]}
        assert told == {one["MemberId"]: noise, second["MemberId"]: b"second"}, "the leader was told other metadata"
        assert second["Members"] == [], "a follower was told the members"
        answer = c.sync(group, again["GenerationId"], one["MemberId"], [(one["MemberId"], noise)])
        assert answer["Assignment"] == noise
        answer = d.sync(group, again["GenerationId"], second["MemberId"])
        assert (answer["ErrorCode"], answer["Assignment"]) == (0, b""), answer
    listed = [g for g in c.ask("ListGroups", 2)["Groups"] if g["GroupId"] == group]
    assert listed and listed[0]["ProtocolType"] == "connect", listed


def _until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


@behaviour(27, "session timeouts have bounds, protocols must match, and generations and members are checked")
def group_rules(c):
    group = fresh("rules")
    c.coordinator(group)
    expect(c.join(group, SessionTimeoutMs=1)["ErrorCode"], "INVALID_SESSION_TIMEOUT")
    expect(c.join(group, SessionTimeoutMs=1 << 30)["ErrorCode"], "INVALID_SESSION_TIMEOUT")
    expect(c.join("")["ErrorCode"], "INVALID_GROUP_ID")
    expect(c.join(group, MemberId="stranger", retry=False)["ErrorCode"], "UNKNOWN_MEMBER_ID")
    one = c.join(group)
    generation, member = one["GenerationId"], one["MemberId"]
    expect(c.join(group, protocols=[("unheard-of", SUBSCRIPTION)])["ErrorCode"], "INCONSISTENT_GROUP_PROTOCOL")
    expect(c.join(group, ProtocolType="connect")["ErrorCode"], "INCONSISTENT_GROUP_PROTOCOL")
    expect(c.sync(group, generation + 1, member)["ErrorCode"], "ILLEGAL_GENERATION")
    expect(c.sync(group, generation, "stranger")["ErrorCode"], "UNKNOWN_MEMBER_ID")
    expect(c.sync(group, generation, member, [(member, b"a")])["ErrorCode"], "NONE")
    expect(c.heartbeat(group, generation, member), "NONE")
    expect(c.heartbeat(group, generation + 1, member), "ILLEGAL_GENERATION")
    expect(c.heartbeat(group, generation, "stranger"), "UNKNOWN_MEMBER_ID")
    topic = c.topic("rules")
    expect(c.commit(group, topic, 5, generation, member), "NONE")
    expect(c.commit(group, topic, 5, generation - 1, member), "ILLEGAL_GENERATION")
    expect(c.commit(group, topic, 5, generation, "stranger"), "UNKNOWN_MEMBER_ID")
    expect(c.ask("LeaveGroup", 1, {"GroupId": group, "MemberId": "stranger"})["ErrorCode"], "UNKNOWN_MEMBER_ID")
    expect(c.ask("LeaveGroup", 1, {"GroupId": group, "MemberId": member})["ErrorCode"], "NONE")
    expect(c.heartbeat(group, generation, member), "UNKNOWN_MEMBER_ID")


@behaviour(27, "a member that is silent for its session timeout is gone, and not sooner")
def session_timeout(c):
    group = fresh("silent")
    c.coordinator(group)
    one = c.join(group, SessionTimeoutMs=6000)
    c.sync(group, one["GenerationId"], one["MemberId"], [(one["MemberId"], b"")])
    time.sleep(3)
    expect(c.heartbeat(group, one["GenerationId"], one["MemberId"]), "NONE")
    time.sleep(4.5)
    expect(c.heartbeat(group, one["GenerationId"], one["MemberId"]), "NONE", what="4.5 s after a heartbeat")
    begin = time.monotonic()

    def state():
        return c.ask("DescribeGroups", 5, {"Groups": [group]})["Groups"][0]["GroupState"]

    _until(lambda: state() == "Empty", 15)
    assert time.monotonic() - begin > 5, "given up too soon"


@behaviour(27, "a static member comes back with its assignment and without a rebalance; its old self is fenced")
def static_members(c):
    group = fresh("static")
    c.coordinator(group)
    one = c.join(group, GroupInstanceId="desk")
    c.sync(group, one["GenerationId"], one["MemberId"], [(one["MemberId"], b"mine")], GroupInstanceId="desk")
    back = c.join(group, GroupInstanceId="desk")
    expect(back["ErrorCode"], "NONE")
    assert back["MemberId"] != one["MemberId"] and back["GenerationId"] == one["GenerationId"], back
    answer = c.sync(group, back["GenerationId"], back["MemberId"], GroupInstanceId="desk")
    assert (answer["ErrorCode"], answer["Assignment"]) == (0, b"mine"), answer
    expect(c.heartbeat(group, one["GenerationId"], one["MemberId"], GroupInstanceId="desk"), "FENCED_INSTANCE_ID")
    topic = c.topic("static")
    expect(c.commit(group, topic, 1, one["GenerationId"], one["MemberId"], GroupInstanceId="desk"), "FENCED_INSTANCE_ID")
    leave = {"GroupId": group, "Members": [{"MemberId": "", "GroupInstanceId": "desk"}, {"MemberId": "", "GroupInstanceId": "chair"}]}
    answer = c.ask("LeaveGroup", 4, leave)
    assert [m["ErrorCode"] for m in answer["Members"]] == [0, 25], answer


@behaviour(28, "commits from outside are for empty groups; unknown groups have offset -1; metadata may be null")
def simple_commits(c):
    group, topic = fresh("simple"), c.topic("simple", 2)
    c.coordinator(group)
    _until(lambda: name(c.committed(group, topic)[0]) != "COORDINATOR_LOAD_IN_PROGRESS")
    code, part = c.committed(group, topic)
    assert (code, part["CommittedOffset"], part["CommittedLeaderEpoch"]) == (0, -1, -1), part
    for version in range(2, 9):
        expect(c.commit(group, topic, 40 + version, metadata=None, version=version), "NONE", what=f"v{version}")
    for version in range(1, 8):
        code, part = c.committed(group, topic, version=version) if version > 1 else _committed_v1(c, group, topic)
        assert (code, part["CommittedOffset"], part["Metadata"]) == (0, 48, ""), f"v{version}: {part}"
    assert part["CommittedLeaderEpoch"] == -1, "an epoch was made up"
    everything = c.ask("OffsetFetch", 5, {"GroupId": group, "Topics": None})
    assert [(t["Name"], [p["PartitionIndex"] for p in t["Partitions"]]) for t in everything["Topics"]] == [(topic, [0])], everything
    batched = c.ask("OffsetFetch", 8, {"Groups": [{"GroupId": group, "Topics": None}, {"GroupId": fresh("nobody"), "Topics": None}]})
    assert [(len(g["Topics"]), g["ErrorCode"]) for g in batched["Groups"]] == [(1, 0), (0, 0)], batched
    one = c.join(group)
    c.sync(group, one["GenerationId"], one["MemberId"], [(one["MemberId"], b"")])
    expect(c.commit(group, topic, 1), "UNKNOWN_MEMBER_ID", what="from outside, beside a member")
    too_long = c.commit(group, topic, 1, one["GenerationId"], one["MemberId"], metadata="x" * 5000)
    assert too_long == 12, f"5,000 bytes of metadata: {too_long}, wanted OFFSET_METADATA_TOO_LARGE"


def _committed_v1(c, group, topic):
    answer = c.ask("OffsetFetch", 1, {"GroupId": group, "Topics": [{"Name": topic, "PartitionIndexes": [0]}]})
    part = answer["Topics"][0]["Partitions"][0]
    return part["ErrorCode"], part


@behaviour(29, "after kill -9 a group's offsets are there or the coordinator says that it loads, never empty")
def never_empty(c):
    group, topic = fresh("reload"), c.topic("reload")
    c.coordinator(group)
    c.produce(topic, batch([b"x"] * 10))
    _until(lambda: c.commit(group, topic, 7, metadata="seven") == 0)
    member = c.join(group, SessionTimeoutMs=30000)
    c.sync(group, member["GenerationId"], member["MemberId"], [(member["MemberId"], b"kept")])
    for _ in range(2):
        c.broker.crash(0)
        with Client(c.broker, c.schemas) as again:
            end = time.monotonic() + 20
            while True:
                code, part = again.committed(group, topic)
                if code == 0:
                    break
                expect(code, "COORDINATOR_LOAD_IN_PROGRESS", "NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE")
                assert time.monotonic() < end, name(code)
                time.sleep(0.02)
            assert (part["CommittedOffset"], part["Metadata"]) == (7, "seven"), part
            # The member did not notice: its generation goes on and its timer began anew.
            expect(again.heartbeat(group, member["GenerationId"], member["MemberId"]), "NONE", what="heartbeat after the kill")
            again.close()


TESTS = [member_id_required, opaque, group_rules, session_timeout, static_members, simple_commits, never_empty]
