//! How much of a log its retention lets go. Decides nothing else: what is let go is the leader's word.

use model::{Offset, WallMs};

use super::ExtentInfo;

/// What a topic's configuration says of its age and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// `retention.ms`; negative: none by time.
    pub ms: i64,
    /// `retention.bytes` of one partition; negative: no limit.
    pub bytes: i64,
}

/// The log's new start, if something goes: whole sealed extents below the high watermark, oldest first.
///
/// By size as Kafka: an extent goes if what is left still holds `retention.bytes`. By time an extent goes when both its
/// latest record and its last append lie further back than `retention.ms`, in trusted time only: while none is trusted,
/// or the append's is not known, nothing goes by time.
#[must_use]
pub fn retain(
    extents: &[ExtentInfo],
    retention: Retention,
    trusted: Option<WallMs>,
    high_watermark: Offset,
) -> Option<Offset> {
    let mut bytes: u64 = extents.iter().map(|it| it.bytes).sum();
    let mut start = None;
    for extent in extents {
        let next = extent.last.plus(1);
        if extent.open || next > high_watermark {
            break;
        }
        let over = u64::try_from(retention.bytes)
            .is_ok_and(|limit| bytes.saturating_sub(extent.bytes) >= limit);
        let old = trusted.is_some_and(|now| expired(extent, retention.ms, now));
        if !(over || old) {
            break;
        }
        bytes -= extent.bytes;
        start = Some(next);
    }
    start
}

fn expired(extent: &ExtentInfo, retention_ms: i64, now: WallMs) -> bool {
    let newest = extent.max_ts.max(extent.appended_at);
    retention_ms >= 0
        && extent.appended_at > WallMs(0)
        && newest.0.saturating_add(retention_ms) < now.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sealed extents of 100 offsets and bytes each, the last one open; `(max_ts, appended_at)` of each.
    fn log(times: &[(i64, i64)]) -> Vec<ExtentInfo> {
        let extents = (0..).zip(times);
        extents
            .map(|(at, (max_ts, appended_at))| ExtentInfo {
                base: Offset(at * 100),
                last: Offset(at * 100 + 99),
                bytes: 100,
                file_bytes: 1 << 20,
                max_ts: WallMs(*max_ts),
                appended_at: WallMs(*appended_at),
                open: at as usize + 1 == times.len(),
            })
            .collect()
    }

    const FOREVER: Retention = Retention { ms: -1, bytes: -1 };
    const ALL: Offset = Offset(i64::MAX);

    #[test]
    fn by_size_what_is_left_holds_the_limit() {
        let log = log(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
        let by = |bytes| retain(&log, Retention { bytes, ..FOREVER }, None, ALL);
        assert_eq!(by(-1), None);
        assert_eq!(by(400), None);
        assert_eq!(by(301), None);
        assert_eq!(by(300), Some(Offset(100)));
        assert_eq!(by(199), Some(Offset(200)));
        // The open one stays whatever the limit.
        assert_eq!(by(0), Some(Offset(300)));
    }

    #[test]
    fn nothing_at_or_above_the_high_watermark_goes() {
        let log = log(&[(1, 1), (2, 2), (3, 3)]);
        let none = Retention {
            bytes: 0,
            ..FOREVER
        };
        assert_eq!(retain(&log, none, None, Offset(99)), None);
        assert_eq!(retain(&log, none, None, Offset(100)), Some(Offset(100)));
        assert_eq!(retain(&log, none, None, Offset(199)), Some(Offset(100)));
    }

    #[test]
    fn by_time_both_the_records_and_the_append_must_be_old() {
        let hour = Retention {
            ms: 3600,
            ..FOREVER
        };
        let at = |log: &[ExtentInfo], now| retain(log, hour, Some(WallMs(now)), ALL);
        let old = log(&[(1000, 1000), (2000, 2000), (9000, 9000)]);
        assert_eq!(at(&old, 4600), None);
        assert_eq!(at(&old, 4601), Some(Offset(100)));
        assert_eq!(at(&old, 5601), Some(Offset(200)));
        assert_eq!(at(&old, i64::MAX), Some(Offset(200)));
        // Old records that were written lately, and records from the future.
        assert_eq!(at(&log(&[(1, 9000), (1, 9000)]), 10_000), None);
        assert_eq!(at(&log(&[(9000, 1), (1, 1)]), 10_000), None);
        // Only from the front: a later one that is old waits for those before it.
        assert_eq!(
            at(&log(&[(9000, 9000), (1, 1), (9000, 9000)]), 10_000),
            None
        );
    }

    #[test]
    fn without_trusted_time_nothing_goes_by_time() {
        let hour = Retention {
            ms: 3600,
            ..FOREVER
        };
        let log_ = log(&[(1000, 1000), (9000, 9000)]);
        assert_eq!(retain(&log_, hour, None, ALL), None);
        // Appended while none was trusted.
        let unsynced = log(&[(1000, 0), (9000, 9000)]);
        assert_eq!(retain(&unsynced, hour, Some(WallMs(i64::MAX)), ALL), None);
    }
}
