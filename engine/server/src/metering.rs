//! How long requests take: for the slow log, LATENCY and INFO.
//!
//! A clock reading for each request would cost as much as a tenth of a GET. But each request that runs reads the clock
//! anyway, so one lasts until the next of its batch begins, and only the last needs a reading of its own.

use crate::ahead::Request;
use crate::clients::Client;
use crate::server::Server;
use cairn_engine::Engine;
use cairn_engine::observed::Asker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Times the requests of a window.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    client: &'a Client,
    requests: &'a [Request],
    input: &'a [u8],
    running: Option<Running>,
}

struct Running {
    /// Which request of the window.
    at: usize,
    start_us: i64,
    failed: bool,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(
        server: &'a Server,
        client: &'a Client,
        requests: &'a [Request],
        input: &'a [u8],
    ) -> Meter<'a> {
        Meter { server, client, requests, input, running: None }
    }

    /// A request has just run on this thread, or was queued or refused: its reply is an error if it `failed`.
    #[inline]
    pub(crate) fn ran(&mut self, at: usize, failed: bool) {
        match Engine::last_start_us() {
            Some(start_us) => {
                self.end_at(start_us);
                self.running = Some(Running { at, start_us, failed });
            }
            None if failed => self.rejected(at),
            None => {}
        }
    }

    /// A request has just run on this thread and waits: how long it took, for [`Meter::took`] when it has its reply.
    pub(crate) fn waits(&mut self) -> Duration {
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let Some(start_us) = Engine::last_start_us() else { return Duration::ZERO };
        self.end_at(start_us);
        let took_us = i64::try_from(now_us).unwrap_or(i64::MAX).saturating_sub(start_us);
        Duration::from_micros(took_us.max(0).unsigned_abs())
    }

    /// Nothing runs from now on until the next request: others have their turn, or the window is done.
    #[inline]
    pub(crate) fn stop(&mut self) {
        if self.running.is_some() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.end_at(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        }
    }

    /// A request took so long, elsewhere.
    pub(crate) fn took(&self, at: usize, duration: Duration, failed: bool) {
        self.note(at, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), failed);
    }

    #[inline]
    fn end_at(&mut self, end_us: i64) {
        let Some(running) = self.running.take() else { return };
        // The clock may have been set back meanwhile.
        let duration_us = end_us.saturating_sub(running.start_us).max(0).unsigned_abs();
        self.note(running.at, duration_us, running.failed);
    }

    #[inline]
    fn note(&self, at: usize, duration_us: u64, failed: bool) {
        let Some(command) = self.requests[at].route.command() else { return };
        self.server.engine.observed().note(command, duration_us, failed, |note| {
            let request = &self.requests[at];
            let args = request.args.slices(self.input.get(request.start..).unwrap_or_default());
            note(&args, &Asker { address: &self.client.address, name: &self.client.name() });
        });
    }

    #[cold]
    fn rejected(&self, at: usize) {
        if let Some(command) = self.requests[at].route.command() {
            self.server.engine.observed().usage.note_rejected(command.number());
        }
    }
}
