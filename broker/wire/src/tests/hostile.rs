//! Whatever is cut from, flipped in or claimed by a frame: a value or an error, never a panic, never much memory.

use bytes::Bytes;

use super::cold::body;
use super::exercise::exercise;
use super::generate::Rows;
use super::memory::peak_of;
use super::{Rng, advertised, fetch, frame, produce};
use crate::cold::fields;
use crate::{Api, DecodeError, ELEMENTS_MAX, Fault, HeaderError, RequestHeader, decode};

/// What one frame may make the broker hold while it is read and refused, beside the frame: the sum at `ELEMENTS_MAX`.
const MEMORY_MAX: usize = ELEMENTS_MAX as usize * 384;

fn sample(rng: &mut Rng, api: Api, version: i16) -> Bytes {
    match api {
        Api::Produce => produce::encoded(&produce::random(rng), version),
        Api::Fetch => fetch::encoded(&fetch::random(rng, version), version),
        _ => {
            let body = body(rng, api, version, Rows::Few);
            frame(api, version, &body)
        }
    }
}

/// Runs `frame` in a way that a failure tells how to see it again.
fn run(frame: Vec<u8>) -> bool {
    let frame = Bytes::from(frame);
    let (accepted, peak) = peak_of(|| exercise(&frame));
    assert!(peak <= MEMORY_MAX, "{peak} bytes for {frame:02x?}");
    accepted
}

#[test]
fn samples_are_accepted() {
    let mut rng = Rng::seeded(30);
    for (api, version) in advertised() {
        assert!(
            run(sample(&mut rng, api, version).to_vec()),
            "{api} v{version}"
        );
    }
}

#[test]
fn any_cut_is_an_error_or_a_value() {
    let mut rng = Rng::seeded(31);
    for (api, version) in advertised() {
        let whole = sample(&mut rng, api, version);
        for cut in 0..whole.len() {
            assert!(
                !run(whole[..cut].to_vec()),
                "{api} v{version} cut at {cut} is whole"
            );
        }
    }
}

#[test]
fn any_flip_is_an_error_or_a_value() {
    let mut rng = Rng::seeded(32);
    for (api, version) in advertised() {
        let whole = sample(&mut rng, api, version);
        for _ in 0..300 {
            let mut bad = whole.to_vec();
            for _ in 0..=rng.below(3) {
                let bit = rng.below(bad.len() * 8);
                bad[bit / 8] ^= 1 << (bit % 8);
            }
            run(bad);
        }
    }
}

/// Lengths and counts of every kind the protocol has, claimed at every place of every request.
#[test]
fn any_claim_is_an_error_or_a_value() {
    let claims: [&[u8]; 9] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x10, 0x00, 0x00, 0x00],
        &[0x00, 0x00, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0x80, 0x00, 0x00, 0x00],
        &[0x7f, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x81, 0x80, 0x80, 0x80, 0x01],
    ];
    let mut rng = Rng::seeded(33);
    for (api, version) in advertised() {
        let whole = sample(&mut rng, api, version);
        for at in 0..whole.len() {
            for claim in claims {
                let mut over = whole.to_vec();
                over.truncate(at);
                over.extend_from_slice(claim);
                over.extend_from_slice(whole.get(at + claim.len()..).unwrap_or_default());
                run(over);
                let mut end = whole[..at].to_vec();
                end.extend_from_slice(claim);
                run(end);
            }
        }
    }
}

#[test]
fn garbage_is_an_error() {
    let mut rng = Rng::seeded(34);
    for _ in 0..20_000 {
        let len = rng.below(64);
        let mut frame: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
        // Most of them get past the header.
        if let [_, key, _, version, ..] = &mut frame[..] {
            (*key, *version) = (*key % 64, *version % 18);
            frame[0] = 0;
            frame[2] = 0;
        }
        run(frame);
    }
}

fn refused(frame: &Bytes) -> DecodeError {
    let header = match RequestHeader::read(frame) {
        Ok(header) => header,
        Err(HeaderError::Malformed(error)) => return error,
        Err(error) => panic!("{error}"),
    };
    decode(frame, &header).expect_err("must be refused")
}

/// The frame that ended a broker: eleven bytes of body that claim 2²⁸ topics.
#[test]
fn a_claim_of_268_million_topics_is_refused() {
    let claim = frame(
        Api::Metadata,
        12,
        &[0x81, 0x80, 0x80, 0x80, 0x01, 0, 0, 0, 0, 0, 0],
    );
    let error = refused(&claim);
    assert_eq!(error.field, "topics");
    assert!(
        matches!(error.fault, Fault::Truncated { needed, left: 6 } if needed > 1 << 28),
        "{error}"
    );
    let (_, peak) = peak_of(|| refused(&claim));
    assert!(peak < 1024, "{peak} bytes");
}

/// Elements that are there, each of the least size: up to the cap within memory, one more refused. So for every array
/// of every API.
#[test]
fn the_cap_bounds_what_real_elements_cost() {
    let mut rng = Rng::seeded(35);
    for (api, version) in advertised().filter(|(api, _)| fields(*api).is_some()) {
        // The newest version has the largest elements, the first flexible one the smallest on the wire.
        if version != api.advertised().1 && api.flexible(version - 1) == api.flexible(version) {
            continue;
        }
        for nth in 0..4 {
            let count = api.elements_max() - 3; // leaves the arrays around it one element each
            let full = frame(
                api,
                version,
                &body(&mut rng, api, version, Rows::Many { nth, count }),
            );
            assert!(run(full.to_vec()), "{api} v{version} array {nth}");
            let count = api.elements_max() + 1;
            let over = frame(
                api,
                version,
                &body(&mut rng, api, version, Rows::Many { nth, count }),
            );
            // An API with fewer arrays makes the same frame as without any.
            if over.len() > count as usize {
                let error = refused(&over);
                assert!(
                    matches!(error.fault, Fault::TooMany { .. }),
                    "{api} v{version}: {error}"
                );
            }
        }
    }
}

/// A name is held once, however many partitions it is given.
#[test]
fn long_names_are_not_multiplied() {
    let name = "n".repeat(32_000);
    let mut fetch = Vec::new();
    fetch.extend([0; 4 + 4 + 4 + 4 + 1 + 4 + 4]);
    fetch.extend(0_i32.to_be_bytes()); // topics
    fetch.extend(1_i32.to_be_bytes()); // forgotten
    fetch.extend((name.len() as i16).to_be_bytes());
    fetch.extend(name.as_bytes());
    fetch.extend(16_000_i32.to_be_bytes());
    fetch.extend(vec![0; 4 * 16_000]);
    assert!(run(frame(Api::Fetch, 7, &fetch).to_vec()));

    let mut produce = vec![0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    produce.extend((name.len() as i16).to_be_bytes());
    produce.extend(name.as_bytes());
    produce.extend(16_000_i32.to_be_bytes());
    produce.extend(vec![0; 8 * 16_000]);
    assert!(run(frame(Api::Produce, 3, &produce).to_vec()));
}

/// Faults name the field, the place and the reason: what a log line needs.
#[test]
fn faults_say_what_and_where() {
    let produce = frame(
        Api::Produce,
        3,
        &[
            0xff, 0xff, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0,
        ],
    );
    assert_eq!(
        refused(&produce).to_string(),
        "partition_data at byte 34: needs 8 bytes where 2 are left"
    );
    let bad_name = frame(
        Api::Produce,
        3,
        &[
            0xff, 0xff, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0,
        ],
    );
    assert_eq!(refused(&bad_name).fault, Fault::Utf8);
    let null_name = frame(
        Api::Produce,
        3,
        &[
            0xff, 0xff, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0,
        ],
    );
    assert_eq!(refused(&null_name).fault, Fault::Null);
    let null_topics = frame(
        Api::Produce,
        3,
        &[0xff, 0xff, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff],
    );
    assert_eq!(refused(&null_topics).fault, Fault::Null);
    let negative = frame(Api::Produce, 3, &[0xff, 0xfe]);
    assert_eq!(refused(&negative).fault, Fault::Negative(-2));
    let varint = frame(Api::Produce, 9, &[0xff; 6]);
    assert_eq!(refused(&varint).fault, Fault::Varint);
    let isolation = frame(
        Api::Fetch,
        4,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    );
    assert_eq!(refused(&isolation).fault, Fault::Undefined(2));
}
