//! What a machine wants done: effects in order, and the names by which answers find their way back.

/// Names a reply owed to a connection, or to the broker itself. The shell draws them; machines only carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Effects of one step, in the order in which the shell must perform them. Its memory is kept from step to step.
///
/// A step may answer everything that waits, so the bound is the sum of what may: 32 Ki produce requests of a partition,
/// 8 Ki parked ones and deletions, and a handful for the disk.
#[derive(Debug)]
pub struct Outbox<E> {
    effects: Vec<E>,
}

/// Most effects of one step; more is a bug in the machine.
pub const EFFECTS_MAX: usize = 48 * 1024;

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Outbox<E> {
    /// An empty one, which allocates nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            effects: Vec::new(),
        }
    }

    /// Adds an effect behind those there.
    ///
    /// # Panics
    /// Beyond [`EFFECTS_MAX`]: a machine that has bounded its waiters can't get there.
    pub fn push(&mut self, effect: E) {
        assert!(
            self.effects.len() < EFFECTS_MAX,
            "a step has more effects than may wait"
        );
        self.effects.push(effect);
    }

    /// Takes all effects out, first to last.
    pub fn drain(&mut self) -> impl Iterator<Item = E> + '_ {
        self.effects.drain(..)
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}
