//! Counts what a test allocates, and the numbers that matter: copies and allocations per request.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{self, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{fetch, produce};
use crate::{ErrorCode, Request, RequestHeader, decode};

/// The system's allocator with counters for the thread that asks.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn note(change: isize) {
    // While a thread ends its counters may be gone; nobody asks for them then.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
    if change > 0 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    }
}

// SAFETY: every call is handed to the system's allocator as it came; the counters are plain thread-local cells that
// neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: `ptr` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `run` gives, and the bytes held at most while it ran beyond those held before, on this thread.
pub(crate) fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let value = run();
    (value, (PEAK.get() - before).max(0) as usize)
}

fn allocations_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = COUNT.get();
    let value = run();
    (value, COUNT.get() - before)
}

fn produce_frame(partitions: usize, version: i16) -> Bytes {
    let parts = (0..partitions).map(|index| {
        PartitionProduceData::default()
            .with_index(index as i32)
            .with_records(Some(vec![7; 64 * 1024].into()))
    });
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("orders")))
        .with_partition_data(parts.collect());
    let request = messages::ProduceRequest::default()
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    produce::encoded(&request, version)
}

/// A Produce of a hundred partitions is decoded and walked without one allocation: batches are lent by the frame.
#[test]
fn produce_is_decoded_without_allocating() {
    for version in [3, 9, 11] {
        let frame = produce_frame(100, version);
        let header = RequestHeader::read(&frame).unwrap();
        // The first clone of a frame makes its reference count; the shell has done so before.
        let frame_again = frame.clone();
        let (request, allocations) = allocations_of(|| decode(&frame_again, &header).unwrap());
        assert_eq!(allocations, 0, "v{version}");
        let Request::Produce(request) = request else {
            unreachable!()
        };
        let (sum, allocations) = allocations_of(|| {
            let records = request.partitions().filter_map(|part| part.records);
            records.map(|records| records.len()).sum::<usize>()
        });
        assert_eq!((sum, allocations), (100 * 64 * 1024, 0), "v{version}");
        // Rows, one topic, its name.
        let (answer, allocations) = allocations_of(|| request.answer(ErrorCode::None));
        assert_eq!(
            (answer.partitions.len(), allocations),
            (100, 3),
            "v{version}"
        );
    }
}

/// Two vectors and, by name, one string a topic.
#[test]
fn fetch_is_decoded_with_three_allocations() {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    for (version, wanted) in [(11, 3), (12, 3), (13, 2), (17, 2)] {
        let parts = (0..64).map(|index| FetchPartition::default().with_partition(index));
        let topic = FetchTopic::default().with_partitions(parts.collect());
        let topic = match version {
            ..13 => topic.with_topic(TopicName(StrBytes::from_static_str("orders"))),
            _ => topic.with_topic_id(uuid::Uuid::from_bytes([1; 16])),
        };
        let request = messages::FetchRequest::default().with_topics(vec![topic]);
        let frame = fetch::encoded(&request, version);
        let header = RequestHeader::read(&frame).unwrap();
        let (request, allocations) = allocations_of(|| decode(&frame, &header).unwrap());
        assert!(matches!(request, Request::Fetch(request) if request.partitions.len() == 64));
        assert_eq!(allocations, wanted, "v{version}");
    }
}
