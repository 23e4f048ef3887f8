//! A unified kernel image: systemd's stub with kernel, initrd and command line as further sections of its PE file.
//!
//! ```text
//!  PE file:  0x3c offset of "PE\0\0" u32 · there: 4 COFF header, 20 bytes · 24 optional header · section table
//!  COFF:     2 sections u16 · 8 symbol table u32 · 12 symbols u32 · 16 optional header's bytes u16
//!  optional: 8 initialized data u32 · 32 section alignment u32 · 36 file alignment u32 · 56 image bytes u32
//!           60 header bytes u32 · 64 checksum u32
//!  section:  name 8 · 8 memory bytes u32 · 12 address u32 · 16 file bytes u32 · 20 file offset u32 · 24 zero · 36 flags u32
//! ```
//! (PE Format, Microsoft; the sections' meaning: systemd-stub(7).) objcopy does the same, but writes the time of day.

use crate::fault::Fault;

const SECTION_BYTES: usize = 40;
/// IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ.
const DATA_READ: u32 = 0x4000_0040;

/// The stub with these sections behind its own, in the order given.
pub fn append(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, Fault> {
    appended(stub, sections)
        .ok_or_else(|| Fault::other("the stub is no PE file, or has no room for further sections"))
}

fn appended(stub: &[u8], sections: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let coff = usize::try_from(word(stub, 0x3c)?).ok()?;
    if stub.get(coff..coff.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let optional = coff + 24;
    let half = |at: usize| {
        Some(usize::from(u16::from_le_bytes([
            *stub.get(at)?,
            *stub.get(at + 1)?,
        ])))
    };
    let (count, table) = (half(coff + 6)?, optional + half(coff + 20)?);
    let (in_memory, in_file) = (word(stub, optional + 32)?, word(stub, optional + 36)?);
    let headers = usize::try_from(word(stub, optional + 60)?).ok()?;
    let mut entry = table + count * SECTION_BYTES;
    // The table may not grow over the first section.
    if entry + sections.len() * SECTION_BYTES > headers
        || !in_memory.is_power_of_two()
        || !in_file.is_power_of_two()
    {
        return None;
    }
    // Behind the last section's bytes lie symbols for a debugger; they go.
    let ends = (0..count).map(|index| {
        let at = table + index * SECTION_BYTES;
        word(stub, at + 20)?.checked_add(word(stub, at + 16)?)
    });
    let end = ends.collect::<Option<Vec<u32>>>()?.into_iter().max()?;
    // What is changed below lies in the headers, and those lie before any section's bytes.
    let end = usize::try_from(end).ok()?;
    if headers > end || optional + 68 > headers {
        return None;
    }
    let mut image = stub.get(..end)?.to_vec();
    put(&mut image, coff + 12, 0);
    put(&mut image, coff + 16, 0);

    let mut address = word(stub, optional + 56)?;
    let mut data = word(stub, optional + 8)?;
    for (name, bytes) in sections {
        let length = u32::try_from(bytes.len()).ok()?;
        let file_bytes = length.checked_next_multiple_of(in_file)?;
        address = address.checked_next_multiple_of(in_memory)?;
        image.resize(
            image.len().next_multiple_of(usize::try_from(in_file).ok()?),
            0,
        );
        let offset = u32::try_from(image.len()).ok()?;
        let header = image.get_mut(entry..entry + SECTION_BYTES)?;
        header.fill(0);
        header
            .get_mut(..name.len().min(8))?
            .copy_from_slice(name.as_bytes().get(..name.len().min(8))?);
        for (at, value) in [
            (8, length),
            (12, address),
            (16, file_bytes),
            (20, offset),
            (36, DATA_READ),
        ] {
            put(header, at, value);
        }
        image.extend_from_slice(bytes);
        image.resize(image.len() + usize::try_from(file_bytes - length).ok()?, 0);
        entry += SECTION_BYTES;
        address = address.checked_add(length)?;
        data = data.checked_add(file_bytes)?;
    }
    let count = u16::try_from(count + sections.len()).ok()?;
    image[coff + 6..coff + 8].copy_from_slice(&count.to_le_bytes());
    put(&mut image, optional + 8, data);
    put(
        &mut image,
        optional + 56,
        address.checked_next_multiple_of(in_memory)?,
    );
    // Firmware does not look at the checksum; whoever signs the image writes one.
    put(&mut image, optional + 64, 0);
    Some(image)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A PE file with one section of 512 bytes at 0x1000 and room for five more, and symbols behind it.
    fn stub() -> Vec<u8> {
        let mut stub = vec![0; 1024];
        put(&mut stub, 0x3c, 0x80);
        stub[0x80..0x84].copy_from_slice(b"PE\0\0");
        stub[0x86] = 1;
        stub[0x94] = 240;
        put(&mut stub, 0x80 + 12, 1024);
        let optional = 0x98;
        for (at, value) in [(32, 4096), (36, 512), (56, 0x2000), (60, 608), (64, 77)] {
            put(&mut stub, optional + at, value);
        }
        let table = optional + 240;
        for (at, value) in [(8, 500), (12, 0x1000), (16, 416), (20, 608)] {
            put(&mut stub, table + at, value);
        }
        stub.extend_from_slice(b"symbols");
        stub
    }

    #[test]
    fn sections_follow_each_other_in_file_and_memory() {
        let image = append(&stub(), &[(".cmdline", b"quiet"), (".linux", &[7; 5000])]).unwrap();
        assert_eq!(image[0x86], 3);
        assert!(!image.windows(7).any(|bytes| bytes == b"symbols"));
        let table = 0x98 + 240 + 40;
        let numbers =
            |entry: usize| [8, 12, 16, 20].map(|at| word(&image, table + entry * 40 + at).unwrap());
        assert_eq!(&image[table..table + 8], b".cmdline");
        assert_eq!(numbers(0), [5, 0x2000, 512, 1024]);
        assert_eq!(numbers(1), [5000, 0x3000, 5120, 1536]);
        assert_eq!(&image[1024..1029], b"quiet");
        assert_eq!(word(&image, 0x98 + 56), Some(0x5000));
        assert_eq!(word(&image, 0x98 + 64), Some(0));
        assert_eq!(image.len(), 1536 + 5120);
    }

    #[test]
    fn a_table_without_room_is_refused() {
        let one: (&str, &[u8]) = (".a", b"x");
        assert!(append(&stub(), &[one; 4]).is_ok());
        assert!(append(&stub(), &[one; 5]).is_err());
    }

    #[test]
    fn headers_that_lie_behind_the_sections_are_refused() {
        let mut stub = stub();
        let table = 0x98 + 240;
        put(&mut stub, table + 16, 0);
        put(&mut stub, table + 20, 0x10);
        assert!(append(&stub, &[(".linux", b"x")]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..1000, value: [u8; 4]) {
            let _ = append(&bytes, &[(".linux", b"x")]);
            let mut near = stub();
            near[at..at + 4].copy_from_slice(&value);
            let _ = append(&near, &[(".linux", b"x")]);
        }
    }
}
