//! Does with a frame all that the broker does with it, short of deciding. The fuzz targets share this file.

use bytes::Bytes;
use wire::{ErrorCode, HeaderError, Request, RequestHeader};

/// Reads `frame`, looks at every value, refuses it and encodes the refusal. Gives whether the frame was a request.
pub(crate) fn exercise(frame: &Bytes) -> bool {
    let header = match RequestHeader::read(frame) {
        Ok(header) => header,
        Err(HeaderError::ApiVersionsTooNew { correlation_id, .. }) => {
            assert!(wire::api_versions::fallback(correlation_id).len() > 8);
            return false;
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let request = match wire::decode(frame, &header) {
        Ok(request) => request,
        Err(error) => {
            assert!(error.at <= frame.len(), "{error}");
            return false;
        }
    };
    assert_eq!(request.api(), header.call.api);
    match &request {
        Request::Produce(produce) => {
            let _ = produce.transactional_id().map(str::len);
            let answer = produce.answer(ErrorCode::None);
            assert_eq!(produce.partitions().len(), produce.partitions_count());
            assert_eq!(produce.partitions().count(), answer.partitions.len());
            for (part, answer) in produce.partitions().zip(&answer.partitions) {
                assert_eq!(part.index, answer.index);
                let records = part.records.unwrap_or_default();
                assert!(records.len() <= frame.len());
            }
        }
        Request::Fetch(fetch) => {
            let topics = fetch.topics.len();
            assert!(
                fetch
                    .partitions
                    .iter()
                    .all(|part| (part.topic as usize) < topics)
            );
            assert!(
                fetch
                    .forgotten
                    .iter()
                    .all(|part| (part.topic as usize) < topics)
            );
        }
        Request::ApiVersions(body) => {
            let answer = wire::api_versions::answer(body, header.call);
            wire::encode(header.call, wire::Response::ApiVersions(answer)).expect("always encodes");
        }
        _ => {}
    }
    let refusal = wire::refusal(&request, ErrorCode::KafkaStorageError, None);
    let answer = wire::encode(header.call, refusal).expect("a refusal always encodes");
    let size = i32::from_be_bytes(answer[..4].try_into().expect("four bytes"));
    assert_eq!(size as usize, answer.len() - 4);
    true
}
