//! A cursor over one frame that believes no length and no count before it has compared it with what is left.
//!
//! It never allocates and never panics; every fault names the field and the byte it was met at.

use thiserror::Error;

use crate::Call;

/// Why bytes are not a request. The connection they came on is of no more use: the caller closes it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} at byte {at}: {fault}")]
pub struct DecodeError {
    /// The field's name in Kafka's schemas.
    pub field: &'static str,
    /// Position in the frame, counted from the API key.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What can be wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The frame ends inside the field.
    #[error("needs {needed} bytes where {left} are left")]
    Truncated {
        /// Bytes the field claims, or at least needs.
        needed: u64,
        /// Bytes behind this point.
        left: usize,
    },
    /// An array claims more elements than the API's cap leaves.
    #[error("claims {claimed} elements where {left} more are allowed in one request")]
    TooMany {
        /// Elements claimed.
        claimed: u64,
        /// Elements still allowed.
        left: u32,
    },
    /// A length below −1.
    #[error("has the negative length {0}")]
    Negative(i64),
    /// Null where the protocol has none.
    #[error("must not be null")]
    Null,
    /// A varint of more than 5 bytes or 32 bits.
    #[error("is a varint longer than 32 bits")]
    Varint,
    /// A string that is not UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// A value the protocol does not define.
    #[error("has the undefined value {0}")]
    Undefined(i64),
    /// The schema's own decoder refused what the walk let pass.
    #[error("refused by its schema: {0}")]
    Schema(String),
}

/// Position in one frame. Cloning it is a way to look ahead.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
    flexible: bool,
    elements_left: u32,
}

impl<'a> Reader<'a> {
    /// Starts behind a request's header, by the rules of its API and version.
    pub(crate) fn of_body(frame: &'a [u8], call: Call, body_at: usize) -> Self {
        let flexible = call.api.flexible(call.version);
        Self::new(frame, body_at, flexible, call.api.elements_max())
    }

    /// Starts at byte `at` of `frame`; `flexible` chooses compact lengths and tags, of which there may be, elements
    /// of arrays included, `elements_max`.
    pub(crate) fn new(frame: &'a [u8], at: usize, flexible: bool, elements_max: u32) -> Self {
        Self {
            frame,
            at: at.min(frame.len()),
            flexible,
            elements_left: elements_max,
        }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn flexible(&self) -> bool {
        self.flexible
    }

    pub(crate) fn fault(&self, field: &'static str, fault: Fault) -> DecodeError {
        DecodeError {
            field,
            at: self.at,
            fault,
        }
    }

    fn left(&self) -> usize {
        self.frame.len() - self.at
    }

    /// The next `len` bytes. The length stays 64 bits wide until it is compared.
    pub(crate) fn take(&mut self, field: &'static str, len: u64) -> Result<&'a [u8], DecodeError> {
        let left = self.left();
        let truncated = Fault::Truncated { needed: len, left };
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let bytes = &self.frame[self.at..self.at + len];
                self.at += len;
                Ok(bytes)
            }
            _ => Err(self.fault(field, truncated)),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(field, N as u64)?;
        Ok(bytes.try_into().expect("`take` gives the length asked for"))
    }

    pub(crate) fn i8(&mut self, field: &'static str) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn uuid(&mut self, field: &'static str) -> Result<[u8; 16], DecodeError> {
        self.array(field)
    }

    pub(crate) fn uvarint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let mut rest = &self.frame[self.at..];
        let value = model::varint::read_u32(&mut rest).map_err(|error| {
            let fault = match error {
                model::varint::VarintError::Truncated => Fault::Truncated {
                    needed: self.left() as u64 + 1,
                    left: self.left(),
                },
                model::varint::VarintError::TooLong => Fault::Varint,
            };
            self.fault(field, fault)
        })?;
        self.at = self.frame.len() - rest.len();
        Ok(value)
    }

    /// A length or count: compact (one more than it is, 0 for null) or of fixed width (−1 for null).
    fn length(
        &mut self,
        field: &'static str,
        fixed: impl FnOnce(&mut Self) -> Result<i64, DecodeError>,
    ) -> Result<Option<u64>, DecodeError> {
        if self.flexible {
            return Ok(u64::from(self.uvarint(field)?).checked_sub(1));
        }
        match fixed(self)? {
            -1 => Ok(None),
            negative if negative < 0 => Err(self.fault(field, Fault::Negative(negative))),
            length => Ok(Some(length as u64)),
        }
    }

    /// A string that may be null, as bytes: not all of them need be looked at as text.
    pub(crate) fn nullable_string_bytes(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.length(field, |reader| reader.i16(field).map(i64::from))? {
            Some(length) => self.take(field, length).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn nullable_string(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a str>, DecodeError> {
        let Some(bytes) = self.nullable_string_bytes(field)? else {
            return Ok(None);
        };
        match core::str::from_utf8(bytes) {
            Ok(string) => Ok(Some(string)),
            Err(_) => Err(self.fault(field, Fault::Utf8)),
        }
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        self.nullable_string(field)?
            .ok_or_else(|| self.fault(field, Fault::Null))
    }

    /// Bytes that may be null, as used for records, metadata and assignments.
    pub(crate) fn nullable_bytes(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.length(field, |reader| reader.i32(field).map(i64::from))? {
            Some(length) => self.take(field, length).map(Some),
            None => Ok(None),
        }
    }

    /// The count of an array whose elements take `element_bytes_min` bytes or more each. It is charged against
    /// the cap and compared with what is left, so that a caller may reserve memory for it.
    pub(crate) fn nullable_count(
        &mut self,
        field: &'static str,
        element_bytes_min: usize,
    ) -> Result<Option<u32>, DecodeError> {
        let Some(count) = self.length(field, |reader| reader.i32(field).map(i64::from))? else {
            return Ok(None);
        };
        let needed = count * element_bytes_min as u64; // at most 2³² times a small constant
        let left = self.left();
        if needed > left as u64 {
            return Err(self.fault(field, Fault::Truncated { needed, left }));
        }
        self.charge(field, count).map(Some)
    }

    /// A count that may not be null.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        element_bytes_min: usize,
    ) -> Result<u32, DecodeError> {
        self.nullable_count(field, element_bytes_min)?
            .ok_or_else(|| self.fault(field, Fault::Null))
    }

    fn charge(&mut self, field: &'static str, count: u64) -> Result<u32, DecodeError> {
        let left = self.elements_left;
        match u32::try_from(count) {
            Ok(count) if count <= left => {
                self.elements_left -= count;
                Ok(count)
            }
            _ => Err(self.fault(
                field,
                Fault::TooMany {
                    claimed: count,
                    left,
                },
            )),
        }
    }

    /// The tagged fields at the end of a structure, none where the version is not flexible. `each` gets a tag and a
    /// reader that ends with the tag's bytes; what it leaves unread is skipped, as is every tag it does not know.
    pub(crate) fn tags(
        &mut self,
        mut each: impl FnMut(u32, &mut Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let count = u64::from(self.uvarint("tagged fields")?);
        let (needed, left) = (count * 2, self.left());
        if needed > left as u64 {
            return Err(self.fault("tagged fields", Fault::Truncated { needed, left }));
        }
        for _ in 0..self.charge("tagged fields", count)? {
            let tag = self.uvarint("tag")?;
            let size = self.uvarint("tag size")?;
            let start = self.at;
            self.take("tagged field", u64::from(size))?;
            let mut inner = Reader {
                frame: &self.frame[..self.at],
                at: start,
                flexible: true,
                elements_left: self.elements_left,
            };
            each(tag, &mut inner)?;
            self.elements_left = inner.elements_left;
        }
        Ok(())
    }

    /// Tagged fields none of which this structure knows.
    pub(crate) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| Ok(()))
    }
}
