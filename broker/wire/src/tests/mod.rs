//! What the crate promises, held against kafka-protocol as an independent witness.
//!
//! Random cases come from a seed that is printed; `WIRE_SEED=<number>` plays one again.
#![allow(clippy::unwrap_used)]

mod answers;
mod cold;
mod exercise;
mod fetch;
mod generate;
mod golden;
mod hostile;
mod memory;
mod produce;
mod samples;

use bytes::Bytes;
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::{Api, Call};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    /// The seed of the run, printed so that a failure can be played again; `salt` tells tests apart.
    pub(crate) fn seeded(salt: u64) -> Self {
        let seed = match std::env::var("WIRE_SEED") {
            Ok(seed) => seed.parse().expect("WIRE_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_nanos() as u64,
        };
        println!("WIRE_SEED={seed}");
        Self(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn text(&mut self) -> StrBytes {
        let len = self.below(9);
        let letters = (0..len).map(|_| ['a', 'B', '7', '-', '.', 'ß'][self.below(6)]);
        StrBytes::from_string(letters.collect())
    }

    pub(crate) fn blob(&mut self) -> Bytes {
        let len = self.below(40);
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Every (API, version) the broker says it answers and decodes.
pub(crate) fn advertised() -> impl Iterator<Item = (Api, i16)> {
    Api::ALL.iter().flat_map(|api| {
        let (min, max) = api.advertised();
        (min..=max)
            .filter(|version| api.decodes(*version))
            .map(|version| (*api, version))
    })
}

/// A call as if it had been read.
pub(crate) fn call(api: Api, version: i16) -> Call {
    Call {
        api,
        version,
        correlation_id: 0x0102_0304,
    }
}

/// A request's frame without its size: header, then `body`.
pub(crate) fn frame(api: Api, version: i16, body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    kafka_protocol::messages::RequestHeader::default()
        .with_request_api_key(api.key())
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("tests")))
        .encode(&mut out, if api.flexible(version) { 2 } else { 1 })
        .unwrap();
    out.extend_from_slice(body);
    out.into()
}

/// Takes size and header off an answer's frame and checks both.
pub(crate) fn answer_body(call: Call, mut answer: Bytes) -> Bytes {
    let size = i32::from_be_bytes(answer[..4].try_into().unwrap());
    assert_eq!(
        size as usize,
        answer.len() - 4,
        "the size counts what follows it"
    );
    assert_eq!(answer[4..8], call.correlation_id.to_be_bytes());
    let tags = call.api.response_header_tags(call.version);
    if tags {
        assert_eq!(answer[8], 0, "no tags in the header");
    }
    answer.split_off(8 + usize::from(tags))
}
