//! A bound on the bytes a second that all uploads together take.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_store::{Body, BoxBody, BoxFuture, StoreError};

/// Bytes a second; shared by all uploads.
#[derive(Debug, Clone)]
pub struct RateLimit(Arc<Limit>);

#[derive(Debug)]
struct Limit {
    bytes_per_second: u64,
    /// When what was let through so far is paid for.
    paid_at: Mutex<Instant>,
}

impl RateLimit {
    /// A limit of so many bytes a second, at least 1.
    pub fn new(bytes_per_second: u64) -> Self {
        let paid_at = Mutex::new(Instant::now());
        Self(Arc::new(Limit { bytes_per_second: bytes_per_second.max(1), paid_at }))
    }

    /// Bounds a body.
    pub(crate) fn bound(&self, body: BoxBody) -> BoxBody {
        Box::new(Bounded { limit: self.clone(), body })
    }

    /// How long these bytes have to wait until those before them are paid for. What was not used in the past is not saved up.
    fn take(&self, bytes: u64) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.0.bytes_per_second as f64);
        let now = Instant::now();
        let mut paid_at = self.0.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*paid_at).max(now);
        *paid_at = begin + cost;
        begin - now
    }
}

struct Bounded {
    limit: RateLimit,
    body: BoxBody,
}

impl Body for Bounded {
    fn length(&self) -> Option<u64> {
        self.body.length()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async {
            let next = self.body.next().await?;
            if let Some(bytes) = &next {
                tokio::time::sleep(self.limit.take(bytes.len() as u64)).await;
            }
            Ok(next)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::BytesBody;

    #[tokio::test]
    async fn bodies_share_the_limit() {
        let limit = RateLimit::new(100_000);
        let began = Instant::now();
        for _ in 0..3 {
            let mut body = limit.bound(Box::new(BytesBody::new(Bytes::from(vec![1; 10_000]))));
            assert_eq!(body.length(), Some(10_000));
            while body.next().await.unwrap().is_some() {}
        }
        // The first passes at once and makes those behind it wait.
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    }
}
