//! What each target does with its bytes. `wire` and `store` share theirs with their own tests; the others are here:
//! what is decoded must be encoded and decoded to the same, and nothing may panic or take memory by what bytes claim.
//!
//! Checksums would keep a fuzzer out, so targets set them right.

#[path = "../../../broker/wire/src/tests/exercise.rs"]
mod frame;
#[path = "../../../broker/store/src/tests/exercise.rs"]
mod on_disk;

use bytes::Bytes;
use model::batch::{self, BatchFault, Codec, HEADER_BYTES, Header};
use model::record::{self, Records};
use model::window::{PartIx, Windows};
use model::{NodeId, Offset, codec as codecs};
use node::catalog::{Catalog, Rules};
use node::group::records::{GroupValue, read_group_key};
use node::offsets::records::{OffsetKey, OffsetValue, offset_key};
use node::sitelog::Record;
use wire::Api;

/// What takes a target's bytes.
pub(crate) type Target = fn(&[u8]);

/// Each by its name.
pub(crate) const ALL: [(&str, Target); 15] = [
    ("request", request),
    ("produce", produce),
    ("fetch", fetch),
    ("cold", cold),
    ("batch", batch),
    ("codec", codec),
    ("windows", windows),
    ("site", site),
    ("blob", blob),
    ("disk", disk),
    ("recover", recover),
    ("damaged", damaged),
    ("sitelog", sitelog),
    ("catalog", catalog),
    ("groups", groups),
];

/// By the codec's number.
pub(crate) const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];
/// What records may decompress to here: bombs must be stopped, and a run must stay fast.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// A whole frame, without its size.
pub(crate) fn request(data: &[u8]) {
    frame::exercise(&Bytes::copy_from_slice(data));
}

/// The body of a Produce.
pub(crate) fn produce(data: &[u8]) {
    body(&[Api::Produce], data);
}

/// The body of a Fetch.
pub(crate) fn fetch(data: &[u8]) {
    body(&[Api::Fetch], data);
}

/// The body of any API.
pub(crate) fn cold(data: &[u8]) {
    body(Api::ALL, data);
}

/// The first two bytes choose API and version, the rest is the body.
fn body(apis: &[Api], data: &[u8]) {
    let [api, version, body @ ..] = data else {
        return;
    };
    let api = apis[usize::from(*api) % apis.len()];
    let (min, max) = api.advertised();
    let version = min + i16::from(*version) % (max - min + 1);
    let mut frame = Vec::with_capacity(16 + body.len());
    frame.extend(api.key().to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0xff, 0xff]); // correlation id, no client id
    if api.flexible(version) {
        frame.push(0);
    }
    frame.extend(body);
    request(&frame);
}

/// Every decoder of the disk's format.
pub(crate) fn disk(data: &[u8]) {
    on_disk::decoders(data);
}

/// A ring with one group of these entries, or, by the first byte, of these bytes.
pub(crate) fn recover(data: &[u8]) {
    if let [first, rest @ ..] = data {
        on_disk::recover(rest, first % 4 == 0);
    }
}

/// A disk with these bytes somewhere in its metadata: which file, where, then what.
pub(crate) fn damaged(data: &[u8]) {
    if let [which, low, high, rest @ ..] = data {
        let at = u64::from(u16::from_le_bytes([*low, *high])) * 16;
        on_disk::damaged(*which, at, rest);
    }
}

/// A batch with magic, length and CRC set right; what it decodes to is written again and read again.
pub(crate) fn batch(data: &[u8]) {
    let _ = Header::read(data);
    let _ = Header::check(data);
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut sealed = data.to_vec();
    sealed[16] = 2;
    batch::seal(&mut sealed);
    let header = match Header::check_stored(&sealed) {
        Ok(header) => header,
        Err(BatchFault::Crc { .. } | BatchFault::Magic(_) | BatchFault::Truncated { .. }) => {
            panic!("sealed just now")
        }
        Err(_) => return,
    };
    let _ = header.check_claim();
    let codec = header.codec().expect("checked");
    if let Ok(records) = codecs::decompress(codec, &sealed[HEADER_BYTES..], RECORDS_BYTES_MAX) {
        self::records(&records, header.records_count);
    }
}

fn records(bytes: &[u8], count: i32) {
    let mut again = Vec::new();
    let mut read = 0;
    for found in Records::new(bytes, count) {
        let Ok(it) = found else {
            return;
        };
        read += 1;
        record::write(
            &mut again,
            it.offset_delta,
            it.timestamp_delta,
            it.key,
            it.value,
            it.headers,
        );
    }
    assert_eq!(read, count.max(0));
    assert!(again.len() <= bytes.len(), "ours is the shortest form");
    let (first, second) = (Records::new(bytes, count), Records::new(&again, count));
    for (a, b) in first.zip(second) {
        let (a, b) = (a.expect("read before"), b.expect("written just now"));
        assert_eq!(
            (a.offset_delta, a.timestamp_delta, a.key, a.value),
            (b.offset_delta, b.timestamp_delta, b.key, b.value)
        );
        assert!(a.headers.eq(b.headers));
    }
}

/// The first byte chooses the codec; the rest is packed and unpacked, and unpacked as if it were packed.
pub(crate) fn codec(data: &[u8]) {
    let [which, bytes @ ..] = data else {
        return;
    };
    let codec = CODECS[usize::from(*which) % CODECS.len()];
    if let Ok(out) = codecs::decompress(codec, bytes, RECORDS_BYTES_MAX) {
        assert!(out.len() <= RECORDS_BYTES_MAX);
    }
    let packed = codecs::compress(codec, bytes).expect("memory");
    assert_eq!(
        codecs::decompress(codec, &packed, bytes.len()).as_deref(),
        Ok(bytes)
    );
}

/// Windows of a partition; the first byte is the high watermark.
pub(crate) fn windows(data: &[u8]) {
    let [hw, bytes @ ..] = data else {
        return;
    };
    let hw = Offset(i64::from(*hw));
    let read = |bytes: &[u8]| {
        let mut windows = Windows::new(64);
        windows.decode(PartIx(1), hw, bytes).ok()?;
        windows.order_by_time();
        let mut out = Vec::new();
        windows.encode(PartIx(1), &mut out);
        Some(out)
    };
    if let Some(first) = read(bytes) {
        assert_eq!(read(&first).as_ref(), Some(&first));
    }
}

/// Text of a site file; a legal one becomes a blob and comes back.
pub(crate) fn site(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match ::site::parse(text, "site.toml") {
        Ok(site) => {
            let back = ::site::Site::from_blob(&site.to_blob()).expect("written just now");
            assert_eq!(back, site);
            for node in 0..site.nodes.len() {
                assert!(::site::plan(&site, node).is_some());
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a word");
            for fault in faults {
                assert!(!fault.to_string().is_empty());
            }
        }
    }
}

/// A blob as it comes, and these bytes as the body of one whose length and CRC are right.
pub(crate) fn blob(data: &[u8]) {
    let _ = ::site::Site::from_blob(data);
    let mut blob = b"HOWDAHST".to_vec();
    blob.extend(::site::VERSION.to_le_bytes());
    blob.extend(0_u32.to_le_bytes());
    blob.extend((data.len() as u32).to_le_bytes());
    blob.extend(0_u32.to_le_bytes());
    blob.extend(data);
    blob.extend(crc32c::crc32c(&blob).to_le_bytes());
    if let Ok(site) = ::site::Site::from_blob(&blob) {
        assert_eq!(::site::Site::from_blob(&site.to_blob()), Ok(site));
    }
}

/// A record of the site log.
pub(crate) fn sitelog(data: &[u8]) {
    let Ok(record) = Record::decode(data) else {
        return;
    };
    if record.entry.is_some() {
        // What another release wrote may be longer in our form, and is then refused.
        if let Ok(bytes) = record.encode() {
            assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
        }
    }
}

/// What a site says about topics; only decoding is looked at.
pub(crate) const RULES: Rules = Rules {
    partitions: 4,
    replication: 1,
    min_insync: 1,
    retention_ms: -1,
    retention_bytes: None,
    refuse_when_full: false,
    create_topics: true,
    replicas_max: 1000,
    message_bytes_max: 1 << 20,
    message_bytes: 1 << 20,
    extent_for: |bytes| bytes as u64,
    share_bytes_min: 1 << 20,
    share_part: 16,
};

/// A snapshot of the catalog.
pub(crate) fn catalog(data: &[u8]) {
    if let Ok(catalog) = Catalog::decode(data, NodeId(1), RULES) {
        let bytes = catalog.encode();
        let again = Catalog::decode(&bytes, NodeId(1), RULES).expect("written just now");
        assert_eq!(again.encode(), bytes);
    }
}

/// Keys and values of a group's records.
pub(crate) fn groups(data: &[u8]) {
    if let Ok(group) = read_group_key(data) {
        let key = node::group::records::group_key(&group);
        assert_eq!(read_group_key(&key), Ok(group));
    }
    if let Ok(key) = OffsetKey::decode(data) {
        let bytes = offset_key(&key.group, &key.topic, key.partition);
        assert_eq!(OffsetKey::decode(&bytes).as_ref(), Ok(&key));
    }
    if let Ok(value) = OffsetValue::decode(data) {
        let again = OffsetValue::decode(&value.encode()).expect("written just now");
        assert_eq!(again.encode(), value.encode());
    }
    if let Ok(value) = GroupValue::decode(data) {
        assert_eq!(GroupValue::decode(&value.encode()).as_ref(), Ok(&value));
    }
}
