//! The one place where a client's socket is touched: reads into our buffers, writes, and `sendfile`.
//!
//! A TLS variant will stand beside the plain one here, so nothing above sees a descriptor.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

/// A peer that takes no byte of an answer for this long is closed: it pins extents and memory.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Bytes handed to one `sendfile` call, and sent before other tasks have their turn on the core thread.
pub(crate) const SENDFILE_TURN_BYTES: usize = 256 * 1024;

/// What a connection may still send in this turn. A peer on this machine takes bytes as fast as `sendfile` gives them, so
/// its socket may never say that it is full: an answer of 55 MiB would keep the core thread for a tenth of a second.
pub(crate) struct Turn {
    left: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            left: SENDFILE_TURN_BYTES,
        }
    }
}

impl Turn {
    /// Bytes were sent; lets the others run once a whole turn was.
    pub(crate) async fn took(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 {
            *self = Self::default();
            yield_now().await;
        }
    }
}

/// `SIOCOUTQ`, which is `TIOCOUTQ`.
const OUTQ: Opcode = libc::TIOCOUTQ as Opcode;

/// A connected client.
pub(crate) struct Stream {
    socket: TcpStream,
    host: IpAddr,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, host: IpAddr) -> Self {
        // Answers are written whole; waiting for more bytes to fill a segment would only delay acknowledgements.
        // A socket that refuses the option still works.
        let _ = socket.set_nodelay(true);
        Self { socket, host }
    }

    pub(crate) fn host(&self) -> IpAddr {
        self.host
    }

    /// Appends what has come into `buffer`'s spare capacity, which the caller has made, at most `bytes_max`; 0 is the
    /// end, `WouldBlock` that nothing has come.
    pub(crate) fn try_read(&self, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<usize> {
        let room = bytes_max.min(buffer.capacity() - buffer.len());
        let read = self.socket.try_read_buf(&mut buffer.limit(room));
        if let Ok(bytes) = read
            && (1..room).contains(&bytes)
        {
            // The socket gave all it had. Saying so spares the call that would only learn it; what comes from now on is
            // a new edge for epoll.
            let _ = self.socket.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
        read
    }

    /// Waits for bytes and reads them as [`Stream::try_read`] does.
    pub(crate) async fn read_some(
        &self,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            match self.try_read(buffer, bytes_max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Hands over what the socket takes of `bytes` now; `WouldBlock` if that is nothing.
    pub(crate) fn try_write(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        let written = self.socket.try_io(Interest::WRITABLE, || {
            rustix::net::send(self.socket.as_fd(), bytes, flags | SendFlags::NOSIGNAL)
                .map_err(io::Error::from)
        })?;
        if written == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(written)
    }

    /// Writes all of `bytes`; fails if the peer takes none for 30 s. With `more` the last segment may wait for what the
    /// next call brings, so that an answer's head does not travel alone.
    pub(crate) async fn write_all(&self, mut bytes: &[u8], more: bool) -> io::Result<()> {
        let flags = if more {
            SendFlags::MORE
        } else {
            SendFlags::empty()
        };
        while !bytes.is_empty() {
            match self.try_write(bytes, flags) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends up to one turn of the file's range by `sendfile`; returns the bytes taken, at least 1.
    pub(crate) async fn send_file(
        &self,
        file: BorrowedFd<'_>,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        loop {
            let mut from = position;
            let turn = bytes.min(SENDFILE_TURN_BYTES);
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                rustix::fs::sendfile(self.socket.as_fd(), file, Some(&mut from), turn)
                    .map_err(io::Error::from)
            });
            match sent {
                // The range was checked against the extent: an early end is a file cut from outside.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                result => return result,
            }
        }
    }

    /// Waits until the socket takes more; fails once the peer has taken nothing for 30 s. The socket says that it has room
    /// only when a third of its buffer is free, which takes minutes on a thin line: so it is asked what the peer takes,
    /// and only of those that let half the time pass.
    async fn writable(&self) -> io::Result<()> {
        let mut left = None;
        loop {
            if let Ok(ready) = timeout(WRITE_STALL_MAX / 2, self.socket.writable()).await {
                return ready;
            }
            let now = self.unacknowledged()?;
            if left.replace(now).is_some_and(|before| now >= before) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer takes no bytes",
                ));
            }
        }
    }

    /// Bytes handed to the socket that the peer has not acknowledged (tcp(7), SIOCOUTQ).
    fn unacknowledged(&self) -> io::Result<i32> {
        // SAFETY: the opcode reads nothing and writes one int, which is what `Getter` gives it room for.
        let left = unsafe { ioctl(self.socket.as_fd(), Getter::<OUTQ, i32>::new()) };
        Ok(left?)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    #[tokio::test]
    async fn others_run_after_each_turn_however_many_ranges_it_had() {
        const TURNS: usize = 20;
        let ran = Rc::new(Cell::new(0));
        let other = {
            let ran = ran.clone();
            async move {
                loop {
                    ran.set(ran.get() + 1);
                    yield_now().await;
                }
            }
        };
        let sends = async move {
            let mut turn = Turn::default();
            let before = ran.get();
            for _ in 0..TURNS * 4 {
                turn.took(SENDFILE_TURN_BYTES / 4).await;
            }
            ran.get() - before
        };
        let local = LocalSet::new();
        let others = local.run_until(async {
            let other = spawn_local(other);
            let others = spawn_local(sends).await.expect("it does not panic");
            other.abort();
            others
        });
        assert!((TURNS - 1..=TURNS + 1).contains(&others.await));
    }

    #[tokio::test]
    async fn a_peer_that_takes_little_is_told_from_one_that_takes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let peer = TcpStream::connect(address).await.expect("connects");
        let (socket, _) = listener.accept().await.expect("comes in");
        let stream = Stream::new(socket, address.ip());
        while stream.try_write(&[0; 65536], SendFlags::empty()).is_ok() {}
        let full = stream.unacknowledged().expect("an open socket");
        assert!(full > 0);
        // The window opens again once a part of the peer's own buffer is read; ours is far from a third free then.
        let mut left = full;
        let mut bytes = vec![0; 65536];
        while left == full {
            peer.readable().await.expect("open");
            let read = peer.try_read(&mut bytes);
            assert!(
                read.is_ok_and(|read| read > 0),
                "all was read, and nothing moved"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
            left = stream.unacknowledged().expect("an open socket");
        }
        assert!(left < full);
    }
}
