//! Ctrl-C and SIGTERM as a flag, for commands that have something to finish. A second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::Failure;

/// See the module.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals over, for the rest of the process.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        let watch = || -> io::Result<()> {
            for signal in [SIGINT, SIGTERM] {
                // In this order: the first signal finds the flag down and only raises it.
                flag::register_conditional_default(signal, Arc::clone(&asked))?;
                flag::register(signal, Arc::clone(&asked))?;
            }
            Ok(())
        };
        watch().map_err(|error| Failure::Local {
            what: "watching for Ctrl-C".to_owned(),
            error,
        })?;
        Ok(Self(asked))
    }

    /// Whether the user wants us to end.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
