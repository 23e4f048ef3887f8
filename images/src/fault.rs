//! Why an image is not made, changed or written, in words for the person who asked.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use site::Diagnostic;
use thiserror::Error;

/// What went wrong. The exit status tells them apart, as that of `howdah` does.
#[derive(Debug, Error)]
pub enum Fault {
    /// The site file, with everything that is wrong in it.
    #[error("{}", lines(.0))]
    Site(Vec<Diagnostic>),
    /// Wrong usage.
    #[error("{0}")]
    Usage(String),
    /// Refused, to protect what is there.
    #[error("{0}")]
    Refused(String),
    /// Anything else: a file, a package, a command.
    #[error("{0}")]
    Other(String),
}

fn lines(faults: &[Diagnostic]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl Fault {
    /// 1 a fault, 2 wrong usage or site, 3 refused.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Other(_) => 1,
            Self::Site(_) | Self::Usage(_) => 2,
            Self::Refused(_) => 3,
        })
    }

    /// A fault without a kind of its own.
    pub fn other(message: impl Display) -> Self {
        Self::Other(message.to_string())
    }
}

/// Names the file of an error.
pub(crate) trait At<T> {
    /// `doing`: "read", "write" and the like.
    fn at(self, doing: &str, path: &Path) -> Result<T, Fault>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &str, path: &Path) -> Result<T, Fault> {
        self.map_err(|error| Fault::Other(format!("can't {doing} {}: {error}", path.display())))
    }
}
