//! What of one batch survives, by Kafka's rules: a record whose key comes again later goes, and so does a tombstone some
//! time after the first pass that met it (KIP-534).
//!
//! A batch that survives whole is kept as it is. One that is rewritten keeps base and last offset, leader epoch, producer
//! and sequences; one that a producer's window needs stays without records. What this release does not understand, and
//! what only brokers write, is never touched.

use std::borrow::Cow;
use std::collections::BTreeMap;

use model::batch::{self, Codec, HEADER_BYTES, Header};
use model::record::{Record, Records};
use model::{Offset, WallMs, codec};

use super::keys::KeyMap;

/// Records of one batch are not decompressed beyond this: two batches of the largest size that is accepted.
const RECORDS_BYTES_MAX: usize = 16 << 20;

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays as it is because it could not be looked into.
    Opaque,
    /// It stays in part.
    Rewrite(Vec<u8>),
    /// Nothing of it stays.
    Drop,
}

/// What decides; see [`filter`].
pub(super) struct Rules<'a> {
    pub(super) keys: &'a KeyMap,
    /// Keys of the records in between are in the map; records behind stay.
    pub(super) mapped: (Offset, Offset),
    pub(super) producers: &'a BTreeMap<i64, (i16, i32)>,
    /// Trusted time, if there is any.
    pub(super) now: Option<WallMs>,
    pub(super) delete_retention_ms: i64,
    /// Everything before was filtered, so that a tombstone has nothing left to hide.
    pub(super) tombstones_go: bool,
    /// It is the last one of what a new extent stands for, and nothing was kept before it.
    pub(super) must_stay: bool,
}

/// The records of a batch that can be looked into.
pub(super) fn records<'b>(header: &Header, batch: &'b [u8]) -> Option<Cow<'b, [u8]>> {
    // A transaction's records count only if it was committed, which is not known here yet.
    if header.unknown_attributes() || header.control() || header.transactional() {
        return None;
    }
    let packed = &batch[HEADER_BYTES..];
    match header.codec().ok()? {
        Codec::None => Some(Cow::Borrowed(packed)),
        codec => codec::decompress(codec, packed, RECORDS_BYTES_MAX)
            .ok()
            .map(Cow::Owned),
    }
}

/// Whether records lie where a producer's do: at rising offsets, none behind their batch's last. At any other place one
/// would stand for a later record of its key, which would go for it.
pub(super) fn placed(header: &Header, mut deltas: impl Iterator<Item = i32>) -> bool {
    let mut least = 0;
    deltas.all(|delta| {
        let fits = (least..=header.last_offset_delta).contains(&delta);
        least = delta.saturating_add(1);
        fits
    })
}

/// Decides over one checked batch.
pub(super) fn filter(header: &Header, batch: &[u8], rules: &Rules<'_>) -> Verdict {
    if header.records_count == 0 && !header.control() && !header.unknown_attributes() {
        return match rules.must_stay || is_last_of_producer(header, rules.producers) {
            true => Verdict::Keep,
            false => Verdict::Drop,
        };
    }
    let Some(records) = records(header, batch) else {
        return Verdict::Opaque;
    };
    let records: Result<Vec<Record<'_>>, _> =
        Records::new(&records, header.records_count).collect();
    let Ok(records) = records else {
        return Verdict::Opaque;
    };
    if !placed(header, records.iter().map(|record| record.offset_delta)) {
        return Verdict::Opaque;
    }
    let dead = header.delete_horizon()
        && rules.tombstones_go
        && rules.now.is_some_and(|now| header.base_timestamp < now);
    let stays = |record: &Record<'_>| {
        let offset = header.base_offset.plus(record.offset_delta.into());
        if offset >= rules.mapped.1 {
            return true;
        }
        // A record without a key can't be superseded; Kafka's cleaner drops it, and its brokers refuse it at the door.
        record.key.is_some_and(|key| {
            rules.keys.get(key).is_none_or(|last| last <= offset)
                && (record.value.is_some() || !dead)
        })
    };
    let kept: Vec<&Record<'_>> = records.iter().filter(|record| stays(record)).collect();
    if kept.is_empty() {
        return match rules.must_stay || is_last_of_producer(header, rules.producers) {
            true => Verdict::Rewrite(empty(header, batch)),
            false => Verdict::Drop,
        };
    }
    // From the horizon on a tombstone may go without being looked up again. So only one gets it whose key was in the map
    // of a pass that filtered everything before it: nothing is left then that it would uncover.
    let tombstones = kept.iter().any(|record| record.value.is_none());
    let mapped = header.base_offset >= rules.mapped.0 && header.last_offset() < rules.mapped.1;
    let horizon = (tombstones && mapped && rules.tombstones_go && !header.delete_horizon())
        .then_some(rules.now)
        .flatten()
        .map(|now| WallMs(now.0.saturating_add(rules.delete_retention_ms)));
    if horizon.is_none() && kept.len() == records.len() {
        return Verdict::Keep;
    }
    rewrite(header, batch, &kept, horizon).map_or(Verdict::Opaque, Verdict::Rewrite)
}

/// Whether it is the batch by which the newest retry of its producer is known.
fn is_last_of_producer(header: &Header, producers: &BTreeMap<i64, (i16, i32)>) -> bool {
    let last = header.base_sequence.wrapping_add(header.last_offset_delta) & i32::MAX;
    producers.get(&header.producer_id) == Some(&(header.producer_epoch, last))
}

/// The batch with `kept` as its records, and a new delete horizon if there is one.
fn rewrite(
    header: &Header,
    batch: &[u8],
    kept: &[&Record<'_>],
    horizon: Option<WallMs>,
) -> Option<Vec<u8>> {
    let base = horizon.unwrap_or(header.base_timestamp);
    // Times are deltas from the base, which a horizon replaces.
    let shift = header.base_timestamp.0.wrapping_sub(base.0);
    let mut records = Vec::new();
    let mut max_ts = i64::MIN;
    for record in kept {
        let delta = record.timestamp_delta.wrapping_add(shift);
        max_ts = max_ts.max(base.0.wrapping_add(delta));
        let headers: Vec<_> = record.headers.clone().collect();
        model::record::write(
            &mut records,
            record.offset_delta,
            delta,
            record.key,
            record.value,
            headers.into_iter(),
        );
    }
    let codec = header.codec().ok()?;
    let packed = match codec {
        Codec::None => records,
        codec => codec::compress(codec, &records).ok()?,
    };
    let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
    out.extend_from_slice(&batch[..HEADER_BYTES]);
    out.extend_from_slice(&packed);
    if horizon.is_some() {
        let attributes = header.attributes | batch::DELETE_HORIZON;
        out[21..23].copy_from_slice(&attributes.to_be_bytes());
        out[27..35].copy_from_slice(&base.0.to_be_bytes());
    }
    if !header.log_append_time() {
        out[35..43].copy_from_slice(&max_ts.to_be_bytes());
    }
    out[57..61].copy_from_slice(&(kept.len() as i32).to_be_bytes());
    batch::seal(&mut out);
    Some(out)
}

/// The batch without records: offsets, epochs, producer and sequences stay.
fn empty(header: &Header, batch: &[u8]) -> Vec<u8> {
    let mut out = batch[..HEADER_BYTES].to_vec();
    let attributes = header.attributes & batch::LOG_APPEND_TIME;
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    out[27..35].copy_from_slice(&(-1_i64).to_be_bytes());
    out[57..61].copy_from_slice(&0_i32.to_be_bytes());
    batch::seal(&mut out);
    out
}
