//! One client's connection: frames in, answers out, in order.
//!
//! Reading and writing are two halves of one task. The reader stops while the connection has as much under way as it
//! may: produce requests are handled side by side, since each waits for a flush; any other request waits until
//! everything before it is answered, so that a connection never holds more than one large answer.
//!
//! ```text
//! frame: 0 length i32 (bytes behind it, ≤ 16 MiB) · 4 api_key i16 · 6 api_version i16 · 8 correlation_id i32 · …
//! ```

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep_until, timeout};

use crate::context::Context;
use crate::core::Core;
use crate::dispatch;
use crate::pool::FRAME_BYTES_MAX;
use crate::replies::{Answer, Piece, Replies};
use crate::spindle::FileRange;
use crate::stream::{SENDFILE_TURN_BYTES, Stream, Turn};

/// The buffer of an idle connection, and the largest frame that needs no room from the pool.
const IDLE_BYTES: usize = 4096;
/// Produce requests under way on one connection. Clients keep 5 (Java) to some hundreds (librdkafka's default is
/// bounded by its own buffers); beyond this the socket is not read.
const PRODUCE_MAX: usize = 32;
/// A body whose bytes stop coming for this long is given up with its connection.
const BODY_STALL_MAX: Duration = Duration::from_secs(10);
/// A body's buffer starts at most at this size and doubles as bytes arrive: a claim alone takes no memory.
const BODY_FIRST_BYTES: usize = 256 * 1024;
/// Files' ranges below this are copied: `sendfile` costs more than it saves there (1.24 against 1.11 s/GB at 4 KiB).
const COPY_BELOW_BYTES: usize = 8 * 1024;
/// A connection that has asked for nothing this long is closed, as Kafka's `connections.max.idle.ms` says.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// api_key, api_version and correlation_id.
const FRAME_BYTES_MIN: usize = 8;

/// Serves a client until it leaves, breaks the protocol, or stops taking its answers.
pub(crate) async fn serve(core: Rc<Core>, stream: Stream) {
    let context = Context::anonymous(stream.host());
    let stream = Rc::new(stream);
    let replies = Rc::new(Replies::new(core.clone(), &stream));
    let pause = Pause::default();
    let ended = tokio::select! {
        read = read_loop(&core, &stream, &context, &replies, &pause) => read,
        written = write_loop(&core, &stream, &replies) => written,
        silent = silence(&pause, &replies) => silent,
    };
    if let Err(error) = ended {
        core.counters.connection_ended(&error);
        tracing::debug!(host = %context.host, %error, "connection closed");
    }
}

/// The wait for a frame that is under way: since when, and whether its length has begun to come.
#[derive(Default)]
struct Pause {
    since: Cell<Option<Instant>>,
    half: Cell<bool>,
}

/// Ends a connection that says nothing for too long. One timer a connection, moved on when it fires: setting one for
/// each frame would cost as much as decoding it.
async fn silence(pause: &Pause, replies: &Replies) -> io::Result<()> {
    loop {
        let since = pause.since.get().unwrap_or_else(Instant::now);
        sleep_until(since + IDLE_MAX).await;
        if pause.since.get() != Some(since) {
            continue;
        }
        if pause.half.get() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "half a frame's length, then nothing",
            ));
        }
        // A long poll or a join may be under way for longer than that.
        if replies.owed() == 0 {
            return Ok(());
        }
        pause.since.set(Some(Instant::now()));
    }
}

async fn read_loop(
    core: &Rc<Core>,
    stream: &Stream,
    context: &Context,
    replies: &Rc<Replies>,
    pause: &Pause,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(IDLE_BYTES);
    while let Some(frame) = next_frame(core, stream, &mut buffer, replies, pause).await? {
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        replies
            .below(if dispatch::pipelined(key) {
                PRODUCE_MAX
            } else {
                1
            })
            .await;
        core.room().await;
        dispatch::dispatch(core, context, frame, replies.owe());
    }
    Ok(())
}

/// The next whole frame without its length, or None at a clean end.
async fn next_frame(
    core: &Core,
    stream: &Stream,
    buffer: &mut BytesMut,
    replies: &Replies,
    pause: &Pause,
) -> io::Result<Option<Bytes>> {
    while buffer.len() < 4 {
        buffer.reserve(IDLE_BYTES - buffer.len());
        pause.half.set(!buffer.is_empty());
        pause.since.set(Some(Instant::now()));
        let read = stream.read_some(buffer, IDLE_BYTES).await?;
        pause.since.set(None);
        match read {
            0 if buffer.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
    let claimed = i32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let bytes = usize::try_from(claimed)
        .ok()
        .filter(|bytes| (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(bytes))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame claims {claimed} bytes, {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX} are taken"),
            )
        })?;
    // The first small frame lives in the connection's own 4 KiB; whatever is pipelined behind it takes room.
    if 4 + bytes <= IDLE_BYTES && replies.owed() == 0 {
        while buffer.len() < 4 + bytes {
            buffer.reserve(IDLE_BYTES - buffer.len());
            read_body(stream, buffer, IDLE_BYTES).await?;
        }
        return Ok(Some(buffer.split_to(4 + bytes).freeze().slice(4..)));
    }
    let room = core.bodies.reserve(bytes).await;
    let mut body = BytesMut::with_capacity(bytes.min(BODY_FIRST_BYTES));
    let head = buffer.len().min(4 + bytes);
    body.extend_from_slice(&buffer[4..head]);
    let _ = buffer.split_to(head);
    while body.len() < bytes {
        let missing = bytes - body.len();
        if body.len() == body.capacity() {
            body.reserve(body.len().min(missing));
        }
        // Never past this frame: what follows belongs to the next one, and to the connection's own buffer.
        read_body(stream, &mut body, missing).await?;
    }
    Ok(Some(room.fill(body)))
}

async fn read_body(stream: &Stream, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<()> {
    let read = match stream.try_read(buffer, bytes_max) {
        // Only what has to be waited for needs a timer.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            timeout(BODY_STALL_MAX, stream.read_some(buffer, bytes_max)).await
        }
        read => Ok(read),
    };
    match read {
        Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "a body stopped coming",
        )),
    }
}

async fn write_loop(core: &Rc<Core>, stream: &Stream, replies: &Replies) -> io::Result<()> {
    let mut turn = Turn::default();
    loop {
        match replies.next().await {
            Answer::Bytes(bytes) => {
                core.counters.bytes_out.add(bytes.len() as u64);
                stream.write_all(&bytes, false).await?;
            }
            Answer::Pieces(pieces) => {
                let last = pieces.len().saturating_sub(1);
                for (at, piece) in pieces.into_iter().enumerate() {
                    match piece {
                        Piece::Bytes(bytes) => {
                            core.counters.bytes_out.add(bytes.len() as u64);
                            stream.write_all(&bytes, at < last).await?;
                        }
                        Piece::File(range) => send_range(core, stream, range, &mut turn).await?,
                    }
                }
            }
            Answer::Silence => {}
            Answer::Close => return Ok(()),
        }
        replies.sent();
    }
}

/// Sends a file's range: what memory holds from here, the rest behind the disk's reader thread.
async fn send_range(
    core: &Rc<Core>,
    stream: &Stream,
    mut range: FileRange,
    turn: &mut Turn,
) -> io::Result<()> {
    core.counters.bytes_out.add(range.len() as u64);
    while !range.is_empty() {
        if range.called_back() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "readers hold too many extents, and this one for longest",
            ));
        }
        let front = range.front(SENDFILE_TURN_BYTES);
        if !front.resident() {
            core.warm(&range).await?;
        }
        let sent = if front.len() < COPY_BELOW_BYTES {
            let mut copy = vec![0; front.len()];
            front.read_into(&mut copy)?;
            stream.write_all(&copy, false).await?;
            copy.len()
        } else {
            stream
                .send_file(front.file(), front.position(), front.len())
                .await?
        };
        range.advance(sent);
        turn.took(sent).await;
    }
    Ok(())
}
