//! Frames as real clients sent them (`tests/golden`, recorded by `capture.py` there): each is read whole, is written again
//! to the same bytes, and no cut of it passes for a request.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey, RequestKind};
use kafka_protocol::protocol::{Decodable, Encodable};
use model::batch::{HEADER_BYTES, Header};
use model::codec;
use model::record::Records;

use super::exercise::exercise;
use crate::{Api, HeaderError, Request, RequestHeader, decode};

/// A frame without its size, and what its line says it is.
struct Golden {
    client: String,
    name: String,
    frame: Bytes,
}

/// The lines of all files: `Produce v9 HEX`.
fn all() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let client = path.file_stem().unwrap().to_string_lossy().into_owned();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let (name, hex) = line.rsplit_once(' ').unwrap();
            let frame = hex.as_bytes().chunks(2).map(|pair| {
                u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect("hexadecimal")
            });
            all.push(Golden {
                client: client.clone(),
                name: name.to_owned(),
                frame: frame.collect(),
            });
        }
    }
    all
}

impl Golden {
    /// The frame's header; none for an ApiVersions newer than ours, which any client may ask first.
    fn header(&self) -> Option<RequestHeader<'_>> {
        let what = format!("{}, {}", self.client, self.name);
        match RequestHeader::read(&self.frame) {
            Ok(header) => Some(header),
            Err(HeaderError::ApiVersionsTooNew { version, .. }) => {
                assert_eq!(self.name, format!("ApiVersions v{version}"), "{what}");
                None
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    fn request(&self) -> Option<Request> {
        let header = self.header()?;
        let request = decode(&self.frame, &header);
        Some(request.unwrap_or_else(|error| panic!("{}, {}: {error}", self.client, self.name)))
    }
}

/// kafka-protocol's reading of a frame, written again.
fn rewritten(frame: &Bytes, header: &RequestHeader<'_>) -> BytesMut {
    let call = header.call;
    let head_version = if call.api.flexible(call.version) {
        2
    } else {
        1
    };
    let mut rest = frame.clone();
    let head = messages::RequestHeader::decode(&mut rest, head_version).unwrap();
    let key = ApiKey::try_from(call.api.key()).unwrap();
    let body = RequestKind::decode(key, &mut rest, call.version).unwrap();
    assert!(rest.is_empty(), "{} bytes are left", rest.len());
    let mut out = BytesMut::new();
    head.encode(&mut out, head_version).unwrap();
    body.encode(&mut out, call.version).unwrap();
    out
}

#[test]
fn every_frame_of_a_real_client_is_read_whole() {
    let all = all();
    let clients: BTreeSet<_> = all.iter().map(|golden| &golden.client).collect();
    let kinds: BTreeSet<_> = all.iter().map(|golden| &golden.name).collect();
    println!(
        "{} frames of {} clients, {} APIs and versions",
        all.len(),
        clients.len(),
        kinds.len()
    );
    assert!(
        clients.len() >= 14 && kinds.len() >= 70,
        "{clients:?} {kinds:?}"
    );
    for golden in &all {
        let Some(header) = golden.header() else {
            continue;
        };
        let call = header.call;
        assert_eq!(golden.name, format!("{} v{}", call.api, call.version));
        assert_eq!(golden.frame[4..8], call.correlation_id.to_be_bytes());
        assert!(header.client_id.is_some_and(|id| !id.is_empty()));
        assert_eq!(golden.request().unwrap().api(), call.api);
        assert!(
            exercise(&golden.frame),
            "{}, {}",
            golden.client,
            golden.name
        );
    }
}

#[test]
fn every_frame_is_written_again_to_the_same_bytes() {
    for golden in all() {
        if let Some(header) = golden.header() {
            let again = rewritten(&golden.frame, &header);
            assert_eq!(again, golden.frame, "{}, {}", golden.client, golden.name);
        }
    }
}

#[test]
fn no_cut_of_a_frame_is_a_request() {
    for golden in all() {
        if golden.header().is_some() {
            for bytes in 0..golden.frame.len() {
                assert!(
                    !exercise(&golden.frame.slice(..bytes)),
                    "{}, {}: {bytes} bytes of {} are enough",
                    golden.client,
                    golden.name,
                    golden.frame.len()
                );
            }
        }
    }
}

#[test]
fn every_batch_of_a_real_producer_is_sound() {
    let mut producers = BTreeSet::new();
    for golden in all() {
        let Some(Request::Produce(request)) = golden.request() else {
            continue;
        };
        for part in request.partitions() {
            let batch = part.records.expect("a batch");
            let header = Header::check(&batch).unwrap();
            header.check_claim().unwrap();
            assert_eq!(header.bytes, batch.len(), "one batch a partition");
            let packed = &batch[HEADER_BYTES..];
            let records = codec::decompress(header.codec().unwrap(), packed, 1 << 20).unwrap();
            let read = Records::new(&records, header.records_count).map(Result::unwrap);
            assert_eq!(read.count(), header.records_count as usize);
            producers.insert(golden.client.clone());
        }
    }
    assert!(producers.len() >= 14, "{producers:?}");
}

/// Produce and Fetch, read by hand, against kafka-protocol's reading.
#[test]
fn what_is_read_by_hand_is_what_the_schemas_read() {
    let mut met = BTreeSet::new();
    for golden in all() {
        let Some(header) = golden.header() else {
            continue;
        };
        let version = header.call.version;
        let mut body = golden.frame.slice(header.body_at..);
        match golden.request().unwrap() {
            Request::Produce(ours) => {
                let theirs = messages::ProduceRequest::decode(&mut body, version).unwrap();
                assert_eq!(
                    (ours.acks, ours.timeout_ms),
                    (theirs.acks, theirs.timeout_ms)
                );
                let theirs = theirs.topic_data.iter().flat_map(|topic| {
                    let parts = topic.partition_data.iter();
                    parts.map(|part| (topic.name.as_str(), part.index, part.records.clone()))
                });
                let ours = ours.partitions();
                assert!(
                    ours.map(|part| (part.topic, part.index, part.records))
                        .eq(theirs)
                );
                met.insert(Api::Produce.key());
            }
            Request::Fetch(ours) => {
                let theirs = messages::FetchRequest::decode(&mut body, version).unwrap();
                assert_eq!(
                    (ours.max_wait_ms, ours.min_bytes, ours.max_bytes),
                    (theirs.max_wait_ms, theirs.min_bytes, theirs.max_bytes)
                );
                assert_eq!(
                    (ours.session_id, ours.session_epoch),
                    (theirs.session_id, theirs.session_epoch)
                );
                let theirs = theirs.topics.iter().flat_map(|topic| &topic.partitions);
                let theirs =
                    theirs.map(|it| (it.partition, it.fetch_offset, it.partition_max_bytes));
                let ours = ours.partitions.iter();
                assert!(
                    ours.map(|it| (it.index, it.offset.0, it.max_bytes))
                        .eq(theirs)
                );
                met.insert(Api::Fetch.key());
            }
            _ => {}
        }
    }
    assert_eq!(met.len(), 2, "both are among the frames");
}
