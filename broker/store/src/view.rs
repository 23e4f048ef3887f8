//! What readers share of a disk.

use std::sync::Arc;

use crate::{Io, SlotLife};

/// The read side of one disk.
#[derive(Debug)]
pub struct View<I: Io> {
    io: Arc<I>,
}

impl<I: Io> View<I> {
    /// Nothing to be read yet.
    pub(crate) fn new(io: Arc<I>) -> Self {
        Self { io }
    }

    /// Whether a reader holds an extent.
    pub(crate) fn pinned(&self, _life: SlotLife) -> bool {
        let _ = &self.io;
        false
    }
}
