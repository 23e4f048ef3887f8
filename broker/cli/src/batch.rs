//! Fetched record batches as a consumer wants them: checked, unpacked, and its own.

use model::batch::{Codec, HEADER_BYTES, Header};
use model::codec::decompress;
use model::record::{Pair, Records};

/// Unpacked records of one batch: a hundred times the largest batch that brokers take by default.
const UNPACKED_BYTES_MAX: usize = 128 << 20;

/// A record's header: a name and a value that may be none.
pub(crate) type RecordHeader = (String, Option<Vec<u8>>);

/// Headers as the record's writer takes them.
pub(crate) fn pairs(headers: &[RecordHeader]) -> impl ExactSizeIterator<Item = Pair<'_>> + Clone {
    headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_deref()))
}

/// A record as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) time_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<RecordHeader>,
}

/// Bytes that are no batch, or no records.
pub(crate) type Malformed = String;

/// Reads the whole batches of a fetched range: records from `from` on, in order, and the offset behind the last batch.
/// A batch cut off at the end is left for the next fetch. Control batches hold no records for us.
pub(crate) fn read_batches(
    mut bytes: &[u8],
    from: i64,
    out: &mut Vec<Record>,
) -> Result<i64, Malformed> {
    let mut next = from;
    while bytes.len() >= HEADER_BYTES {
        let header = Header::read(bytes).map_err(|fault| fault.to_string())?;
        let Some((batch, rest)) = bytes.split_at_checked(header.bytes) else {
            break;
        };
        // A compacted batch holds fewer records than offsets: it is checked as one at rest.
        let header = Header::check_stored(batch).map_err(|fault| fault.to_string())?;
        if !header.control() {
            let codec = header.codec().map_err(|fault| fault.to_string())?;
            read_records(&header, codec, &batch[HEADER_BYTES..], from, out)?;
        }
        next = next.max(header.next_offset().0);
        bytes = rest;
    }
    Ok(next)
}

/// The length of the first batch in `bytes`, to fetch it whole when it did not fit.
pub(crate) fn first_batch_bytes(bytes: &[u8]) -> Option<usize> {
    Header::read(bytes).ok().map(|header| header.bytes)
}

fn read_records(
    header: &Header,
    codec: Codec,
    packed: &[u8],
    from: i64,
    out: &mut Vec<Record>,
) -> Result<(), Malformed> {
    let at_batch = |error: &dyn std::fmt::Display| {
        format!("the batch at offset {}: {error}", header.base_offset.0)
    };
    let unpacked;
    let plain = if codec == Codec::None {
        packed
    } else {
        unpacked =
            decompress(codec, packed, UNPACKED_BYTES_MAX).map_err(|error| at_batch(&error))?;
        &unpacked
    };
    for (at, record) in Records::new(plain, header.records_count).enumerate() {
        let record = record.map_err(|error| format!("record {at} of {}", at_batch(&error)))?;
        let offset = header
            .base_offset
            .0
            .saturating_add(record.offset_delta.into());
        if offset < from {
            continue;
        }
        let time_ms = if header.log_append_time() {
            header.max_timestamp.0
        } else {
            header.base_timestamp.0.wrapping_add(record.timestamp_delta)
        };
        let headers = record.headers.map(|(name, value)| {
            (
                String::from_utf8_lossy(name).into_owned(),
                value.map(<[u8]>::to_vec),
            )
        });
        out.push(Record {
            offset,
            time_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use model::batch::seal;
    use model::record::{Builder, Producer};

    use super::*;

    fn sample(codec: Codec) -> Vec<u8> {
        let headers = [
            ("h".to_owned(), Some(b"x".to_vec())),
            ("n".to_owned(), None),
        ];
        let mut builder = Builder::default();
        builder.push(1_000, Some(b"key"), Some(b"value"), pairs(&headers));
        builder.push(1_005, None, Some(&[7; 300]), pairs(&[]));
        builder.push(999, Some(b""), None, pairs(&[]));
        builder.finish(codec, Producer::NONE).unwrap()
    }

    #[test]
    fn what_is_built_is_read_again() {
        for codec in [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ] {
            let batch = sample(codec);
            let mut twice = batch.repeat(2);
            twice.truncate(twice.len() - 1);
            let mut records = Vec::new();
            assert_eq!(
                read_batches(&twice, 1, &mut records),
                Ok(3),
                "the cut batch is left"
            );
            assert_eq!(records.len(), 2, "offset 0 was not asked for");
            let last = &records[1];
            assert_eq!(
                (last.key.as_deref(), last.value.as_deref(), last.time_ms),
                (Some(&b""[..]), None, 999)
            );
            records.clear();
            read_batches(&batch, 0, &mut records).unwrap();
            assert_eq!(
                records[0].headers,
                [
                    ("h".to_owned(), Some(b"x".to_vec())),
                    ("n".to_owned(), None)
                ]
            );
        }
    }

    #[test]
    fn records_that_claim_too_much_are_named() {
        let mut batch = sample(Codec::None);
        batch[HEADER_BYTES] = 0x7e;
        seal(&mut batch);
        let fault = read_batches(&batch, 0, &mut Vec::new()).unwrap_err();
        assert!(
            fault.starts_with("record 0 of the batch at offset 0: "),
            "{fault}"
        );
    }
}
