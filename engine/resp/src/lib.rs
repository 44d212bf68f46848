//! The wire codec: RESP2 and RESP3, as bytes.
//!
//! [`Parser`] turns a client's bytes into requests, [`Reply`] writes the answers, [`decode`] reads answers back for
//! our own tools and for tests.
//!
//! Invariants:
//! - What is parsed does not depend on how the bytes were split into reads, errors included.
//! - A request that arrives in pieces is never scanned twice: a half-received value costs O(1) per further read.
//! - Nothing is allocated on account of a length a client merely announced.
//! - No input panics.
//!
//! This crate must never know: sockets, tokio, commands and what they mean, configuration.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

mod decode;
mod inline;
mod number;
mod parser;
mod reply;

pub use decode::{DecodeError, Value, decode};
pub use inline::{UnbalancedQuotes, split_args};
pub use number::{format_double, parse_integer, push_integer};
pub use parser::{Args, Limits, Parsed, Parser, ProtocolError, Slices};
pub use reply::{Deferred, Protocol, Reply, push_command};
