//! One suite over every backend.
//!
//! The S3 part needs an endpoint in `CAIRN_TEST_S3_ENDPOINT` (with the usual AWS credentials in the environment, and
//! leave to create a bucket); without one it says aloud that it was skipped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::*;

/// A body of many small chunks, longer or shorter than announced if so asked.
struct Pieces {
    announced: Option<u64>,
    left: u64,
    fails: bool,
    at: u64,
}

impl Body for Pieces {
    fn length(&self) -> Option<u64> {
        self.announced
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async {
            let take = self.left.min(100_000);
            if take == 0 && self.fails {
                return Err(StoreError::Source {
                    url: "test".into(),
                    source: std::io::Error::other("asked to fail"),
                });
            }
            self.left -= take;
            let bytes = pattern(self.at, take);
            self.at += take;
            Ok((take > 0).then_some(bytes))
        })
    }
}

fn pattern(start: u64, length: u64) -> Bytes {
    (start..start + length).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

fn pieces(length: u64) -> BoxBody {
    Box::new(Pieces { announced: Some(length), left: length, fails: false, at: 0 })
}

async fn backends() -> Vec<(&'static str, Arc<dyn ObjectStore>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalStore::new(dir.path().join("a/store")));
    let faulty_dir = tempfile::tempdir().unwrap();
    // Every second call gets no answer; the wrapper must hide that from everything but puts.
    let inner = Arc::new(LocalStore::new(faulty_dir.path().to_owned()));
    let faults = vec![
        Fault::Cut { first: 1, last: u64::MAX, after: 700_000 },
        Fault::Slow { pause: Duration::from_micros(10) },
    ];
    let quick = RetryPolicy { pause_first: Duration::from_millis(1), ..RetryPolicy::default() };
    let bent = Arc::new(Retrying::new(Arc::new(FaultyStore::new(inner, faults)), quick));
    let mut all: Vec<(_, Arc<dyn ObjectStore>, _)> =
        vec![("local", local, Some(dir)), ("faulty", bent, Some(faulty_dir))];
    match std::env::var("CAIRN_TEST_S3_ENDPOINT") {
        Ok(endpoint) => all.push(("s3", s3(&endpoint).await, None)),
        Err(_) => eprintln!("SKIPPED: the S3 half of this test, since CAIRN_TEST_S3_ENDPOINT is not set"),
    }
    all
}

async fn s3(endpoint: &str) -> Arc<dyn ObjectStore> {
    let region = aws_sdk_s3::config::Region::new("us-east-1");
    let behavior = aws_sdk_s3::config::BehaviorVersion::latest();
    let shared = aws_config::defaults(behavior).region(region).endpoint_url(endpoint).load().await;
    let config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(true);
    let client = aws_sdk_s3::Client::from_conf(
        config.retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled()).build(),
    );
    let bucket = format!("suite-{:016x}", getrandom::u64().unwrap());
    client.create_bucket().bucket(&bucket).send().await.unwrap();
    let policy = RetryPolicy::within(Duration::from_secs(5));
    Arc::new(Retrying::new(Arc::new(S3Store::with_client(client, &bucket, "some/prefix", policy)), policy))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_come_back_as_they_went() {
    for (name, store, _guard) in backends().await {
        for length in [0, 1, 700_001, 8 << 20, (8 << 20) + 1, 41_000_123] {
            let key = format!("sizes/{length}");
            assert_eq!(store.put_stream(&key, pieces(length)).await.unwrap(), length, "{name}");
            assert_eq!(store.head(&key).await.unwrap().bytes, length, "{name}");
            let body = store.get_stream(&key).await.unwrap();
            assert_eq!(body.length(), Some(length), "{name}");
            let bytes = read_all(body, "x", u64::MAX).await.unwrap();
            assert!(bytes == pattern(0, length), "{name}: {length} bytes came back changed");
        }
        let part = store.get_range("sizes/700001", Some(690_000..700_001)).await.unwrap();
        assert!(read_all(part, "x", u64::MAX).await.unwrap() == pattern(690_000, 10_001), "{name}");
        let unknown = Pieces { announced: None, left: 33 << 20, fails: false, at: 0 };
        store.put_stream("unknown", Box::new(unknown)).await.unwrap();
        let bytes = store.get_bytes("unknown", u64::MAX).await.unwrap();
        assert!(bytes == pattern(0, 33 << 20), "{name}");
        assert!(matches!(store.get_bytes("unknown", 1000).await, Err(StoreError::TooLarge { .. })), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_only_create() {
    for (name, store, _guard) in backends().await {
        for length in [5, 9 << 20] {
            let key = format!("taken/{length}");
            store.put_stream(&key, pieces(length)).await.unwrap();
            let other = Box::new(BytesBody::new(Bytes::from(vec![0xEE; length as usize])));
            let again = store.put_stream(&key, other).await;
            assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{name}: {again:?}");
            assert!(
                store.get_bytes(&key, u64::MAX).await.unwrap() == pattern(0, length),
                "{name}: it was overwritten"
            );
        }
        let races = (0..8u8).map(|i| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.put_bytes("race", vec![i; 1000]).await.is_ok() })
        });
        let mut won = Vec::new();
        for (i, race) in races.collect::<Vec<_>>().into_iter().enumerate() {
            if race.await.unwrap() {
                won.push(i as u8);
            }
        }
        assert_eq!(won.len(), 1, "{name}: exactly one of eight creates the object");
        assert_eq!(store.get_bytes("race", 1000).await.unwrap(), vec![won[0]; 1000], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_put_leaves_nothing() {
    for (name, store, guard) in backends().await {
        for sent in [10, 20 << 20] {
            for announced in [Some(sent + 1), Some(sent - 1)] {
                let body = Pieces { announced, left: sent, fails: false, at: 0 };
                let failed = store.put_stream("bad", Box::new(body)).await;
                assert!(matches!(failed, Err(StoreError::Length { .. })), "{name}: {failed:?}");
            }
            let body = Pieces { announced: Some(sent * 2), left: sent, fails: true, at: 0 };
            let failed = store.put_stream("bad", Box::new(body)).await;
            assert!(matches!(failed, Err(StoreError::Source { .. })), "{name}: {failed:?}");
            store.settle().await;
            assert!(matches!(store.head("bad").await, Err(StoreError::NotFound { .. })), "{name}");
        }
        if let Some(dir) = guard.filter(|_| name == "local") {
            let temporaries = dir.path().join("a/store/.tmp");
            // The writing task learns of the failure through its closed channel, a moment later.
            for _ in 0..1000 {
                if std::fs::read_dir(&temporaries).unwrap().next().is_none() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(std::fs::read_dir(&temporaries).unwrap().count(), 0, "a temporary file stayed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_deletes() {
    for (name, store, _guard) in backends().await {
        for key in [
            "repository.json",
            "lineage/b/snapshot/2/x",
            "lineage/a/snapshot/1/x",
            "lineage/a/snapshot/1/y",
            "lineages",
        ] {
            store.put_bytes(key, key.as_bytes().to_vec()).await.unwrap();
        }
        let keys = |metas: Vec<ObjectMeta>| metas.into_iter().map(|meta| meta.key).collect::<Vec<_>>();
        assert_eq!(
            keys(store.list("").await.unwrap()),
            [
                "lineage/a/snapshot/1/x",
                "lineage/a/snapshot/1/y",
                "lineage/b/snapshot/2/x",
                "lineages",
                "repository.json"
            ],
            "{name}"
        );
        let below = store.list("lineage/a/").await.unwrap();
        assert!(
            below
                .iter()
                .all(|meta| meta.bytes == meta.key.len() as u64 && meta.modified_unix_ms > 1_700_000_000_000),
            "{name}"
        );
        assert_eq!(keys(below), ["lineage/a/snapshot/1/x", "lineage/a/snapshot/1/y"], "{name}");
        assert_eq!(
            keys(store.list("lineage/a/snapshot/1/x").await.unwrap()),
            ["lineage/a/snapshot/1/x"],
            "{name}"
        );
        assert!(store.list("nothing/").await.unwrap().is_empty(), "{name}");
        assert_eq!(store.list_folders("lineage/").await.unwrap(), ["a", "b"], "{name}");
        assert_eq!(store.list_folders("").await.unwrap(), ["lineage"], "{name}");
        assert!(store.list_folders("nothing/").await.unwrap().is_empty(), "{name}");
        store.delete("lineage/b/snapshot/2/x").await.unwrap();
        store.delete("lineage/b/snapshot/2/x").await.unwrap();
        assert_eq!(store.list_folders("lineage/").await.unwrap(), ["a"], "{name}");
        let gone = store.get_bytes("lineage/b/snapshot/2/x", 10).await;
        assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{name}: {gone:?}");
    }
}

#[tokio::test]
async fn many_objects_are_listed_over_pages() {
    let Ok(endpoint) = std::env::var("CAIRN_TEST_S3_ENDPOINT") else {
        eprintln!("SKIPPED: this test, since CAIRN_TEST_S3_ENDPOINT is not set");
        return;
    };
    let store = s3(&endpoint).await;
    for i in 0..1005 {
        store.put_bytes(&format!("many/{i:04}"), vec![1]).await.unwrap();
    }
    let all = store.list("many/").await.unwrap();
    assert_eq!(all.len(), 1005);
    assert!(all.is_sorted_by_key(|meta| meta.key.clone()));
}

#[tokio::test]
async fn a_missing_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalStore::new(dir.path().join("none")));
    assert!(matches!(store.list("").await, Err(StoreError::NoSuchBucket { .. })));
    assert!(matches!(store.get_bytes("x", 1).await, Err(StoreError::NoSuchBucket { .. })));
    if let Ok(endpoint) = std::env::var("CAIRN_TEST_S3_ENDPOINT") {
        let client = aws_sdk_s3::Client::from_conf(
            aws_sdk_s3::config::Builder::from(
                &aws_config::load_defaults(aws_sdk_s3::config::BehaviorVersion::latest()).await,
            )
            .region(aws_sdk_s3::config::Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .build(),
        );
        let store: Arc<dyn ObjectStore> = Arc::new(S3Store::with_client(
            client,
            "no-such-bucket-at-all",
            "",
            RetryPolicy::within(Duration::ZERO),
        ));
        let listed = store.list("").await;
        assert!(matches!(listed, Err(StoreError::NoSuchBucket { .. })), "{listed:?}");
        let got = store.get_bytes("x", 1).await.map(|bytes| bytes.len());
        assert!(matches!(got, Err(StoreError::NoSuchBucket { .. })), "{got:?}");
        let put = store.put_bytes("x", vec![1]).await;
        assert!(matches!(put, Err(StoreError::NoSuchBucket { .. })), "{put:?}");
    }
}

#[tokio::test]
async fn retries_are_bounded_and_only_for_what_may_pass() {
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalStore::new(dir.path().to_owned()));
    (local.clone() as Arc<dyn ObjectStore>).put_bytes("x", vec![7; 10]).await.unwrap();
    let policy = RetryPolicy {
        total: Duration::from_millis(200),
        pause_first: Duration::from_millis(2),
        pause_max: Duration::from_millis(20),
    };
    let faulty = Arc::new(FaultyStore::new(local.clone(), vec![Fault::Unreachable { first: 1, last: 3 }]));
    let store: Arc<dyn ObjectStore> = Arc::new(Retrying::new(faulty.clone(), policy));
    assert_eq!(store.get_bytes("x", 10).await.unwrap(), vec![7; 10]);
    assert_eq!(faulty.calls(), 4);
    assert!(matches!(store.get_bytes("y", 10).await, Err(StoreError::NotFound { .. })));
    assert_eq!(faulty.calls(), 5, "a missing object is not asked for again");

    let dead = Arc::new(FaultyStore::new(local, vec![Fault::Unreachable { first: 1, last: u64::MAX }]));
    let store = Retrying::new(dead, policy);
    let started = std::time::Instant::now();
    let error = store.head("x").await.unwrap_err();
    assert!(matches!(error, StoreError::GaveUp { attempts: 3.., .. }), "{error:?}");
    assert!(matches!(error.root(), StoreError::Unreachable { .. }));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn faults_show() {
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalStore::new(dir.path().to_owned()));
    let flip = Fault::Flip { key: "x".into(), offset: 3, mask: 1 };
    let store: Arc<dyn ObjectStore> =
        Arc::new(FaultyStore::new(local, vec![flip, Fault::FailPut { key: "bad".into(), after: 10 }]));
    store.put_bytes("x", vec![0; 5]).await.unwrap();
    assert_eq!(store.get_bytes("x", 10).await.unwrap(), vec![0, 0, 0, 1, 0]);
    assert!(store.put_stream("bad", pieces(1_000_000)).await.is_err());
    assert!(matches!(store.head("bad").await, Err(StoreError::NotFound { .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn local_objects_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalStore::new(dir.path().join("r")));
    store.put_bytes("a/b", vec![1]).await.unwrap();
    let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("r"), mode("r/a"), mode("r/a/b")), (0o700, 0o700, 0o600));
}
