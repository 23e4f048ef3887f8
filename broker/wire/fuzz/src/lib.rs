//! What the targets share: a frame around a body, and everything the broker does with a frame.

#[path = "../../src/tests/exercise.rs"]
mod exercise;

use bytes::Bytes;
use wire::Api;

/// Reads `frame` and does with it all that the broker does, short of deciding.
pub fn run(frame: &[u8]) {
    exercise::exercise(&Bytes::copy_from_slice(frame));
}

/// The same with the rest of `data` as the body of one of `apis`; its first two bytes choose API and version.
pub fn run_body(apis: &[Api], data: &[u8]) {
    let [api, version, body @ ..] = data else {
        return;
    };
    let api = apis[*api as usize % apis.len()];
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
    run(&frame);
}
