//! Puts an answer's bytes one behind the other, in the compact or the old form of lengths.
//!
//! Its callers write what the broker made itself, so lengths that the protocol can't carry are bugs and asserted.

use bytes::{BufMut, Bytes, BytesMut};

/// An answer under construction. The first four bytes are the frame's size, filled at the end.
#[derive(Debug)]
pub(crate) struct Writer {
    out: BytesMut,
    flexible: bool,
}

/// Bytes of the size in front of every frame.
pub(crate) const SIZE_BYTES: usize = 4;

impl Writer {
    /// Starts an answer to `call`: room for the size, then the response header.
    pub(crate) fn answer(call: crate::Call, capacity: usize) -> Self {
        let mut writer = Self {
            out: BytesMut::with_capacity(capacity),
            flexible: call.api.flexible(call.version),
        };
        writer.i32(0);
        writer.i32(call.correlation_id);
        if call.api.response_header_tags(call.version) {
            writer.uvarint(0);
        }
        writer
    }

    /// Ends the answer: `elsewhere` bytes of it lie in files. Gives the bytes, size first.
    ///
    /// # Panics
    /// If the frame exceeds 2 GiB: an answer is bounded long before.
    pub(crate) fn finish(mut self, elsewhere: u64) -> Bytes {
        let size = (self.out.len() - SIZE_BYTES) as u64 + elsewhere;
        let size = i32::try_from(size).expect("an answer is far below 2 GiB");
        self.out[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
        self.out.freeze()
    }

    /// Position behind the last byte written.
    pub(crate) fn at(&self) -> usize {
        self.out.len()
    }

    /// The buffer, for an encoder that writes a body by itself.
    pub(crate) fn body(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.out.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    pub(crate) fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    /// The count of an array, or the length of bytes; `None` for null.
    pub(crate) fn length(&mut self, length: Option<usize>) {
        let length =
            length.map(|length| i32::try_from(length).expect("an answer is far below 2 GiB"));
        if self.flexible {
            self.uvarint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.i32(length.unwrap_or(-1));
        }
    }

    pub(crate) fn nullable_string(&mut self, string: Option<&str>) {
        let Some(string) = string else {
            if self.flexible {
                self.uvarint(0);
            } else {
                self.i16(-1);
            }
            return;
        };
        if self.flexible {
            self.length(Some(string.len()));
        } else {
            self.i16(i16::try_from(string.len()).expect("names and messages are below 32 KiB"));
        }
        self.out.put_slice(string.as_bytes());
    }

    pub(crate) fn string(&mut self, string: &str) {
        self.nullable_string(Some(string));
    }

    /// The empty list of tags that ends a structure of a flexible version.
    pub(crate) fn no_tags(&mut self) {
        if self.flexible {
            self.uvarint(0);
        }
    }

    /// One tagged field; its size is measured by writing it.
    pub(crate) fn tag(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self {
            out: BytesMut::new(),
            flexible: true,
        };
        write(&mut inner);
        self.uvarint(tag);
        self.uvarint(u32::try_from(inner.out.len()).expect("a tag of ours is small"));
        self.out.put_slice(&inner.out);
    }
}
