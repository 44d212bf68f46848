//! cairn-backup
fn main() {}
