//! The shapes of answers, held against kafka-protocol in every version a client of ours may meet.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseKind};

use super::Rng;
use super::generate::{Generator, Rows};
use crate::schema::answers::{check_answer, shape};
use crate::{Api, DecodeError};

/// Every (API, version) with a shape that kafka-protocol reads too.
fn shaped() -> impl Iterator<Item = (Api, ApiKey, i16)> {
    Api::ALL.iter().flat_map(|api| {
        let key = ApiKey::try_from(api.key()).unwrap();
        let most = shape(*api).map_or(-1, |(most, _)| most);
        (key.valid_versions().min..=most).map(move |version| (*api, key, version))
    })
}

fn body(rng: &mut Rng, api: Api, version: i16) -> Vec<u8> {
    let mut generator = Generator {
        rng,
        version,
        flexible: api.flexible(version),
        rows: Rows::Few,
        arrays_met: 0,
        out: Vec::new(),
    };
    generator.fields(shape(api).unwrap().1);
    generator.out
}

#[test]
fn kafka_protocol_reads_what_the_shapes_say() {
    let mut rng = Rng::seeded(0xa115);
    assert!(shaped().count() > 80);
    for (api, key, version) in shaped() {
        for _ in 0..20 {
            let body = body(&mut rng, api, version);
            assert_eq!(
                check_answer(api, version, &body),
                Ok(body.len()),
                "{api:?} {version}"
            );
            let mut bytes = Bytes::from(body.clone());
            let read = ResponseKind::decode(key, &mut bytes, version);
            let read = read.unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
            assert!(
                bytes.is_empty(),
                "{api:?} {version}: {} bytes left",
                bytes.len()
            );
            let mut again = BytesMut::new();
            read.encode(&mut again, version).unwrap();
            assert_eq!(again[..], body[..], "{api:?} {version}");
        }
    }
}

#[test]
fn cuts_and_claims_are_refused() {
    let mut rng = Rng::seeded(0xc1a1);
    for (api, _, version) in shaped() {
        let body = body(&mut rng, api, version);
        for cut in 0..body.len() {
            let checked = check_answer(api, version, &body[..cut]);
            assert!(checked.is_err(), "{api:?} {version} cut at {cut}");
        }
    }
    // ApiVersions 0 with 2^31 - 1 entries.
    let claim = [0, 0, 0x7f, 0xff, 0xff, 0xff];
    let DecodeError { field, .. } = check_answer(Api::ApiVersions, 0, &claim).unwrap_err();
    assert_eq!(field, "api_keys");
    assert!(
        check_answer(Api::ApiVersions, 4, &[]).is_err(),
        "no shape of that version"
    );
}
