//! Trying again: exponential backoff with jitter, bounded in time.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Body, BoxBody, BoxFuture, ObjectMeta, ObjectStore, StoreError};

/// How long and how often a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// No new try starts once this much time has gone since the first one. Zero: one try.
    pub total: Duration,
    /// The bound of the first pause; it doubles with each try.
    pub pause_first: Duration,
    /// The bound that pauses do not grow past.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::within(Duration::from_secs(30))
    }
}

impl RetryPolicy {
    /// Tries for this long in all, with the usual pauses (0.1 s doubling to 5 s).
    pub fn within(total: Duration) -> Self {
        Self { total, pause_first: Duration::from_millis(100), pause_max: Duration::from_secs(5) }
    }

    /// The pause after the given number of failed tries: between half of the bound and the bound, so that clients that
    /// failed together do not come back together.
    fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.pause_first.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let bound = doubled.min(self.pause_max);
        let share = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        bound.mul_f64(0.5 + share / 2.0)
    }

    /// Runs `request` until it succeeds, fails for good, or the time is over. The request is told the number of its try, from 1.
    ///
    /// # Errors
    /// The request's own error, within [`StoreError::GaveUp`] if there was more than one try.
    pub async fn run<T, F>(&self, mut request: impl FnMut(u32) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::new(*self);
        loop {
            match request(backoff.attempts + 1).await {
                Ok(value) => return Ok(value),
                Err(error) => backoff.failed(error).await?,
            }
        }
    }
}

/// The tries of one request so far.
#[derive(Debug)]
struct Backoff {
    policy: RetryPolicy,
    attempts: u32,
    started: Instant,
}

impl Backoff {
    fn new(policy: RetryPolicy) -> Self {
        Self { policy, attempts: 0, started: Instant::now() }
    }

    /// Counts a failure and waits before the next try; returns the error when there shall be none.
    async fn failed(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.attempts += 1;
        if !error.is_retryable() {
            return Err(error);
        }
        let pause = self.policy.pause(self.attempts);
        let elapsed = self.started.elapsed();
        if elapsed + pause > self.policy.total {
            if self.attempts == 1 {
                return Err(error);
            }
            let last = Box::new(error);
            return Err(StoreError::GaveUp { attempts: self.attempts, seconds: elapsed.as_secs(), last });
        }
        tracing::warn!(attempt = self.attempts, pause_ms = pause.as_millis() as u64, %error, "the store failed; trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// A store that tries requests again, and continues a download that broke off where it broke off.
///
/// A put is passed on as it is: a stream cannot be read twice. A store that can repeat the parts of an upload does so itself.
pub struct Retrying {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
}

impl Retrying {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

impl ObjectStore for Retrying {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn put_stream<'a>(&'a self, key: &'a str, body: BoxBody) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.inner.put_stream(key, body)
    }

    fn get_range<'a>(
        &'a self,
        key: &'a str,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BoxBody, StoreError>> {
        Box::pin(async move {
            let body = self.policy.run(|_| self.inner.get_range(key, range.clone())).await?;
            let start = range.as_ref().map_or(0, |range| range.start);
            let Some(length) = body.length() else { return Ok(body) };
            Ok(Box::new(Resuming {
                inner: Arc::clone(&self.inner),
                key: key.to_owned(),
                body: Some(body),
                at: start,
                end: start + length,
                length,
                backoff: Backoff::new(self.policy),
            }) as BoxBody)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, StoreError>> {
        Box::pin(self.policy.run(move |_| self.inner.list(prefix)))
    }

    fn list_folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        Box::pin(self.policy.run(move |_| self.inner.list_folders(prefix)))
    }

    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<ObjectMeta, StoreError>> {
        Box::pin(self.policy.run(move |_| self.inner.head(key)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.policy.run(move |_| self.inner.delete(key)))
    }

    fn local_path(&self, key: &str) -> Option<PathBuf> {
        self.inner.local_path(key)
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        self.inner.settle()
    }
}

/// A download that is asked for again, from where it stopped, when it breaks off.
struct Resuming {
    inner: Arc<dyn ObjectStore>,
    key: String,
    body: Option<BoxBody>,
    at: u64,
    end: u64,
    length: u64,
    backoff: Backoff,
}

impl Resuming {
    async fn step(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.at < self.end {
            let body = match &mut self.body {
                Some(body) => body,
                None => match self.inner.get_range(&self.key, Some(self.at..self.end)).await {
                    Ok(body) => self.body.insert(body),
                    Err(error) => {
                        self.backoff.failed(error).await?;
                        continue;
                    }
                },
            };
            let error = match body.next().await {
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    // Bytes came: the time allowed for silence starts anew.
                    self.backoff = Backoff::new(self.backoff.policy);
                    return Ok(Some(bytes));
                }
                Ok(None) => {
                    let (expected, found) = (self.length, self.length - (self.end - self.at));
                    StoreError::Cut { url: self.inner.address(&self.key), expected, found }
                }
                Err(error) => error,
            };
            self.body = None;
            self.backoff.failed(error).await?;
        }
        Ok(None)
    }
}

impl Body for Resuming {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let policy = RetryPolicy::within(Duration::from_secs(60));
        for attempts in 1..40 {
            let pause = policy.pause(attempts);
            let bound = Duration::from_millis(100 * (1 << (attempts - 1).min(10))).min(policy.pause_max);
            assert!(pause >= bound / 2 && pause <= bound, "{attempts}: {pause:?}");
        }
    }
}
