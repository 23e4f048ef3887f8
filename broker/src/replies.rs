//! The answers owed to one connection, in request order.
//!
//! Handlers finish in any order; a client may rely on the order of its requests (COMPAT: Kafka answers one connection
//! strictly in turn). Each request takes a place in this queue before it is handled, and its [`Owed`] fills it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use rustix::net::SendFlags;
use tokio::sync::Notify;

use crate::core::Core;
use crate::spindle::FileRange;
use crate::stream::Stream;

/// One piece of an answer.
pub(crate) enum Piece {
    /// Encoded bytes.
    Bytes(Bytes),
    /// Batches, sent from the file they lie in.
    File(FileRange),
}

/// What a request gets.
pub(crate) enum Answer {
    /// A whole frame.
    Bytes(Bytes),
    /// A frame in pieces.
    Pieces(Vec<Piece>),
    /// Nothing: a produce request with acks=0.
    Silence,
    /// The connection is closed: the request can't be answered, or a produce with acks=0 failed.
    Close,
}

/// The queue of one connection.
#[derive(Default)]
pub(crate) struct Replies {
    queue: RefCell<Queue>,
    /// The front request is answered, and its answer is for the connection's task to write.
    answered: Notify,
    /// A place is free.
    freed: Notify,
    line: Option<Line>,
}

/// Where answers go, and who counts them. The socket closes with its connection, whatever is still owed.
struct Line {
    core: Rc<Core>,
    stream: Weak<Stream>,
}

#[derive(Default)]
struct Queue {
    /// Sequence number of the front place.
    first: u64,
    places: VecDeque<Option<Answer>>,
}

/// The duty to answer one request. Dropped unanswered, it closes the connection: silence would hang the client.
pub(crate) struct Owed {
    replies: Option<Rc<Replies>>,
    seq: u64,
}

impl Replies {
    /// A queue without duties, whose answers go to `stream`.
    pub(crate) fn new(core: Rc<Core>, stream: &Rc<Stream>) -> Self {
        let stream = Rc::downgrade(stream);
        Self {
            line: Some(Line { core, stream }),
            ..Self::default()
        }
    }

    /// Takes the next place in line.
    pub(crate) fn owe(self: &Rc<Self>) -> Owed {
        let mut queue = self.queue.borrow_mut();
        let seq = queue.first + queue.places.len() as u64;
        queue.places.push_back(None);
        Owed {
            replies: Some(self.clone()),
            seq,
        }
    }

    /// Requests that are not answered on the wire yet.
    pub(crate) fn owed(&self) -> usize {
        self.queue.borrow().places.len()
    }

    /// Waits until the front request is answered and hands its answer out. The place stays taken until [`Replies::sent`].
    pub(crate) async fn next(&self) -> Answer {
        loop {
            if let Some(answer) = self
                .queue
                .borrow_mut()
                .places
                .front_mut()
                .and_then(Option::take)
            {
                return answer;
            }
            self.answered.notified().await;
        }
    }

    /// The front answer is on the wire.
    pub(crate) fn sent(&self) {
        let mut queue = self.queue.borrow_mut();
        queue.places.pop_front().expect("an answer was handed out");
        queue.first += 1;
        drop(queue);
        self.freed.notify_waiters();
    }

    /// Waits until fewer than `limit` requests are unanswered.
    pub(crate) async fn below(&self, limit: usize) {
        loop {
            let freed = self.freed.notified();
            if self.owed() < limit {
                return;
            }
            freed.await;
        }
    }
}

impl Owed {
    /// Answers the request.
    pub(crate) fn answer(mut self, answer: Answer) {
        self.fill(answer);
    }

    fn fill(&mut self, answer: Answer) {
        let Some(replies) = self.replies.take() else {
            return;
        };
        let mut queue = replies.queue.borrow_mut();
        // A place that was sent already can't be owed: `Owed` is consumed when it answers.
        let at = usize::try_from(self.seq - queue.first).expect("the queue is short");
        let answer = match (&replies.line, answer) {
            // At the front nothing else is being written: this answer is, from here, and the connection's task sleeps
            // on, since waking it costs as much as the rest of the answer.
            (Some(line), Answer::Bytes(bytes)) if at == 0 => line.write(bytes),
            (_, answer) => Some(answer),
        };
        let written = answer.is_none();
        if let Some(place) = queue.places.get_mut(at) {
            *place = answer;
        }
        drop(queue);
        if written {
            replies.sent();
        }
        let front = replies
            .queue
            .borrow()
            .places
            .front()
            .is_some_and(Option::is_some);
        if front && at == 0 {
            replies.answered.notify_one();
        }
    }
}

impl Line {
    /// Hands an answer to the socket; gives back what is left of it, for the connection's task to write or to fail on.
    /// A connection that has ended takes none.
    fn write(&self, mut bytes: Bytes) -> Option<Answer> {
        let stream = self.stream.upgrade()?;
        match stream.try_write(&bytes, SendFlags::empty()) {
            Ok(written) => {
                self.core.counters.bytes_out.add(written as u64);
                let left = bytes.split_off(written);
                (!left.is_empty()).then_some(Answer::Bytes(left))
            }
            Err(_) => Some(Answer::Bytes(bytes)),
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.fill(Answer::Close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(replies: &Replies) -> Option<Bytes> {
        let mut next = Box::pin(replies.next());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match next.as_mut().poll(&mut context) {
            std::task::Poll::Ready(Answer::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    #[test]
    fn answers_leave_in_request_order_however_they_come() {
        let replies = Rc::new(Replies::default());
        let (first, second) = (replies.owe(), replies.owe());
        second.answer(Answer::Bytes(Bytes::from_static(b"2")));
        assert_eq!(taken(&replies), None, "the second waits for the first");
        first.answer(Answer::Bytes(Bytes::from_static(b"1")));
        assert_eq!(taken(&replies).as_deref(), Some(&b"1"[..]));
        replies.sent();
        assert_eq!(taken(&replies).as_deref(), Some(&b"2"[..]));
        replies.sent();
        assert_eq!(replies.owed(), 0);
    }

    #[test]
    fn a_forgotten_request_closes_its_connection() {
        let replies = Rc::new(Replies::default());
        drop(replies.owe());
        let mut next = Box::pin(replies.next());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(matches!(
            next.as_mut().poll(&mut context),
            std::task::Poll::Ready(Answer::Close)
        ));
    }
}
