//! The addresses of repositories.

use std::path::PathBuf;

use crate::StoreError;

/// A parsed repository address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory of this machine, absolute.
    Local(PathBuf),
    /// A bucket, and the prefix within it, without slashes at its ends.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// The prefix; empty for the whole bucket.
        prefix: String,
    },
}

impl Location {
    /// Reads `file:///path` and `s3://bucket/prefix`.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`] with what is wrong.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let bad = |why| Err(StoreError::BadUrl { url: url.to_owned(), why });
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return bad("a local path must be absolute");
            }
            if path.split('/').any(|part| part == "..") {
                return bad("a local path must not contain `..`");
            }
            return Ok(Self::Local(PathBuf::from(path)));
        }
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return bad("the bucket's name is missing");
            }
            let prefix = prefix.trim_matches('/');
            if prefix.split('/').any(|part| part == "." || part == "..") {
                return bad("a prefix must not contain `.` or `..`");
            }
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        bad("its scheme is unknown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Location::parse("file:///var/b").unwrap(), Location::Local("/var/b".into()));
        assert_eq!(
            Location::parse("s3://cairn/a/b/").unwrap(),
            Location::S3 { bucket: "cairn".into(), prefix: "a/b".into() }
        );
        assert_eq!(
            Location::parse("s3://cairn").unwrap(),
            Location::S3 { bucket: "cairn".into(), prefix: String::new() }
        );
        for bad in [
            "file://x",
            "file:x",
            "/var/b",
            "http://x",
            "s3://",
            "s3:///x",
            "file:///a/../b",
            "s3://b/../c",
            "",
        ] {
            assert!(matches!(Location::parse(bad), Err(StoreError::BadUrl { .. })), "{bad}");
        }
    }
}
