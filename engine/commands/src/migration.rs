//! Keys on their way to another server, between MIGRATE and the process that has the sockets.

use std::time::Duration;

/// Where keys are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Destination<'a> {
    /// A name or an address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The database there; what does not exist is for the other server to refuse.
    pub db: i64,
    /// How long a connection, a piece of the request and a reply may each take.
    pub timeout: Duration,
    /// The user, where it is not the default one, and the password.
    pub credentials: Option<(Option<&'a [u8]>, &'a [u8])>,
    /// Whether a key that is there already is replaced.
    pub replace: bool,
}

/// One key with its value, as RESTORE takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parcel<'a> {
    /// The key.
    pub key: &'a [u8],
    /// In how many milliseconds it expires; 0: never.
    pub ttl_ms: i64,
    /// What DUMP returns.
    pub payload: Vec<u8>,
}

/// What became of parcels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delivery {
    /// Of each, whether the other server has said that it has it. Those behind the last one are not known to have arrived.
    pub arrived: Vec<bool>,
    /// The first thing that went wrong.
    pub failure: Option<DeliveryFailure>,
}

impl Delivery {
    /// Nothing has arrived.
    #[must_use]
    pub fn failed(failure: DeliveryFailure) -> Self {
        Self { arrived: Vec::new(), failure: Some(failure) }
    }
}

/// Why something did not arrive; shown as Redis says it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeliveryFailure {
    /// There is no server around this engine.
    #[error("ERR there is no server around this engine")]
    NoProcess,
    /// What is to be sent is not durable here, and may never be.
    #[error("MISCONF the journal could not be written, so what it was to hold is not sent to another server")]
    NotDurable,
    /// No connection.
    #[error("IOERR error or timeout connecting to the client")]
    Connecting,
    /// The other server did not take the request.
    #[error("IOERR error or timeout writing to target instance")]
    Writing,
    /// The other server did not reply, or what it sent is no reply.
    #[error("IOERR error or timeout reading to target instance")]
    Reading,
    /// The other server refused.
    #[error("ERR Target instance replied with error: {0}")]
    Refused(String),
}
