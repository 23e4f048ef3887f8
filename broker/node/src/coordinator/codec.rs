//! Kafka's primitive types, big-endian, as they stand in the keys and values of internal topics.
//!
//! Reading takes nothing on trust: a length is compared with what is left before it is used, a count never allocates.

use thiserror::Error;

/// A key or value that is not what its version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// Fewer bytes than the next field needs, or a negative length.
    #[error("the record is cut, or a length in it is wrong")]
    Cut,
    /// A field that may not be null is, or text is no UTF-8.
    #[error("a text in the record is null or no UTF-8")]
    Text,
    /// A version that this build doesn't know.
    #[error("the record has version {0}, which is not known")]
    Version(i16),
}

/// Reads from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordFault> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(RecordFault::Cut)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordFault> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordFault::Cut)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, RecordFault> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, RecordFault> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, RecordFault> {
        self.array().map(i64::from_be_bytes)
    }

    fn uvarint(&mut self) -> Result<u32, RecordFault> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            let low = u32::from(byte & 0x7f);
            if shift == 28 && low > 0x0f {
                return Err(RecordFault::Cut);
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordFault::Cut)
    }

    /// A length of `None` is Kafka's null.
    fn length(&mut self, flexible: bool, wide: bool) -> Result<Option<usize>, RecordFault> {
        let length = match (flexible, wide) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i32()?),
            (false, false) => i64::from(self.i16()?),
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| RecordFault::Cut),
        }
    }

    pub(crate) fn nullable_string(
        &mut self,
        flexible: bool,
    ) -> Result<Option<String>, RecordFault> {
        let Some(length) = self.length(flexible, false)? else {
            return Ok(None);
        };
        let text = core::str::from_utf8(self.take(length)?).map_err(|_| RecordFault::Text)?;
        Ok(Some(text.to_owned()))
    }

    pub(crate) fn string(&mut self, flexible: bool) -> Result<String, RecordFault> {
        self.nullable_string(flexible)?.ok_or(RecordFault::Text)
    }

    pub(crate) fn bytes(&mut self, flexible: bool) -> Result<&'a [u8], RecordFault> {
        let length = self.length(flexible, true)?.ok_or(RecordFault::Cut)?;
        self.take(length)
    }

    /// How many elements are claimed to follow; the caller reads them one by one.
    pub(crate) fn count(&mut self, flexible: bool) -> Result<usize, RecordFault> {
        self.length(flexible, true)?.ok_or(RecordFault::Cut)
    }

    /// Skips the tagged fields at the end of a flexible structure.
    pub(crate) fn skip_tags(&mut self) -> Result<(), RecordFault> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let length = self.uvarint()?;
            self.take(usize::try_from(length).map_err(|_| RecordFault::Cut)?)?;
        }
        Ok(())
    }
}

/// Writes at the end, in the classic (not flexible) encoding: the only one that is written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_version(version: i16) -> Self {
        Self {
            bytes: version.to_be_bytes().to_vec(),
        }
    }

    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// # Panics
    /// Beyond 32,767 bytes: whatever gets here was bounded at the door by `NAME_BYTES_MAX` or as metadata.
    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        let length = i16::try_from(text.len()).expect("texts are bounded at the door");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn nullable_string(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.string(text),
            None => {
                self.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
                self
            }
        }
    }

    /// # Panics
    /// Beyond 2 GiB: the groups' pool holds 8 MiB.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// # Panics
    /// Beyond `i32::MAX`.
    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.i32(i32::try_from(count).expect("pools hold less than 2 GiB"))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
