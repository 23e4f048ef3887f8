//! The extent's row: one for each slot of a disk, 64 B, in memory and in every checkpoint.
//!
//! ```text
//!  0 state u8 (0 FREE, 1 OPEN, 2 SEALED, 3 FREEING) · 1 class u8 (0 1 MiB, 1 8 MiB, 2 64 MiB)
//!  2 flags u16 (1 TXN, 2 ABORTS, 4 COMPACTED, as in the footer) · 4 gen u32 · 8 part_ix u32 · 12 used u32 (file position
//!    behind the last batch) · 16 base i64 · 24 last i64 (base − 1: empty) · 32 max_ts i64 · 40 appended_at i64 (trusted
//!    time of the last append; 0: appended while unsynced) · 48 first epoch i32 · 52 last epoch i32 · 56 txn_lag u32 (0)
//! 60 crc u32 over [0, 60)
//! ```

use model::window::PartIx;
use model::{LeaderEpoch, Offset, WallMs};

use super::extent::Class;
use super::{Fault, Le, check_crc, put};

/// Bytes of a row.
pub const ROW_BYTES: usize = 64;
const WHAT: &str = "extent row";

/// What a slot is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing of it is needed; its file, if there is one, reads as zeros.
    #[default]
    Free,
    /// Takes its partition's appends.
    Open,
    /// Complete: its tail is written, or will be before the next checkpoint.
    Sealed,
    /// Let go, to be zeroed before its next life. A compactor's unfinished extent is written down as one.
    Freeing,
}

/// See the module. Offsets and times mean nothing in a free row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// See [`SlotState`].
    pub state: SlotState,
    /// How long its file is.
    pub class: Class,
    /// As in the footer.
    pub flags: u16,
    /// Counts the slot's lives: a record of an earlier one is not of this one.
    pub generation: u32,
    /// Whose batches.
    pub part: PartIx,
    /// File position behind the last batch; 4096 when empty.
    pub used: u32,
    /// First offset it may hold.
    pub base: Offset,
    /// Last offset in it; base − 1 when empty.
    pub last: Offset,
    /// Latest record time; −1 when empty.
    pub max_ts: WallMs,
    /// Trusted time of the last append; 0 while none was trusted.
    pub appended_at: WallMs,
    /// Epoch of the first batch.
    pub first_epoch: LeaderEpoch,
    /// Epoch of the last batch.
    pub last_epoch: LeaderEpoch,
    /// last + 1 − first offset of a transaction open at the end; 0: none.
    pub txn_lag: u32,
}

impl Row {
    /// A free slot of a class, in its `generation`th life to come.
    #[must_use]
    pub const fn free(class: Class, generation: u32) -> Self {
        Self {
            state: SlotState::Free,
            class,
            flags: 0,
            generation,
            part: PartIx(0),
            used: 0,
            base: Offset(0),
            last: Offset(-1),
            max_ts: WallMs(-1),
            appended_at: WallMs(0),
            first_epoch: LeaderEpoch::NONE,
            last_epoch: LeaderEpoch::NONE,
            txn_lag: 0,
        }
    }

    /// Whether a log holds it.
    #[must_use]
    pub const fn in_use(&self) -> bool {
        matches!(self.state, SlotState::Open | SlotState::Sealed)
    }

    /// Appends the 64 bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut row = [0; ROW_BYTES];
        row[0] = self.state as u8;
        row[1] = self.class as u8;
        put(&mut row, 2, &self.flags.to_le_bytes());
        put(&mut row, 4, &self.generation.to_le_bytes());
        put(&mut row, 8, &self.part.0.to_le_bytes());
        put(&mut row, 12, &self.used.to_le_bytes());
        put(&mut row, 16, &self.base.0.to_le_bytes());
        put(&mut row, 24, &self.last.0.to_le_bytes());
        put(&mut row, 32, &self.max_ts.0.to_le_bytes());
        put(&mut row, 40, &self.appended_at.0.to_le_bytes());
        put(&mut row, 48, &self.first_epoch.0.to_le_bytes());
        put(&mut row, 52, &self.last_epoch.0.to_le_bytes());
        put(&mut row, 56, &self.txn_lag.to_le_bytes());
        let crc = crc32c::crc32c(&row[..60]);
        put(&mut row, 60, &crc.to_le_bytes());
        out.extend_from_slice(&row);
    }

    /// Reads a row; its position behind the last batch lies within its class.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..ROW_BYTES).ok_or(Fault::Short {
            what: WHAT,
            have: bytes.len(),
            need: ROW_BYTES,
        })?;
        check_crc(WHAT, bytes.u32_at(60), crc32c::crc32c(&bytes[..60]))?;
        let field = |field, value: u64| Fault::Field {
            what: WHAT,
            field,
            value,
        };
        let state = match bytes[0] {
            0 => SlotState::Free,
            1 => SlotState::Open,
            2 => SlotState::Sealed,
            3 => SlotState::Freeing,
            other => return Err(field("state", other.into())),
        };
        let class = Class::from_u8(bytes[1]).ok_or(field("class", bytes[1].into()))?;
        let used = bytes.u32_at(12);
        if u64::from(used) > class.bytes() {
            return Err(field("used", used.into()));
        }
        Ok(Self {
            state,
            class,
            flags: bytes.u16_at(2),
            generation: bytes.u32_at(4),
            part: PartIx(bytes.u32_at(8)),
            used,
            base: Offset(bytes.i64_at(16)),
            last: Offset(bytes.i64_at(24)),
            max_ts: WallMs(bytes.i64_at(32)),
            appended_at: WallMs(bytes.i64_at(40)),
            first_epoch: LeaderEpoch(bytes.i32_at(48)),
            last_epoch: LeaderEpoch(bytes.i32_at(52)),
            txn_lag: bytes.u32_at(56),
        })
    }
}
