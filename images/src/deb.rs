//! Files out of a Debian package (deb(5)): an `ar` archive whose member `data.tar.xz` holds what would be installed.

use std::collections::BTreeMap;
use std::io::{self, Read};

use lzma_rust2::XzReader;

use crate::fault::Fault;

const MAGIC: &[u8] = b"!<arch>\n";
const MEMBER_HEADER_BYTES: usize = 60;
/// A file of a package: the largest kernel has 20 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The regular files that `wanted` takes, by their paths without a leading `./` or `/`.
pub fn files(
    deb: &[u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
    let data = member(deb, "data.tar.xz")
        .ok_or_else(|| Fault::other("no Debian package with a data.tar.xz in it"))?;
    let broken = |error: io::Error| Fault::Other(format!("the package can't be unpacked: {error}"));
    let mut archive = tar::Archive::new(XzReader::new(data, false));
    let mut files = BTreeMap::new();
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?;
        let path = path.to_string_lossy();
        let path = path
            .trim_start_matches("./")
            .trim_start_matches('/')
            .to_owned();
        if entry.header().entry_type().is_file() && wanted(&path) {
            let mut bytes = Vec::new();
            entry
                .take(FILE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(broken)?;
            files.insert(path, bytes);
        }
    }
    Ok(files)
}

/// An XZ stream's content.
pub fn unxz(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    XzReader::new(bytes, false)
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut plain)?;
    Ok(plain)
}

/// A member of an `ar` archive (ar(5)): name 16 bytes, …, size in decimal at 48, `\x60\n` at 58, data padded to even.
fn member<'d>(mut archive: &'d [u8], wanted: &str) -> Option<&'d [u8]> {
    archive = archive.strip_prefix(MAGIC)?;
    while let Some((header, rest)) = archive.split_first_chunk::<MEMBER_HEADER_BYTES>() {
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).ok();
        let bytes: usize = text(48..58)?.trim_end().parse().ok()?;
        let data = rest.get(..bytes)?;
        if text(0..16)?.trim_end().trim_end_matches('/') == wanted {
            return Some(data);
        }
        archive = rest.get(bytes.next_multiple_of(2)..)?;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = MAGIC.to_vec();
        for (name, data) in members {
            archive.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    644,
                    data.len()
                )
                .bytes(),
            );
            archive.extend_from_slice(data);
            archive.resize(archive.len().next_multiple_of(2), b'\n');
        }
        archive
    }

    #[test]
    fn a_member_behind_one_of_odd_length() {
        let archive = archive(&[("debian-binary", b"2.0"), ("data.tar.xz", b"packed")]);
        assert_eq!(member(&archive, "data.tar.xz"), Some(b"packed".as_slice()));
        assert_eq!(member(&archive, "control.tar.xz"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_package(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            prop_assert!(files(&bytes, |_| true).is_err());
            bytes.splice(0..0, archive(&[("debian-binary", b"2.0")]));
            let _ = member(&bytes, "data.tar.xz");
            bytes = archive(&[("data.tar.xz", &bytes)]);
            prop_assert!(files(&bytes, |_| true).is_err());
        }
    }
}
