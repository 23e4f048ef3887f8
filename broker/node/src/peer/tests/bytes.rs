//! The bytes as they are, and that no others are taken for them.

use super::*;

fn sender() -> Sender {
    Sender {
        from: NodeId(2),
        incarnation: Incarnation(Uuid([0x11; 16])),
        to: Incarnation(Uuid([0x22; 16])),
    }
}

fn frames() -> Vec<(&'static str, Frame, &'static [u8])> {
    let refused = FetchedRow {
        body: FetchedBody::Refused,
        ..answer(&row(2, 10, 9), 0)
    };
    let diverging = FetchedRow {
        body: FetchedBody::Diverging {
            epoch: LeaderEpoch(3),
            end: Offset(300),
        },
        ..answer(&row(3, 10, 9), 0)
    };
    let alter = AlterIsr {
        partition: id(4),
        epoch: LeaderEpoch(5),
        part_ver: 6,
        isr: vec![Member {
            node: NodeId(1),
            incarnation: Incarnation(Uuid([0x33; 16])),
            disk: DiskUuid(Uuid([0x44; 16])),
        }],
    };
    let fetch = FetchRequest {
        id: 300,
        bytes_max: FETCHED_BYTES_MAX,
        rows: vec![row(1, 10, 9)],
    };
    let fetched = FetchResponse {
        id: 300,
        rows: vec![answer(&row(1, 10, 9), 5), refused, diverging],
    };
    let outcomes = [
        IsrOutcome::Committed { part_ver: 7 },
        IsrOutcome::Fenced,
        IsrOutcome::Stale,
        IsrOutcome::Ineligible { node: NodeId(3) },
        IsrOutcome::NotController,
        IsrOutcome::Refused,
    ];
    let rows = outcomes.map(|outcome| (id(4), LeaderEpoch(5), 6, outcome));
    vec![
        ("fetch", Frame::Fetch(fetch), b""),
        ("fetched", Frame::Fetched(fetched), b"batch"),
        (
            "alter-isr",
            Frame::AlterIsr {
                id: 1,
                request: AlterIsrRequest { rows: vec![alter] },
            },
            b"",
        ),
        (
            "isr-altered",
            Frame::IsrAltered {
                id: 1,
                response: AlterIsrResponse {
                    rows: rows.to_vec(),
                },
            },
            b"",
        ),
    ]
}

#[test]
fn the_bytes_are_as_they_were() {
    let mut text = String::new();
    for (name, frame, _) in frames() {
        let bytes: String = frame
            .encode(&sender())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        text += &format!("{name} {bytes}\n");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/peer/tests/frames.txt");
    if std::env::var_os("HOWDAH_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}

#[test]
fn what_was_written_is_read() {
    for (name, frame, batches) in frames() {
        let mut bytes = frame.encode(&sender());
        bytes.extend_from_slice(batches);
        assert_eq!(
            Frame::decode(&bytes),
            Ok((sender(), frame, batches)),
            "{name}"
        );
    }
}

#[test]
fn no_cut_and_no_change_ends_the_process() {
    for (name, frame, batches) in frames() {
        let mut whole = frame.encode(&sender());
        whole.extend_from_slice(batches);
        for end in 0..whole.len() {
            assert!(Frame::decode(&whole[..end]).is_err(), "{name} cut at {end}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                // Whatever it is taken for, it keeps to its bounds.
                if let Ok((_, Frame::Fetched(response), behind)) = Frame::decode(&changed) {
                    let bytes: u64 = response.rows.iter().map(|row| u64::from(row.bytes())).sum();
                    assert_eq!(bytes, behind.len() as u64);
                }
            }
        }
    }
}

#[test]
fn other_formats_and_kinds_are_named() {
    assert_eq!(Frame::decode(&[2, 1]), Err(FrameFault::Format(2)));
    // Reserved for transactions: a release without them passes over it.
    assert_eq!(Frame::decode(&[1, 5, 0, 0]), Err(FrameFault::Kind(5)));
}

#[test]
fn bounds_are_kept() {
    // 2⁴⁰ rows are claimed, none is there.
    let mut claim = Frame::Fetch(FetchRequest::default()).encode(&sender());
    claim.pop();
    claim.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x3f]);
    assert!(Frame::decode(&claim).is_err());
    let full = |rows| {
        Frame::Fetch(FetchRequest {
            rows: vec![row(u32::MAX, i64::MAX, i64::MAX); rows],
            ..FetchRequest::default()
        })
    };
    let bytes = full(FETCH_ROWS_MAX).encode(&sender());
    assert!(Frame::decode(&bytes).is_ok());
    let bytes = full(FETCH_ROWS_MAX + 1).encode(&sender());
    assert_eq!(
        Frame::decode(&bytes),
        Err(FrameFault::Malformed("more rows than one may have"))
    );
    let below = Frame::Fetch(FetchRequest {
        rows: vec![row(1, -1, 0)],
        ..FetchRequest::default()
    });
    assert!(Frame::decode(&below.encode(&sender())).is_err());
    let member = Member {
        node: NodeId(u32::MAX),
        incarnation: Incarnation(Uuid([1; 16])),
        disk: DiskUuid(Uuid([1; 16])),
    };
    let alter = AlterIsr {
        partition: id(u32::MAX),
        epoch: LeaderEpoch(i32::MAX),
        part_ver: u32::MAX,
        isr: vec![member; 5],
    };
    let request = AlterIsrRequest {
        rows: vec![alter; ISR_ROWS_MAX],
    };
    let bytes = Frame::AlterIsr { id: 1, request }.encode(&sender());
    assert!(bytes.len() <= HEAD_BYTES_MAX);
}
