//! S3 and whatever speaks its protocol.
//!
//! Addresses are path-style; endpoint, region and credentials come from the standard AWS environment. The SDK's own
//! retries are off: a put must know whether an earlier try of its own may have arrived, so that the store's answer "exists
//! already" is not taken for somebody else's object. Each put carries a random token in the object's metadata for that.

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region, ResponseChecksumValidation};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::task::{JoinHandle, JoinSet};

use crate::body::Parts;
use crate::{Body, BoxBody, BoxFuture, ObjectMeta, ObjectStore, RetryPolicy, StoreError};

/// The size of a part as long as the object is small enough for that; also the largest object put in one request.
const PART_BYTES: u64 = 8 << 20;
/// The bytes of all parts under way together, while parts have their usual size.
const PARTS_BYTES: u64 = 4 * PART_BYTES;
/// S3 takes 10,000 parts; objects are planned for fewer.
const PARTS_MAX: u64 = 9_000;
/// The part size of an object whose length is not known beforehand: up to 280 GiB.
const PART_BYTES_UNKNOWN: u64 = 32 << 20;
/// The metadata field that tells whose put an object is.
const TOKEN: &str = "cairn-put";

/// A bucket, or a prefix of one, as a store.
pub struct S3Store {
    place: Arc<Place>,
    /// Aborts of uploads that were dropped; [`ObjectStore::settle`] waits for them.
    aborts: Mutex<Vec<JoinHandle<()>>>,
}

/// What each request needs.
struct Place {
    client: Client,
    bucket: String,
    /// Empty, or ending in a slash.
    prefix: String,
    url: String,
    policy: RetryPolicy,
}

impl S3Store {
    /// Configures a client from the environment. Nothing is sent yet.
    pub async fn connect(bucket: &str, prefix: &str, policy: RetryPolicy) -> Self {
        // The metadata service of a cloud machine is not asked for the region: where there is none, that takes seconds.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::new("us-east-1"));
        let shared = aws_config::defaults(BehaviorVersion::latest()).region(region).load().await;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(Duration::from_secs(120))
            .build();
        let config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // The reader of a backup checks every object against its manifest, and can tell damage from a broken connection.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self::with_client(Client::from_conf(config), bucket, prefix, policy)
    }

    /// Uses a client that exists already; it must not retry by itself.
    pub fn with_client(client: Client, bucket: &str, prefix: &str, policy: RetryPolicy) -> Self {
        let url = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let place = Place { client, bucket: bucket.to_owned(), prefix, url, policy };
        Self { place: Arc::new(place), aborts: Mutex::default() }
    }
}

impl Place {
    fn address(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn classify<E>(&self, key: &str, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let url = if key.is_empty() { self.url.clone() } else { self.address(key) };
        let Some(status) = error.raw_response().map(|response| response.status().as_u16()) else {
            return no_answer(url, &error);
        };
        let code =
            error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
        let why = match error.as_service_error().and_then(ProvideErrorMetadata::message) {
            Some(message) => message.to_owned(),
            None => chain(&error),
        };
        match (status, code.as_str()) {
            (_, "NoSuchBucket") => StoreError::NoSuchBucket { url: self.url.clone() },
            (404, _) => StoreError::NotFound { url },
            (412, _) => StoreError::AlreadyExists { url },
            // Somebody else writes the same name at this moment; the next answer says who won.
            (409, "ConditionalRequestConflict" | "OperationAborted") => {
                StoreError::Busy { url, status, code, why }
            }
            (408 | 429 | 500.., _) | (_, "RequestTimeout" | "SlowDown" | "RequestTimeTooSkewed")
                if code != "NotImplemented" =>
            {
                StoreError::Busy { url, status, code, why }
            }
            (401 | 403, _) => {
                let why = if code.is_empty() { format!("status {status}") } else { format!("{code}: {why}") };
                StoreError::AccessDenied { url, why }
            }
            _ => StoreError::Rejected { url, status, code, why },
        }
    }

    /// Whether the object under this name was put by the call that drew `token`.
    async fn is_ours(&self, key: &str, token: &str) -> Result<bool, StoreError> {
        let answer = self.client.head_object().bucket(&self.bucket).key(self.full(key)).send().await;
        match answer.map_err(|error| self.classify(key, error)) {
            Ok(head) => {
                Ok(head.metadata().and_then(|fields| fields.get(TOKEN)).is_some_and(|found| found == token))
            }
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Decides what a failed try of a put means when an earlier try may have arrived without our learning of it.
    async fn settle_try(
        &self,
        key: &str,
        token: &str,
        attempt: u32,
        error: StoreError,
    ) -> Result<(), StoreError> {
        let ambiguous = matches!(error, StoreError::AlreadyExists { .. } | StoreError::NotFound { .. });
        if attempt > 1 && ambiguous && self.is_ours(key, token).await? { Ok(()) } else { Err(error) }
    }

    async fn put_single(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let token = unique(&self.url)?;
        let (token, bytes) = (token.as_str(), &bytes);
        self.policy
            .run(|attempt| async move {
                let request =
                    self.client.put_object().bucket(&self.bucket).key(self.full(key)).if_none_match("*");
                let request = request.metadata(TOKEN, token).body(ByteStream::from(bytes.clone()));
                match request.send().await {
                    Ok(_) => Ok(()),
                    Err(error) => self.settle_try(key, token, attempt, self.classify(key, error)).await,
                }
            })
            .await
    }

    async fn create_upload(&self, key: &str, token: &str) -> Result<String, StoreError> {
        let created = self
            .policy
            .run(|_| async {
                let request = self.client.create_multipart_upload().bucket(&self.bucket).key(self.full(key));
                request.metadata(TOKEN, token).send().await.map_err(|error| self.classify(key, error))
            })
            .await?;
        Ok(created.upload_id().unwrap_or_default().to_owned())
    }

    async fn complete_upload(
        &self,
        key: &str,
        token: &str,
        upload_id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<(), StoreError> {
        let parts = &CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        self.policy
            .run(|attempt| async move {
                let request =
                    self.client.complete_multipart_upload().bucket(&self.bucket).key(self.full(key));
                let request = request.upload_id(upload_id).multipart_upload(parts.clone()).if_none_match("*");
                match request.send().await {
                    Ok(_) => Ok(()),
                    Err(error) => self.settle_try(key, token, attempt, self.classify(key, error)).await,
                }
            })
            .await
    }

    /// Sends the parts, several at a time, and returns them in order.
    async fn send_parts(
        self: &Arc<Self>,
        key: &str,
        upload_id: &str,
        first: Bytes,
        parts: &mut Parts,
        plan: Plan,
    ) -> Result<Vec<CompletedPart>, StoreError> {
        let mut tasks = JoinSet::new();
        let mut completed = Vec::new();
        let mut part = first;
        let mut number = 1;
        loop {
            let last = (part.len() as u64) < plan.part_bytes;
            if !part.is_empty() {
                if tasks.len() >= plan.concurrency {
                    completed.extend(self.joined(key, tasks.join_next().await)?);
                }
                let (this, key, upload_id) = (Arc::clone(self), key.to_owned(), upload_id.to_owned());
                tasks.spawn(async move { this.send_part(&key, &upload_id, number, part).await });
                number += 1;
            }
            if last {
                break;
            }
            part = parts.next().await?;
        }
        while let Some(joined) = self.joined(key, tasks.join_next().await)? {
            completed.push(joined);
        }
        completed.sort_by_key(CompletedPart::part_number);
        Ok(completed)
    }

    fn joined(
        &self,
        key: &str,
        joined: Option<Result<Result<CompletedPart, StoreError>, tokio::task::JoinError>>,
    ) -> Result<Option<CompletedPart>, StoreError> {
        match joined {
            None => Ok(None),
            Some(Ok(Ok(part))) => Ok(Some(part)),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => {
                Err(StoreError::Unreachable { url: self.address(key), why: error.to_string() })
            }
        }
    }

    async fn send_part(
        &self,
        key: &str,
        upload_id: &str,
        number: i32,
        bytes: Bytes,
    ) -> Result<CompletedPart, StoreError> {
        let bytes = &bytes;
        let request = |_| async move {
            let request =
                self.client.upload_part().bucket(&self.bucket).key(self.full(key)).upload_id(upload_id);
            let request = request.part_number(number).body(ByteStream::from(bytes.clone()));
            request.send().await.map_err(|error| self.classify(key, error))
        };
        let sent = self.policy.run(request).await?;
        // Where the SDK sent a checksum with the part, the store wants it again at the end.
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .set_checksum_crc32_c(sent.checksum_crc32_c)
            .set_checksum_crc64_nvme(sent.checksum_crc64_nvme)
            .set_checksum_sha1(sent.checksum_sha1)
            .set_checksum_sha256(sent.checksum_sha256)
            .build())
    }
}

impl S3Store {
    async fn put_parts(
        &self,
        key: &str,
        first: Bytes,
        parts: &mut Parts,
        plan: Plan,
    ) -> Result<(), StoreError> {
        let token = unique(&self.place.url)?;
        let upload_id = self.place.create_upload(key, &token).await?;
        let mut upload =
            Upload { store: self, key: self.place.full(key), upload_id: Some(upload_id.clone()) };
        let completed = self.place.send_parts(key, &upload_id, first, parts, plan).await?;
        self.place.complete_upload(key, &token, &upload_id, completed).await?;
        upload.upload_id = None;
        Ok(())
    }
}

/// How an object is cut into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    part_bytes: u64,
    concurrency: usize,
}

impl Plan {
    /// Parts grow only for objects past 70 GiB, and fewer of them are under way then, so that the memory stays the same
    /// up to 280 GiB.
    fn new(length: Option<u64>) -> Self {
        let part_bytes = match length {
            Some(length) => length.div_ceil(PARTS_MAX).next_multiple_of(1 << 20).max(PART_BYTES),
            None => PART_BYTES_UNKNOWN,
        };
        let concurrency = usize::try_from(PARTS_BYTES / part_bytes).unwrap_or(1).max(1);
        Self { part_bytes, concurrency }
    }
}

/// A multipart upload; dropped before its end, it is aborted at the store, which would keep (and bill) its parts.
struct Upload<'a> {
    store: &'a S3Store,
    key: String,
    upload_id: Option<String>,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let (Some(upload_id), Ok(runtime)) = (self.upload_id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let request =
            self.store.place.client.abort_multipart_upload().bucket(&self.store.place.bucket).key(&self.key);
        let abort = runtime.spawn(async move {
            if let Err(error) = request.upload_id(upload_id).send().await {
                tracing::warn!(error = %DisplayErrorContext(&error), "an unfinished upload could not be aborted");
            }
        });
        self.store.aborts.lock().unwrap_or_else(PoisonError::into_inner).push(abort);
    }
}

impl ObjectStore for S3Store {
    fn url(&self) -> &str {
        &self.place.url
    }

    fn put_stream<'a>(&'a self, key: &'a str, body: BoxBody) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let plan = Plan::new(body.length());
            let part_bytes = usize::try_from(plan.part_bytes).unwrap_or(usize::MAX);
            let mut parts = Parts::new(body, self.address(key), part_bytes);
            let first = parts.next().await?;
            let stored = if first.len() < part_bytes {
                self.place.put_single(key, first).await
            } else {
                self.put_parts(key, first, &mut parts, plan).await
            };
            if let Err(error) = stored {
                self.settle().await;
                return Err(error);
            }
            Ok(parts.total())
        })
    }

    fn get_range<'a>(
        &'a self,
        key: &'a str,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BoxBody, StoreError>> {
        Box::pin(async move {
            let range = range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
            let request = self
                .place
                .client
                .get_object()
                .bucket(&self.place.bucket)
                .key(self.place.full(key))
                .set_range(range);
            let answer = request.send().await.map_err(|error| self.place.classify(key, error))?;
            let length = u64::try_from(answer.content_length().unwrap_or_default()).unwrap_or_default();
            Ok(Box::new(S3Body { url: self.address(key), length, found: 0, stream: answer.body }) as BoxBody)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, StoreError>> {
        Box::pin(async move {
            let request = self
                .place
                .client
                .list_objects_v2()
                .bucket(&self.place.bucket)
                .prefix(self.place.full(prefix));
            let mut pages = request.into_paginator().send();
            let mut found = Vec::new();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| self.place.classify("", error))?;
                found.extend(page.contents().iter().filter_map(|object| {
                    let key = object.key()?.strip_prefix(&self.place.prefix)?.to_owned();
                    let modified =
                        object.last_modified().and_then(|time| time.to_millis().ok()).unwrap_or_default();
                    let bytes = u64::try_from(object.size().unwrap_or_default()).unwrap_or_default();
                    Some(ObjectMeta {
                        key,
                        bytes,
                        modified_unix_ms: u64::try_from(modified).unwrap_or_default(),
                    })
                }));
            }
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
    }

    fn list_folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let full = self.place.full(prefix);
            let request =
                self.place.client.list_objects_v2().bucket(&self.place.bucket).prefix(&full).delimiter("/");
            let mut pages = request.into_paginator().send();
            let mut names = Vec::new();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| self.place.classify("", error))?;
                names.extend(page.common_prefixes().iter().filter_map(|folder| {
                    Some(folder.prefix()?.strip_prefix(&full)?.trim_end_matches('/').to_owned())
                }));
            }
            names.sort();
            Ok(names)
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<ObjectMeta, StoreError>> {
        Box::pin(async move {
            let request =
                self.place.client.head_object().bucket(&self.place.bucket).key(self.place.full(key));
            let head = request.send().await.map_err(|error| self.place.classify(key, error))?;
            let modified = head.last_modified().and_then(|time| time.to_millis().ok()).unwrap_or_default();
            Ok(ObjectMeta {
                key: key.to_owned(),
                bytes: u64::try_from(head.content_length().unwrap_or_default()).unwrap_or_default(),
                modified_unix_ms: u64::try_from(modified).unwrap_or_default(),
            })
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let request =
                self.place.client.delete_object().bucket(&self.place.bucket).key(self.place.full(key));
            match request.send().await.map_err(|error| self.place.classify(key, error)) {
                Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn local_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        let aborts = std::mem::take(&mut *self.aborts.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move {
            for abort in aborts {
                let _ = tokio::time::timeout(Duration::from_secs(5), abort).await;
            }
        })
    }
}

struct S3Body {
    url: String,
    length: u64,
    found: u64,
    stream: ByteStream,
}

impl Body for S3Body {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async {
            loop {
                let url = || self.url.clone();
                match self.stream.next().await {
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(Ok(bytes)) => {
                        self.found += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                    Some(Err(error)) => {
                        return Err(StoreError::Unreachable {
                            url: url(),
                            why: format!("the download broke off: {error}"),
                        });
                    }
                    None if self.found < self.length => {
                        return Err(StoreError::Cut { url: url(), expected: self.length, found: self.found });
                    }
                    None => return Ok(None),
                }
            }
        })
    }
}

/// An error without an answer of the store: the transport, or credentials that could not be found.
fn no_answer<E: Error + 'static>(url: String, error: &SdkError<E, HttpResponse>) -> StoreError {
    let why = chain(error);
    let credentials = match error {
        SdkError::DispatchFailure(failure) => {
            !failure.is_io() && !failure.is_timeout() && why.contains("redential")
        }
        SdkError::ConstructionFailure(_) => true,
        _ => false,
    };
    if credentials { StoreError::AccessDenied { url, why } } else { StoreError::Unreachable { url, why } }
}

/// The causes of an error, each once, from the outermost.
fn chain(error: &dyn Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = inner.source();
    }
    parts.join(": ")
}

fn unique(url: &str) -> Result<String, StoreError> {
    let drawn = getrandom::u64().and_then(|high| Ok((high, getrandom::u64()?)));
    let (high, low) =
        drawn.map_err(|error| StoreError::Unreachable { url: url.to_owned(), why: error.to_string() })?;
    Ok(format!("{high:016x}{low:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_the_protocol_and_the_memory() {
        let usual = Plan { part_bytes: 8 << 20, concurrency: 4 };
        assert_eq!(Plan::new(Some(0)), usual);
        assert_eq!(Plan::new(Some(70 << 30)), usual);
        for length in [1 << 30, 71 << 30, 200 << 30, 5 << 40] {
            let plan = Plan::new(Some(length));
            assert!(length.div_ceil(plan.part_bytes) <= 10_000, "{length}: {plan:?}");
            assert!(
                plan.concurrency == 1 || plan.part_bytes * plan.concurrency as u64 <= 32 << 20,
                "{length}: {plan:?}"
            );
        }
    }
}
