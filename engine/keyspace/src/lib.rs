//! cairn-keyspace
