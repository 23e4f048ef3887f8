//! The bytes of messages and beats: golden ones, so that two releases side by side understand each other; and what is
//! none of them.

use core::fmt::Write as _;

use model::{DiskUuid, Uuid};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn message(body: Body) -> Message {
    Message {
        from: NodeId(2),
        incarnation: Incarnation(Uuid([0xaa; 16])),
        to: Incarnation(Uuid([0xbb; 16])),
        term: Term(300),
        body,
    }
}

fn messages() -> Vec<Message> {
    let at = (Index(5), Term(4));
    let voter = Voter {
        node: NodeId(1),
        incarnation: Incarnation(Uuid([0xcc; 16])),
        witness: true,
    };
    let appended = Appended {
        term: Term(300),
        bytes: b"entry".to_vec(),
    };
    [
        Body::Probe { round: 1 },
        Body::Probed {
            round: 1,
            empty: true,
        },
        Body::Vote {
            pre: true,
            last: at,
        },
        Body::Voted {
            pre: false,
            granted: true,
            early: true,
        },
        Body::Append {
            prev: at,
            entries: vec![appended],
            commit: Index(3),
        },
        Body::Acked { durable: Index(9) },
        Body::Missed { hint: at },
        Body::Chunk {
            last: at,
            voters: Voters::new(vec![voter]).unwrap(),
            total: 3,
            offset: 0,
            bytes: vec![1, 2, 3],
        },
        Body::Taken {
            last: Index(5),
            offset: 3,
        },
        Body::Release {
            successor: NodeId(3),
        },
    ]
    .map(message)
    .into()
}

#[test]
fn messages_have_the_bytes_that_the_first_release_wrote() {
    // Format, from, incarnation, to, term; then the kind's number and fields.
    let head = format!("0102{}{}ac02", "aa".repeat(16), "bb".repeat(16));
    let bodies = [
        "0001".to_owned(),
        "010101".to_owned(),
        "02010504".to_owned(),
        "03000101".to_owned(),
        "04050401ac0205656e74727903".to_owned(),
        "0509".to_owned(),
        "060504".to_owned(),
        format!("0705040101{}01030003010203", "cc".repeat(16)),
        "080503".to_owned(),
        "0903".to_owned(),
    ];
    for (message, body) in messages().iter().zip(bodies) {
        assert_eq!(
            hex(&message.encode()),
            format!("{head}{body}"),
            "{message:?}"
        );
        assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(message));
    }
}

#[test]
fn a_newer_release_may_add_fields_and_nothing_else() {
    for message in messages() {
        let mut bytes = message.encode();
        bytes.extend([1, 2, 3]);
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
        bytes[0] = 2;
        assert_eq!(Message::decode(&bytes), Err(MessageFault::Format(2)));
    }
}

#[test]
fn no_message_is_beyond_its_bounds() {
    let body = |bytes: usize, entries: usize| Body::Append {
        prev: (Index(1), Term(1)),
        entries: vec![
            Appended {
                term: Term(1),
                bytes: vec![0; bytes]
            };
            entries
        ],
        commit: Index(0),
    };
    let coded = |body| postcard::to_extend(&message(body), vec![1]).unwrap();
    assert!(Message::decode(&coded(body(RECORD_BYTES_MAX, 1))).is_ok());
    assert!(Message::decode(&coded(body(1, APPEND_ENTRIES_MAX))).is_ok());
    for bad in [
        body(RECORD_BYTES_MAX + 1, 1),
        body(1, APPEND_ENTRIES_MAX + 1),
        body(40_000, 2),
    ] {
        assert_eq!(Message::decode(&coded(bad)), Err(MessageFault::TooLarge));
    }
    let chunk = |total, offset, bytes: usize| Body::Chunk {
        last: (Index(1), Term(1)),
        voters: Voters::default(),
        total,
        offset,
        bytes: vec![0; bytes],
    };
    assert!(Message::decode(&coded(chunk(8, 4, 4))).is_ok());
    for bad in [
        chunk(8, 5, 4),
        chunk(u32::MAX, 0, 4),
        chunk(8, u32::MAX, 4),
        chunk(1 << 20, 0, CHUNK_BYTES + 1),
    ] {
        assert_eq!(Message::decode(&coded(bad)), Err(MessageFault::TooLarge));
    }
}

/// Any change of any byte is refused or read as another message within the bounds; nothing panics.
#[test]
fn garbage_is_an_error() {
    let mut random = settings::Random(7);
    let mut draw =
        |below: u64| u64::try_from(random.below(Duration::from_nanos(below)).as_nanos()).unwrap();
    let mut refused = 0;
    for _ in 0..20_000 {
        let all = messages();
        let mut bytes = all[draw(all.len() as u64) as usize].encode();
        for _ in 0..=draw(3) {
            let at = draw(bytes.len() as u64) as usize;
            bytes[at] = draw(256) as u8;
        }
        bytes.truncate(1 + draw(bytes.len() as u64) as usize);
        match Message::decode(&bytes) {
            Ok(message) => assert!(message.encode().len() <= MESSAGE_BYTES_MAX),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10_000);
}

/// Two seats of a site, and what the one's beat thread says to the other's.
fn pair() -> (Beats, Beats) {
    let settings = |node| Settings {
        peers: vec![NodeId(1), NodeId(2)],
        ..Settings::alone(NodeId(node), Incarnation(Uuid([node as u8; 16])))
    };
    let mut report = Report {
        applied: Index(8),
        digest: 9,
        blessed: 10,
        clock_trusted: true,
        ..Report::default()
    };
    report.disks[1] = (DiskUuid(Uuid([0xdd; 16])), DiskState::Suspect);
    let orders = |node: u32, office| Orders {
        version: 1,
        term: Term(300),
        office,
        commit: Index(7),
        voters: [
            Some(Incarnation(Uuid([1; 16]))),
            Some(Incarnation(Uuid([2; 16]))),
            None,
            None,
            None,
            None,
        ],
        report,
        sleeps: node.into(),
        ..Orders::default()
    };
    let mut first = Beats::new(&settings(1), 0x11, Instant(1_000));
    let mut second = Beats::new(&settings(2), 0x22, Instant(2_000));
    first.obey(Instant(1_000), &orders(0, Office::Controller));
    second.obey(Instant(2_000), &orders(0, Office::None));
    (first, second)
}

#[test]
fn beats_have_the_bytes_that_the_first_release_wrote() {
    let (mut first, mut second) = pair();
    let mut out = Datagrams::new();
    first.tick(Instant(1_001), &mut out);
    let (_, heartbeat) = out.pop().unwrap();
    let zeros = |count: usize| "00".repeat(count);
    let number = |number: u64| hex(&number.to_le_bytes());
    assert_eq!(
        hex(&heartbeat),
        format!(
            "0101{}{}{}{}{}",
            zeros(6),
            number(300),
            number(1_001),
            number(7),
            zeros(248)
        )
    );
    second
        .receive(Instant(2_001), NodeId(1), &heartbeat, &mut out)
        .unwrap();
    let (to, up) = out.pop().unwrap();
    assert_eq!(to, NodeId(1));
    let disks = format!("{}{}04{}", zeros(17), "dd".repeat(16), zeros(170));
    assert_eq!(
        hex(&up),
        format!(
            "0200{}{}{}{}{}{}{}{}0a000100{disks}",
            zeros(6),
            number(300),
            number(1_001),
            number(2_001),
            number(0x22),
            "02".repeat(16),
            number(8),
            number(9),
        )
    );
    // Not before the core has cleared the node.
    first
        .receive(Instant(1_002), NodeId(2), &up, &mut out)
        .unwrap();
    assert!(out.is_empty());
    let mut orders = Orders {
        version: 2,
        ..*first.orders()
    };
    orders.cleared[1] = (Instant(1_002), Index(8));
    first.obey(Instant(1_003), &orders);
    first
        .receive(Instant(1_004), NodeId(2), &up, &mut out)
        .unwrap();
    let (_, grant) = out.pop().unwrap();
    // The lease ends 400 ms after the heartbeat at 1,001 ns was sent.
    let left = Duration::from_millis(400).as_nanos() as u64 - 3;
    assert_eq!(
        hex(&grant),
        format!(
            "0102{}{}{}{}{}{}{}",
            zeros(6),
            number(300),
            zeros(16),
            number(2_001),
            number(0x22),
            number(left),
            zeros(224)
        )
    );
    second
        .receive(Instant(2_005), NodeId(1), &grant, &mut out)
        .unwrap();
    assert_eq!(second.facts().granted, (Term(300), Instant(2_001 + left)));
}

#[test]
fn no_beat_of_another_length_kind_sender_or_state_is_taken() {
    let (mut first, mut second) = pair();
    let mut out = Datagrams::new();
    first.tick(Instant(1_001), &mut out);
    let (_, heartbeat) = out.pop().unwrap();
    let before = second;
    let mut refuse = |from, bytes: &[u8], fault| {
        assert_eq!(
            second.receive(Instant(2_001), NodeId(from), bytes, &mut out),
            Err(fault)
        );
        assert!(out.is_empty() && second == before);
    };
    refuse(1, &heartbeat[1..], BeatFault::Malformed);
    refuse(1, &[], BeatFault::Malformed);
    refuse(3, &heartbeat, BeatFault::Stranger);
    refuse(2, &heartbeat, BeatFault::Stranger);
    for (at, value) in [(0, 0), (0, 3), (1, 0), (1, 4)] {
        let mut bad = heartbeat;
        bad[at] = value;
        refuse(1, &bad, BeatFault::Malformed);
    }
    let mut bad = [0; BEAT_BYTES];
    bad[0] = 2;
    bad[BEAT_BYTES - 1] = 5;
    refuse(1, &bad, BeatFault::Malformed);
}

#[test]
fn orders_and_facts_come_out_of_their_words_as_they_went_in() {
    let (first, _) = pair();
    let mut orders = *first.orders();
    orders.cleared[5] = (Instant(u64::MAX), Index(3));
    assert_eq!(Orders::from_words(&orders.to_words()), orders);
    let mut facts = *first.facts();
    facts.obeyed = 1;
    facts.promise = (Term(2), Instant(3));
    facts.commit = (Term(4), Index(5));
    facts.granted = (Term(6), Instant(7));
    facts.office = (Term(8), Instant(9));
    facts.seats[5] = Seen {
        incarnation: Incarnation(Uuid([5; 16])),
        boot: 1,
        heard: Instant(2),
        dead_from: Instant(3),
        returned: Instant(4),
        report: orders.report,
    };
    assert_eq!(Facts::from_words(&facts.to_words()), facts);
}
