//! The records inside a batch, magic 2: read in place, and written.
//!
//! ```text
//! record: length varint · attributes i8 = 0 · timestamp delta varint · offset delta varint
//!         key length varint (−1: none) · key · value length varint (−1: none) · value
//!         headers varint · each: name length varint · name · value length varint (−1: none) · value
//! ```
//! Reading allocates nothing and believes no length or count: each is held against the bytes that are there. What a
//! batch's header says of its records is `model::batch`'s; how they are compressed is `model::codec`'s.

use thiserror::Error;

use crate::batch::{self, Codec, HEADER_BYTES};
use crate::codec::{self, CodecFault};
use crate::varint::{VarintError, len_i64, read_i32, read_i64, write_i64};

/// Bytes that are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// A length, delta or count is no integer.
    #[error(transparent)]
    Varint(#[from] VarintError),
    /// A length that no bytes can have.
    #[error("a length or count of {0}")]
    Length(i32),
    /// The bytes end before what they announce.
    #[error("{claimed} bytes are claimed and {have} are there")]
    Truncated {
        /// As announced.
        claimed: usize,
        /// At hand.
        have: usize,
    },
    /// A header's name may be empty, but not none.
    #[error("a header has no name")]
    HeaderName,
    /// Bytes behind the last field of a record.
    #[error("{0} bytes behind a record's last field")]
    RecordTail(usize),
    /// Bytes behind the last record of a batch.
    #[error("{0} bytes behind the last record")]
    BatchTail(usize),
}

/// A header of a record: its name, which should be UTF-8, and its value.
pub type Pair<'b> = (&'b [u8], Option<&'b [u8]>);

/// One record, pointing into its batch.
#[derive(Clone, Debug)]
pub struct Record<'b> {
    /// Added to the batch's base offset.
    pub offset_delta: i32,
    /// Added to the batch's base timestamp.
    pub timestamp_delta: i64,
    /// What partitions and compaction go by.
    pub key: Option<&'b [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'b [u8]>,
    /// In the order in which they were written.
    pub headers: Headers<'b>,
}

/// A record's headers, checked before the record was handed out.
#[derive(Clone, Debug)]
pub struct Headers<'b> {
    rest: &'b [u8],
    left: i32,
}

impl<'b> Iterator for Headers<'b> {
    type Item = Pair<'b>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(read_header(&mut self.rest).expect("the record was checked"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Walks the records of one batch. A fault is its last item.
#[derive(Clone, Debug)]
pub struct Records<'b> {
    rest: &'b [u8],
    left: i32,
    over: bool,
}

impl<'b> Records<'b> {
    /// `bytes` are a batch's records, decompressed; `count` is what its checked header says.
    #[must_use]
    pub const fn new(bytes: &'b [u8], count: i32) -> Self {
        Self {
            rest: bytes,
            left: count,
            over: false,
        }
    }
}

impl<'b> Iterator for Records<'b> {
    type Item = Result<Record<'b>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        if self.left <= 0 {
            self.over = true;
            let tail = self.rest.len();
            return (tail > 0).then_some(Err(RecordFault::BatchTail(tail)));
        }
        self.left -= 1;
        let record = read_record(&mut self.rest);
        self.over = record.is_err();
        Some(record)
    }
}

fn read_record<'b>(rest: &mut &'b [u8]) -> Result<Record<'b>, RecordFault> {
    let length = read_i32(rest)?;
    let mut body = split(rest, length)?;
    let body = &mut body;
    // Attributes: no bit of them has a meaning yet.
    split(body, 1)?;
    let timestamp_delta = read_i64(body)?;
    let offset_delta = read_i32(body)?;
    let key = read_nullable(body)?;
    let value = read_nullable(body)?;
    let left = read_i32(body)?;
    if left < 0 {
        return Err(RecordFault::Length(left));
    }
    let headers = Headers { rest: body, left };
    for _ in 0..left {
        // Each takes two bytes at least, so a count that lies ends here soon.
        read_header(body)?;
    }
    if !body.is_empty() {
        return Err(RecordFault::RecordTail(body.len()));
    }
    Ok(Record {
        offset_delta,
        timestamp_delta,
        key,
        value,
        headers,
    })
}

fn read_header<'b>(rest: &mut &'b [u8]) -> Result<Pair<'b>, RecordFault> {
    let name = read_nullable(rest)?.ok_or(RecordFault::HeaderName)?;
    Ok((name, read_nullable(rest)?))
}

fn read_nullable<'b>(rest: &mut &'b [u8]) -> Result<Option<&'b [u8]>, RecordFault> {
    match read_i32(rest)? {
        -1 => Ok(None),
        length => split(rest, length).map(Some),
    }
}

fn split<'b>(rest: &mut &'b [u8], length: i32) -> Result<&'b [u8], RecordFault> {
    let claimed = usize::try_from(length).map_err(|_| RecordFault::Length(length))?;
    let (taken, behind) = rest
        .split_at_checked(claimed)
        .ok_or(RecordFault::Truncated {
            claimed,
            have: rest.len(),
        })?;
    *rest = behind;
    Ok(taken)
}

/// Appends one record to the records of a batch.
///
/// # Panics
/// If the record is longer than `i32::MAX`: what is written was bounded where it was accepted.
pub fn write<'h>(
    out: &mut Vec<u8>,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = Pair<'h>> + Clone,
) {
    let count = headers.len() as i64;
    let pairs: usize = headers
        .clone()
        .map(|(name, value)| nullable_bytes(Some(name)) + nullable_bytes(value))
        .sum();
    let body = 1
        + len_i64(timestamp_delta)
        + len_i64(offset_delta.into())
        + nullable_bytes(key)
        + nullable_bytes(value)
        + len_i64(count)
        + pairs;
    let body = i32::try_from(body).expect("a record is far below 2 GiB");
    write_i64(out, body.into());
    let begin = out.len();
    out.push(0);
    write_i64(out, timestamp_delta);
    write_i64(out, offset_delta.into());
    write_nullable(out, key);
    write_nullable(out, value);
    write_i64(out, count);
    for (name, value) in headers {
        write_nullable(out, Some(name));
        write_nullable(out, value);
    }
    assert!(
        out.len() - begin == body as usize,
        "a record is as long as it says"
    );
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| len_i64(bytes.len() as i64) + bytes.len())
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            write_i64(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => write_i64(out, -1),
    }
}

/// Whose batch it is, for idempotence (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// As the broker gave it; −1: not idempotent.
    pub id: i64,
    /// As the broker gave it; −1: not idempotent.
    pub epoch: i16,
    /// Of the first record; −1: not idempotent.
    pub sequence: i32,
}

impl Producer {
    /// Of a batch that is not idempotent.
    pub const NONE: Self = Self {
        id: -1,
        epoch: -1,
        sequence: -1,
    };
}

/// A batch while records are added to it, with base offset 0 and no leader epoch, as clients send it.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    records: Vec<u8>,
    count: i32,
    first_ms: i64,
    last_ms: i64,
}

impl Builder {
    /// Bytes so far, before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Records so far.
    #[must_use]
    pub const fn count(&self) -> i32 {
        self.count
    }

    /// Adds a record of this time. The caller bounds [`Builder::bytes`].
    pub fn push<'h>(
        &mut self,
        time_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = Pair<'h>> + Clone,
    ) {
        if self.count == 0 {
            (self.first_ms, self.last_ms) = (time_ms, time_ms);
        }
        self.last_ms = self.last_ms.max(time_ms);
        let delta = time_ms.wrapping_sub(self.first_ms);
        write(&mut self.records, self.count, delta, key, value, headers);
        self.count += 1;
    }

    /// The whole batch, sealed.
    ///
    /// # Errors
    /// As [`codec::compress`].
    ///
    /// # Panics
    /// If no record was added: an empty batch is no batch.
    pub fn finish(&self, codec: Codec, producer: Producer) -> Result<Vec<u8>, CodecFault> {
        assert!(self.count > 0, "an empty batch is no batch");
        let packed;
        let records = match codec {
            Codec::None => &self.records,
            codec => {
                packed = codec::compress(codec, &self.records)?;
                &packed
            }
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + records.len());
        bytes.extend_from_slice(&0_i64.to_be_bytes());
        // Length and CRC are sealed below.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(-1_i32).to_be_bytes());
        bytes.push(2);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&codec.bits().to_be_bytes());
        bytes.extend_from_slice(&(self.count - 1).to_be_bytes());
        bytes.extend_from_slice(&self.first_ms.to_be_bytes());
        bytes.extend_from_slice(&self.last_ms.to_be_bytes());
        bytes.extend_from_slice(&producer.id.to_be_bytes());
        bytes.extend_from_slice(&producer.epoch.to_be_bytes());
        bytes.extend_from_slice(&producer.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(records);
        batch::seal(&mut bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Header;

    type Text = Option<Vec<u8>>;
    type Owned = (i64, Text, Text, Vec<(Vec<u8>, Text)>);

    fn own(record: &Record<'_>) -> Owned {
        let own = |bytes: &[u8]| bytes.to_vec();
        (
            record.timestamp_delta,
            record.key.map(own),
            record.value.map(own),
            record
                .headers
                .clone()
                .map(|(name, value)| (name.to_vec(), value.map(own)))
                .collect(),
        )
    }

    fn pairs(headers: &[(Vec<u8>, Text)]) -> impl ExactSizeIterator<Item = Pair<'_>> + Clone {
        headers
            .iter()
            .map(|(name, value)| (&name[..], value.as_deref()))
    }

    fn encode(records: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, (time, key, value, headers)) in records.iter().enumerate() {
            write(
                &mut out,
                at as i32,
                *time,
                key.as_deref(),
                value.as_deref(),
                pairs(headers),
            );
        }
        out
    }

    fn text() -> impl Strategy<Value = Text> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))
    }

    fn owned() -> impl Strategy<Value = Owned> {
        let name = proptest::collection::vec(any::<u8>(), 0..20);
        let headers = proptest::collection::vec((name, text()), 0..4);
        (any::<i64>(), text(), text(), headers)
    }

    /// By hand from KIP-98: timestamp delta 10, offset delta 2, key "hi", value "there", a header "h" without a value.
    const GOLDEN: &[u8] = b"\x20\x00\x14\x04\x04hi\x0athere\x02\x02h\x01";

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let record = Records::new(GOLDEN, 1).next().unwrap().unwrap();
        assert_eq!((record.timestamp_delta, record.offset_delta), (10, 2));
        assert_eq!(
            (record.key, record.value),
            (Some(&b"hi"[..]), Some(&b"there"[..]))
        );
        assert_eq!(record.headers.collect::<Vec<_>>(), [(&b"h"[..], None)]);
        let mut out = Vec::new();
        let headers = [(&b"h"[..], None)].into_iter();
        write(&mut out, 2, 10, Some(b"hi"), Some(b"there"), headers);
        assert_eq!(out, GOLDEN);
    }

    #[test]
    fn faults_are_named_once() {
        let fault = |bytes: &[u8], count| {
            let mut records = Records::new(bytes, count);
            let fault = records.find_map(Result::err);
            assert!(records.next().is_none(), "a fault is the last item");
            fault.map_or_else(String::new, |fault| fault.to_string())
        };
        assert_eq!(fault(GOLDEN, 1), "");
        assert_eq!(fault(GOLDEN, 2), "the bytes end inside a varint");
        assert_eq!(fault(GOLDEN, 0), "17 bytes behind the last record");
        assert_eq!(
            fault(&GOLDEN[..9], 1),
            "16 bytes are claimed and 8 are there"
        );
        let bent = |at: usize, byte| {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = byte;
            fault(&bytes, 1)
        };
        assert_eq!(bent(0, 0x03), "a length or count of -2");
        assert_eq!(bent(4, 0x7e), "63 bytes are claimed and 12 are there");
        assert_eq!(bent(4, 0x03), "a length or count of -2");
        assert_eq!(bent(13, 0x00), "3 bytes behind a record's last field");
        assert_eq!(bent(13, 0x01), "a length or count of -1");
        assert_eq!(bent(14, 0x01), "a header has no name");
        assert_eq!(bent(13, 0x04), "the bytes end inside a varint");
        // A record of length 0 has not even attributes.
        assert_eq!(fault(&[0], 1), "1 bytes are claimed and 0 are there");
    }

    #[test]
    fn a_built_batch_passes_the_brokers_check() {
        for codec in [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ] {
            let mut builder = Builder::default();
            builder.push(1_000, Some(b"k"), Some(&[7; 300]), [].into_iter());
            builder.push(1_005, None, None, [].into_iter());
            builder.push(999, None, Some(b""), [].into_iter());
            let producer = Producer {
                id: 5,
                epoch: 1,
                sequence: 9,
            };
            let bytes = builder.finish(codec, producer).unwrap();
            let header = Header::check(&bytes).unwrap();
            assert_eq!(
                (
                    header.producer_id,
                    header.producer_epoch,
                    header.base_sequence
                ),
                (5, 1, 9)
            );
            assert_eq!(
                (header.base_timestamp.0, header.max_timestamp.0),
                (1_000, 1_005)
            );
            assert_eq!(header.codec(), Ok(codec));
            let plain = codec::decompress(codec, &bytes[HEADER_BYTES..], 1_000).unwrap();
            let records: Result<Vec<_>, _> = Records::new(&plain, header.records_count).collect();
            let deltas = records.unwrap();
            let deltas = deltas
                .iter()
                .map(|record| (record.offset_delta, record.timestamp_delta));
            assert_eq!(deltas.collect::<Vec<_>>(), [(0, 0), (1, 5), (2, -1)]);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(records in proptest::collection::vec(owned(), 0..20)) {
            let bytes = encode(&records);
            let read: Result<Vec<_>, _> = Records::new(&bytes, records.len() as i32).collect();
            let read = read.unwrap();
            for (at, record) in read.iter().enumerate() {
                prop_assert_eq!(record.offset_delta as usize, at);
            }
            prop_assert_eq!(read.iter().map(own).collect::<Vec<_>>(), records);
        }

        #[test]
        fn every_cut_is_a_fault(records in proptest::collection::vec(owned(), 1..4), at in any::<proptest::sample::Index>()) {
            let bytes = encode(&records);
            let cut = &bytes[..at.index(bytes.len())];
            prop_assert!(Records::new(cut, records.len() as i32).any(|record| record.is_err()));
        }

        #[test]
        fn hostile_bytes_end_soon(
            noise in proptest::collection::vec(any::<u8>(), 0..500),
            records in proptest::collection::vec(owned(), 1..4),
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            count in any::<i32>(),
        ) {
            let mut bent = encode(&records);
            for (at, byte) in flips {
                let at = at.index(bent.len());
                bent[at] = byte;
            }
            for bytes in [&noise, &bent] {
                let mut items = 0;
                let mut headers = 0;
                for record in Records::new(bytes, count) {
                    items += 1;
                    headers += record.map_or(0, |record| record.headers.count());
                }
                // A record takes 7 bytes at least, a header two; one more item is the fault.
                prop_assert!(items <= bytes.len() / 7 + 1 && headers <= bytes.len() / 2);
            }
        }
    }
}
