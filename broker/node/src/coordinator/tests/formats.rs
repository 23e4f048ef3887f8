//! The bytes of `__consumer_offsets`, against those of Kafka 4.3.1's own classes (`GroupMetadataValue` and its
//! siblings through `MessageUtil.toVersionPrefixedByteBuffer`), and against bytes that nobody wrote.

use super::properties::Random;
use crate::group::records::{GroupValue, MemberValue, group_key, read_group_key};
use crate::offsets::records::{OffsetKey, OffsetValue, offset_key};

/// Versions 0 to 4 of one group.
const GROUPS: [&str; 5] = [
    "00000008636f6e73756d657200000007000572616e67650003612d31000000020003612d31000161000a2f3139322e302e322e3100002710\
     00000003000102000000000003692d32000162000a2f3139322e302e322e320000afc800000000000000020908",
    "00010008636f6e73756d657200000007000572616e67650003612d31000000020003612d31000161000a2f3139322e302e322e310000ea60\
     0000271000000003000102000000000003692d32000162000a2f3139322e302e322e32000075300000afc800000000000000020908",
    "00020008636f6e73756d657200000007000572616e67650003612d310000018bcfe56800000000020003612d31000161000a2f3139322e30\
     2e322e310000ea600000271000000003000102000000000003692d32000162000a2f3139322e302e322e32000075300000afc80000000000\
     0000020908",
    "00030008636f6e73756d657200000007000572616e67650003612d310000018bcfe56800000000020003612d31ffff000161000a2f313932\
     2e302e322e310000ea600000271000000003000102000000000003692d32000169000162000a2f3139322e302e322e32000075300000afc8\
     00000000000000020908",
    "000409636f6e73756d6572000000070672616e676504612d310000018bcfe568000304612d310002610b2f3139322e302e322e310000ea60\
     0000271004000102010004692d32026902620b2f3139322e302e322e32000075300000afc8010309080000",
];
/// Versions 3 and 4 of a group without anything.
const EMPTY_GROUPS: [&str; 2] = [
    "0003000000000000ffffffffffffffffffffffff00000000",
    "000401000000000000ffffffffffffffff0100",
];
/// Versions 0 to 4 of one offset; 1 with an expiry, 4 with a topic id.
const OFFSETS: [&str; 5] = [
    "0000000000000000002a00046e6f74650000018bcfe56800",
    "0001000000000000002a00046e6f74650000018bcfe568000000018bcfe65260",
    "0002000000000000002a00046e6f74650000018bcfe56800",
    "0003000000000000002a0000000300046e6f74650000018bcfe56800",
    "0004000000000000002a00000003056e6f74650000018bcfe5680001001000000000000000010000000000000002",
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn group() -> GroupValue {
    let a = MemberValue {
        member: "a-1".to_owned(),
        instance: None,
        client_id: "a".to_owned(),
        client_host: "/192.0.2.1".to_owned(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        subscription: vec![0, 1, 2],
        assignment: Vec::new(),
    };
    let b = MemberValue {
        member: "i-2".to_owned(),
        instance: Some("i".to_owned()),
        client_id: "b".to_owned(),
        client_host: "/192.0.2.2".to_owned(),
        rebalance_timeout_ms: 30_000,
        session_timeout_ms: 45_000,
        subscription: Vec::new(),
        assignment: vec![9, 8],
    };
    GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 7,
        protocol: Some("range".to_owned()),
        leader: Some("a-1".to_owned()),
        state_at: 1_700_000_000_000,
        members: vec![a, b],
    }
}

#[test]
fn keys_are_kafkas() {
    let offset = offset_key("group", "topic", 3);
    assert_eq!(offset, unhex("0001000567726f75700005746f70696300000003"));
    let key = OffsetKey {
        group: "group".to_owned(),
        topic: "topic".to_owned(),
        partition: 3,
    };
    assert_eq!(OffsetKey::decode(&offset), Ok(key.clone()));
    assert_eq!(
        OffsetKey::decode(&unhex("0000000567726f75700005746f70696300000003")),
        Ok(key)
    );
    assert_eq!(group_key("group"), unhex("0002000567726f7570"));
    assert_eq!(read_group_key(&group_key("group")).as_deref(), Ok("group"));
}

#[test]
fn groups_are_read_in_every_version_and_written_as_kafka_writes_them() {
    assert_eq!(group().encode(), unhex(GROUPS[3]));
    for (version, golden) in GROUPS.iter().enumerate() {
        let mut expected = group();
        if version < 3 {
            expected.members[1].instance = None;
        }
        if version < 2 {
            expected.state_at = -1;
        }
        if version < 1 {
            expected
                .members
                .iter_mut()
                .for_each(|member| member.rebalance_timeout_ms = member.session_timeout_ms);
        }
        assert_eq!(
            GroupValue::decode(&unhex(golden)),
            Ok(expected),
            "version {version}"
        );
    }
    let empty = GroupValue {
        protocol_type: String::new(),
        generation: 0,
        protocol: None,
        leader: None,
        state_at: -1,
        members: Vec::new(),
    };
    assert_eq!(empty.encode(), unhex(EMPTY_GROUPS[0]));
    EMPTY_GROUPS
        .iter()
        .for_each(|golden| assert_eq!(GroupValue::decode(&unhex(golden)), Ok(empty.clone())));
}

#[test]
fn offsets_are_read_in_every_version_and_written_as_kafka_writes_them() {
    let value = OffsetValue {
        offset: 42,
        leader_epoch: 3,
        metadata: "note".to_owned(),
        committed_at: 1_700_000_000_000,
        expires_at: -1,
    };
    let expiring = OffsetValue {
        leader_epoch: -1,
        expires_at: 1_700_000_060_000,
        ..value.clone()
    };
    assert_eq!(value.encode(), unhex(OFFSETS[3]));
    assert_eq!(expiring.encode(), unhex(OFFSETS[1]));
    let old = OffsetValue {
        leader_epoch: -1,
        ..value.clone()
    };
    for (golden, expected) in OFFSETS.iter().zip([&old, &expiring, &old, &value, &value]) {
        assert_eq!(OffsetValue::decode(&unhex(golden)).as_ref(), Ok(expected));
    }
}

fn text(random: &mut Random) -> String {
    let letters = ["a", "-", "é", "😀", "\0"];
    (0..random.below(12))
        .map(|_| letters[usize::try_from(random.below(5)).unwrap()])
        .collect()
}

fn some_bytes(random: &mut Random) -> Vec<u8> {
    (0..random.below(20))
        .map(|_| random.next().to_le_bytes()[0])
        .collect()
}

fn number(random: &mut Random) -> i32 {
    i32::from_le_bytes(random.next().to_le_bytes()[..4].try_into().unwrap())
}

fn some_group(random: &mut Random) -> GroupValue {
    let member = |random: &mut Random| MemberValue {
        member: text(random),
        instance: random.one_in(2).then(|| text(random)),
        client_id: text(random),
        client_host: text(random),
        rebalance_timeout_ms: number(random),
        session_timeout_ms: number(random),
        subscription: some_bytes(random),
        assignment: some_bytes(random),
    };
    GroupValue {
        protocol_type: text(random),
        generation: number(random),
        protocol: random.one_in(2).then(|| text(random)),
        leader: random.one_in(2).then(|| text(random)),
        state_at: i64::from_le_bytes(random.next().to_le_bytes()),
        members: (0..random.below(4)).map(|_| member(random)).collect(),
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut random = Random::new(1);
    for _ in 0..2_000 {
        let group = some_group(&mut random);
        assert_eq!(GroupValue::decode(&group.encode()), Ok(group));
        let expires_at = if random.one_in(2) {
            -1
        } else {
            i64::from(number(&mut random)).abs()
        };
        let value = OffsetValue {
            offset: i64::from_le_bytes(random.next().to_le_bytes()),
            leader_epoch: if expires_at < 0 {
                number(&mut random)
            } else {
                -1
            },
            metadata: text(&mut random),
            committed_at: i64::from(number(&mut random)),
            expires_at,
        };
        assert_eq!(OffsetValue::decode(&value.encode()), Ok(value));
        let key = OffsetKey {
            group: text(&mut random),
            topic: text(&mut random),
            partition: number(&mut random),
        };
        assert_eq!(
            OffsetKey::decode(&offset_key(&key.group, &key.topic, key.partition)),
            Ok(key)
        );
    }
}

/// Nothing that can be read panics; nothing that is cut is read.
#[test]
fn hostile_bytes_are_refused_or_read() {
    let mut random = Random::new(2);
    let groups = GROUPS
        .iter()
        .chain(&EMPTY_GROUPS)
        .map(|golden| (true, unhex(golden)));
    let goldens = groups.chain(OFFSETS.iter().map(|golden| (false, unhex(golden))));
    for (is_group, golden) in goldens {
        for cut in 0..golden.len() {
            let cut = &golden[..cut];
            let refused = if is_group {
                GroupValue::decode(cut).is_err()
            } else {
                OffsetValue::decode(cut).is_err()
            };
            assert!(refused, "{cut:?} is read though it is cut");
            read_all(cut);
        }
        for _ in 0..3_000 {
            let mut bytes = golden.clone();
            for _ in 0..=random.below(3) {
                let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                bytes[at] = random.next().to_le_bytes()[0];
            }
            read_all(&bytes);
        }
    }
    for version in 0..5 {
        for _ in 0..2_000 {
            let mut bytes = vec![0, version];
            bytes.extend((0..random.below(80)).map(|_| random.next().to_le_bytes()[0]));
            read_all(&bytes);
        }
    }
    // Four billion members, of which none is there.
    assert!(
        GroupValue::decode(&unhex("0003000000000000ffffffffffffffffffffffff7fffffff")).is_err()
    );
    assert!(GroupValue::decode(&unhex("000401000000000000ffffffffffffffffffffffff0f")).is_err());
    // A newer version than any that is known.
    assert!(GroupValue::decode(&unhex("0005")).is_err());
    assert!(OffsetValue::decode(&unhex("0005")).is_err());
}

fn read_all(bytes: &[u8]) {
    let _ = GroupValue::decode(bytes);
    let _ = OffsetValue::decode(bytes);
    let _ = OffsetKey::decode(bytes);
    let _ = read_group_key(bytes);
}

/// A coordinator that loads such bytes counts them, and serves what it could read.
#[test]
fn a_bad_record_costs_nobody_else_theirs() {
    let mut world = super::World::new(super::Settings::default());
    let record = |key: Vec<u8>, value: &[u8]| super::Record {
        key,
        value: Some(value.to_vec()),
    };
    world.log = vec![
        record(offset_key(super::GROUP, "t", 0), &unhex(OFFSETS[3])),
        record(offset_key(super::GROUP, "t", 0), &[0, 9]),
        record(vec![0, 1, 0], &[]),
        record(vec![], &[]),
        // A key of a kind that later builds write.
        record(vec![0, 3, 0, 1, b'g'], &[0, 0, 0, 0, 0, 1]),
        record(group_key(super::GROUP), &unhex(GROUPS[4])),
        record(offset_key(super::GROUP, "t", 1), &unhex(OFFSETS[4])),
    ];
    world.command("lease 1h");
    world.command("elect epoch=1");
    world.command("load");
    world.command("fetch ticket=1");
    world.command("list ticket=2");
    assert_eq!(
        world.said,
        "reply 1 offsets t-0:42:3:\"note\" t-1:42:3:\"note\"\nreply 2 listed g:consumer:Stable:classic\n"
    );
    assert_eq!(world.coordinator.stats().record_faults, 3);
}
