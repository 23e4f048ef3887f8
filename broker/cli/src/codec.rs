//! The codecs as the command line names them.

use clap::ValueEnum;
use model::batch::Codec;

/// How batches are packed; the work is `model::codec`'s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    /// As they are
    #[default]
    None,
    /// RFC 1952
    Gzip,
    /// Fast and light
    Snappy,
    /// Fast and light, frames
    Lz4,
    /// Smallest for its time
    Zstd,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::None => Self::None,
            CodecName::Gzip => Self::Gzip,
            CodecName::Snappy => Self::Snappy,
            CodecName::Lz4 => Self::Lz4,
            CodecName::Zstd => Self::Zstd,
        }
    }
}
