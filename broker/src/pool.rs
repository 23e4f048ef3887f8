//! Memory for request bodies: one pool for all connections, first come, first served.
//!
//! A connection that announces a body waits here before a byte of it is read, so load beyond the pool becomes TCP
//! back-pressure. What is counted is the length the peer claims; memory itself is taken as bytes arrive.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All bodies together: 32 MiB, two of the largest frames or five hundred 64 KiB batches.
pub(crate) const POOL_BYTES: usize = 32 << 20;
/// The largest frame that is accepted: `max.message.bytes` ends at 8 MiB, and a request may hold several batches.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;
/// Permits are handed out in these steps, so that they fit a semaphore's 32-bit count with room.
const STEP_BYTES: usize = 1024;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BodyPool {
    steps: Arc<Semaphore>,
    bytes: usize,
}

/// Room for one body; goes back to the pool with the last slice of the body.
pub(crate) struct Room(
    #[expect(dead_code, reason = "gives its share back when it is dropped")] OwnedSemaphorePermit,
);

struct Body {
    bytes: BytesMut,
    _room: Room,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyPool {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            steps: Arc::new(Semaphore::new(bytes / STEP_BYTES)),
            bytes,
        }
    }

    /// Waits in line for `bytes` of room; at most [`FRAME_BYTES_MAX`].
    pub(crate) async fn reserve(&self, bytes: usize) -> Room {
        assert!(
            bytes <= FRAME_BYTES_MAX,
            "larger frames are refused before they ask for room"
        );
        let steps = u32::try_from(bytes.div_ceil(STEP_BYTES)).expect("16 MiB in KiB fits");
        Room(
            self.steps
                .clone()
                .acquire_many_owned(steps)
                .await
                .expect("the pool is never closed"),
        )
    }

    /// Bytes handed out now, in whole steps.
    pub(crate) fn used_bytes(&self) -> usize {
        self.bytes - self.steps.available_permits() * STEP_BYTES
    }

    /// The pool's bound.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes
    }
}

impl Room {
    /// Ties the room to the bytes that fill it: freed when the last clone or slice of them is dropped.
    pub(crate) fn fill(self, bytes: BytesMut) -> Bytes {
        Bytes::from_owner(Body { bytes, _room: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_returns_with_the_last_slice() {
        let pool = BodyPool::new(64 << 10);
        let body = pool
            .reserve(40 << 10)
            .await
            .fill(BytesMut::from(&b"abcdef"[..]));
        let slice = body.slice(2..4);
        drop(body);
        assert_eq!(pool.used_bytes(), 40 << 10);
        assert_eq!(&slice[..], b"cd");
        drop(slice);
        assert_eq!(pool.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_large_body_in_front_is_not_overtaken() {
        let pool = BodyPool::new(64 << 10);
        let held = pool.reserve(40 << 10).await;
        let mut large = Box::pin(pool.reserve(60 << 10));
        let mut small = Box::pin(pool.reserve(1 << 10));
        assert!(futures_poll(&mut large).is_none() && futures_poll(&mut small).is_none());
        drop(held);
        assert!(futures_poll(&mut large).is_some());
        assert!(futures_poll(&mut small).is_some());
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }
}
