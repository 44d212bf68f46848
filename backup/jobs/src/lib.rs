//! cairn-jobs
