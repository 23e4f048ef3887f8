//! A file's pages: what the medium holds, what the device and the page cache hold above it, and what a cut makes of both.

use std::collections::BTreeMap;

use super::Random;
use crate::format::PAGE;

/// Versions of a page that may be found after a cut: the medium's and so many later ones.
const VERSIONS_MAX: usize = 4;
const SECTOR: usize = 512;

pub(super) type Page = Box<[u8; PAGE]>;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) bytes: u64,
    /// The transaction of its last change.
    pub(super) changed: u64,
    pub(super) pages: BTreeMap<u64, Cached>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cached {
    /// `None` reads as zeros.
    pub(super) medium: Option<Page>,
    /// Since the medium's, oldest first; the last is what a read sees.
    pub(super) later: Vec<Page>,
    /// How many of `later` the device has.
    pub(super) handed: usize,
    /// The file system's log knows that the block is written.
    pub(super) written: bool,
    /// It will, with the next commit.
    pub(super) converting: bool,
    /// A failed write-back: clean for the kernel, never written.
    pub(super) lost: bool,
    /// What was there before a zeroing that is not committed.
    pub(super) before: Option<(Option<Page>, bool)>,
}

impl Cached {
    pub(super) fn seen(&self) -> Option<&Page> {
        self.later.last().or(self.medium.as_ref())
    }

    pub(super) fn write(&mut self, page: Page) {
        self.lost = false;
        if self.later.len() == VERSIONS_MAX {
            let forget = usize::from(self.handed == 1);
            self.later.remove(forget);
            self.handed = self
                .handed
                .saturating_sub(usize::from(forget < self.handed));
        }
        self.later.push(page);
    }

    pub(super) fn hand(&mut self) {
        if !self.lost {
            self.handed = self.later.len();
            self.converting |= self.handed > 0;
        }
    }

    pub(super) fn flush(&mut self) {
        if self.handed > 0 {
            self.medium = self.later.drain(..self.handed).next_back();
            self.handed = 0;
        }
    }
}

impl Cached {
    pub(super) fn cut(&mut self, random: &mut Random) {
        if let Some((medium, written)) = self.before.take()
            && random.below(2) == 0
        {
            *self = Self {
                medium,
                written,
                ..Self::default()
            };
            return;
        }
        let later = std::mem::take(&mut self.later);
        let pick = |random: &mut Random| match random.below(later.len() as u64 + 1) as usize {
            0 => None,
            n => Some(&later[n - 1]),
        };
        if !later.is_empty() {
            let mut page = self.medium.take().unwrap_or_else(|| Box::new([0; PAGE]));
            match random.below(4) {
                // Torn: each sector of its own time.
                0 => {
                    for sector in 0..PAGE / SECTOR {
                        let range = sector * SECTOR..(sector + 1) * SECTOR;
                        if let Some(version) = pick(random) {
                            page[range.clone()].copy_from_slice(&version[range]);
                        }
                    }
                }
                // Torn: only the first sector of one version.
                1 => {
                    if let Some(version) = pick(random) {
                        page[..SECTOR].copy_from_slice(&version[..SECTOR]);
                    }
                }
                _ => {
                    if let Some(version) = pick(random) {
                        page = version.clone();
                    }
                }
            }
            self.medium = Some(page);
        }
        self.handed = 0;
        self.lost = false;
        if !self.written {
            // The log's commit comes by itself now and then.
            if random.below(2) == 0 {
                self.medium = None;
            } else {
                self.written = self.medium.is_some();
            }
        }
        self.converting = false;
    }
}

impl Inode {
    pub(super) fn read(&self, bytes: &mut [u8], at: u64) {
        for (number, chunk) in pieces(at, bytes.len()) {
            let (from, to) = (chunk.page_from, chunk.page_from + chunk.len);
            let out = &mut bytes[chunk.from..chunk.from + chunk.len];
            match self.pages.get(&number).and_then(Cached::seen) {
                Some(page) => out.copy_from_slice(&page[from..to]),
                None => out.fill(0),
            }
        }
    }

    pub(super) fn pages_in(&mut self, at: u64, bytes: u64) -> impl Iterator<Item = &mut Cached> {
        let end = at.saturating_add(bytes).div_ceil(PAGE as u64);
        self.pages
            .range_mut(at / PAGE as u64..end)
            .map(|(_, page)| page)
    }
}

pub(super) struct Piece {
    pub(super) from: usize,
    pub(super) page_from: usize,
    pub(super) len: usize,
}

/// Cuts a range at page boundaries.
pub(super) fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, Piece)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let here = at + from as u64;
        let page_from = (here % PAGE as u64) as usize;
        let piece = Piece {
            from,
            page_from,
            len: (PAGE - page_from).min(len - from),
        };
        from += piece.len;
        (piece.len > 0).then_some((here / PAGE as u64, piece))
    })
}
