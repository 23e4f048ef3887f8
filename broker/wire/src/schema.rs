//! The shapes of what kafka-protocol decodes, requests and answers, and the one walk that checks a body against its shape.
//!
//! kafka-protocol reserves memory for as many elements as an array claims, before it reads one: a frame of eleven bytes
//! can ask for 25 GB and end the process. So no body reaches it before this walk has compared every count and every
//! length with the bytes that are left and with the API's cap. The shapes follow Kafka's own schemas
//! (clients/src/main/resources/common/message); a test holds them against kafka-protocol's encoders, all versions.

use crate::reader::{DecodeError, Reader};

pub(crate) mod answers;
pub(crate) mod requests;

/// What a field looks like on the wire.
#[derive(Debug)]
pub(crate) enum Shape {
    /// That many bytes.
    Fixed(u8),
    /// A string, null or not: what may be null is kafka-protocol's to say.
    Text,
    /// Bytes, null or not.
    Blob,
    /// An array of plain values, null or not.
    List(&'static Shape),
    /// An array of structures, null or not. In flexible versions each ends in tags.
    Rows(&'static [Field]),
}

/// A field and the versions that have it, both ends included.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    from: i16,
    to: i16,
    shape: Shape,
}

const ANY: i16 = i16::MAX;
const BOOL: Shape = Shape::Fixed(1);
const I8: Shape = Shape::Fixed(1);
const I16: Shape = Shape::Fixed(2);
const I32: Shape = Shape::Fixed(4);
const I64: Shape = Shape::Fixed(8);
const UUID: Shape = Shape::Fixed(16);
const TEXT: Shape = Shape::Text;
const BLOB: Shape = Shape::Blob;
const INDEXES: Shape = Shape::List(&I32);
const TEXTS: Shape = Shape::List(&TEXT);

const fn all(name: &'static str, shape: Shape) -> Field {
    span(0, ANY, name, shape)
}

const fn since(from: i16, name: &'static str, shape: Shape) -> Field {
    span(from, ANY, name, shape)
}

const fn until(to: i16, name: &'static str, shape: Shape) -> Field {
    span(0, to, name, shape)
}

const fn span(from: i16, to: i16, name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        from,
        to,
        shape,
    }
}

impl Field {
    pub(crate) const fn in_version(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }

    #[cfg(test)]
    pub(crate) const fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// Checks the body of a request or an answer of `version` that `reader` stands before, and leaves it behind the body.
pub(crate) fn walk(
    fields: &'static [Field],
    version: i16,
    reader: &mut Reader<'_>,
) -> Result<(), DecodeError> {
    for field in fields {
        if field.in_version(version) {
            walk_shape(field.name, &field.shape, version, reader)?;
        }
    }
    reader.skip_tags()
}

/// Recursion is as deep as the shapes below, four levels.
fn walk_shape(
    name: &'static str,
    shape: &'static Shape,
    version: i16,
    reader: &mut Reader<'_>,
) -> Result<(), DecodeError> {
    match shape {
        Shape::Fixed(width) => {
            reader.take(name, u64::from(*width))?;
        }
        Shape::Text => {
            reader.nullable_string_bytes(name)?;
        }
        Shape::Blob => {
            reader.nullable_bytes(name)?;
        }
        Shape::List(inner) => {
            let bytes_min = bytes_min(inner, reader.flexible());
            for _ in 0..reader.nullable_count(name, bytes_min)?.unwrap_or(0) {
                walk_shape(name, inner, version, reader)?;
            }
        }
        Shape::Rows(fields) => {
            let flexible = reader.flexible();
            let bytes_min = fields
                .iter()
                .filter(|field| field.in_version(version))
                .map(|field| bytes_min(&field.shape, flexible))
                .sum::<usize>()
                + usize::from(flexible);
            for _ in 0..reader.nullable_count(name, bytes_min)?.unwrap_or(0) {
                walk(fields, version, reader)?;
            }
        }
    }
    Ok(())
}

/// The least bytes a value of this shape takes.
const fn bytes_min(shape: &Shape, flexible: bool) -> usize {
    match shape {
        Shape::Fixed(width) => *width as usize,
        _ if flexible => 1,
        Shape::Text => 2,
        Shape::Blob | Shape::List(_) | Shape::Rows(_) => 4,
    }
}
