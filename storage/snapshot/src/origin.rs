//! Where a container comes from: a forked child writes it while the program goes on, or the program itself while all
//! stands still.

use std::io;

use cairn_disk::Disk;

use crate::{
    Child, ChildError, ChildLimits, Progress, Source, Summary, WriteParams, fork_writer, write_container,
};

/// Makes containers.
pub trait Origin: Send + Sync {
    /// Begins a container of what `source` holds now: the caller keeps it still until this returns, and not longer.
    ///
    /// # Errors
    /// When the system has no room for what is needed.
    fn begin(
        &self,
        disk: &dyn Disk,
        params: &WriteParams,
        source: &dyn Source,
    ) -> io::Result<Box<dyn InProgress>>;
}

/// A container that is being made. Dropping it before it was waited for ends it.
pub trait InProgress: Send + Sync {
    /// Waits for what comes of it. One that goes beyond the limits is ended.
    ///
    /// # Errors
    /// What came instead. The temporary file may be there then.
    fn wait(&self, limits: ChildLimits, on_progress: &mut dyn FnMut(Progress))
    -> Result<Summary, ChildError>;

    /// Ends it now. Nothing when it has ended.
    fn kill(&self);

    /// How many bytes were copied so far to keep what it holds as it was.
    fn copied_bytes(&self) -> u64;
}

/// A forked child writes: nothing waits but for the fork itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forked;

impl Origin for Forked {
    fn begin(
        &self,
        disk: &dyn Disk,
        params: &WriteParams,
        source: &dyn Source,
    ) -> io::Result<Box<dyn InProgress>> {
        Ok(Box::new(fork_writer(disk, params, source)?))
    }
}

impl InProgress for Child {
    fn wait(
        &self,
        limits: ChildLimits,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Summary, ChildError> {
        self.wait_summary(limits, on_progress)
    }

    fn kill(&self) {
        Child::kill(self);
    }

    fn copied_bytes(&self) -> u64 {
        Child::copied_bytes(self)
    }
}

/// The program writes itself, before anything else goes on: where there can be no other process, or must not be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unforked;

/// What came of it: known from the beginning.
struct Written(Result<Summary, String>);

impl Origin for Unforked {
    fn begin(
        &self,
        disk: &dyn Disk,
        params: &WriteParams,
        source: &dyn Source,
    ) -> io::Result<Box<dyn InProgress>> {
        let written = write_container(disk, params, source, &|_| {});
        Ok(Box::new(Written(written.map_err(|error| error.to_string()))))
    }
}

impl InProgress for Written {
    fn wait(&self, _: ChildLimits, _: &mut dyn FnMut(Progress)) -> Result<Summary, ChildError> {
        self.0.clone().map_err(|message| ChildError::Reported { message })
    }

    fn kill(&self) {}

    fn copied_bytes(&self) -> u64 {
        0
    }
}
