//! What a long job tells of its progress.

/// The parts of a job that take time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Checking the files of a data directory before they are copied.
    Check,
    /// Copying into the repository.
    Upload,
    /// Copying out of the repository.
    Download,
    /// Checking what was copied.
    Verify,
    /// Reading what another program wrote.
    Import,
    /// Writing what another program reads.
    Export,
    /// Bringing files under another master key; the bytes are those of their headers.
    Rewrap,
}

impl Phase {
    /// Its name in messages and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Verify => "verify",
            Self::Import => "import",
            Self::Export => "export",
            Self::Rewrap => "rewrap",
        }
    }

    /// What is counted in it.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Export => "keys",
            _ => "bytes",
        }
    }
}

/// Listens to the progress of a job, from any thread.
pub trait Progress: Send + Sync {
    /// A phase begins, in which so many bytes (or what its unit is) will pass.
    fn begin(&self, phase: Phase, bytes_total: u64);
    /// So many more have passed.
    fn advance(&self, bytes: u64);
    /// The phase is over.
    fn end(&self);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _phase: Phase, _bytes_total: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}
