//! What a command can answer instead of doing its work.

use std::borrow::Cow;

/// A handler's result; the reply, when there was no error, is already written.
pub type CommandResult = Result<(), CommandError>;

/// Why a command did nothing. Display is the error as the client sees it, in Redis's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// An option that is not there, or options that exclude each other.
    #[error("ERR syntax error")]
    Syntax,
    /// Not an integer of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// Not a floating point number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A change that does not fit 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// A key that had to be there.
    #[error("ERR no such key")]
    NoSuchKey,
    /// An index outside the value.
    #[error("ERR index out of range")]
    IndexOutOfRange,
    /// An expiry that is not positive or does not fit.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// The wrong number of arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongArity(Cow<'static, str>),
    /// More memory is in use than may be.
    #[error("OOM command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory,
    /// A database that is not there.
    #[error("ERR DB index is out of range")]
    NoSuchDatabase,
    /// Anything said only once; begins with its code (`ERR …`).
    #[error("{0}")]
    Other(Cow<'static, str>),
}

impl CommandError {
    /// An error said only in one place; `text` begins with its code.
    pub fn other(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Other(text.into())
    }
}
